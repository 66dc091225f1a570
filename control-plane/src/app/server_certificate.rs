//! The control plane's own server certificate: made at every start, so that its key never touches the
//! disk, and renewed at two thirds of its life while running.

use std::{sync::Arc, time::Duration};

use countersign_shared::{
    random,
    time::{Clock, Timestamp},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;

use super::AppError;
use crate::{
    bootstrap::{Opened, StartError},
    ca::{self, CaError, SigningAuthority},
    config::Config,
    listen::ServerCertificate,
    store::Store,
};

/// How often the wall clock is looked at: a host that slept must notice.
const LOOK: Duration = Duration::from_secs(60);

/// Makes and renews the server certificate.
pub(super) struct Renewal {
    names: Vec<String>,
    authority: Arc<SigningAuthority>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
}

impl Renewal {
    pub(super) fn new(config: &Config, opened: &Opened, clock: Arc<dyn Clock>) -> Self {
        Self {
            names: config.server_names.clone(),
            authority: Arc::clone(&opened.server),
            store: Arc::clone(&opened.store),
            clock,
        }
    }

    /// The first certificate, and when to renew it.
    pub(super) async fn first(&self) -> Result<(Arc<ServerCertificate>, Timestamp), AppError> {
        let (chain, key, renew_at) = self.issue().await.map_err(StartError::Ca)?;
        Ok((Arc::new(ServerCertificate::new(chain, key)?), renew_at))
    }

    async fn issue(
        &self,
    ) -> Result<
        (
            Vec<CertificateDer<'static>>,
            PrivateKeyDer<'static>,
            Timestamp,
        ),
        CaError,
    > {
        let now = self.clock.now();
        let store = self.store.as_ref();
        let (leaf, key, not_after) =
            ca::issue_server(&self.names, &self.authority, store, now).await?;
        // Its authority goes along: an agent that enrolls knows it by its public key's hash alone.
        let anchor = self.authority.authority.anchor.clone();
        let chain = vec![CertificateDer::from(leaf), CertificateDer::from(anchor)];
        Ok((
            chain,
            key,
            now.plus(not_after.since(now).mul_f64(2.0 / 3.0)),
        ))
    }

    /// Renews until `shutdown`. A renewal that fails keeps the old certificate and is tried again.
    pub(super) async fn run(
        self,
        certificate: Arc<ServerCertificate>,
        mut renew_at: Timestamp,
        shutdown: CancellationToken,
    ) -> Result<(), AppError> {
        loop {
            let pause = LOOK + random::full_jitter(LOOK);
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
            if self.clock.now() < renew_at {
                continue;
            }
            match self.issue().await {
                Ok((chain, key, next)) => {
                    certificate.replace(chain, key)?;
                    renew_at = next;
                    tracing::info!(next = %renew_at, "server certificate renewed");
                }
                Err(error) => tracing::error!(%error, "server certificate not renewed"),
            }
        }
    }
}

//! What the receiver presents and demands in handshakes, changed while it runs as by `nginx -s reload`:
//! new connections get what is new, and those that are open are closed when they have nothing to do.

use std::{sync::Arc, time::Duration};

use countersign_shared::time::Timestamp;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;

use super::tls;
use crate::{
    demo_pki::ServerIdentity,
    mutual_tls::{Demand, HTTP_1_1, HTTP_2, TlsError, server_config, verifier},
};

/// The receiver's side of handshakes.
#[derive(Debug)]
pub(crate) struct Door {
    identity: ServerIdentity,
    demand: Demand,
    current: watch::Sender<Arc<ServerConfig>>,
}

impl Door {
    /// Presents `identity` and demands `demand`.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(crate) fn new(identity: ServerIdentity, demand: Demand) -> Result<Self, TlsError> {
        let (current, _) = watch::channel(config(&identity, &demand)?);
        Ok(Self {
            identity,
            demand,
            current,
        })
    }

    /// Follows the changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.current.subscribe()
    }

    /// Demands something else from now on.
    ///
    /// # Errors
    /// [`TlsError`]; it goes on as before then.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Demand)) -> Result<(), TlsError> {
        let mut demand = self.demand.clone();
        change(&mut demand);
        self.current.send_replace(config(&self.identity, &demand)?);
        self.demand = demand;
        Ok(())
    }

    /// What it would say now of a client certificate that is presented alone: nothing, or why it is
    /// refused.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(crate) fn judges(
        &self,
        certificate: &CertificateDer<'_>,
        now: Timestamp,
    ) -> Result<Result<(), &'static str>, TlsError> {
        let since = Duration::from_millis(now.as_unix_millis());
        let now = UnixTime::since_unix_epoch(since);
        let verdict = verifier(&self.demand)?.verify_client_cert(certificate, &[], now);
        Ok(verdict.map(drop).map_err(|error| tls::reason(&error)))
    }

    /// Presents another certificate from now on.
    ///
    /// # Errors
    /// [`TlsError`]; it goes on as before then.
    pub(crate) fn present(&mut self, identity: ServerIdentity) -> Result<(), TlsError> {
        self.current.send_replace(config(&identity, &self.demand)?);
        self.identity = identity;
        Ok(())
    }
}

fn config(identity: &ServerIdentity, demand: &Demand) -> Result<Arc<ServerConfig>, TlsError> {
    server_config(identity, demand, &[HTTP_2, HTTP_1_1]).map(Arc::new)
}

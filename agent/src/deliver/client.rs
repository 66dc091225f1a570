//! The HTTP client of one (receiver, client certificate, server trust, TLS policy): it has a pool of
//! connections that outlives the bundles that use it. And, for a probe, a client of one connection
//! beside it.

use std::sync::Arc;

use bytes::Bytes;
use countersign_shared::{
    bundle::{Bundle, MinimumTls},
    probe::ProbePresentation,
    time::Clock,
    tls,
};
use http::Request;
use rustls::{
    ClientConfig, SupportedProtocolVersion,
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use tokio::time::Instant;

use super::{
    connection::Connection,
    connector::{ConnectPolicy, Connector},
    credential::Certified,
    dial::Dialler,
    facts::Ending,
    pool::Pool,
    prepare_error::PrepareError,
    progress::Progress,
    resolver::Resolver,
    sessions::Sessions,
    standing::Standing,
    target::Target,
    verifier::Verifier,
};
use crate::metrics::Metrics;

/// A client that presents one certificate.
pub(super) struct Client {
    pub(super) http: Http,
    certified: Certified,
    clock: Arc<dyn Clock>,
}

/// What sends requests.
pub(super) struct Http {
    connector: Connector,
    /// Of connections that are used again, if they are.
    pool: Option<Arc<Pool>>,
}

impl Client {
    /// Builds the client that `bundle` needs to present `certified`.
    ///
    /// # Errors
    /// [`PrepareError`]: the trust is not usable.
    pub(super) fn build(
        bundle: &Bundle,
        certified: Certified,
        standing: Arc<Standing>,
        dialler: Dialler,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, PrepareError> {
        let resolver = resolver(&certified, Some(Arc::clone(&certified.key)));
        let mut config = ClientConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(versions(bundle.minimum_tls))
            .map_err(|_| PrepareError::Tls)?
            .dangerous() // no less strict than rustls' own verifier, which it wraps
            .with_custom_certificate_verifier(Arc::new(Verifier::new(&bundle.server_cas)?))
            .with_client_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let sessions = Arc::new(Sessions::new(Arc::clone(&clock)));
        standing.keeps(&sessions);
        let pool = Arc::new(Pool::new(Arc::clone(&standing)));
        standing.keeps_open(&pool);
        let connector = Connector {
            dialler,
            config,
            sessions,
            policy: ConnectPolicy {
                enforcement: bundle.mtls_enforcement,
                allowed_ranges: bundle.allowed_ranges.clone(),
            },
            standing,
            keeps_chain: false,
            metrics,
        };
        Ok(Self {
            http: Http {
                connector,
                pool: Some(pool),
            },
            certified,
            clock,
        })
    }

    /// A client for one request over a connection of its own, never resumed and never kept, that
    /// presents what a probe is to present.
    pub(super) fn for_one_probe(&self, presentation: ProbePresentation) -> Http {
        let key = match presentation {
            ProbePresentation::Chain => Some(Arc::clone(&self.certified.key)),
            ProbePresentation::LeafOnly => Some(Arc::new(leaf_only(&self.certified.key))),
            ProbePresentation::Nothing => None,
        };
        let mut connector = self.http.connector.clone();
        if key.is_none() {
            // What presents no certificate does not depend on one.
            connector.standing = Arc::default();
        }
        connector.config.client_auth_cert_resolver = Arc::new(resolver(&self.certified, key));
        connector.sessions = Arc::new(Sessions::new(Arc::clone(&self.clock)));
        connector.keeps_chain = true;
        Http {
            connector,
            pool: None,
        }
    }

    /// Closes connections that have waited too long for a request, or that receivers have closed.
    pub(super) fn sweep(&self, now: Instant) {
        if let Some(pool) = &self.http.pool {
            pool.sweep(now);
        }
    }
}

impl Http {
    /// Whether the certificate may be used.
    pub(super) fn standing(&self) -> &Standing {
        &self.connector.standing
    }

    /// Sends `request`, which has the form for HTTP/1.1, to `target`, over a connection that waits or
    /// over a new one.
    pub(super) async fn request(
        &self,
        request: Request<Bytes>,
        target: &Target,
        progress: &Progress,
        clock: &dyn Clock,
    ) -> Ending {
        let connection = match self.connection(target, progress).await {
            Ok(connection) => connection,
            Err(ending) => return ending,
        };
        let handshake = Arc::clone(connection.handshake());
        progress.sending(&handshake);
        let (ending, again) = connection.exchange(request, target, progress, clock).await;
        match (&self.pool, again) {
            (Some(pool), Some(connection)) => pool.put(connection, Instant::now()),
            (Some(pool), None) => pool.give_up(&handshake),
            (None, Some(connection)) => connection.close(),
            (None, None) => {}
        }
        ending
    }

    async fn connection(&self, target: &Target, progress: &Progress) -> Result<Connection, Ending> {
        let pool = self.pool.as_ref();
        if let Some(waiting) = pool.and_then(|pool| pool.take(Instant::now())) {
            return Ok(waiting);
        }
        // Far larger than what goes over a connection that waits.
        let opening = Box::pin(self.connector.connect(target, progress));
        let opened = opening.await.map_err(Ending::from)?;
        Ok(match pool {
            Some(pool) => pool.opened(opened, Instant::now()),
            None => opened,
        })
    }
}

fn resolver(certified: &Certified, key: Option<Arc<CertifiedKey>>) -> Resolver {
    Resolver {
        certified: key,
        presented: certified.presented.clone(),
        issuers: certified.issuers.clone(),
    }
}

fn leaf_only(key: &CertifiedKey) -> CertifiedKey {
    let leaf = key.cert.first().cloned();
    CertifiedKey::new(leaf.into_iter().collect(), Arc::clone(&key.key))
}

fn versions(minimum: MinimumTls) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    static NEWEST: [&SupportedProtocolVersion; 1] = [&TLS13];
    match minimum {
        MinimumTls::Tls12 => &BOTH,
        MinimumTls::Tls13 => &NEWEST,
    }
}

/// Without the key.
impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("presents", &self.certified.presented)
            .finish_non_exhaustive()
    }
}

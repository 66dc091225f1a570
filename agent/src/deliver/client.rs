//! The HTTP client of one (client certificate, server trust, TLS policy): a pool of connections that
//! outlives the bundles that use it. And, for a probe, a client of one connection beside it.

use std::{sync::Arc, time::Duration};

use countersign_shared::{
    bundle::{Bundle, MinimumTls},
    probe::ProbePresentation,
    time::Clock,
    tls,
};
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, SupportedProtocolVersion,
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

use super::{
    connector::{self, ConnectPolicy, Connector},
    credential::Certified,
    dial::Dialler,
    prepare_error::PrepareError,
    progress::Payload,
    resolver::Resolver,
    sessions::Sessions,
    standing::Standing,
    verifier::Verifier,
};
use crate::metrics::Metrics;

/// How long an unused connection is kept: shorter than most receivers keep it, so that few requests
/// meet a connection that is being closed.
const IDLE: Duration = Duration::from_secs(30);
/// Most unused connections that are kept.
const MAX_IDLE: usize = 256;
/// Largest response head, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// A connection of HTTP/2 that answers no ping for so long is given up.
const PING: Duration = Duration::from_secs(20);

/// The HTTP client.
pub(super) type Http = legacy::Client<Connector, Payload>;

/// A client that presents one certificate.
pub(super) struct Client {
    pub(super) http: Http,
    certified: Certified,
    parts: connector::Parts,
    clock: Arc<dyn Clock>,
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
        let parts = connector::Parts {
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
            http: http(parts.clone(), MAX_IDLE),
            certified,
            parts,
            clock,
        })
    }

    /// A client for one request over a connection of its own, never resumed and never kept, that
    /// presents what a probe is to present; and the standing that its connection hangs on.
    pub(super) fn for_one_probe(&self, presentation: ProbePresentation) -> (Http, Arc<Standing>) {
        let key = match presentation {
            ProbePresentation::Chain => Some(Arc::clone(&self.certified.key)),
            ProbePresentation::LeafOnly => Some(Arc::new(leaf_only(&self.certified.key))),
            ProbePresentation::Nothing => None,
        };
        let mut parts = self.parts.clone();
        if key.is_none() {
            // What presents no certificate does not depend on one.
            parts.standing = Arc::default();
        }
        parts.config.client_auth_cert_resolver = Arc::new(resolver(&self.certified, key));
        parts.sessions = Arc::new(Sessions::new(Arc::clone(&self.clock)));
        parts.keeps_chain = true;
        let standing = Arc::clone(&parts.standing);
        (http(parts, 0), standing)
    }

    /// Whether the certificate may be used.
    pub(super) fn standing(&self) -> &Arc<Standing> {
        &self.parts.standing
    }
}

fn http(parts: connector::Parts, max_idle: usize) -> Http {
    legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(max_idle)
        .http1_max_buf_size(MAX_HEAD)
        .http2_max_header_list_size(MAX_HEAD as u32)
        .http2_keep_alive_interval(PING)
        .http2_keep_alive_timeout(PING)
        .build(Connector::new(parts))
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

//! The HTTP client of one (client certificate, server trust, TLS policy): a pool of connections that
//! outlives the bundles that use it.

use std::{sync::Arc, time::Duration};

use countersign_shared::{
    bundle::{Bundle, Credential, MinimumTls},
    outcome::PresentedCertificate,
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
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{
    connector::{ConnectPolicy, Connector},
    dial::Dialler,
    distinguished_name::issuer,
    prepare_error::PrepareError,
    progress::Payload,
    resolver::Resolver,
    sessions::Sessions,
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

/// The client of a bundle.
pub(super) type Client = legacy::Client<Connector, Payload>;

/// Builds the client that `bundle` needs to present `credential`.
///
/// # Errors
/// [`PrepareError`]: certificate and key, or the trust, are not usable.
pub(super) fn build(
    bundle: &Bundle,
    credential: &Credential,
    presented: PresentedCertificate,
    dialler: Dialler,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
) -> Result<Client, PrepareError> {
    let resolver = Resolver {
        certified: Arc::new(certified_key(credential)?),
        presented,
        issuers: issuers(&credential.chain),
    };
    let mut config = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(versions(bundle.minimum_tls))
        .map_err(|_| PrepareError::Tls)?
        .dangerous() // no less strict than rustls' own verifier, which it wraps
        .with_custom_certificate_verifier(Arc::new(Verifier::new(&bundle.server_cas)?))
        .with_client_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let sessions = Sessions::new(clock);
    let policy = ConnectPolicy {
        enforcement: bundle.mtls_enforcement,
        allowed_ranges: bundle.allowed_ranges.clone(),
    };
    let connector = Connector::new(dialler, config, sessions, policy, metrics);
    Ok(legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(MAX_IDLE)
        .http1_max_buf_size(MAX_HEAD)
        .http2_max_header_list_size(MAX_HEAD as u32)
        .http2_keep_alive_interval(PING)
        .http2_keep_alive_timeout(PING)
        .build(connector))
}

fn versions(minimum: MinimumTls) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    static NEWEST: [&SupportedProtocolVersion; 1] = [&TLS13];
    match minimum {
        MinimumTls::Tls12 => &BOTH,
        MinimumTls::Tls13 => &NEWEST,
    }
}

fn issuers(chain: &[CertificateDer<'_>]) -> Vec<Vec<u8>> {
    chain.iter().filter_map(|it| issuer(it)).collect()
}

fn certified_key(credential: &Credential) -> Result<CertifiedKey, PrepareError> {
    let key = PrivatePkcs8KeyDer::from(credential.private_key.expose());
    let key = PrivateKeyDer::Pkcs8(key);
    let signing = tls::provider()
        .key_provider
        .load_private_key(key.clone_key())
        .map_err(|_| PrepareError::Key)?;
    let certified = CertifiedKey::new(credential.chain.clone(), signing);
    certified.keys_match().map_err(|_| PrepareError::OtherKey)?;
    Ok(certified)
}

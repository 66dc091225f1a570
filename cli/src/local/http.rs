//! A client of the control plane's plain HTTP address.

use std::time::Duration;

use countersign_shared::tls;
use reqwest::{Client, redirect};
use rustls::{ClientConfig, RootCertStore};

const TIMEOUT: Duration = Duration::from_secs(5);

/// A client that follows no redirects and takes five seconds at most. It trusts no authority, since
/// nothing that it fetches is served over TLS.
///
/// # Errors
/// When the client can't be made.
pub(crate) fn client() -> Result<Client, reqwest::Error> {
    let builder = Client::builder()
        // A proxy from the environment has no business on the loopback interface.
        .no_proxy()
        .redirect(redirect::Policy::none())
        .timeout(TIMEOUT);
    // Without a configuration of ours, it would read all authorities of the host.
    #[allow(clippy::expect_used)] // our provider has suites of TLS 1.3
    let config = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    builder.tls_backend_preconfigured(config).build()
}

//! Fetches an account's trust anchors over HTTP, as the operator of a receiver would.

use std::net::SocketAddr;

use countersign_shared::tls::{MAX_PEM_LENGTH, PemError, certificates_from_pem};
use rustls_pki_types::CertificateDer;
use thiserror::Error;

use super::http;

/// Why there are no trust anchors.
#[derive(Debug, Error)]
pub(crate) enum TrustAnchorError {
    /// No answer, or not 200.
    #[error("the trust anchors were not served: {0}")]
    Http(#[from] reqwest::Error),
    /// An answer that is no PEM.
    #[error("what {url} serves {error}")]
    Pem {
        /// From where.
        url: String,
        /// What is wrong with it.
        error: PemError,
    },
}

/// Where an account's trust anchors are.
pub(crate) fn url(http: SocketAddr, account: &str) -> String {
    format!("http://{http}/trust/{account}.pem")
}

/// The certificates at `url`, in at most five seconds.
///
/// # Errors
/// [`TrustAnchorError`].
pub(crate) async fn fetch(url: &str) -> Result<Vec<CertificateDer<'static>>, TrustAnchorError> {
    checked(url, &page(url).await?)
}

/// The same as PEM.
///
/// # Errors
/// [`TrustAnchorError`].
pub(crate) async fn fetch_pem(url: &str) -> Result<String, TrustAnchorError> {
    let pem = page(url).await?;
    checked(url, &pem)?;
    Ok(pem)
}

fn checked(url: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TrustAnchorError> {
    certificates_from_pem(pem).map_err(|error| TrustAnchorError::Pem {
        url: url.to_owned(),
        error,
    })
}

/// What is served at `url`, cut off where no trust anchors are that long.
async fn page(url: &str) -> Result<String, reqwest::Error> {
    let mut response = http::client()?.get(url).send().await?.error_for_status()?;
    let mut body = Vec::new();
    while body.len() <= MAX_PEM_LENGTH
        && let Some(chunk) = response.chunk().await?
    {
        body.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

#[cfg(test)]
mod tests {
    use countersign_shared::time::Timestamp;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// Serves one response and closes.
    async fn serve(status: &str, body: &str) -> Result<usize, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = url(listener.local_addr().unwrap(), "accounts/demo");
        let length = body.len();
        let response = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
        let server = async {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let read = tcp.read(&mut request).await.unwrap();
            let asked = String::from_utf8_lossy(&request[..read]).into_owned();
            assert!(
                asked.starts_with("GET /trust/accounts/demo.pem "),
                "{asked}"
            );
            // The client may hang up once it has read too much.
            let _ = tcp.write_all(response.as_bytes()).await;
        };
        let (fetched, ()) = tokio::join!(fetch(&url), server);
        fetched
            .map(|list| list.len())
            .map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn it_takes_certificates_and_nothing_else() {
        let now = Timestamp::from_unix_seconds(1_700_000_000);
        let pem = crate::demo_pki::server_for_loopback(now).unwrap().ca_pem;
        assert_eq!(serve("200 OK", &pem).await, Ok(1));
        let error = serve("200 OK", "hello").await.unwrap_err();
        assert!(error.contains("holds no certificate"), "{error}");
        let error = serve("404 Not Found", &pem).await.unwrap_err();
        assert!(error.contains("404"), "{error}");
        let error = serve("200 OK", &"x".repeat(MAX_PEM_LENGTH * 4))
            .await
            .unwrap_err();
        assert!(error.contains("longer than"), "{error}");
    }
}

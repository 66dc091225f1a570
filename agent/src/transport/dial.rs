//! One connection to the control plane: resolve, connect to every address in turn, TLS handshake,
//! then HTTP/2 on it. A connection that broke is not remade here: whoever needs a new one dials.

use std::{fmt, io, sync::Arc, time::Duration};

use countersign_shared::tls;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, ConfigBuilder, WantsVerifier, version::TLS13};
use thiserror::Error;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint, Uri};

use super::url::ControlPlaneUrl;

/// How long each step of a connection may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// Wide windows, so that a burst of jobs never waits for a window update.
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;

/// Why there is no connection to the control plane.
#[derive(Debug, Error)]
pub enum DialError {
    /// The name has no address.
    #[error("'{0}' has no address: check the control plane's name and this host's resolver")]
    Resolve(String),
    /// No address took the connection.
    #[error(
        "no connection to the control plane at {address} ({reason}): check that it runs, the address, and the firewalls between"
    )]
    Connect {
        /// Where.
        address: String,
        /// The operating system's word for it.
        reason: String,
    },
    /// TLS refused, on one side or the other.
    #[error("the TLS handshake with the control plane failed: {0}")]
    Tls(#[from] rustls::Error),
    /// It closed the connection in the handshake, or speaks no TLS.
    #[error("the control plane broke off the TLS handshake ({0}): is the port the one for agents?")]
    Handshake(io::ErrorKind),
    /// Too slow.
    #[error("the control plane at {0} did not answer within {seconds} s", seconds = STEP_TIMEOUT.as_secs())]
    Timeout(String),
    /// Not HTTP/2.
    #[error("the control plane does not speak HTTP/2: is the port the one for agents?")]
    Http2,
}

/// The start of every TLS configuration towards the control plane: our provider, TLS 1.3 alone.
///
/// # Errors
/// When the provider can't do TLS 1.3, which ours can.
pub fn tls_builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(tls::provider()).with_protocol_versions(&[&TLS13])
}

/// Connects and shakes hands.
///
/// # Errors
/// [`DialError`].
pub async fn dial(
    url: &ControlPlaneUrl,
    mut config: ClientConfig,
) -> Result<TlsStream<TcpStream>, DialError> {
    let tcp = connect(url).await?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let Ok(name) = url.server_name() else {
        return Err(DialError::Resolve(url.host().to_owned()));
    };
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, tcp);
    match timeout(STEP_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(handshake_error(&error)),
        Err(_) => Err(DialError::Timeout(url.to_string())),
    }
}

/// HTTP/2 over `stream`.
///
/// # Errors
/// [`DialError::Http2`].
pub async fn channel(
    url: &ControlPlaneUrl,
    stream: TlsStream<TcpStream>,
) -> Result<Channel, DialError> {
    let endpoint = Endpoint::from_shared(url.to_string())
        .map_err(|_| DialError::Http2)?
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let mut once = Some(stream);
    let connector = tower::service_fn(move |_: Uri| {
        let taken = once.take().map(TokioIo::new);
        async move { taken.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    let channel = endpoint.connect_with_connector(connector);
    channel.await.map_err(|_| DialError::Http2)
}

async fn connect(url: &ControlPlaneUrl) -> Result<TcpStream, DialError> {
    let addresses = timeout(STEP_TIMEOUT, lookup_host((url.host(), url.port())))
        .await
        .map_err(|_| DialError::Resolve(url.host().to_owned()))?
        .map_err(|_| DialError::Resolve(url.host().to_owned()))?;
    let mut last = DialError::Resolve(url.host().to_owned());
    for address in addresses {
        match timeout(STEP_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Jobs and outcomes are small; a stream that refuses the option works too.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = refused(address, error),
            Err(_) => last = refused(address, "no answer"),
        }
    }
    Err(last)
}

fn refused(address: impl fmt::Display, reason: impl fmt::Display) -> DialError {
    DialError::Connect {
        address: address.to_string(),
        reason: reason.to_string(),
    }
}

/// `source()` does not reach the TLS error inside an I/O error, `get_ref()` does.
fn handshake_error(error: &io::Error) -> DialError {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(tls) => DialError::Tls(rustls::Error::clone(tls)),
        None => DialError::Handshake(error.kind()),
    }
}

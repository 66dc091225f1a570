//! Through the operator's proxy: a connection to it becomes one to an address, by HTTP CONNECT (RFC
//! 9110 section 9.3.6) or SOCKS5 (RFC 1928). The proxy is told the address, never the name, so that
//! it goes where the egress policy has let it go. TLS to the receiver goes through the tunnel.

use std::{fmt, future::ready, io, net::SocketAddr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, Uri};
use hyper_util::{
    client::legacy::connect::proxy::{SocksV5, Tunnel},
    rt::TokioIo,
};
use tokio::net::TcpStream;
use tower::Service as _;
use zeroize::Zeroizing;

use crate::egress::{Proxy, ProxyCredentials, ProxyKind};

/// The proxy did not open the tunnel; the agent's log says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused;

/// Asks the proxy at the other end of `tcp` for a connection to `target`. What is read of its answer
/// is bounded; the time is the caller's to bound.
///
/// # Errors
/// [`Refused`].
pub(super) async fn open(
    proxy: &Proxy,
    tcp: TcpStream,
    target: SocketAddr,
) -> Result<TcpStream, Refused> {
    let target: Uri = format!("https://{target}").parse().map_err(|_| Refused)?;
    let mut once = Some(TokioIo::new(tcp));
    // Called once, by the service that is called once below.
    let connected = tower::service_fn(move |_: Uri| {
        let taken = once.take();
        ready(taken.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
    });
    let unused = Uri::from_static("http://proxy");
    let credentials = proxy.credentials.as_ref();
    let opened = match proxy.address.kind {
        ProxyKind::Http => {
            let mut tunnel = Tunnel::new(unused, connected);
            if let Some(credentials) = credentials {
                tunnel = tunnel.with_auth(basic(credentials)?);
            }
            tunnel.call(target).await.map_err(|error| note(&error))
        }
        ProxyKind::Socks5 => {
            let mut socks = SocksV5::new(unused, connected);
            if let Some(ProxyCredentials { user, password }) = credentials {
                socks = socks.with_auth(user.expose().into(), password.expose().into());
            }
            socks.call(target).await.map_err(|error| note(&error))
        }
    };
    opened.map(TokioIo::into_inner)
}

/// Tells the agent's operator what the proxy said; the texts hold no secret.
fn note(error: &dyn fmt::Display) -> Refused {
    tracing::warn!(%error, "the proxy (egress.proxy) opened no connection");
    Refused
}

/// `Basic` credentials (RFC 7617).
fn basic(credentials: &ProxyCredentials) -> Result<HeaderValue, Refused> {
    let (user, password) = (credentials.user.expose(), credentials.password.expose());
    let pair = Zeroizing::new(format!("{user}:{password}"));
    let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
    let mut value = HeaderValue::from_str(&text).map_err(|_| Refused)?;
    value.set_sensitive(true);
    Ok(value)
}

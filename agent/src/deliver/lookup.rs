//! From a host name to addresses: the operating system's resolver, and the seam at which tests put
//! another.

use std::{fmt, future::Future, io, net::SocketAddr, pin::Pin};

use tokio::net::lookup_host;

/// An answer that is being waited for.
pub type Lookup = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Finds the addresses of hosts.
pub trait Resolve: fmt::Debug + Send + Sync {
    /// The addresses of `host`, each with `port`. An address in text is its own answer.
    fn resolve(&self, host: &str, port: u16) -> Lookup;
}

/// The operating system's resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str, port: u16) -> Lookup {
        let host = host.to_owned();
        Box::pin(async move { Ok(lookup_host((host, port)).await?.collect()) })
    }
}

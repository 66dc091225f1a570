//! From a host and a port to a TCP connection: resolve, leave out what the agent may not connect to,
//! then every address in turn, by the operator's proxy where there is one. This is the one place
//! where the agent reaches out to receivers, so the egress policy is applied here, to the very
//! addresses that are dialled.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use countersign_shared::address_range::AddressRange;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{
    lookup::{Resolve, SystemResolver},
    tunnel,
};
use crate::egress::{Denied, Egress, Policy, Proxy, ProxyAddress};

/// How long name resolution and connecting may take together. The attempt's own timeout may end it
/// sooner.
const BUDGET: Duration = Duration::from_secs(15);
/// Least time for one address while others are left.
const LEAST_EACH: Duration = Duration::from_millis(250);
/// Most addresses of one name that are looked at: whoever owns the name chooses how many there are.
const MAX_FOUND: usize = 64;
/// Most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;

/// Reaches out to receivers, as the agent's egress configuration says.
#[derive(Debug, Clone)]
pub struct Dialler {
    egress: Arc<Egress>,
    resolver: Arc<dyn Resolve>,
}

/// A TCP connection and how it came about.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) stream: TcpStream,
    /// The receiver's address, at the other end of the tunnel where there is a proxy.
    pub(super) peer: SocketAddr,
    pub(super) resolve: Duration,
    pub(super) connect: Duration,
}

/// Why there is no TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DialFailure {
    /// The name has no address, or the resolver does not answer.
    NoAddress,
    /// It has, and none that the agent may connect to.
    Denied(Denied),
    /// Nothing listens.
    Refused,
    /// No answer in time.
    Timeout,
    /// No way there.
    Unreachable,
    /// The proxy does not answer.
    ProxyUnreachable,
    /// The proxy answers and opens no connection.
    ProxyRefused,
    /// Anything else.
    Other,
}

impl Dialler {
    /// With the operating system's resolver.
    pub fn new(egress: Egress) -> Self {
        Self::with_resolver(egress, Arc::new(SystemResolver))
    }

    /// With another resolver.
    pub fn with_resolver(egress: Egress, resolver: Arc<dyn Resolve>) -> Self {
        let egress = Arc::new(egress);
        Self { egress, resolver }
    }

    /// Connects to the first address of `host` that may be connected to, for a destination with
    /// these `ranges`, and takes the connection. The name is resolved once, and what was judged is
    /// what is dialled.
    ///
    /// # Errors
    /// [`DialFailure`]: of several, the one that tells most.
    pub(super) async fn dial(
        &self,
        host: &str,
        port: u16,
        ranges: &[AddressRange],
    ) -> Result<Dialled, DialFailure> {
        let started = Instant::now();
        let deadline = started + BUDGET;
        let found = self.resolve(host, port, deadline).await;
        let resolve = started.elapsed();
        let addresses = permitted(&self.egress.policy, ranges, host, &found)?;
        let connecting = Instant::now();
        let mut failure = DialFailure::NoAddress;
        for (at, peer) in addresses.iter().enumerate() {
            let until = share(Instant::now(), deadline, addresses.len() - at);
            match self.connect(*peer, until).await {
                Ok(stream) => {
                    return Ok(Dialled {
                        stream,
                        peer: *peer,
                        resolve,
                        connect: connecting.elapsed(),
                    });
                }
                Err(next) => failure = telling(failure, next),
            }
        }
        Err(failure)
    }

    /// The addresses of a host; none when the resolver fails or is late.
    async fn resolve(&self, host: &str, port: u16, until: Instant) -> Vec<SocketAddr> {
        let found = timeout_at(until, self.resolver.resolve(host, port)).await;
        found.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// To an address that was judged: directly, or by the proxy.
    async fn connect(&self, peer: SocketAddr, until: Instant) -> Result<TcpStream, DialFailure> {
        let Some(proxy) = &self.egress.proxy else {
            return connect(peer, until).await;
        };
        let tcp = self.connect_to_proxy(proxy, until).await?;
        match timeout_at(until, tunnel::open(proxy, tcp, peer)).await {
            Ok(opened) => opened.map_err(|tunnel::Refused| DialFailure::ProxyRefused),
            Err(_) => Err(DialFailure::Timeout),
        }
    }

    /// The proxy's address is the operator's word and not judged.
    async fn connect_to_proxy(
        &self,
        proxy: &Proxy,
        until: Instant,
    ) -> Result<TcpStream, DialFailure> {
        let ProxyAddress { host, port, .. } = &proxy.address;
        let found = self.resolve(host, *port, until).await;
        for (at, address) in found.iter().enumerate() {
            let until = share(Instant::now(), until, found.len() - at);
            if let Ok(stream) = connect(*address, until).await {
                return Ok(stream);
            }
        }
        tracing::warn!(host, port, "the proxy (egress.proxy) can't be reached");
        Err(DialFailure::ProxyUnreachable)
    }
}

/// Those of the addresses that were found which the agent may connect to, as they are dialled.
fn permitted(
    policy: &Policy,
    ranges: &[AddressRange],
    host: &str,
    found: &[SocketAddr],
) -> Result<Vec<SocketAddr>, DialFailure> {
    let mut failure = DialFailure::NoAddress;
    let (mut permitted, mut left_out) = (Vec::new(), Vec::new());
    for address in found.iter().take(MAX_FOUND) {
        match policy.judge(address.ip(), ranges) {
            Ok(()) => permitted.push(as_dialled(*address)),
            Err(denied) => {
                left_out.push(address.ip());
                failure = telling(failure, DialFailure::Denied(denied));
            }
        }
    }
    if !left_out.is_empty() {
        tracing::info!(host, addresses = ?left_out, "left out what may not be connected to");
    }
    permitted.truncate(MAX_ADDRESSES);
    if permitted.is_empty() {
        return Err(failure);
    }
    Ok(permitted)
}

/// An IPv4-mapped IPv6 address as the IPv4 address that was judged.
fn as_dialled(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::from((v4, address.port())),
        IpAddr::V6(_) => address,
    }
}

/// Until when one address may take, with `left` still to try: its share of what is left.
fn share(now: Instant, deadline: Instant, left: usize) -> Instant {
    let remaining = deadline.saturating_duration_since(now);
    let each = remaining / u32::try_from(left.max(1)).unwrap_or(u32::MAX);
    now + each.max(LEAST_EACH.min(remaining))
}

async fn connect(peer: SocketAddr, until: Instant) -> Result<TcpStream, DialFailure> {
    match timeout_at(until, TcpStream::connect(peer)).await {
        Ok(Ok(stream)) => {
            // A stream that refuses the option works too, a little slower.
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Ok(Err(error)) => Err(failure(&error)),
        Err(_) => Err(DialFailure::Timeout),
    }
}

fn failure(error: &io::Error) -> DialFailure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => DialFailure::Refused,
        io::ErrorKind::TimedOut => DialFailure::Timeout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            DialFailure::Unreachable
        }
        _ => DialFailure::Other,
    }
}

/// Of two failures the one that tells more of the receiver.
fn telling(before: DialFailure, next: DialFailure) -> DialFailure {
    let rank = |failure| match failure {
        DialFailure::Refused => 7,
        DialFailure::Timeout => 6,
        DialFailure::ProxyRefused => 5,
        DialFailure::ProxyUnreachable => 4,
        DialFailure::Other => 3,
        DialFailure::Unreachable => 2,
        // What only the destination denies is nearer to what somebody wants.
        DialFailure::Denied(Denied::ByDestination) => 1,
        DialFailure::Denied(Denied::ByAgent) | DialFailure::NoAddress => 0,
    };
    if rank(next) >= rank(before) {
        next
    } else {
        before
    }
}

#[cfg(test)]
mod tests;

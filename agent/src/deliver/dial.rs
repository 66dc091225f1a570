//! From a host and a port to a TCP connection: resolve, then every address in turn. This is the one
//! place where the agent reaches out to receivers, so whatever limits where it may go belongs here.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout_at},
};

/// How long name resolution and connecting may take together. The attempt's own timeout may end it
/// sooner.
const BUDGET: Duration = Duration::from_secs(15);
/// Least time for one address while others are left.
const LEAST_EACH: Duration = Duration::from_millis(250);
/// Most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;

/// A TCP connection and how it came about.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) resolve: Duration,
    pub(super) connect: Duration,
}

/// Why there is no TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DialFailure {
    /// The name has no address, or the resolver does not answer.
    NoAddress,
    /// Nothing listens.
    Refused,
    /// No answer in time.
    Timeout,
    /// No way there.
    Unreachable,
    /// Anything else.
    Other,
}

/// Connects to the first address of `host` that takes the connection.
///
/// # Errors
/// [`DialFailure`]: of several, the one that tells most.
pub(super) async fn dial(host: &str, port: u16) -> Result<Dialled, DialFailure> {
    let started = Instant::now();
    let deadline = started + BUDGET;
    let found = timeout_at(deadline, lookup_host((host, port))).await;
    let addresses: Vec<SocketAddr> = match found {
        Ok(Ok(addresses)) => addresses.take(MAX_ADDRESSES).collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    };
    let resolve = started.elapsed();
    let connecting = Instant::now();
    let mut failure = DialFailure::NoAddress;
    for (at, peer) in addresses.iter().enumerate() {
        let until = share(Instant::now(), deadline, addresses.len() - at);
        match connect(*peer, until).await {
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
        DialFailure::Refused => 4,
        DialFailure::Timeout => 3,
        DialFailure::Other => 2,
        DialFailure::Unreachable => 1,
        DialFailure::NoAddress => 0,
    };
    if rank(next) >= rank(before) {
        next
    } else {
        before
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_listener_is_found_and_a_closed_port_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // "localhost" may have ::1 as its first address, where nothing listens.
        let dialled = dial("localhost", address.port()).await.unwrap();
        assert_eq!(dialled.peer, address);
        drop(listener);
        let failure = dial("127.0.0.1", address.port()).await.unwrap_err();
        assert_eq!(failure, DialFailure::Refused);
    }

    #[tokio::test]
    async fn a_name_without_address_says_so() {
        let failure = dial("nothing.invalid", 443).await.unwrap_err();
        assert_eq!(failure, DialFailure::NoAddress);
    }

    #[test]
    fn addresses_share_the_time_that_is_left() {
        let now = Instant::now();
        let deadline = now + Duration::from_secs(12);
        assert_eq!(share(now, deadline, 3), now + Duration::from_secs(4));
        assert_eq!(share(now, deadline, 1), deadline);
        assert_eq!(share(deadline, deadline, 1), deadline);
        assert_eq!(
            telling(DialFailure::Refused, DialFailure::Unreachable),
            DialFailure::Refused
        );
    }
}

//! Free ports, for servers that can't say which one they got.

use std::{fs, net::TcpListener};

use countersign_shared::random;

/// A port of the loopback interface that was free a moment ago. Whoever uses it must be ready to try
/// another.
///
/// It is below the range that outgoing connections get theirs from: otherwise a client that keeps
/// trying to reach a server that is down may be given that very port, and then talks to itself.
///
/// # Panics
/// When a thousand ports in a row are taken.
pub fn free_port() -> u16 {
    let above = ephemeral_start();
    (0..1000)
        .map(|_| random_between(10_240, above))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port among a thousand")
}

fn random_between(low: u16, high: u16) -> u16 {
    let span = f64::from(high - low);
    // Rounded down on purpose: the result stays below `high`.
    low + (random::fraction() * span) as u16
}

fn ephemeral_start() -> u16 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let start = range.split_whitespace().next();
    start
        .and_then(|start| start.parse().ok())
        .filter(|start| *start > 11_000)
        .unwrap_or(32_768)
}

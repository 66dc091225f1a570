//! Addresses that are not public, after IANA's registries of special-purpose addresses (RFC 6890, as
//! of 2025), and addresses that carry another one inside.
//!
//! Ranges that the registries call globally reachable within one that is not (192.0.0.9/32,
//! 2001:20::/28 and the like) are not told apart: no webhook is received there.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

const fn v4(a: u8, b: u8, c: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), length)
}

const fn v6(a: u16, b: u16, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), length)
}

/// IPv4 addresses that are not public.
const SPECIAL_V4: [Ipv4Net; 16] = [
    v4(0, 0, 0, 8),       // this network, the unspecified address (RFC 791)
    v4(10, 0, 0, 8),      // private use (RFC 1918)
    v4(100, 64, 0, 10),   // shared by carriers for NAT; a cloud's metadata (RFC 6598)
    v4(127, 0, 0, 8),     // loopback (RFC 1122)
    v4(169, 254, 0, 16),  // link-local; most clouds' metadata (RFC 3927)
    v4(172, 16, 0, 12),   // private use (RFC 1918)
    v4(192, 0, 0, 24),    // protocol assignments; a cloud's metadata (RFC 6890)
    v4(192, 0, 2, 24),    // documentation (RFC 5737)
    v4(192, 88, 99, 24),  // 6to4 relays, deprecated (RFC 7526)
    v4(192, 168, 0, 16),  // private use (RFC 1918)
    v4(198, 18, 0, 15),   // benchmarking (RFC 2544)
    v4(198, 51, 100, 24), // documentation (RFC 5737)
    v4(203, 0, 113, 24),  // documentation (RFC 5737)
    v4(224, 0, 0, 4),     // multicast (RFC 5771)
    v4(240, 0, 0, 4),     // reserved, the limited broadcast address (RFC 1112, RFC 919)
    // In no registry: the address of a large cloud's host, which serves its machines' secrets.
    Ipv4Net::new_assert(Ipv4Addr::new(168, 63, 129, 16), 32),
];

/// What IANA gives out as global unicast addresses (RFC 4291 section 2.4). Whatever lies outside is
/// not public: unspecified, loopback, IPv4-compatible and IPv4-translated addresses, 64:ff9b:1::/48
/// (RFC 8215), discard-only (RFC 6666), segment routing (RFC 9602), unique local with a cloud's
/// metadata (RFC 4193), link-local, site-local (RFC 3879) and multicast.
const GLOBAL_UNICAST: Ipv6Net = v6(0x2000, 0, 3);
/// Global unicast addresses that are not public all the same.
const SPECIAL_V6: [Ipv6Net; 3] = [
    v6(0x2001, 0, 23), // protocol assignments, among them Teredo and ORCHID (RFC 2928)
    v6(0x2001, 0xdb8, 32), // documentation (RFC 3849)
    v6(0x3fff, 0, 20), // documentation (RFC 9637)
];

/// IPv4 addresses behind a translator (RFC 6052): as public as the one inside.
const NAT64: Ipv6Net = v6(0x64, 0xff9b, 96);
/// IPv4 addresses with a network behind each (RFC 3056): as public as the one inside.
const SIX_TO_FOUR: Ipv6Net = v6(0x2002, 0, 16);

/// Whether an IPv4 address is one of the public Internet.
pub(super) fn is_public_v4(address: Ipv4Addr) -> bool {
    !SPECIAL_V4.iter().any(|range| range.contains(&address))
}

/// Whether an IPv6 address is one of the public Internet, not regarding what it may carry inside.
pub(super) fn is_public_v6(address: Ipv6Addr) -> bool {
    let special = || SPECIAL_V6.iter().any(|range| range.contains(&address));
    NAT64.contains(&address) || (GLOBAL_UNICAST.contains(&address) && !special())
}

/// The IPv4 address that packets to `address` end up at, where they leave IPv6 on their way.
pub(super) fn inner_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bytes = address.octets();
    let at = match address {
        _ if NAT64.contains(&address) => 12,
        _ if SIX_TO_FOUR.contains(&address) => 2,
        _ => return None,
    };
    Some(Ipv4Addr::new(
        bytes[at],
        bytes[at + 1],
        bytes[at + 2],
        bytes[at + 3],
    ))
}

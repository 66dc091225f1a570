//! Ranges of IP addresses in CIDR notation (RFC 4632, RFC 4291 section 2.3), as agents' operators and
//! destinations name them to say where deliveries may go.
//!
//! An IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2) is the IPv4 address in it, on both sides of
//! every comparison: the operating system would connect to that one.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::{IpNet, Ipv4Net};
use thiserror::Error;

/// Most ranges that a destination can name.
pub const MAX_ALLOWED_RANGES: usize = 64;
/// Prefix length of `::ffff:0:0/96`, the IPv4-mapped addresses.
const MAPPED: u8 = 96;

/// A range of addresses, such as `10.1.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressRange(IpNet);

/// Why a text is no range of addresses.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum AddressRangeError {
    /// Something else.
    #[error(
        "is not a range of addresses in CIDR notation, such as 10.1.0.0/16 or fd00:1::/32 (a single \
         address is written 10.1.2.3/32 or fd00::1/128)"
    )]
    Malformed,
    /// It names an address within the range instead of its first.
    #[error("has bits set after its prefix: did you mean {0}?")]
    HostBits(AddressRange),
}

impl AddressRange {
    /// Whether `address` lies within. An IPv6 range, `::/0` too, contains no IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for AddressRange {
    type Err = AddressRangeError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let net: IpNet = text.parse().map_err(|_| AddressRangeError::Malformed)?;
        // `ipnet` reads 010.0.0.0 as 10.0.0.0, others as 8.0.0.0; the standard library refuses it.
        let (address, _) = text.split_once('/').ok_or(AddressRangeError::Malformed)?;
        let strict: Result<IpAddr, _> = address.parse();
        strict.map_err(|_| AddressRangeError::Malformed)?;
        let range = Self(canonical(net.trunc()));
        if net.addr() == net.network() {
            Ok(range)
        } else {
            Err(AddressRangeError::HostBits(range))
        }
    }
}

/// A range of IPv4-mapped addresses becomes the range of IPv4 addresses that it means.
fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let inner = v6.addr().to_ipv4_mapped();
    let length = v6.prefix_len().checked_sub(MAPPED);
    let mapped = inner
        .zip(length)
        .map(|(it, length)| Ipv4Net::new(it, length));
    mapped.and_then(Result::ok).map_or(net, IpNet::V4)
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_parsed_and_shown_alike() {
        for text in [
            "0.0.0.0/0",
            "10.1.0.0/16",
            "127.0.0.1/32",
            "::/0",
            "fd00::/8",
        ] {
            let range: AddressRange = text.parse().unwrap();
            assert_eq!(range.to_string(), text);
        }
        for text in [
            "",
            "10.0.0.0",
            "10/8",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "::/129",
            "localhost/8",
            " ::/0",
            "010.0.0.0/8",
        ] {
            let error = text.parse::<AddressRange>().unwrap_err();
            assert_eq!(error, AddressRangeError::Malformed, "{text}");
        }
    }

    #[test]
    fn a_range_that_is_meant_otherwise_is_named() {
        let error = "10.1.2.3/8".parse::<AddressRange>().unwrap_err();
        assert!(error.to_string().ends_with("did you mean 10.0.0.0/8?"));
    }

    #[test]
    fn mapped_addresses_are_ipv4_on_both_sides() {
        let range: AddressRange = "::ffff:10.0.0.0/104".parse().unwrap();
        assert_eq!(range.to_string(), "10.0.0.0/8");
        assert!(range.contains("10.9.9.9".parse().unwrap()));
        assert!(range.contains("::ffff:10.9.9.9".parse().unwrap()));
        assert!(!range.contains("11.0.0.0".parse().unwrap()));
        let all_v6: AddressRange = "::/0".parse().unwrap();
        assert!(all_v6.contains("::1".parse().unwrap()));
        assert!(!all_v6.contains("::ffff:10.9.9.9".parse().unwrap()));
    }
}

//! Whether the agent may connect to an address: a pure function of the address, the agent's policy
//! and the destination's ranges.
//!
//! 1. What is in `deny` is denied.
//! 2. What is not public is denied, unless it is in `allow`.
//! 3. Where the destination gives ranges, what is in none of them is denied.
//!
//! So the agent's operator has the last word: a destination's ranges only narrow. An IPv4-mapped IPv6
//! address is the IPv4 address. An address of NAT64's well-known prefix or of 6to4 leads to the IPv4
//! address inside, so it has to pass 1 and 2 as both; for 3 it is enough that one of both is in a
//! range. A translator with a prefix of its own (RFC 6052 section 2.2) is not recognised: where there
//! is one, put its prefix into `deny`.

use std::net::IpAddr;

use countersign_shared::address_range::AddressRange;

use super::special::{inner_v4, is_public_v4, is_public_v6};

/// What the agent's operator decides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// Ranges on top of the public addresses.
    pub allow: Vec<AddressRange>,
    /// Ranges that are never connected to.
    pub deny: Vec<AddressRange>,
}

/// Who does not let the agent connect to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// The agent's policy.
    ByAgent,
    /// The destination's ranges; the agent's policy would.
    ByDestination,
}

impl Policy {
    /// Whether the agent may connect to `address` for a destination with these `ranges`.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn judge(&self, address: IpAddr, ranges: &[AddressRange]) -> Result<(), Denied> {
        let address = address.to_canonical();
        let inner = match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(outer) => inner_v4(outer).map(IpAddr::from),
        };
        let mut readings = [Some(address), inner].into_iter().flatten();
        if !readings.clone().all(|reading| self.lets(reading)) {
            return Err(Denied::ByAgent);
        }
        if ranges.is_empty() || readings.any(|reading| within(reading, ranges)) {
            return Ok(());
        }
        Err(Denied::ByDestination)
    }

    fn lets(&self, address: IpAddr) -> bool {
        let public = match address {
            IpAddr::V4(address) => is_public_v4(address),
            IpAddr::V6(address) => is_public_v6(address),
        };
        !within(address, &self.deny) && (public || within(address, &self.allow))
    }
}

fn within(address: IpAddr, ranges: &[AddressRange]) -> bool {
    ranges.iter().any(|range| range.contains(address))
}

#[cfg(test)]
mod tests;

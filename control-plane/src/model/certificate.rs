//! Authorities and client certificates.

use std::fmt;

use countersign_shared::{
    digest::{hex, unhex},
    name::AccountName,
    time::Timestamp,
};

/// What the vault has sealed: safe to store, useless without the KEK.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(pub Vec<u8>);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[sealed, {} bytes]", self.0.len())
    }
}

/// A certificate's serial number: 16 octets, positive, 127 random bits (RFC 5280 section 4.1.2.2
/// allows 20 octets).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Serial(pub [u8; 16]);

impl Serial {
    /// From random bytes: the top bit is cleared so that the number is positive, the next one set so
    /// that it always has 16 octets.
    pub fn from_random(mut random: [u8; 16]) -> Self {
        random[0] = (random[0] & 0x7f) | 0x40;
        Self(random)
    }

    /// Lower-case hexadecimal.
    pub fn to_hex(self) -> String {
        hex(&self.0)
    }

    /// The inverse of [`Serial::to_hex`].
    pub fn from_hex(text: &str) -> Option<Self> {
        unhex(text)?.try_into().ok().map(Self)
    }
}

/// Whose authority.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AuthorityOwner {
    /// The installation's root, which signs the others.
    Root,
    /// Signs agents' identities.
    Agents,
    /// Signs the control plane's own server certificate.
    Server,
    /// Signs the client certificates of an account's destinations.
    Account(AccountName),
}

impl fmt::Display for AuthorityOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::Agents => f.write_str("agents"),
            Self::Server => f.write_str("server"),
            Self::Account(name) => name.fmt(f),
        }
    }
}

/// One generation of an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// Whose.
    pub owner: AuthorityOwner,
    /// 1, 2, …
    pub generation: u32,
    /// The self-signed certificate in DER: the trust anchor.
    pub anchor: Vec<u8>,
    /// The same key and subject signed by the root, in DER. The root and the server authority have
    /// none.
    pub provenance: Option<Vec<u8>>,
    /// The private key (PKCS#8 in DER), sealed.
    pub sealed_key: Sealed,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
}

/// Where a client certificate is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificateState {
    /// It is presented.
    Active,
}

/// One version of a destination's client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// 1, 2, …
    pub version: u32,
    /// Where it is in its life.
    pub state: ClientCertificateState,
    /// Serial number.
    pub serial: Serial,
    /// The certificate in DER.
    pub certificate: Vec<u8>,
    /// Generation of the account's authority that signed it.
    pub issuer_generation: u32,
    /// The private key (PKCS#8 in DER), sealed.
    pub sealed_key: Sealed,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_are_positive_and_have_sixteen_octets() {
        for fill in [0x00, 0x7f, 0x80, 0xff] {
            let serial = Serial::from_random([fill; 16]);
            assert!(serial.0[0] & 0x80 == 0 && serial.0[0] != 0);
            assert_eq!(Serial::from_hex(&serial.to_hex()), Some(serial));
        }
        assert_eq!(Serial::from_hex("00"), None);
    }
}

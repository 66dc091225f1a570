//! Authorities and client certificates.

use std::fmt;

use countersign_shared::{
    digest::{hex, unhex},
    name::AccountName,
    time::Timestamp,
};

use super::TrustModel;

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
    /// Signs the client certificates of destinations with the trust model SHARED.
    Shared,
    /// Signs the client certificates of an account's destinations.
    Account(AccountName),
}

impl fmt::Display for AuthorityOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::Agents => f.write_str("agents"),
            Self::Server => f.write_str("server"),
            Self::Shared => f.write_str("shared"),
            Self::Account(name) => name.fmt(f),
        }
    }
}

/// What a generation of an authority is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthorityState {
    /// Made and published; signs nothing yet.
    Prepared,
    /// Signs new client certificates.
    Active,
    /// A newer one signs; client certificates of this one are still presented.
    Superseded,
    /// None of its client certificates is presented any more; still published, while receivers take
    /// it out of their trust.
    Retiring,
    /// Not published any more.
    Retired,
    /// Was prepared and given up.
    Aborted,
    /// Revoked: none of its certificates may be used.
    Revoked,
}

impl AuthorityState {
    /// Whether receivers should trust it: its anchor is in the trust bundle.
    pub fn is_published(self) -> bool {
        match self {
            Self::Prepared | Self::Active | Self::Superseded | Self::Retiring => true,
            Self::Retired | Self::Aborted | Self::Revoked => false,
        }
    }

    /// Whether receivers may still have it installed and so need its revocation list: one that was
    /// revoked needs it most.
    pub fn has_list_in_use(self) -> bool {
        self.is_published() || self == Self::Revoked
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
    /// The same key and subject signed by the generation before, in DER: receivers that trust only
    /// that one accept certificates of this one with it in the chain. The first generation has none,
    /// nor has one that was made in an emergency.
    pub cross: Option<Vec<u8>>,
    /// What it is used for.
    pub state: AuthorityState,
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
    /// Issued, not yet with the agents.
    Pending,
    /// Durable at the agents, not yet presented.
    Distributed,
    /// It is presented.
    Active,
    /// Replaced; presented within the same attempt when the receiver refuses the newer one.
    Retiring,
    /// No longer used.
    Retired,
    /// Revoked.
    Revoked,
    /// Past its end of validity.
    Expired,
}

/// The kind of key in a client certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KeyAlgorithm {
    /// ECDSA on P-256 with SHA-256.
    #[default]
    EcdsaP256,
    /// ECDSA on P-384 with SHA-384.
    EcdsaP384,
    /// RSA with a modulus of 2048 bits, for old receivers.
    Rsa2048,
    /// RSA with a modulus of 3072 bits, for old receivers.
    Rsa3072,
}

/// One version of a destination's client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// 1, 2, …
    pub version: u32,
    /// Where it is in its life.
    pub state: ClientCertificateState,
    /// Who signed it.
    pub trust_model: TrustModel,
    /// The kind of key in it.
    pub key_algorithm: KeyAlgorithm,
    /// Serial number in lower-case hexadecimal, as handshake records have it.
    pub serial: String,
    /// The certificate in DER.
    pub certificate: Vec<u8>,
    /// What is presented after it, each in DER: a cross certificate, or the intermediate ones of a
    /// receiver's own CA.
    pub chain: Vec<Vec<u8>>,
    /// Generation of the authority that signed it; `None` for a receiver's own CA.
    pub issuer_generation: Option<u32>,
    /// The private key (PKCS#8 in DER), sealed.
    pub sealed_key: Sealed,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// When it was first presented.
    pub activated_at: Option<Timestamp>,
    /// When the receiver was first seen to accept it after that.
    pub confirmed_at: Option<Timestamp>,
    /// When a newer one took its place.
    pub replaced_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// Why a certificate was revoked (RFC 5280 section 5.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RevocationReason {
    /// Not said.
    #[default]
    Unspecified,
    /// Its private key is or may be in other hands.
    KeyCompromise,
    /// Its authority's private key is or may be.
    CaCompromise,
    /// What it names has changed.
    AffiliationChanged,
    /// A newer one has taken its place.
    Superseded,
    /// It is not needed any more.
    CessationOfOperation,
    /// It must not be used any more.
    PrivilegeWithdrawn,
}

/// A revoked certificate of an authority's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Its serial number in lower-case hexadecimal, at most 20 octets.
    pub serial: String,
    /// When it was revoked.
    pub revoked_at: Timestamp,
    /// Why.
    pub reason: RevocationReason,
    /// Its end of validity: some time after it, the certificate leaves the list.
    pub not_after: Timestamp,
}

/// A certificate revocation list of one generation of an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crl {
    /// Whose.
    pub owner: AuthorityOwner,
    /// Which generation.
    pub generation: u32,
    /// Grows with each list of the generation.
    pub number: u64,
    /// From when on it is good: ten minutes before it was made.
    pub this_update: Timestamp,
    /// Until when it is good.
    pub next_update: Timestamp,
    /// The list in DER.
    pub der: Vec<u8>,
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

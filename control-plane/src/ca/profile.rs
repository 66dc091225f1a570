//! Profiles: the shape of every certificate that we sign. `check` looks whether a signed one has it.

use std::time::Duration;

use countersign_shared::time::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyUsagePurpose, SanType, SerialNumber,
};
use time::OffsetDateTime;

use super::CaError;
use crate::model::{KeyAlgorithm, Serial};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Receivers' clocks differ: everything that is signed starts this much before it is made, and what
/// lives shortly by a tenth of its life. More, and most of its life would be over when it is made, and
/// it would be renewed at once, again and again.
pub(super) const BACKDATE: Duration = Duration::from_secs(600);

/// Life of the root: 20 years.
pub(super) const ROOT_LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// Life of every other authority: 10 years.
pub(super) const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Life of a client certificate: 90 days.
pub const CLIENT_LIFE: Duration = Duration::from_secs(90 * DAY.as_secs());
/// Life of an agent's identity: 24 hours.
pub const IDENTITY_LIFE: Duration = DAY;
/// Life of the control plane's server certificate: 90 days.
pub const SERVER_LIFE: Duration = Duration::from_secs(90 * DAY.as_secs());

/// What a certificate is for; decides its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Profile {
    /// An authority that may have `path_length` authorities below it. Its key is ECDSA, on P-256 or, for
    /// the root alone, on P-384.
    Authority { path_length: u8, key: KeyAlgorithm },
    /// A destination's client certificate, or an agent's identity: clientAuth only.
    Client(KeyAlgorithm),
    /// The control plane's server certificate: serverAuth only. Its key is ECDSA P-256.
    Server,
}

impl Profile {
    /// The kind of key in it.
    pub(super) fn key_algorithm(self) -> KeyAlgorithm {
        match self {
            Self::Client(algorithm) | Self::Authority { key: algorithm, .. } => algorithm,
            Self::Server => KeyAlgorithm::EcdsaP256,
        }
    }
}

/// When a certificate or a revocation list is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

impl Validity {
    /// From `now`, backdated, for `life` counted from `now`; whole seconds, as in certificates.
    pub(super) fn from_now(now: Timestamp, life: Duration) -> Self {
        let now = whole_seconds(now);
        Self {
            not_before: whole_seconds(now.minus(backdate(life))),
            not_after: whole_seconds(now.plus(life)),
        }
    }

    /// At the latest until `end`: nothing outlives what vouches for it.
    pub(super) fn until(self, end: Timestamp) -> Self {
        Self {
            not_after: self.not_after.min(end),
            ..self
        }
    }
}

/// How long before it is made something of such a life starts.
pub(super) fn backdate(life: Duration) -> Duration {
    BACKDATE.min(life / 10)
}

fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_unix_seconds(at.as_unix_seconds())
}

/// All that is decided of a certificate before it is signed, but for its key.
#[derive(Debug, Clone)]
pub(super) struct Contents {
    pub(super) profile: Profile,
    pub(super) common_name: String,
    /// In the place of a common name and of a key identifier of ours: those of another certificate of the same key.
    pub(super) like: Option<Likeness>,
    pub(super) alternative_names: Vec<SanType>,
    pub(super) serial: Serial,
    pub(super) validity: Validity,
}

/// What a certificate has in common with another one of the same key, so that either of them can stand in a chain.
#[derive(Debug, Clone)]
pub(super) struct Likeness {
    /// Its subject.
    pub(super) subject: DistinguishedName,
    /// The same in DER.
    pub(super) subject_der: Vec<u8>,
    /// Its subject key identifier.
    pub(super) key_identifier: Vec<u8>,
}

impl Contents {
    /// Parameters for rcgen.
    pub(super) fn params(&self) -> Result<CertificateParams, CaError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(&self.common_name);
        if let Some(like) = &self.like {
            params.distinguished_name = like.subject.clone();
            params.key_identifier_method = KeyIdMethod::PreSpecified(like.key_identifier.clone());
        }
        params.subject_alt_names.clone_from(&self.alternative_names);
        params.serial_number = Some(SerialNumber::from_slice(&self.serial.0));
        params.not_before = date(self.validity.not_before)?;
        params.not_after = date(self.validity.not_after)?;
        params.use_authority_key_identifier_extension = true;
        match self.profile {
            Profile::Authority { path_length, .. } => {
                params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
                params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            }
            Profile::Client(_) => presented(&mut params, ExtendedKeyUsagePurpose::ClientAuth),
            Profile::Server => presented(&mut params, ExtendedKeyUsagePurpose::ServerAuth),
        }
        Ok(params)
    }
}

fn presented(params: &mut CertificateParams, purpose: ExtendedKeyUsagePurpose) {
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
}

/// A name of a common name alone.
pub(super) fn distinguished_name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    let common_name = DnValue::Utf8String(common_name.to_owned());
    name.push(DnType::CommonName, common_name);
    name
}

/// As rcgen wants it.
pub(super) fn date(at: Timestamp) -> Result<OffsetDateTime, CaError> {
    at.to_date_time()
        .ok_or(CaError::Profile("a date after the year 9999"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_of_seconds_are_not_lengthened_and_never_outlive_the_issuer() {
        let now = Timestamp::from_unix_micros(1_700_000_000_900_000);
        let short = Validity::from_now(now, Duration::from_millis(5_500));
        assert_eq!(short.not_after.as_unix_seconds(), 1_700_000_005);
        assert_eq!(short.not_before.as_unix_seconds(), 1_700_000_000 - 1);
        let day = Validity::from_now(now, DAY);
        assert_eq!(day.not_before.as_unix_seconds(), 1_700_000_000 - 600);
        let end = Timestamp::from_unix_seconds(1_700_000_003);
        assert_eq!(short.until(end).not_after, end);
    }
}

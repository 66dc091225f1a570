//! Profiles: the shape of every certificate we sign, and the check that an issued one has it.

use std::time::Duration;

use countersign_shared::{
    digest::{hex, sha256},
    name::{AgentName, DestinationName, Id},
    time::Timestamp,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType, SerialNumber,
};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::CaError;
use crate::model::Serial;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Receivers' clocks differ: every certificate starts this much before it is made.
const BACKDATE: Duration = Duration::from_secs(600);

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
    /// An authority that may have `path_length` authorities below it.
    Authority { path_length: u8 },
    /// A destination's client certificate, or an agent's identity: clientAuth only.
    Client,
    /// The control plane's server certificate: serverAuth only.
    Server,
}

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

impl Validity {
    /// From `now`, backdated, for `life` counted from `now`; whole seconds, as in certificates.
    pub(super) fn from_now(now: Timestamp, life: Duration) -> Self {
        let now = Timestamp::from_unix_seconds(now.as_unix_seconds());
        Self {
            not_before: now.minus(BACKDATE),
            not_after: now.plus(life),
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

impl Profile {
    /// Parameters for rcgen.
    pub(super) fn params(
        self,
        common_name: &str,
        alternative_names: Vec<SanType>,
        serial: Serial,
        validity: Validity,
    ) -> Result<CertificateParams, CaError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let common_name = DnValue::Utf8String(common_name.to_owned());
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.subject_alt_names = alternative_names;
        params.serial_number = Some(SerialNumber::from_slice(&serial.0));
        params.not_before = date(validity.not_before)?;
        params.not_after = date(validity.not_after)?;
        params.use_authority_key_identifier_extension = true;
        match self {
            Self::Authority { path_length } => {
                params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
                params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            }
            Self::Client | Self::Server => {
                params.is_ca = IsCa::ExplicitNoCa;
                params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
                params.extended_key_usages = vec![match self {
                    Self::Server => ExtendedKeyUsagePurpose::ServerAuth,
                    _ => ExtendedKeyUsagePurpose::ClientAuth,
                }];
            }
        }
        Ok(params)
    }

    /// Checks that what was signed has this profile. What has not must not be stored.
    pub(super) fn check(
        self,
        der: &[u8],
        serial: Serial,
        validity: Validity,
    ) -> Result<(), CaError> {
        let wrong = CaError::Profile;
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| wrong("it does not parse"))?;
        let seconds = (
            certificate.validity().not_before.timestamp(),
            certificate.validity().not_after.timestamp(),
        );
        let expected = (
            validity.not_before.as_unix_seconds(),
            validity.not_after.as_unix_seconds(),
        );
        if seconds != expected {
            return Err(wrong("validity"));
        }
        if certificate.raw_serial() != serial.0 {
            return Err(wrong("serial number"));
        }
        if certificate.is_ca() != matches!(self, Self::Authority { .. }) {
            return Err(wrong("basic constraints"));
        }
        self.check_usage(&certificate).ok_or(wrong("key usage"))
    }

    fn check_usage(self, certificate: &X509Certificate<'_>) -> Option<()> {
        let usage = certificate.key_usage().ok()??;
        let purposes = certificate.extended_key_usage().ok()?;
        let right = match self {
            Self::Authority { path_length } => {
                let constraints = certificate.basic_constraints().ok()??;
                usage.value.key_cert_sign()
                    && usage.value.crl_sign()
                    && purposes.is_none()
                    && constraints.value.path_len_constraint == Some(u32::from(path_length))
            }
            Self::Client => {
                let purposes = purposes?.value;
                usage.value.digital_signature() && purposes.client_auth && !purposes.server_auth
            }
            Self::Server => {
                let purposes = purposes?.value;
                usage.value.digital_signature() && purposes.server_auth && !purposes.client_auth
            }
        };
        (right && usage.critical).then_some(())
    }
}

fn date(at: Timestamp) -> Result<OffsetDateTime, CaError> {
    at.to_date_time()
        .ok_or(CaError::Profile("a date after the year 9999"))
}

/// The names in a destination's client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientNames {
    /// Subject common name: `countersign-delivery.<account>`.
    pub common_name: String,
    /// `spiffe://<trust domain>/account/<account>/destination/<destination>`.
    pub uri: String,
}

impl ClientNames {
    /// Of a destination with a dedicated authority.
    pub fn dedicated(trust_domain: &str, destination: &DestinationName) -> Self {
        let (account, id) = (destination.account(), destination.destination());
        Self {
            common_name: common_name("countersign-delivery.", account, ""),
            uri: format!("spiffe://{trust_domain}/account/{account}/destination/{id}"),
        }
    }
}

/// Longest common name, in characters (RFC 5280 appendix A.1, ub-common-name).
pub(super) const MAX_COMMON_NAME: usize = 64;

/// A common name with an account's id in it. An id that does not fit is cut and gets a hash, after a
/// dot, which no id contains: two accounts never have the same name.
pub(super) fn common_name(before: &str, account: &str, after: &str) -> String {
    let around = before.chars().count() + after.chars().count();
    let room = MAX_COMMON_NAME.saturating_sub(around);
    if account.len() <= room {
        return format!("{before}{account}{after}");
    }
    let hash = hex(&sha256(account.as_bytes())[..4]);
    // Ids are ASCII, so every cut is between characters.
    let kept = &account[..room.saturating_sub(hash.len() + 1)];
    format!("{before}{kept}.{hash}{after}")
}

/// The URI in an agent's identity: `spiffe://<trust domain>/agent/<name>`.
pub(super) fn agent_uri(trust_domain: &str, agent: &AgentName) -> String {
    format!("spiffe://{trust_domain}/agent/{}", agent.id())
}

/// Which agent an identity certificate names; `None` when it is not one of this trust domain's.
/// Whether it is valid is for the TLS handshake to decide.
pub fn identity_of(trust_domain: &str, certificate: &[u8]) -> Option<AgentName> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let prefix = format!("spiffe://{trust_domain}/agent/");
    let mut agents = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix(&prefix),
            _ => None,
        });
    let id = Id::existing(agents.next()?).ok()?;
    agents.next().is_none().then(|| AgentName::from(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_ids_are_shortened_to_what_a_common_name_may_have_and_stay_apart() {
        let short = common_name("countersign-delivery.", "acme", "");
        assert_eq!(short, "countersign-delivery.acme");
        let fits = "a".repeat(43);
        let whole = common_name("countersign-delivery.", &fits, "");
        assert_eq!(whole, format!("countersign-delivery.{fits}"));
        let (one, other) = (
            format!("{}b", "a".repeat(62)),
            format!("{}c", "a".repeat(62)),
        );
        let names = [one, other].map(|id| common_name("Countersign Delivery CA — ", &id, " G12"));
        assert_ne!(names[0], names[1]);
        for name in &names {
            assert_eq!(name.chars().count(), MAX_COMMON_NAME, "{name}");
            assert!(name.ends_with(" G12"), "{name}");
        }
    }
}

//! An existing certificate authority, such as an intermediate of a bank's own PKI, that becomes the internal root, or
//! a generation of an account's authority: what is signed then leads up to those who are trusted already.

use std::{sync::Arc, time::Duration};

use countersign_shared::{secret::SecretBytes, time::Timestamp};
use rcgen::{DistinguishedName, DnType, DnValue, KeyPair, PublicKeyData as _};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject as _};
use thiserror::Error;
use x509_parser::{
    asn1_rs::Tag,
    prelude::{X509Certificate, X509Name, X509Version},
};

use super::{AuthorityKey, CaError, check, profile::Likeness};
use crate::{model::KeyAlgorithm, pkcs11::TokenSigner};

/// One that ends sooner is not worth beginning with.
const LEAST_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// What an existing authority becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The internal root, which has authorities below it.
    Root,
    /// A generation of an account's authority.
    Account,
}

/// Why an authority can't become what it is to be.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ImportError {
    /// There must be one certificate.
    #[error("holds {0} certificates: give the authority's own, without those above it")]
    Count(usize),
    /// It does not parse.
    #[error("is no X.509 certificate of version 3")]
    Certificate,
    /// It is no authority's.
    #[error("is not an authority's: it needs basicConstraints with CA:TRUE")]
    NoAuthority,
    /// It may not sign authorities.
    #[error("allows no authority below it (pathlen:0), and accounts' authorities are below it")]
    PathLength,
    /// It may not sign certificates.
    #[error("may not sign certificates: its keyUsage lacks keyCertSign")]
    KeyUsage,
    /// Certificates below could not name its key.
    #[error(
        "has no subjectKeyIdentifier, which certificates below it refer to (RFC 5280 section 4.2.1.2)"
    )]
    KeyIdentifier,
    /// It is not valid for long enough.
    #[error("is valid from {0} to {1}: it must be valid now and for 30 days")]
    Validity(Timestamp, Timestamp),
    /// It can't be used.
    #[error(
        "the key is not one that can sign here: it takes PKCS#8, ECDSA on P-256 or P-384, or RSA of 2048 or 3072 bits"
    )]
    Key,
    /// The trust anchor could not have the same subject.
    #[error(
        "has a subject that can't be written again: each of its parts must be there once, as UTF8String, \
         PrintableString or IA5String"
    )]
    Subject,
    /// The key is another's.
    #[error("is not the certificate of the key: their public keys differ")]
    OtherKey,
}

/// An authority that can become what it is to be.
#[derive(Debug)]
pub struct ImportedAuthority {
    pub(super) certificate: Vec<u8>,
    pub(super) key: AuthorityKey,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

impl ImportedAuthority {
    /// With its private key: PKCS#8 in PEM.
    ///
    /// # Errors
    /// [`ImportError`].
    pub fn with_pem(
        certificates: &[CertificateDer<'_>],
        key: &SecretBytes,
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<Self, ImportError> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(key.expose()).map_err(|_| ImportError::Key)?;
        let key = KeyPair::try_from(&key).map_err(|_| ImportError::Key)?;
        Self::check(certificates, AuthorityKey::Held(key), purpose, now)
    }

    /// A root with its private key in a token.
    ///
    /// # Errors
    /// [`ImportError`].
    pub fn with_token(
        certificates: &[CertificateDer<'_>],
        signer: Arc<TokenSigner>,
        now: Timestamp,
    ) -> Result<Self, ImportError> {
        let key = AuthorityKey::Token(signer);
        Self::check(certificates, key, Purpose::Root, now)
    }

    fn check(
        certificates: &[CertificateDer<'_>],
        key: AuthorityKey,
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<Self, ImportError> {
        let [der] = certificates else {
            return Err(ImportError::Count(certificates.len()));
        };
        let parsed = check::parse(der).filter(|it| it.version() == X509Version::V3);
        let parsed = parsed.ok_or(ImportError::Certificate)?;
        let (not_before, not_after) = may_sign(&parsed, purpose, now)?;
        if purpose == Purpose::Account && distinguished_name(parsed.subject()).is_none() {
            return Err(ImportError::Subject);
        }
        if check::key_algorithm(parsed.public_key()).is_none() {
            return Err(ImportError::Key);
        }
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(ImportError::OtherKey);
        }
        Ok(Self {
            certificate: der.to_vec(),
            key,
            not_before,
            not_after,
        })
    }
}

impl ImportedAuthority {
    /// The kind of its key.
    pub(super) fn key_algorithm(&self) -> Result<KeyAlgorithm, CaError> {
        let parsed = check::parse(&self.certificate);
        let algorithm = parsed.and_then(|it| check::key_algorithm(it.public_key()));
        algorithm.ok_or(CaError::Profile("the key's kind"))
    }

    /// What another certificate of its key has to have like it.
    pub(super) fn likeness(&self) -> Result<Likeness, CaError> {
        let parsed =
            check::parse(&self.certificate).ok_or(CaError::Profile("it does not parse"))?;
        let subject = distinguished_name(parsed.subject());
        Ok(Likeness {
            subject: subject.ok_or(CaError::Profile(
                "its subject has parts that are not written here",
            ))?,
            subject_der: parsed.subject().as_raw().to_vec(),
            key_identifier: check::subject_key_identifier(&parsed)
                .unwrap_or_default()
                .to_vec(),
        })
    }
}

/// A name with the same parts, each of the same type; `None` where there is one of another type.
fn distinguished_name(name: &X509Name<'_>) -> Option<DistinguishedName> {
    let mut copy = DistinguishedName::new();
    for attribute in name.iter_attributes() {
        let kind = attribute.attr_type().iter()?.collect();
        let text = attribute.as_str().ok()?;
        let value = match attribute.attr_value().tag() {
            Tag::Utf8String => DnValue::Utf8String(text.to_owned()),
            Tag::PrintableString => DnValue::PrintableString(text.try_into().ok()?),
            Tag::Ia5String => DnValue::Ia5String(text.try_into().ok()?),
            _ => return None,
        };
        copy.push(DnType::CustomDnType(kind), value);
    }
    // It has each type once.
    (copy.iter().count() == name.iter_attributes().count()).then_some(copy)
}

/// Whether it may sign what it is to sign; from when and until when.
fn may_sign(
    certificate: &X509Certificate<'_>,
    purpose: Purpose,
    now: Timestamp,
) -> Result<(Timestamp, Timestamp), ImportError> {
    let constraints = certificate.basic_constraints().ok().flatten();
    let constraints = constraints.filter(|it| it.value.ca);
    let constraints = constraints.ok_or(ImportError::NoAuthority)?;
    if purpose == Purpose::Root && constraints.value.path_len_constraint == Some(0) {
        return Err(ImportError::PathLength);
    }
    let usage = certificate.key_usage().map_err(|_| ImportError::KeyUsage)?;
    if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Err(ImportError::KeyUsage);
    }
    if check::subject_key_identifier(certificate).is_none_or(<[u8]>::is_empty) {
        return Err(ImportError::KeyIdentifier);
    }
    let validity = certificate.validity();
    let from = Timestamp::from_unix_seconds(validity.not_before.timestamp());
    let until = Timestamp::from_unix_seconds(validity.not_after.timestamp());
    if now < from || until.since(now) < LEAST_LIFE {
        return Err(ImportError::Validity(from, until));
    }
    Ok((from, until))
}

/// How many authorities may follow below this one; `None`: as many as it likes.
pub(super) fn path_length(der: &[u8]) -> Option<u8> {
    let certificate = check::parse(der)?;
    let constraints = certificate.basic_constraints().ok().flatten()?;
    let length = constraints.value.path_len_constraint?;
    Some(u8::try_from(length).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, IsCa, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
        PKCS_ED25519,
    };

    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

    fn day(offset: i64) -> time::OffsetDateTime {
        let seconds = NOW.as_unix_seconds() + offset * 24 * 3600;
        time::OffsetDateTime::from_unix_timestamp(seconds).unwrap()
    }

    fn params() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        (params.not_before, params.not_after) = (day(-1), day(31));
        params
    }

    fn import(params: &CertificateParams) -> Result<ImportedAuthority, ImportError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let pem = SecretBytes::from(key.serialize_pem().into_bytes());
        ImportedAuthority::with_pem(&[certificate.der().clone()], &pem, Purpose::Root, NOW)
    }

    #[test]
    fn what_may_sign_authorities_is_taken() {
        assert_eq!(
            import(&params()).unwrap().not_after,
            NOW.plus(31 * Duration::from_secs(86400))
        );
        let mut any = params();
        any.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let taken = import(&any).unwrap();
        assert_eq!(path_length(&taken.certificate), None);
        assert_eq!(
            path_length(&import(&params()).unwrap().certificate),
            Some(1)
        );
    }

    #[test]
    fn what_may_not_or_not_for_long_is_refused_with_the_reason() {
        let refused = |change: &dyn Fn(&mut CertificateParams)| {
            let mut params = params();
            change(&mut params);
            import(&params).unwrap_err()
        };
        assert_eq!(
            refused(&|it| it.is_ca = IsCa::ExplicitNoCa),
            ImportError::NoAuthority
        );
        let last = IsCa::Ca(BasicConstraints::Constrained(0));
        assert_eq!(refused(&|it| it.is_ca = last), ImportError::PathLength);
        let lists = vec![KeyUsagePurpose::CrlSign];
        assert_eq!(
            refused(&|it| it.key_usages = lists.clone()),
            ImportError::KeyUsage
        );
        assert!(matches!(
            refused(&|it| it.not_after = day(29)),
            ImportError::Validity(..)
        ));
        assert!(matches!(
            refused(&|it| it.not_before = day(1)),
            ImportError::Validity(..)
        ));
    }

    #[test]
    fn an_accounts_authority_needs_none_below_it() {
        let mut params = params();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = [params.self_signed(&key).unwrap().der().clone()];
        let pem = SecretBytes::from(key.serialize_pem().into_bytes());
        let import = |purpose| ImportedAuthority::with_pem(&certificate, &pem, purpose, NOW);
        assert_eq!(import(Purpose::Root).unwrap_err(), ImportError::PathLength);
        assert!(import(Purpose::Account).is_ok());
    }

    #[test]
    fn its_key_is_its_own_and_one_that_can_sign() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let other = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let certificate = params().self_signed(&key).unwrap().der().clone();
        let pem = |key: &KeyPair| SecretBytes::from(key.serialize_pem().into_bytes());
        let import = |certificates: &[CertificateDer<'_>], key: &SecretBytes| {
            ImportedAuthority::with_pem(certificates, key, Purpose::Root, NOW).unwrap_err()
        };
        let one = [certificate.clone()];
        assert_eq!(import(&one, &pem(&other)), ImportError::OtherKey);
        let no_key = SecretBytes::from(b"-----BEGIN RSA PRIVATE KEY-----".to_vec());
        assert_eq!(import(&one, &no_key), ImportError::Key);
        let two = [certificate.clone(), certificate];
        assert_eq!(import(&two, &pem(&key)), ImportError::Count(2));
    }
}

//! An existing certificate authority, such as an intermediate of a bank's own PKI, that becomes the internal root:
//! what vouches for accounts' authorities is then vouched for by those who are trusted already.

use std::{sync::Arc, time::Duration};

use countersign_shared::{secret::SecretBytes, time::Timestamp};
use rcgen::{KeyPair, PublicKeyData as _};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject as _};
use thiserror::Error;
use x509_parser::prelude::{X509Certificate, X509Version};

use super::{AuthorityKey, check};
use crate::pkcs11::TokenSigner;

/// A root that ends sooner is not worth beginning with.
const LEAST_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Why an authority can't become the root.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ImportError {
    /// There must be one certificate.
    #[error("holds {0} certificates: give the one that is to be the root, without those above it")]
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
    /// The key file holds no key.
    #[error(
        "the key is no private key that can sign here: it takes PKCS#8, ECDSA P-256 or P-384 or RSA"
    )]
    Key,
    /// The key is another's.
    #[error("is not the certificate of the key: their public keys differ")]
    OtherKey,
}

/// An authority that can become the root.
#[derive(Debug)]
pub struct ImportedRoot {
    pub(super) certificate: Vec<u8>,
    pub(super) key: AuthorityKey,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

impl ImportedRoot {
    /// With its private key as it stands in a file: PKCS#8 in PEM.
    ///
    /// # Errors
    /// [`ImportError`].
    pub fn with_pem(
        certificates: &[CertificateDer<'_>],
        key: &SecretBytes,
        now: Timestamp,
    ) -> Result<Self, ImportError> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(key.expose()).map_err(|_| ImportError::Key)?;
        let key = KeyPair::try_from(&key).map_err(|_| ImportError::Key)?;
        Self::check(certificates, AuthorityKey::Held(key), now)
    }

    /// With its private key in a token.
    ///
    /// # Errors
    /// [`ImportError`].
    pub fn with_token(
        certificates: &[CertificateDer<'_>],
        signer: Arc<TokenSigner>,
        now: Timestamp,
    ) -> Result<Self, ImportError> {
        Self::check(certificates, AuthorityKey::Token(signer), now)
    }

    fn check(
        certificates: &[CertificateDer<'_>],
        key: AuthorityKey,
        now: Timestamp,
    ) -> Result<Self, ImportError> {
        let [der] = certificates else {
            return Err(ImportError::Count(certificates.len()));
        };
        let parsed = check::parse(der).filter(|it| it.version() == X509Version::V3);
        let parsed = parsed.ok_or(ImportError::Certificate)?;
        let (not_before, not_after) = may_be_root(&parsed, now)?;
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

/// Whether it may sign authorities; from when and until when.
fn may_be_root(
    certificate: &X509Certificate<'_>,
    now: Timestamp,
) -> Result<(Timestamp, Timestamp), ImportError> {
    let constraints = certificate.basic_constraints().ok().flatten();
    let constraints = constraints.filter(|it| it.value.ca);
    let constraints = constraints.ok_or(ImportError::NoAuthority)?;
    if constraints.value.path_len_constraint == Some(0) {
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

    fn import(params: &CertificateParams) -> Result<ImportedRoot, ImportError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let pem = SecretBytes::from(key.serialize_pem().into_bytes());
        ImportedRoot::with_pem(&[certificate.der().clone()], &pem, NOW)
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
    fn its_key_is_its_own_and_one_that_can_sign() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let other = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let certificate = params().self_signed(&key).unwrap().der().clone();
        let pem = |key: &KeyPair| SecretBytes::from(key.serialize_pem().into_bytes());
        let import = |certificates: &[CertificateDer<'_>], key: &SecretBytes| {
            ImportedRoot::with_pem(certificates, key, NOW).unwrap_err()
        };
        let one = [certificate.clone()];
        assert_eq!(import(&one, &pem(&other)), ImportError::OtherKey);
        let no_key = SecretBytes::from(b"-----BEGIN RSA PRIVATE KEY-----".to_vec());
        assert_eq!(import(&one, &no_key), ImportError::Key);
        let two = [certificate.clone(), certificate];
        assert_eq!(import(&two, &pem(&key)), ImportError::Count(2));
    }
}

//! What both sides need of TLS: the one crypto provider, certificates from PEM, public key pins.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use thiserror::Error;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{digest::sha256, time::Timestamp};

/// The one crypto provider of the product: aws-lc-rs, with X25519MLKEM768 as the preferred key
/// exchange.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Whether all of [`provider`] is a FIPS 140-3 module: the feature `fips` of this build.
pub fn is_fips() -> bool {
    provider().fips()
}

/// Makes [`provider`] the process's default, for libraries that ask for one. Called first thing in
/// every `main`; a second call changes nothing.
pub fn install_default_provider() {
    // The error says that there is one already, and there is only this one in the tree.
    let _ = aws_lc_rs::default_provider().install_default();
}

/// Why a PEM text is not usable as a list of authorities.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum PemError {
    /// Longer than allowed.
    #[error("is longer than {MAX_PEM_LENGTH} bytes")]
    TooLong,
    /// No PEM section with a certificate.
    #[error("holds no certificate: expected '-----BEGIN CERTIFICATE-----'")]
    NoCertificate,
    /// A private key in it: somebody pasted the wrong file.
    #[error("holds a private key: give certificates only, and treat that key as exposed")]
    PrivateKey,
    /// PEM or base64 is broken.
    #[error("is not PEM")]
    NotPem,
    /// A section that is not a certificate.
    #[error("certificate {0} is not an X.509 certificate")]
    NotACertificate(usize),
}

/// Longest PEM text that is taken, in bytes.
pub const MAX_PEM_LENGTH: usize = 64 * 1024;

/// The certificates in a PEM text.
///
/// # Errors
/// [`PemError`]: too long, none in it, not PEM, not X.509, or a private key in it.
pub fn certificates_from_pem(text: &str) -> Result<Vec<CertificateDer<'static>>, PemError> {
    if text.len() > MAX_PEM_LENGTH {
        return Err(PemError::TooLong);
    }
    if text.contains("PRIVATE KEY-----") {
        return Err(PemError::PrivateKey);
    }
    let mut found = Vec::new();
    for item in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let certificate = item.map_err(|_| PemError::NotPem)?;
        match X509Certificate::from_der(&certificate) {
            Ok(([], _)) => found.push(certificate),
            _ => return Err(PemError::NotACertificate(found.len() + 1)),
        }
    }
    if found.is_empty() {
        return Err(PemError::NoCertificate);
    }
    Ok(found)
}

/// What is shown and recorded of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Subject, as openssl shows it.
    pub subject: String,
    /// Issuer, as openssl shows it.
    pub issuer: String,
    /// Serial number in lower-case hexadecimal, without leading zeros beyond whole bytes.
    pub serial: String,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// SHA-256 of its public key (SubjectPublicKeyInfo).
    pub public_key_sha256: [u8; 32],
}

/// Reads a certificate; `None` when it is not X.509.
pub fn certificate_facts(der: &[u8]) -> Option<CertificateFacts> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let validity = certificate.validity();
    Some(CertificateFacts {
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        serial: serial_text(certificate.raw_serial()),
        not_before: Timestamp::from_unix_seconds(validity.not_before.timestamp()),
        not_after: Timestamp::from_unix_seconds(validity.not_after.timestamp()),
        public_key_sha256: sha256(certificate.public_key().raw),
    })
}

/// A serial number in lower-case hexadecimal, without the zero byte that DER puts before a high bit.
pub fn serial_text(raw: &[u8]) -> String {
    let significant = match raw {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    crate::digest::hex(significant)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["ca.example".to_owned()]).unwrap();
        parameters.self_signed(&key).unwrap().pem()
    }

    #[test]
    fn a_build_for_fips_has_nothing_else() {
        assert_eq!(is_fips(), cfg!(feature = "fips"));
    }

    #[test]
    fn certificates_come_out_of_pem_in_order() {
        let (first, second) = (authority(), authority());
        let found = certificates_from_pem(&format!("# ours\n{first}\n{second}")).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(certificates_from_pem(&second).unwrap()[0], found[1]);
        assert!(certificate_facts(&found[0]).is_some());
    }

    #[test]
    fn what_is_not_a_certificate_is_named() {
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        assert_eq!(certificates_from_pem(&key), Err(PemError::PrivateKey));
        assert_eq!(certificates_from_pem(""), Err(PemError::NoCertificate));
        assert_eq!(certificates_from_pem("hello"), Err(PemError::NoCertificate));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(
            certificates_from_pem(broken),
            Err(PemError::NotACertificate(1))
        );
        assert_eq!(
            certificates_from_pem(&"x".repeat(MAX_PEM_LENGTH + 1)),
            Err(PemError::TooLong)
        );
    }

    #[test]
    fn serials_read_as_openssl_prints_them() {
        assert_eq!(serial_text(&[0, 0x80, 1]), "8001");
        assert_eq!(serial_text(&[0x7f, 1]), "7f01");
        assert_eq!(serial_text(&[0]), "00");
    }
}

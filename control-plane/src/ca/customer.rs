//! Client certificates that a receiver's own CA signs (`CUSTOMER`): the signing request for it
//! (PKCS#10, RFC 2986), and what is looked at when the certificate comes back.

use countersign_shared::{
    digest::{hex, sha256},
    name::DestinationName,
    time::Timestamp,
    tls::{self, PemError, serial_text},
};
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, PublicKeyData as _,
};
use thiserror::Error;
use x509_parser::{
    certification_request::X509CertificationRequest,
    prelude::{FromDer as _, X509Certificate},
};

use super::{
    CaError, check, issue::alternative_names, keys::new_key_of, names::ClientNames,
    profile::distinguished_name,
};
use crate::{
    model::{KeyAlgorithm, Sealed},
    vault::{Record, ScopeKey},
};

/// Most certificates in an upload.
pub const MAX_UPLOADED: usize = 8;

/// A signing request, and the key that waits for its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRequest {
    /// PKCS#10 in DER.
    pub der: Vec<u8>,
    /// The private key (PKCS#8 in DER), sealed as that of the version that was named.
    pub sealed_key: Sealed,
    /// SHA-256 of the public key (SubjectPublicKeyInfo): by it the certificate is recognised.
    pub public_key_sha256: [u8; 32],
}

/// A signing request with a fresh key for `version` of a destination's client certificate. It asks for
/// `names`, digitalSignature and clientAuth. `scope` is the account's.
///
/// # Errors
/// [`CaError`].
pub async fn new_request(
    destination: &DestinationName,
    version: u32,
    names: &ClientNames,
    key_algorithm: KeyAlgorithm,
    scope: &ScopeKey,
) -> Result<NewRequest, CaError> {
    let (key, secret) = new_key_of(key_algorithm).await?;
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(&names.common_name);
    params.subject_alt_names = alternative_names(names)?;
    params.is_ca = IsCa::NoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(NewRequest {
        der: params.serialize_request(&key)?.der().to_vec(),
        sealed_key: scope.seal(&secret, &Record::ClientKey(destination, version))?,
        public_key_sha256: sha256(&key.subject_public_key_info()),
    })
}

/// SHA-256 of the public key (SubjectPublicKeyInfo) in a request of ours; `None` when it is none.
pub fn request_key(der: &[u8]) -> Option<[u8; 32]> {
    let (_, request) = X509CertificationRequest::from_der(der).ok()?;
    Some(sha256(request.certification_request_info.subject_pki.raw))
}

/// An uploaded certificate that can be presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// SHA-256 of its public key (SubjectPublicKeyInfo): one of the held ones.
    pub public_key_sha256: [u8; 32],
    /// The certificate in DER.
    pub certificate: Vec<u8>,
    /// What is presented after it, each in DER. A self-signed certificate at the end is left out: who
    /// trusts it has it, and to nobody else it says anything.
    pub chain: Vec<Vec<u8>>,
    /// Serial number in lower-case hexadecimal.
    pub serial: String,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
}

/// Why an uploaded certificate can't be presented, and what to do about it.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum UploadError {
    /// Not a list of certificates.
    #[error("{0}; upload the client certificate in PEM, then the intermediate certificates")]
    Pem(#[from] PemError),
    /// More certificates than a chain has.
    #[error(
        "holds {0} certificates, at most {MAX_UPLOADED} are taken: upload the client certificate and \
         the intermediate ones that lead to its CA, nothing else"
    )]
    TooMany(usize),
    /// The client certificate is there, but not first.
    #[error("certificate {0} is the client certificate: put it first, then each one's signer")]
    NotFirst(usize),
    /// For a key that is not held.
    #[error(
        "its public key (SHA-256 {found}) is not that of an open signing request ({held}): have the \
         CA sign the request of GetCertificateSigningRequest, and upload what it signed"
    )]
    UnknownKey {
        /// Hash of its public key (SubjectPublicKeyInfo), in hexadecimal.
        found: String,
        /// Hashes of the keys that are held.
        held: String,
    },
    /// Its time has not come.
    #[error("is not valid before {0}, and it is {1} now: upload it then, or have it signed anew")]
    NotYetValid(Timestamp, Timestamp),
    /// Its time is over.
    #[error("ended at {0}: have the signing request signed anew")]
    Expired(Timestamp),
    /// An authority's certificate.
    #[error("is a CA's certificate (basic constraints): have it signed as a client certificate")]
    IsAuthority,
    /// No digitalSignature.
    #[error(
        "its key usage lacks digitalSignature, without which no TLS client can use it: have it signed \
         with digitalSignature, or without key usage"
    )]
    KeyUsage,
    /// No clientAuth.
    #[error(
        "its extended key usage lacks clientAuth, without which receivers refuse it: have it signed \
         with clientAuth, or without extended key usage"
    )]
    Purpose,
    /// Something in it can't be read.
    #[error("certificate {0} has an extension that can't be read: have it signed anew")]
    Extension(usize),
    /// One does not lead to the next.
    #[error(
        "certificate {0} was not signed by certificate {next}: after the client certificate put its \
         signer's certificate, then that one's signer's, and nothing else",
        next = .0 + 1
    )]
    Chain(usize),
}

/// Looks at an upload: PEM, the client certificate first, each followed by its signer. `held` are the
/// public keys (SHA-256) of open signing requests.
///
/// Whatever else the receiver's CA has written into it (names, any length of life) is its own decision.
/// A certificate that is its own signer is not looked for: it would take our key to make one.
/// Signatures are verified for RSA (PKCS#1 and PSS), ECDSA on P-256 and P-384 and Ed25519.
///
/// # Errors
/// [`UploadError`].
pub fn check_upload(pem: &str, held: &[[u8; 32]], now: Timestamp) -> Result<Uploaded, UploadError> {
    let ders = tls::certificates_from_pem(pem)?;
    if ders.len() > MAX_UPLOADED {
        return Err(UploadError::TooMany(ders.len()));
    }
    let mut certificates = Vec::with_capacity(ders.len());
    for (number, der) in (1..).zip(&ders) {
        let parsed = check::parse(der).ok_or(PemError::NotACertificate(number))?;
        certificates.push(parsed);
    }
    let Some(leaf) = certificates.first() else {
        return Err(PemError::NoCertificate.into());
    };
    let key = held_key(&certificates, leaf, held)?;
    let (not_before, not_after) = valid(leaf, now)?;
    usable(leaf)?;
    for (number, pair) in (1..).zip(certificates.windows(2)) {
        let [certificate, signer] = pair else {
            continue;
        };
        if !signer.is_ca() || !check::signed_by(certificate, signer) {
            return Err(UploadError::Chain(number));
        }
    }
    let root = |it: &X509Certificate<'_>| it.subject().as_raw() == it.issuer().as_raw();
    let presented = match certificates.last() {
        Some(last) if certificates.len() > 1 && root(last) => ders.len() - 1,
        _ => ders.len(),
    };
    let mut ders = ders.iter().take(presented).map(|der| der.to_vec());
    Ok(Uploaded {
        public_key_sha256: key,
        certificate: ders.next().unwrap_or_default(),
        chain: ders.collect(),
        serial: serial_text(leaf.raw_serial()),
        not_before,
        not_after,
    })
}

fn held_key(
    certificates: &[X509Certificate<'_>],
    leaf: &X509Certificate<'_>,
    held: &[[u8; 32]],
) -> Result<[u8; 32], UploadError> {
    let key = |certificate: &X509Certificate<'_>| sha256(certificate.public_key().raw);
    let found = key(leaf);
    if held.contains(&found) {
        return Ok(found);
    }
    if let Some(other) = certificates.iter().position(|it| held.contains(&key(it))) {
        return Err(UploadError::NotFirst(other + 1));
    }
    let held: Vec<String> = held.iter().map(|key| hex(key)).collect();
    Err(UploadError::UnknownKey {
        found: hex(&found),
        held: match held.as_slice() {
            [] => "there is none".to_owned(),
            keys => keys.join(", "),
        },
    })
}

fn valid(
    leaf: &X509Certificate<'_>,
    now: Timestamp,
) -> Result<(Timestamp, Timestamp), UploadError> {
    let validity = leaf.validity();
    let not_before = Timestamp::from_unix_seconds(validity.not_before.timestamp());
    let not_after = Timestamp::from_unix_seconds(validity.not_after.timestamp());
    if now < not_before {
        return Err(UploadError::NotYetValid(not_before, now));
    }
    if now >= not_after {
        return Err(UploadError::Expired(not_after));
    }
    Ok((not_before, not_after))
}

/// What receivers look at (RFC 5280 sections 4.2.1.3, 4.2.1.9 and 4.2.1.12): an extension that is not
/// there forbids nothing. `anyExtendedKeyUsage` is not enough: OpenSSL does not take it for clientAuth.
fn usable(leaf: &X509Certificate<'_>) -> Result<(), UploadError> {
    let unreadable = |_| UploadError::Extension(1);
    if leaf.is_ca() {
        return Err(UploadError::IsAuthority);
    }
    let usage = leaf.key_usage().map_err(unreadable)?;
    if usage.is_some_and(|usage| !usage.value.digital_signature()) {
        return Err(UploadError::KeyUsage);
    }
    let purposes = leaf.extended_key_usage().map_err(unreadable)?;
    if purposes.is_some_and(|purposes| !purposes.value.client_auth) {
        return Err(UploadError::Purpose);
    }
    Ok(())
}

#[cfg(test)]
mod tests;

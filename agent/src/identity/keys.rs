//! Keys of the agent's own: P-256, made here, and the signing request that proves possession.

use countersign_shared::secret::SecretBytes;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, SigningKey as _};
use rustls_pki_types::PrivatePkcs8KeyDer;

/// A new P-256 key: PKCS#8 in DER.
pub(super) fn generate() -> Result<SecretBytes, rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    Ok(SecretBytes::from(key.serialize_der()))
}

/// A certificate signing request (RFC 2986) in DER. Only its public key and its proof of possession
/// count, so its subject is empty.
pub(super) fn signing_request(private_key: &SecretBytes) -> Result<Vec<u8>, rcgen::Error> {
    let der = PrivatePkcs8KeyDer::from(private_key.expose());
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256)?;
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    Ok(parameters.serialize_request(&key)?.der().to_vec())
}

/// A signature by ECDSA P-256 with SHA-256, in DER.
pub(super) fn sign(private_key: &SecretBytes, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
    let der = PrivatePkcs8KeyDer::from(private_key.expose());
    KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256)?.sign(message)
}

#[cfg(test)]
mod tests {
    use rcgen::CertificateSigningRequestParams;

    use super::*;

    #[test]
    fn the_request_is_signed_by_its_key() {
        let request = signing_request(&generate().unwrap()).unwrap();
        // Parsing verifies the signature.
        CertificateSigningRequestParams::from_der(&request.into()).unwrap();
    }
}

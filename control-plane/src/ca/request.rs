//! Certificate signing requests (PKCS#10, RFC 2986): a public key and the proof that the sender has
//! the private one. Whatever else a request asks for is ignored; the profile decides.

use countersign_shared::digest::sha256;
use rcgen::{
    CertificateSigningRequestParams, PKCS_ECDSA_P256_SHA256, PublicKey, PublicKeyData as _,
};
use rustls_pki_types::CertificateSigningRequestDer;

use super::CaError;

/// Longest request that is looked at, in bytes.
const MAX_LENGTH: usize = 16 * 1024;

/// A request whose signature was verified.
#[derive(Debug)]
pub struct SigningRequest {
    pub(super) public_key: PublicKey,
    /// SHA-256 of the public key (SubjectPublicKeyInfo).
    pub public_key_sha256: [u8; 32],
}

/// Reads a request and verifies its proof of possession.
///
/// # Errors
/// [`CaError::Request`].
pub fn parse_request(der: &[u8]) -> Result<SigningRequest, CaError> {
    if der.len() > MAX_LENGTH {
        return Err(CaError::Request("it is longer than 16 KiB"));
    }
    let der = CertificateSigningRequestDer::from(der);
    let request = CertificateSigningRequestParams::from_der(&der).map_err(|error| match error {
        rcgen::Error::InvalidCertificationRequestSignature => {
            CaError::Request("its signature is not by the key in it")
        }
        rcgen::Error::UnsupportedExtension => {
            CaError::Request("it asks for an extension; send one without")
        }
        _ => CaError::Request("it is not PKCS#10 in DER"),
    })?;
    if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
        return Err(CaError::Request("its key must be ECDSA P-256 with SHA-256"));
    }
    let public_key_sha256 = sha256(&request.public_key.subject_public_key_info());
    Ok(SigningRequest {
        public_key: request.public_key,
        public_key_sha256,
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384};

    use super::*;

    fn request(key: &KeyPair) -> Vec<u8> {
        let params = CertificateParams::new(vec!["ignored.example".to_owned()]).unwrap();
        params.serialize_request(key).unwrap().der().to_vec()
    }

    #[test]
    fn only_a_p256_request_signed_by_its_own_key_is_taken() {
        let key = KeyPair::generate().unwrap();
        let good = request(&key);
        let parsed = parse_request(&good).unwrap();
        assert_eq!(
            parsed.public_key_sha256,
            sha256(&key.subject_public_key_info())
        );

        let mut forged = good.clone();
        // The last byte is the signature's.
        *forged.last_mut().unwrap() ^= 1;
        assert!(parse_request(&forged).is_err());
        for length in 0..good.len() {
            assert!(parse_request(&good[..length]).is_err(), "{length}");
        }
        let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let error = parse_request(&request(&p384)).unwrap_err().to_string();
        assert!(error.contains("P-256"), "{error}");
        assert!(parse_request(&vec![0; MAX_LENGTH + 1]).is_err());
    }
}

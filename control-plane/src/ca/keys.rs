//! Fresh key pairs.

use countersign_shared::{secret::SecretBytes, tasks};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, RsaKeySize};

use super::CaError;
use crate::model::KeyAlgorithm;

/// A fresh P-256 key pair and its secret form (PKCS#8 in DER).
pub(super) fn new_key() -> Result<(KeyPair, SecretBytes), CaError> {
    Ok(with_secret(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
}

/// A fresh ECDSA key pair and its secret form (PKCS#8 in DER).
pub(super) fn new_ecdsa_key(algorithm: KeyAlgorithm) -> Result<(KeyPair, SecretBytes), CaError> {
    match algorithm {
        KeyAlgorithm::EcdsaP256 => new_key(),
        KeyAlgorithm::EcdsaP384 => Ok(with_secret(KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?)),
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 => Err(CaError::KeyGeneration),
    }
}

/// A fresh key pair of a kind and its secret form (PKCS#8 in DER). The search for RSA's primes takes
/// up to seconds, so it does not hold up the other tasks.
pub(super) async fn new_key_of(algorithm: KeyAlgorithm) -> Result<(KeyPair, SecretBytes), CaError> {
    match algorithm {
        KeyAlgorithm::EcdsaP256 | KeyAlgorithm::EcdsaP384 => new_ecdsa_key(algorithm),
        KeyAlgorithm::Rsa2048 => new_rsa(RsaKeySize::_2048).await,
        KeyAlgorithm::Rsa3072 => new_rsa(RsaKeySize::_3072).await,
    }
}

async fn new_rsa(size: RsaKeySize) -> Result<(KeyPair, SecretBytes), CaError> {
    let generate = move || KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, size);
    let key = tasks::blocking(generate)
        .await
        .map_err(|_| CaError::KeyGeneration)?;
    Ok(with_secret(key?))
}

fn with_secret(key: KeyPair) -> (KeyPair, SecretBytes) {
    let secret = SecretBytes::from(key.serialize_der());
    (key, secret)
}

//! Sealing to a key that only the other end has: HPKE (RFC 9180) in base mode, with
//! DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and AES-256-GCM.
//!
//! An agent makes such a key for each session, in memory alone, and its identity key vouches for it. So
//! neither whoever stands between nor whoever has recorded the stream and later gets the agent's disk can
//! open what was sealed.

use std::fmt;

use rustls::crypto::{
    aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256 as SUITE,
    hpke::{EncapsulatedSecret, Hpke as _, HpkePrivateKey, HpkePublicKey},
};
use rustls_pki_types::CertificateDer;
use thiserror::Error;
use webpki::EndEntityCert;

use crate::{name::AgentName, secret::SecretBytes};

/// Length of a public key.
pub const PUBLIC_LENGTH: usize = 32;
/// What the key schedule is bound to.
const INFO: &[u8] = b"countersign hpke v1";
/// What begins the message in which an identity key vouches for a sealing key.
const VOUCHED: &[u8] = b"countersign sealing key v1\n";

/// Why something was not sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HpkeError {
    /// The key is none.
    #[error("is not an X25519 public key")]
    Key,
    /// It was altered, sealed to another key, or belongs to something else.
    #[error("does not open: it was altered, or sealed for another session or record")]
    DoesNotOpen,
    /// The signature is not the identity key's.
    #[error("is not vouched for by the agent's identity")]
    NotVouched,
}

/// Something sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The encapsulated key.
    pub encapsulated_key: Vec<u8>,
    /// Ciphertext and tag.
    pub ciphertext: Vec<u8>,
}

/// A key pair that things are sealed to.
pub struct RecipientKey {
    public: [u8; PUBLIC_LENGTH],
    private: HpkePrivateKey,
}

/// Without the private key.
impl fmt::Debug for RecipientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecipientKey").finish_non_exhaustive()
    }
}

impl RecipientKey {
    /// A new pair.
    ///
    /// # Errors
    /// [`HpkeError::Key`] when the provider makes none, which does not happen.
    pub fn generate() -> Result<Self, HpkeError> {
        let (public, private) = SUITE.generate_key_pair().map_err(|_| HpkeError::Key)?;
        let public = public.0.try_into().map_err(|_| HpkeError::Key)?;
        Ok(Self { public, private })
    }

    /// What others seal to.
    pub fn public(&self) -> &[u8; PUBLIC_LENGTH] {
        &self.public
    }

    /// Opens what was sealed to this key with the same `aad`.
    ///
    /// # Errors
    /// [`HpkeError::DoesNotOpen`].
    pub fn open(&self, sealed: &Sealed, aad: &[u8]) -> Result<SecretBytes, HpkeError> {
        let encapsulated = EncapsulatedSecret(sealed.encapsulated_key.clone());
        let opened = SUITE.open(&encapsulated, INFO, aad, &sealed.ciphertext, &self.private);
        opened
            .map(SecretBytes::from)
            .map_err(|_| HpkeError::DoesNotOpen)
    }
}

/// Seals to the holder of `public`; `aad` has to be given again to open it.
///
/// # Errors
/// [`HpkeError::Key`] when `public` is no key.
pub fn seal(
    public: &[u8; PUBLIC_LENGTH],
    aad: &[u8],
    plain: &SecretBytes,
) -> Result<Sealed, HpkeError> {
    let public = HpkePublicKey(public.to_vec());
    let sealed = SUITE.seal(INFO, aad, plain.expose(), &public);
    let (encapsulated, ciphertext) = sealed.map_err(|_| HpkeError::Key)?;
    Ok(Sealed {
        encapsulated_key: encapsulated.0,
        ciphertext,
    })
}

/// What an agent's identity key signs to vouch for a sealing key (ECDSA P-256 with SHA-256).
pub fn vouched(agent: &AgentName, public: &[u8; PUBLIC_LENGTH]) -> Vec<u8> {
    [VOUCHED, agent.to_string().as_bytes(), b"\n", public].concat()
}

/// The additional data of a released journal key.
pub fn journal_key_of(agent: &AgentName) -> Vec<u8> {
    format!("journal key of {agent}").into_bytes()
}

/// Checks that the key of `certificate` vouches for a sealing key of `agent`.
///
/// # Errors
/// [`HpkeError::Key`] when it has another length, [`HpkeError::NotVouched`].
pub fn check_vouched(
    agent: &AgentName,
    public: &[u8],
    signature: &[u8],
    certificate: &[u8],
) -> Result<[u8; PUBLIC_LENGTH], HpkeError> {
    let public: [u8; PUBLIC_LENGTH] = public.try_into().map_err(|_| HpkeError::Key)?;
    let certificate = CertificateDer::from(certificate);
    let certificate = EndEntityCert::try_from(&certificate).map_err(|_| HpkeError::NotVouched)?;
    let message = vouched(agent, &public);
    let algorithm = webpki::aws_lc_rs::ECDSA_P256_SHA256;
    let checked = certificate.verify_signature(algorithm, &message, signature);
    checked.map(|()| public).map_err(|_| HpkeError::NotVouched)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SigningKey as _};
    use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_128;

    use super::*;
    use crate::digest::unhex;

    /// RFC 9180 appendix A.1.1. It has no vectors for AES-256 with this KEM; the provider's code is the
    /// same for both lengths.
    #[test]
    fn the_provider_opens_what_the_rfc_has_sealed() {
        let bytes = |text: &str| unhex(text).unwrap();
        let private = "4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8";
        let private = HpkePrivateKey::from(bytes(private));
        let encapsulated = EncapsulatedSecret(bytes(
            "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431",
        ));
        let ciphertext = bytes(
            "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a",
        );
        let info = bytes("4f6465206f6e2061204772656369616e2055726e");
        let opened = DH_KEM_X25519_HKDF_SHA256_AES_128.open(
            &encapsulated,
            &info,
            b"Count-0",
            &ciphertext,
            &private,
        );
        assert_eq!(opened.unwrap(), b"Beauty is truth, truth beauty");
    }

    #[test]
    fn it_opens_for_its_key_and_record_alone() {
        let (mine, other) = (
            RecipientKey::generate().unwrap(),
            RecipientKey::generate().unwrap(),
        );
        let plain = SecretBytes::from(b"a private key of sorts".to_vec());
        let sealed = seal(mine.public(), b"record A", &plain).unwrap();
        assert_eq!(mine.open(&sealed, b"record A").unwrap(), plain);
        let fails = |key: &RecipientKey, sealed: &Sealed, aad: &[u8]| {
            assert_eq!(key.open(sealed, aad), Err(HpkeError::DoesNotOpen));
        };
        fails(&mine, &sealed, b"record B");
        fails(&other, &sealed, b"record A");
        for at in 0..sealed.ciphertext.len() {
            let mut flipped = sealed.clone();
            flipped.ciphertext[at] ^= 1;
            fails(&mine, &flipped, b"record A");
            let mut cut = sealed.clone();
            cut.ciphertext.truncate(at);
            fails(&mine, &cut, b"record A");
        }
        for at in 0..sealed.encapsulated_key.len() {
            let mut cut = sealed.clone();
            cut.encapsulated_key.truncate(at);
            fails(&mine, &cut, b"record A");
        }
        let again = seal(mine.public(), b"record A", &plain).unwrap();
        assert_ne!(again, sealed);
        assert!(!format!("{mine:?}").contains("private"));
    }

    #[test]
    fn only_the_identity_vouches_and_for_its_own_name() {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        let agent: AgentName = "agents/edge-1".parse().unwrap();
        let sealing = RecipientKey::generate().unwrap();
        let signature = key.sign(&vouched(&agent, sealing.public())).unwrap();
        let check = |agent: &AgentName, public: &[u8], signature: &[u8]| {
            check_vouched(agent, public, signature, certificate.der())
        };
        let good = check(&agent, sealing.public(), &signature);
        assert_eq!(good.unwrap(), *sealing.public());
        let other: AgentName = "agents/edge-2".parse().unwrap();
        let refused = Err(HpkeError::NotVouched);
        assert_eq!(check(&other, sealing.public(), &signature), refused);
        let swapped = RecipientKey::generate().unwrap();
        assert_eq!(check(&agent, swapped.public(), &signature), refused);
        assert_eq!(check(&agent, sealing.public(), b""), refused);
        assert_eq!(check(&agent, b"short", &signature), Err(HpkeError::Key));
    }
}

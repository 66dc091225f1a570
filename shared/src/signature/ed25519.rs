//! Scheme `v1a` of Standard Webhooks: Ed25519 (RFC 8032). Only the sender can make these signatures;
//! receivers hold a public key and no secret.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::{
    SignatureScheme,
    crypto::aws_lc_rs::{default_provider, sign::any_eddsa_type},
    sign,
};
use rustls_pki_types::{PrivatePkcs8KeyDer, alg_id};
use zeroize::Zeroizing;

use crate::{random, secret::SecretBytes, time::Timestamp};

/// Length of a seed, from which the key pair follows (RFC 8032 section 5.1.5).
pub const SEED_LENGTH: usize = 32;
/// Length of a public key.
pub const PUBLIC_LENGTH: usize = 32;

const PUBLIC_PREFIX: &str = "whpk_";
/// PKCS#8 of an Ed25519 key (RFC 8410 section 7), up to the seed.
const PKCS8_HEAD: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// A new random seed, and the pair that follows from it.
pub fn generate() -> (SecretBytes, SigningKey) {
    let seed = random::secret::<SEED_LENGTH>();
    #[allow(clippy::expect_used)] // every seed of this length makes a pair (RFC 8032 section 5.1.5)
    let key = SigningKey::from_seed(&seed).expect("a pair");
    (seed, key)
}

/// A key pair.
pub struct SigningKey {
    signer: Arc<dyn sign::SigningKey>,
    public: [u8; PUBLIC_LENGTH],
}

impl SigningKey {
    /// The pair that follows from `seed`; `None` when that has not 32 bytes.
    pub fn from_seed(seed: &SecretBytes) -> Option<Self> {
        if seed.len() != SEED_LENGTH {
            return None;
        }
        let pkcs8 = Zeroizing::new([PKCS8_HEAD.as_slice(), seed.expose()].concat());
        let signer = any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8.as_slice())).ok()?;
        // SubjectPublicKeyInfo of RFC 8410 section 4 ends with the key.
        let public = *signer.public_key()?.last_chunk()?;
        Some(Self { signer, public })
    }

    /// What receivers verify with.
    pub fn public(&self) -> &[u8; PUBLIC_LENGTH] {
        &self.public
    }

    /// A signature (RFC 8032) over any message; `None` when the provider refuses, which it does not.
    pub fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let signer = self.signer.choose_scheme(&[SignatureScheme::ED25519])?;
        signer.sign(message).ok()
    }
}

/// Whether `signature` (RFC 8032) over `message` is by the key pair with this public half.
pub fn verify(public: &[u8; PUBLIC_LENGTH], message: &[u8], signature: &[u8]) -> bool {
    let all = default_provider().signature_verification_algorithms.all;
    let ed25519 = all
        .iter()
        .find(|it| it.signature_alg_id() == alg_id::ED25519);
    ed25519.is_some_and(|it| it.verify_signature(public, message, signature).is_ok())
}

/// Without the private key.
impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&public_to_text(&self.public))
    }
}

/// The text form that receivers give to their libraries: `whpk_` and base64.
pub fn public_to_text(public: &[u8; PUBLIC_LENGTH]) -> String {
    format!("{PUBLIC_PREFIX}{}", STANDARD.encode(public))
}

/// One `v1a` signature for each key, in order and with spaces between, of what scheme `v1` signs, too.
/// A key that can't sign, which none does, is left out.
pub fn sign_v1a<'a>(
    keys: impl IntoIterator<Item = &'a SigningKey>,
    id: &str,
    at: Timestamp,
    body: &[u8],
) -> String {
    let head = format!("{id}.{}.", at.as_unix_seconds());
    let message = [head.as_bytes(), body].concat();
    let signatures = keys.into_iter().filter_map(|key| key.sign(&message));
    let texts = signatures.map(|signature| format!("v1a,{}", STANDARD.encode(signature)));
    texts.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::unhex;

    /// RFC 8032 section 7.1, tests 1 and 3.
    #[test]
    fn it_agrees_with_the_rfc() {
        for (seed, public, message, signature) in [
            (
                "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                "",
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc6\
                 1e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
            ),
            (
                "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
                "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
                "af82",
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae\
                 67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
            ),
        ] {
            let bytes = |text: &str| unhex(text).unwrap();
            let key = SigningKey::from_seed(&SecretBytes::from(bytes(seed))).unwrap();
            assert_eq!(key.public().as_slice(), bytes(public));
            assert_eq!(key.sign(&bytes(message)).unwrap(), bytes(signature));
        }
    }

    #[test]
    fn each_key_signs_what_the_other_scheme_signs() {
        let keys = [generate().1, generate().1];
        let at = Timestamp::from_unix_seconds(1_700_000_000);
        let header = sign_v1a(&keys, "msg_1", at, b"body\xff");
        for (key, text) in keys.iter().zip(header.split(' ')) {
            let signature = STANDARD.decode(text.strip_prefix("v1a,").unwrap()).unwrap();
            assert_eq!(key.sign(b"msg_1.1700000000.body\xff").unwrap(), signature);
        }
        assert_eq!(header.split(' ').count(), 2);
        assert!(public_to_text(keys[0].public()).starts_with("whpk_"));
        assert!(SigningKey::from_seed(&SecretBytes::from(vec![0; 31])).is_none());
        assert!(!format!("{:?}", keys[0]).contains("seed"));
    }
}

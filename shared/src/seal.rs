//! Authenticated encryption of things at rest: AES-256-GCM (NIST SP 800-38D) with the record's
//! identity as associated data, so that one record's blob can't be passed off as another's.
//!
//! Layout of a sealed blob: 12 bytes nonce, then ciphertext, then 16 bytes tag.
//!
//! Secrets are sealed by RustCrypto's `aes-gcm`, which wipes what it made of a key; deliveries' content, of which there
//! is far more and each has a key of its own, by AWS-LC (`records`). What one seals, the other opens.

mod records;

use aes_gcm::{
    Aes256Gcm, KeyInit as _,
    aead::{Aead as _, AeadInOut as _, Payload},
};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use thiserror::Error;

use crate::{random, secret::SecretBytes};

pub use self::records::{RecordKey, RecordKeys};

/// Length of a sealing key in bytes.
pub const KEY_LENGTH: usize = 32;
/// How much longer a sealed blob is than what it holds.
pub const OVERHEAD: usize = NONCE_LENGTH + TAG_LENGTH;
const NONCE_LENGTH: usize = 12;
const TAG_LENGTH: usize = 16;

/// Why something could not be sealed or opened.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum SealError {
    /// The key has not 32 bytes.
    #[error("a sealing key has {KEY_LENGTH} bytes, not {0}")]
    KeyLength(usize),
    /// More than AES-GCM can take under one nonce (64 GiB).
    #[error("too large to seal")]
    TooLarge,
    /// Wrong key, wrong record, or altered.
    #[error("does not open: wrong key, another record's content, or altered")]
    DoesNotOpen,
}

/// A 256-bit key that seals and opens.
///
/// Nonces are random, so one key should seal fewer than 2^32 blobs (SP 800-38D section 8.3). Where
/// there may be more, derive a key per record with [`SealingKey::derive`].
pub struct SealingKey {
    raw: SecretBytes,
    cipher: Aes256Gcm,
}

impl SealingKey {
    /// A new random key.
    pub fn generate() -> Self {
        let raw = random::secret::<KEY_LENGTH>();
        let cipher = cipher(&raw);
        Self { raw, cipher }
    }

    /// From 32 bytes.
    ///
    /// # Errors
    /// [`SealError::KeyLength`].
    pub fn from_bytes(raw: SecretBytes) -> Result<Self, SealError> {
        if raw.len() != KEY_LENGTH {
            return Err(SealError::KeyLength(raw.len()));
        }
        let cipher = cipher(&raw);
        Ok(Self { raw, cipher })
    }

    /// The key itself, to be wrapped under another.
    pub fn expose(&self) -> &SecretBytes {
        &self.raw
    }

    /// A key for one purpose: HKDF-Expand (RFC 5869 section 2.3) of one block with `purpose` as info.
    #[must_use]
    pub fn derive(&self, purpose: &[u8]) -> Self {
        let mut mac = self.expander();
        mac.update(purpose);
        mac.update(&[1]);
        let raw = SecretBytes::from(mac.finalize().into_bytes().to_vec());
        let cipher = cipher(&raw);
        Self { raw, cipher }
    }

    /// What derives, before it has been told the purpose.
    #[allow(clippy::expect_used)] // HMAC takes keys of every length
    fn expander(&self) -> Hmac<Sha256> {
        hmac::KeyInit::new_from_slice(self.raw.expose()).expect("any length")
    }

    /// Encrypts `plaintext`, bound to `identity`.
    ///
    /// # Errors
    /// [`SealError::TooLarge`].
    pub fn seal(&self, plaintext: &[u8], identity: &[u8]) -> Result<Vec<u8>, SealError> {
        let nonce = random::unique::<NONCE_LENGTH>();
        // In one piece of memory.
        let mut blob = Vec::with_capacity(plaintext.len() + OVERHEAD);
        blob.extend_from_slice(&nonce);
        blob.extend_from_slice(plaintext);
        let (_, message) = blob.split_at_mut(NONCE_LENGTH);
        let tag = self
            .cipher
            .encrypt_inout_detached(&nonce.into(), identity, message.into())
            .map_err(|_| SealError::TooLarge)?;
        blob.extend_from_slice(&tag);
        Ok(blob)
    }

    /// Decrypts what [`SealingKey::seal`] made for the same `identity`.
    ///
    /// # Errors
    /// [`SealError::DoesNotOpen`].
    pub fn open(&self, blob: &[u8], identity: &[u8]) -> Result<SecretBytes, SealError> {
        let (nonce, sealed) = blob
            .split_first_chunk::<NONCE_LENGTH>()
            .ok_or(SealError::DoesNotOpen)?;
        self.cipher
            .decrypt(
                &(*nonce).into(),
                Payload {
                    msg: sealed,
                    aad: identity,
                },
            )
            .map(SecretBytes::from)
            .map_err(|_| SealError::DoesNotOpen)
    }
}

#[allow(clippy::expect_used)] // every caller has checked or made the length
fn cipher(raw: &SecretBytes) -> Aes256Gcm {
    Aes256Gcm::new_from_slice(raw.expose()).expect("32 bytes")
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[sealing key]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_and_record_open() {
        let key = SealingKey::generate();
        let blob = key.seal(b"private", b"accounts/a/key").unwrap();
        assert_eq!(blob.len(), 7 + OVERHEAD);
        assert_eq!(
            key.open(&blob, b"accounts/a/key").unwrap().expose(),
            b"private"
        );
        assert_eq!(
            key.open(&blob, b"accounts/b/key"),
            Err(SealError::DoesNotOpen)
        );
        assert_eq!(
            SealingKey::generate().open(&blob, b"accounts/a/key"),
            Err(SealError::DoesNotOpen)
        );
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_noticed() {
        let key = SealingKey::generate();
        let blob = key.seal(b"private", b"id").unwrap();
        for bit in 0..blob.len() * 8 {
            let mut altered = blob.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(key.open(&altered, b"id").is_err(), "bit {bit}");
        }
        for length in 0..blob.len() {
            assert!(key.open(&blob[..length], b"id").is_err(), "length {length}");
        }
    }

    #[test]
    fn derived_keys_differ_by_purpose_and_are_stable() {
        let key = SealingKey::generate();
        let blob = key.derive(b"one").seal(b"x", b"").unwrap();
        assert!(key.derive(b"one").open(&blob, b"").is_ok());
        assert!(key.derive(b"two").open(&blob, b"").is_err());
    }

    #[test]
    fn two_seals_of_the_same_differ() {
        let key = SealingKey::generate();
        assert_ne!(key.seal(b"x", b"").unwrap(), key.seal(b"x", b"").unwrap());
    }
}

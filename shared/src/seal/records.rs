//! Sealing many records, each under a key of its own that follows from one key: AES-256-GCM by AWS-LC, which takes half
//! of the time that `aes-gcm` does for a kilobyte, the key included. The keys are those of [`SealingKey::derive`], the layout is
//! that of [`SealingKey::seal`].

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{KEY_LENGTH, NONCE_LENGTH, OVERHEAD, SealError, SealingKey, TAG_LENGTH};
use crate::random;

/// Derives the keys of records.
pub struct RecordKeys {
    /// Told the key once and for all: half of a derivation's work. Wiped when it is dropped (`zeroize` of `hmac`).
    expander: Hmac<Sha256>,
}

impl RecordKeys {
    /// Those that follow from `key`.
    pub fn of(key: &SealingKey) -> Self {
        Self {
            expander: key.expander(),
        }
    }

    /// The key of one record: what [`SealingKey::derive`] gives for the purpose `record`.
    ///
    /// # Errors
    /// None in practice: [`SealError::KeyLength`] is what a key of another length would have.
    pub fn key(&self, record: &[u8]) -> Result<RecordKey, SealError> {
        let mut expander = self.expander.clone();
        expander.update(record);
        expander.update(&[1]);
        let raw: [u8; KEY_LENGTH] = expander.finalize().into_bytes().into();
        RecordKey::from_bytes(&Zeroizing::new(raw))
    }
}

impl std::fmt::Debug for RecordKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[record keys]")
    }
}

/// Seals and opens one record.
pub struct RecordKey(LessSafeKey);

impl RecordKey {
    /// From 32 bytes.
    ///
    /// # Errors
    /// [`SealError::KeyLength`].
    pub fn from_bytes(raw: &[u8; KEY_LENGTH]) -> Result<Self, SealError> {
        let key = UnboundKey::new(&AES_256_GCM, raw.as_slice());
        let key = key.map_err(|_| SealError::KeyLength(raw.len()))?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// Encrypts what lies in several pieces, as if they were one, bound to `identity`.
    ///
    /// # Errors
    /// [`SealError::TooLarge`].
    pub fn seal(&self, parts: &[&[u8]], identity: &[u8]) -> Result<Vec<u8>, SealError> {
        let nonce = random::unique::<NONCE_LENGTH>();
        // In one piece of memory: records are many, and can be large.
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let mut blob = Vec::with_capacity(length + OVERHEAD);
        blob.extend_from_slice(&nonce);
        for part in parts {
            blob.extend_from_slice(part);
        }
        let (_, message) = blob.split_at_mut(NONCE_LENGTH);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::from(identity), message)
            .map_err(|_| SealError::TooLarge)?;
        blob.extend_from_slice(tag.as_ref());
        Ok(blob)
    }

    /// Decrypts, in the blob's own memory, for what is no secret once it is open: nothing overwrites it later.
    ///
    /// # Errors
    /// [`SealError::DoesNotOpen`].
    pub fn open_in_place(&self, mut blob: Vec<u8>, identity: &[u8]) -> Result<Bytes, SealError> {
        let end = blob.len().checked_sub(TAG_LENGTH);
        let end = end.filter(|end| *end >= NONCE_LENGTH);
        let end = end.ok_or(SealError::DoesNotOpen)?;
        let (nonce, sealed) = blob.split_at_mut(NONCE_LENGTH);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::DoesNotOpen)?;
        self.0
            .open_in_place(nonce, Aad::from(identity), sealed)
            .map_err(|_| SealError::DoesNotOpen)?;
        Ok(Bytes::from(blob).slice(NONCE_LENGTH..end))
    }
}

impl std::fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[record key]")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::secret::SecretBytes;

    fn keys() -> (SealingKey, RecordKeys) {
        let key = SealingKey::from_bytes(SecretBytes::from(vec![7; KEY_LENGTH])).unwrap();
        let keys = RecordKeys::of(&key);
        (key, keys)
    }

    proptest! {
        #[test]
        fn either_implementation_opens_what_the_other_sealed(
            content in prop::collection::vec(any::<u8>(), 0..3000),
            cut in any::<prop::sample::Index>(),
            record in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let (key, keys) = keys();
            let (one, other) = content.split_at(cut.index(content.len() + 1));
            let sealed = keys.key(&record).unwrap().seal(&[one, other], &record).unwrap();
            prop_assert_eq!(sealed.len(), content.len() + OVERHEAD);
            let opened = key.derive(&record).open(&sealed, &record).unwrap();
            prop_assert_eq!(opened.expose(), content.as_slice());
            let sealed = key.derive(&record).seal(&content, &record).unwrap();
            let opened = keys.key(&record).unwrap().open_in_place(sealed, &record);
            prop_assert_eq!(opened.unwrap(), content);
        }
    }

    #[test]
    fn only_the_same_record_opens_and_only_unaltered() {
        let (_, keys) = keys();
        let key = keys.key(b"one").unwrap();
        let blob = key.seal(&[b"private"], b"one").unwrap();
        let closed = Err(SealError::DoesNotOpen);
        assert_eq!(key.open_in_place(blob.clone(), b"two"), closed);
        let other = keys.key(b"two").unwrap();
        assert_eq!(other.open_in_place(blob.clone(), b"one"), closed);
        for bit in 0..blob.len() * 8 {
            let mut altered = blob.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.open_in_place(altered, b"one"), closed, "bit {bit}");
        }
        for length in 0..blob.len() {
            let cut = blob[..length].to_vec();
            assert_eq!(key.open_in_place(cut, b"one"), closed, "length {length}");
        }
        assert_eq!(key.open_in_place(blob, b"one").unwrap(), "private");
    }

    #[test]
    fn no_two_blobs_are_alike() {
        let (_, keys) = keys();
        let key = keys.key(b"one").unwrap();
        assert_ne!(key.seal(&[b"x"], b""), key.seal(&[b"x"], b""));
    }
}

//! The KEK in a hardware security module: data keys are wrapped with AES-GCM inside the token
//! (`CKM_AES_GCM`, PKCS #11 v2.40 section 2.12.4).
//!
//! A blob is one byte of version, the nonce and what the token answers. Calls block, so they run on
//! threads for such work: there is one for each data key and start, not for each delivery.

use std::sync::Arc;

use async_trait::async_trait;
use countersign_shared::{
    digest::{hex, sha256},
    random,
    seal::SealError,
    secret::SecretBytes,
    tasks,
};
use cryptoki::mechanism::{Mechanism, aead::GcmParams};

use super::{KekError, KekProvider, try_out, whose_fault};
use crate::{
    model::TokenKey,
    pkcs11::{Kind, Token, TokenError},
};

const VERSION: u8 = 1;
/// Bytes of a nonce (NIST SP 800-38D section 5.2.1.1), and bits of a tag.
const NONCE: usize = 12;
const TAG_BITS: u64 = 128;

/// A KEK in a token.
#[derive(Debug)]
pub struct Pkcs11Kek {
    token: Arc<Token>,
    id: String,
}

impl Pkcs11Kek {
    /// Finds the key.
    ///
    /// # Errors
    /// [`KekError::Token`], which says what to do.
    pub async fn open(settings: TokenKey) -> Result<Self, KekError> {
        on_a_thread(move || {
            let token = Token::open(settings, Kind::Aes)?;
            let identity = token.with(|open| Ok(open.identity.clone()))?;
            let id = hex(&sha256(&[b"pkcs11".as_slice(), &identity].join(&0))[..8]);
            let token = Arc::new(token);
            Ok(Self { token, id })
        })
        .await
    }
}

#[async_trait]
impl KekProvider for Pkcs11Kek {
    fn id(&self) -> &str {
        &self.id
    }

    async fn wrap(&self, key: &SecretBytes, context: &str) -> Result<Vec<u8>, KekError> {
        let key = SecretBytes::from(key.expose().to_vec());
        let (token, context) = (Arc::clone(&self.token), context.to_owned());
        on_a_thread(move || {
            let mut nonce = random::bytes::<NONCE>();
            let sealed = token.with(|open| {
                let gcm = GcmParams::new(&mut nonce, context.as_bytes(), TAG_BITS.into())?;
                let mechanism = Mechanism::AesGcm(gcm);
                open.session.encrypt(&mechanism, open.key()?, key.expose())
            })?;
            Ok([[VERSION].as_slice(), &nonce, &sealed].concat())
        })
        .await
    }

    async fn unwrap(&self, wrapped: &[u8], purpose: &str) -> Result<SecretBytes, KekError> {
        let foreign = SealError::DoesNotOpen;
        let (version, rest) = wrapped.split_first().ok_or(foreign)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE>().ok_or(foreign)?;
        if *version != VERSION {
            return Err(foreign.into());
        }
        let (token, context) = (Arc::clone(&self.token), purpose.to_owned());
        let (mut nonce, sealed) = (*nonce, sealed.to_vec());
        let plain = on_a_thread(move || {
            token.with(|open| {
                let gcm = GcmParams::new(&mut nonce, context.as_bytes(), TAG_BITS.into())?;
                let mechanism = Mechanism::AesGcm(gcm);
                let plain = open.session.decrypt(&mechanism, open.key()?, &sealed)?;
                Ok(SecretBytes::from(plain))
            })
        })
        .await;
        match plain {
            Err(error) => Err(whose_fault(self, purpose, error).await),
            plain => plain,
        }
    }

    async fn check(&self) -> Result<(), KekError> {
        try_out(self).await
    }
}

async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TokenError> + Send + 'static,
) -> Result<T, KekError> {
    let done = tasks::blocking(work).await;
    let ended = |error| TokenError::Failed(format!("the call to the token ended: {error}"));
    Ok(done.map_err(ended)??)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pkcs11::testing::{in_a_process_of_its_own, log_out, make_token, settings};

    #[test]
    fn it_wraps_for_one_purpose_and_again_after_its_session_was_ended() {
        in_a_process_of_its_own(
            "kek::pkcs11::tests::it_wraps_for_one_purpose_and_again_after_its_session_was_ended",
            wraps(),
        );
    }

    async fn wraps() {
        let module = make_token(&[("kek", false), ("other", false)], &[]);
        let kek = Pkcs11Kek::open(settings("kek")).await.unwrap();
        let again = Pkcs11Kek::open(settings("kek")).await.unwrap();
        let other = Pkcs11Kek::open(settings("other")).await.unwrap();
        assert_eq!(kek.id(), again.id());
        assert_ne!(kek.id(), other.id());
        let key = SecretBytes::from(vec![7; 32]);
        let wrapped = kek.wrap(&key, "accounts/a").await.unwrap();
        let twice = kek.wrap(&key, "accounts/a").await.unwrap();
        assert_ne!(wrapped, twice, "nonces differ");
        assert!(!wrapped.windows(8).any(|some| some == [7; 8]));
        assert_eq!(again.unwrap(&wrapped, "accounts/a").await.unwrap(), key);

        assert!(kek.unwrap(&wrapped, "accounts/b").await.is_err());
        assert!(other.unwrap(&wrapped, "accounts/a").await.is_err());
        for length in 0..wrapped.len() {
            let cut = kek.unwrap(&wrapped[..length], "accounts/a").await;
            assert!(cut.is_err(), "{length}");
        }
        for at in 0..wrapped.len() {
            let mut flipped = wrapped.clone();
            flipped[at] ^= 1;
            let opened = kek.unwrap(&flipped, "accounts/a").await;
            assert!(opened.is_err(), "{at}");
        }
        let after_all = kek.unwrap(&wrapped, "accounts/a").await;
        assert_eq!(after_all.unwrap(), key);

        log_out(&module);
        let after_that = kek.unwrap(&wrapped, "accounts/a").await;
        assert_eq!(after_that.unwrap(), key);
    }
}

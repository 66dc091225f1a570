//! What an authority signs with: a key that is opened for as long as the process needs it, or one that
//! stays in a hardware security module.

use std::sync::Arc;

use countersign_shared::secret::SecretBytes;
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PublicKeyData, SignatureAlgorithm,
    SigningKey,
};
use rustls_pki_types::PrivatePkcs8KeyDer;

use super::{CaError, check};
use crate::{
    model::Authority,
    pkcs11::{Curve, TokenSigner},
};

/// In the place of a key that is in a token; the public key (SubjectPublicKeyInfo) follows.
const IN_TOKEN: &[u8] = b"countersign-in-token-v1:";

/// What an authority signs with.
#[derive(Debug)]
pub enum AuthorityKey {
    /// A key in memory.
    Held(KeyPair),
    /// A key in a token. Signing blocks for as long as the token takes; only the root's is there, which
    /// signs when an authority is made.
    Token(Arc<TokenSigner>),
}

impl AuthorityKey {
    /// The key that is stored with `authority`.
    ///
    /// # Errors
    /// [`CaError::InToken`] when it is in a token; [`CaError::Sign`] when it does not parse.
    pub(super) fn held(authority: &Authority, secret: &SecretBytes) -> Result<Self, CaError> {
        if secret.expose().starts_with(IN_TOKEN) {
            return Err(CaError::InToken(authority.owner.clone()));
        }
        // P-256 or P-384: the key itself says which.
        let key = PrivatePkcs8KeyDer::from(secret.expose());
        Ok(Self::Held(KeyPair::try_from(&key)?))
    }

    /// The key in a token, if it is the one that `authority` was made with.
    ///
    /// # Errors
    /// [`CaError::NotInToken`], [`CaError::OtherKey`].
    pub(super) fn in_token(
        authority: &Authority,
        secret: &SecretBytes,
        signer: Arc<TokenSigner>,
    ) -> Result<Self, CaError> {
        if !secret.expose().starts_with(IN_TOKEN) {
            return Err(CaError::NotInToken(authority.owner.clone()));
        }
        let key = Self::Token(signer);
        let anchor = check::parse(&authority.anchor);
        let same = anchor.is_some_and(|it| it.public_key().raw == key.subject_public_key_info());
        if same {
            return Ok(key);
        }
        Err(CaError::OtherKey(authority.owner.clone()))
    }

    /// What is stored of it.
    pub(super) fn secret(&self) -> SecretBytes {
        match self {
            Self::Held(key) => SecretBytes::from(key.serialize_der()),
            Self::Token(_) => {
                SecretBytes::from([IN_TOKEN, &self.subject_public_key_info()].concat())
            }
        }
    }
}

impl PublicKeyData for AuthorityKey {
    fn der_bytes(&self) -> &[u8] {
        match self {
            Self::Held(key) => key.der_bytes(),
            Self::Token(signer) => signer.point(),
        }
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self {
            Self::Held(key) => key.algorithm(),
            Self::Token(signer) => match signer.curve() {
                Curve::P256 => &PKCS_ECDSA_P256_SHA256,
                Curve::P384 => &PKCS_ECDSA_P384_SHA384,
            },
        }
    }
}

impl SigningKey for AuthorityKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        match self {
            Self::Held(key) => key.sign(message),
            Self::Token(signer) => signer.sign(message).map_err(|error| {
                // What is passed on has no room for it.
                tracing::error!(%error, "an authority's key does not sign");
                rcgen::Error::RemoteKeyError
            }),
        }
    }
}

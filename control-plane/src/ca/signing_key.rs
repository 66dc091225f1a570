//! What an authority signs with: a key that is opened for as long as the process needs it, or one that
//! stays in a hardware security module.

use std::sync::Arc;

use countersign_shared::{secret::SecretBytes, tasks};
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PublicKeyData, SignatureAlgorithm,
    SigningKey,
};
use rustls_pki_types::PrivatePkcs8KeyDer;

use super::{CaError, check};
use crate::{
    model::{Authority, AuthorityOwner, KeyAlgorithm},
    pkcs11::{Curve, TokenKeys, TokenSigner},
};

/// In the place of a key that is in a token; the public key (SubjectPublicKeyInfo) follows.
const IN_TOKEN: &[u8] = b"countersign-in-token-v1:";
/// Where that token is configured.
const ROOT_TOKEN: &str = "certificates.root_token";
const AUTHORITY_TOKEN: &str = "certificates.authority_token";

/// The key pair's public half, of an authority whose key can be in a token.
pub(super) fn public_half(authority: &Authority) -> Option<(Curve, Vec<u8>)> {
    let anchor = check::parse(&authority.anchor)?;
    let key = anchor.public_key();
    let curve = match check::key_algorithm(key)? {
        KeyAlgorithm::EcdsaP256 => Curve::P256,
        KeyAlgorithm::EcdsaP384 => Curve::P384,
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 => return None,
    };
    Some((curve, key.subject_public_key.data.to_vec()))
}

/// What an authority signs with.
#[derive(Debug)]
pub enum AuthorityKey {
    /// A key in memory.
    Held(KeyPair),
    /// A key in a token.
    Token(Arc<TokenSigner>),
}

impl AuthorityKey {
    /// The key that is stored with `authority`, or the one in `keys` that it was made with there.
    ///
    /// # Errors
    /// [`CaError::InToken`] when it is in a token that is not configured; [`CaError::Sign`] when it does not parse.
    pub(super) fn stored(
        authority: &Authority,
        secret: &SecretBytes,
        keys: Option<&Arc<TokenKeys>>,
    ) -> Result<Self, CaError> {
        if secret.expose().starts_with(IN_TOKEN) {
            let (owner, setting) = match authority.owner {
                AuthorityOwner::Root => {
                    return Err(CaError::InToken(AuthorityOwner::Root, ROOT_TOKEN));
                }
                ref other => (other.clone(), AUTHORITY_TOKEN),
            };
            let keys = keys.ok_or(CaError::InToken(owner, setting))?;
            let (curve, point) =
                public_half(authority).ok_or(CaError::Profile("the key's kind"))?;
            return Ok(Self::Token(Arc::new(keys.signer(curve, point))));
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
            // It takes as long as the token takes.
            Self::Token(signer) => tasks::in_place(|| signer.sign(message)).map_err(|error| {
                // What is passed on has no room for it.
                tracing::error!(%error, "an authority's key does not sign");
                rcgen::Error::RemoteKeyError
            }),
        }
    }
}

//! An authority that can sign: its certificate, and its key opened for as long as this lives.

use std::sync::Arc;

use countersign_shared::{random, secret::SecretBytes, time::Timestamp};
use rcgen::{Issuer, PublicKeyData};
use rustls_pki_types::CertificateDer;

use super::{AuthorityKey, CaError, check, profile::Contents};
use crate::{
    model::{Authority, AuthorityOwner, AuthorityState, Serial},
    pkcs11::TokenSigner,
    store::{CertificateStore, InstallationStore, Store},
    vault::{INSTALLATION, Record, Vault},
};

/// An authority that can sign.
#[derive(Debug)]
pub struct SigningAuthority {
    /// What is stored of it.
    pub authority: Authority,
    pub(super) issuer: Issuer<'static, AuthorityKey>,
}

impl SigningAuthority {
    /// Opens an authority's key.
    ///
    /// # Errors
    /// [`CaError`] when the key does not open or does not parse.
    pub async fn open(
        authority: Authority,
        store: &dyn InstallationStore,
        vault: &Vault,
    ) -> Result<Self, CaError> {
        let secret = secret(&authority, store, vault).await?;
        let key = AuthorityKey::stored(&authority, &secret, vault.authority_keys())?;
        Self::with_key(authority, key)
    }

    /// The root, opened; `None` when there is none. `token` is the key in a token if that is where it
    /// has to be.
    ///
    /// # Errors
    /// [`CaError`]; [`CaError::InToken`], [`CaError::NotInToken`] and [`CaError::OtherKey`] when the
    /// key is elsewhere.
    pub async fn root(
        store: &dyn Store,
        vault: &Vault,
        token: Option<Arc<TokenSigner>>,
    ) -> Result<Option<Self>, CaError> {
        let Some(newest) = store.authorities(&AuthorityOwner::Root).await?.pop() else {
            return Ok(None);
        };
        let Some(signer) = token else {
            return Ok(Some(Self::open(newest, store, vault).await?));
        };
        let secret = secret(&newest, store, vault).await?;
        let key = AuthorityKey::in_token(&newest, &secret, signer)?;
        Ok(Some(Self::with_key(newest, key)?))
    }

    /// The newest generation of `owner`, opened; `None` when there is none.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn newest(
        owner: &AuthorityOwner,
        store: &dyn Store,
        vault: &Vault,
    ) -> Result<Option<Self>, CaError> {
        let Some(newest) = store.authorities(owner).await?.pop() else {
            return Ok(None);
        };
        Ok(Some(Self::open(newest, store, vault).await?))
    }

    /// The generation of `owner` that signs new client certificates, opened; `None` when there is none.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn active(
        owner: &AuthorityOwner,
        store: &dyn Store,
        vault: &Vault,
    ) -> Result<Option<Self>, CaError> {
        let mut found = store.authorities(owner).await?;
        found.retain(|authority| authority.state == AuthorityState::Active);
        let Some(active) = found.pop() else {
            return Ok(None);
        };
        Ok(Some(Self::open(active, store, vault).await?))
    }

    /// One generation of `owner`, opened; `None` when there is no such.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn generation(
        owner: &AuthorityOwner,
        generation: u32,
        store: &dyn Store,
        vault: &Vault,
    ) -> Result<Option<Self>, CaError> {
        let mut found = store.authorities(owner).await?.into_iter();
        let Some(found) = found.find(|authority| authority.generation == generation) else {
            return Ok(None);
        };
        Ok(Some(Self::open(found, store, vault).await?))
    }

    pub(super) fn with_key(authority: Authority, key: AuthorityKey) -> Result<Self, CaError> {
        let anchor = CertificateDer::from(authority.anchor.as_slice());
        let issuer = Issuer::from_ca_cert_der(&anchor, key)?;
        Ok(Self { authority, issuer })
    }

    /// Signs, and checks the result against what it is to be.
    pub(super) fn sign(
        &self,
        contents: &Contents,
        public_key: &impl PublicKeyData,
    ) -> Result<Vec<u8>, CaError> {
        let signed = contents.params()?.signed_by(public_key, &self.issuer)?;
        let public_key = public_key.subject_public_key_info();
        check::certificate(signed.der(), contents, &public_key, &self.authority.anchor)?;
        Ok(signed.der().to_vec())
    }
}

/// What is stored as an authority's key.
async fn secret(
    authority: &Authority,
    store: &dyn InstallationStore,
    vault: &Vault,
) -> Result<SecretBytes, CaError> {
    let scope = match &authority.owner {
        AuthorityOwner::Account(account) => account.to_string(),
        _ => INSTALLATION.to_owned(),
    };
    let scope = vault.scope(store, &scope).await?;
    let record = Record::AuthorityKey(&authority.owner, authority.generation);
    Ok(scope.open(&authority.sealed_key, &record)?)
}

/// Makes serial numbers and records them: no number is signed that is not on record.
pub(super) async fn new_serials<const N: usize>(
    store: &dyn CertificateStore,
    now: Timestamp,
) -> Result<[Serial; N], CaError> {
    let serials = std::array::from_fn(|_| Serial::from_random(random::bytes()));
    store.record_serials(serials.to_vec(), now).await?;
    Ok(serials)
}

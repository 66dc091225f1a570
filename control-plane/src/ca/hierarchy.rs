//! Making authorities: the root, the agents', the server's, the shared one, and one for each account;
//! of the latter two, generation after generation.

use std::{sync::Arc, time::Duration};

use countersign_shared::{
    digest::{hex, sha256},
    name::AccountName,
    tasks,
    time::Timestamp,
};
use rcgen::PublicKeyData as _;

use super::{
    AuthorityKey, CaError, ImportedAuthority, SigningAuthority,
    authority::new_serials,
    check, import,
    keys::new_ecdsa_key,
    names::common_name,
    profile::{AUTHORITY_LIFE, Contents, Likeness, Profile, ROOT_LIFE, Validity},
    signing_key::public_half,
};
use crate::{
    model::{Authority, AuthorityOwner, AuthorityState, KeyAlgorithm, Serial},
    pkcs11::{Curve, TokenError, TokenKeys, TokenSigner},
    store::{Store, StoreError},
    vault::{Record, ScopeKey, Vault},
};

/// What every root's common name starts with; the installation's short id follows.
const ROOT_NAME: &str = "Countersign Root ";

/// Which generation of a delivery authority is wanted.
#[derive(Debug, Clone, Copy)]
pub struct NewGeneration<'a> {
    /// 1, 2, …
    pub number: u32,
    /// The state in which it starts.
    pub state: AuthorityState,
    /// The generation before, which signs the new key too, so that receivers that trust only the older
    /// one accept its client certificates. `None` for the first generation, and in an emergency: a key
    /// that may be in other hands vouches for nothing.
    pub previous: Option<&'a SigningAuthority>,
}

impl NewGeneration<'_> {
    /// The first one: it signs at once.
    pub const FIRST: NewGeneration<'static> = NewGeneration {
        number: 1,
        state: AuthorityState::Active,
        previous: None,
    };
}

/// What a new authority is made of.
struct Plan<'a> {
    owner: AuthorityOwner,
    generation: NewGeneration<'a>,
    common_name: String,
    path_length: u8,
    key_algorithm: KeyAlgorithm,
    life: Duration,
    /// Of the existing certificate that it is to be like, and its end.
    like: Option<(Likeness, Timestamp)>,
    /// Who vouches for it; `None`: nobody but itself.
    root: Option<&'a SigningAuthority>,
}

/// The serial numbers of an authority's certificates.
struct Serials {
    anchor: Serial,
    provenance: Serial,
    cross: Serial,
}

/// Where a root's key comes from.
#[derive(Debug)]
pub enum RootKey {
    /// It is made here, and kept sealed in the store: an ECDSA key.
    Stored(KeyAlgorithm),
    /// It is in a token and stays there.
    Token(Arc<TokenSigner>),
    /// It is that of an existing authority, which becomes the root.
    Imported(ImportedAuthority),
}

/// The internal root of an installation.
///
/// # Errors
/// [`CaError`]; [`CaError::KeyGeneration`] for an RSA key.
pub fn new_root(
    installation: &str,
    key: RootKey,
    scope: &ScopeKey,
    serial: Serial,
    now: Timestamp,
) -> Result<SigningAuthority, CaError> {
    let (key_algorithm, key) = match key {
        RootKey::Imported(root) => return import(root, scope),
        RootKey::Stored(algorithm) => (algorithm, stored_key(algorithm)?),
        RootKey::Token(signer) => {
            let algorithm = match signer.curve() {
                Curve::P256 => KeyAlgorithm::EcdsaP256,
                Curve::P384 => KeyAlgorithm::EcdsaP384,
            };
            (algorithm, AuthorityKey::Token(signer))
        }
    };
    let plan = Plan {
        owner: AuthorityOwner::Root,
        generation: NewGeneration::FIRST,
        common_name: format!("{ROOT_NAME}{installation}"),
        path_length: 2,
        key_algorithm,
        life: ROOT_LIFE,
        like: None,
        root: None,
    };
    make(&plan, key, scope, &Serials::alone(serial), now)
}

fn import(root: ImportedAuthority, scope: &ScopeKey) -> Result<SigningAuthority, CaError> {
    let (owner, generation) = (AuthorityOwner::Root, NewGeneration::FIRST);
    let record = Record::AuthorityKey(&owner, generation.number);
    let authority = Authority {
        sealed_key: scope.seal(&root.key.secret(), &record)?,
        owner: owner.clone(),
        generation: generation.number,
        anchor: root.certificate,
        provenance: None,
        cross: None,
        state: generation.state,
        not_before: root.not_before,
        not_after: root.not_after,
    };
    SigningAuthority::with_key(authority, root.key)
}

/// The authority of the control plane's own server certificate. Nothing vouches for it and it vouches
/// for nothing else: clients pin it.
///
/// # Errors
/// [`CaError`].
pub fn new_server_authority(
    installation: &str,
    scope: &ScopeKey,
    serial: Serial,
    now: Timestamp,
) -> Result<SigningAuthority, CaError> {
    let plan = Plan {
        owner: AuthorityOwner::Server,
        generation: NewGeneration::FIRST,
        common_name: format!("Countersign Control Plane CA {installation}"),
        path_length: 0,
        key_algorithm: KeyAlgorithm::EcdsaP256,
        life: AUTHORITY_LIFE,
        like: None,
        root: None,
    };
    let key = stored_key(plan.key_algorithm)?;
    make(&plan, key, scope, &Serials::alone(serial), now)
}

/// The authority of agents' identities, apart from every delivery CA.
///
/// # Errors
/// [`CaError`].
pub fn new_agents_authority(
    installation: &str,
    root: &SigningAuthority,
    scope: &ScopeKey,
    [anchor, provenance]: [Serial; 2],
    now: Timestamp,
) -> Result<SigningAuthority, CaError> {
    let plan = Plan {
        owner: AuthorityOwner::Agents,
        generation: NewGeneration::FIRST,
        common_name: format!("Countersign Agent CA {installation}"),
        path_length: 0,
        key_algorithm: KeyAlgorithm::EcdsaP256,
        life: AUTHORITY_LIFE,
        like: None,
        root: Some(root),
    };
    let serials = Serials {
        provenance,
        ..Serials::alone(anchor)
    };
    let key = stored_key(plan.key_algorithm)?;
    make(&plan, key, scope, &serials, now)
}

impl Serials {
    /// Of an authority that nobody else vouches for: the other numbers are not used.
    fn alone(anchor: Serial) -> Self {
        Self {
            anchor,
            provenance: anchor,
            cross: anchor,
        }
    }
}

/// A generation of an account's authority: path length 1, so that a later one can be cross-signed.
/// `scope` is the account's. It is not stored yet.
///
/// # Errors
/// [`CaError`]; [`CaError::Generation`] when the generation before is not one before it.
pub async fn new_account_authority(
    account: &AccountName,
    generation: NewGeneration<'_>,
    root: &SigningAuthority,
    scope: &ScopeKey,
    store: &dyn Store,
    now: Timestamp,
) -> Result<Authority, CaError> {
    let plan = Plan {
        owner: AuthorityOwner::Account(account.clone()),
        generation,
        common_name: common_name(
            "Countersign Delivery CA — ",
            account.id().as_str(),
            &format!(" G{}", generation.number),
        ),
        path_length: 1,
        key_algorithm: KeyAlgorithm::EcdsaP256,
        life: AUTHORITY_LIFE,
        like: None,
        root: Some(root),
    };
    make_delivery(&plan, scope, store, now).await
}

/// A generation of an account's authority that is an existing one: the anchor has its key, subject and key identifier,
/// and in the place of the root's signature it has its own certificate. Otherwise as [`new_account_authority`].
///
/// # Errors
/// [`CaError`]; [`CaError::Profile`] when its subject can't be written as it stands there.
pub async fn import_account_authority(
    account: &AccountName,
    generation: NewGeneration<'_>,
    imported: ImportedAuthority,
    scope: &ScopeKey,
    store: &dyn Store,
    now: Timestamp,
) -> Result<Authority, CaError> {
    let plan = Plan {
        owner: AuthorityOwner::Account(account.clone()),
        generation,
        common_name: String::new(),
        path_length: 1,
        key_algorithm: imported.key_algorithm()?,
        life: AUTHORITY_LIFE,
        like: Some((imported.likeness()?, imported.not_after)),
        root: None,
    };
    let made = make_with_key(&plan, imported.key, scope, store, now).await?;
    Ok(Authority {
        provenance: Some(imported.certificate),
        ..made
    })
}

/// A generation of the shared authority, which signs for destinations of every account; otherwise as
/// [`new_account_authority`]. `scope` is the installation's.
///
/// # Errors
/// [`CaError`]; [`CaError::Generation`] when the generation before is not one before it.
pub async fn new_shared_authority(
    generation: NewGeneration<'_>,
    root: &SigningAuthority,
    scope: &ScopeKey,
    store: &dyn Store,
    now: Timestamp,
) -> Result<Authority, CaError> {
    let plan = Plan {
        owner: AuthorityOwner::Shared,
        generation,
        common_name: format!(
            "Countersign Shared Delivery CA {} G{}",
            installation(root),
            generation.number
        ),
        path_length: 1,
        key_algorithm: KeyAlgorithm::EcdsaP256,
        life: AUTHORITY_LIFE,
        like: None,
        root: Some(root),
    };
    make_delivery(&plan, scope, store, now).await
}

/// The installation's short id, as it stands in its root's name; of one that was imported, a part of its hash.
fn installation(root: &SigningAuthority) -> String {
    let der = &root.authority.anchor;
    let root = check::parse(der);
    let name = root
        .as_ref()
        .and_then(|it| check::only_common_name(it.subject()));
    let id = name.and_then(|name| name.strip_prefix(ROOT_NAME));
    id.map_or_else(|| hex(&sha256(der)[..4]), str::to_owned)
}

async fn make_delivery(
    plan: &Plan<'_>,
    scope: &ScopeKey,
    store: &dyn Store,
    now: Timestamp,
) -> Result<Authority, CaError> {
    let key = match scope.authority_keys() {
        Some(keys) => key_in_token(plan, Arc::clone(keys)).await?,
        None => stored_key(plan.key_algorithm)?,
    };
    make_with_key(plan, key, scope, store, now).await
}

async fn make_with_key(
    plan: &Plan<'_>,
    key: AuthorityKey,
    scope: &ScopeKey,
    store: &dyn Store,
    now: Timestamp,
) -> Result<Authority, CaError> {
    let NewGeneration {
        number, previous, ..
    } = plan.generation;
    let follows = previous.is_none_or(|SigningAuthority { authority, .. }| {
        authority.owner == plan.owner && authority.generation < number
    });
    if !follows {
        return Err(CaError::Generation(plan.owner.clone(), number));
    }
    let [anchor, provenance, cross] = new_serials::<3>(store, now).await?;
    let serials = Serials {
        anchor,
        provenance,
        cross,
    };
    Ok(make(plan, key, scope, &serials, now)?.authority)
}

async fn key_in_token(plan: &Plan<'_>, keys: Arc<TokenKeys>) -> Result<AuthorityKey, CaError> {
    let curve = match plan.key_algorithm {
        KeyAlgorithm::EcdsaP384 => Curve::P384,
        _ => Curve::P256,
    };
    let label = format!("countersign {} G{}", plan.owner, plan.generation.number);
    let made = tasks::blocking(move || keys.make(&label, curve)).await;
    let made = made.map_err(|_| CaError::KeyGeneration)?;
    let made = made.map_err(|error| {
        // Whoever called is not told what only the operator can put right.
        tracing::error!(%error, "no key was made in the token");
        CaError::TokenAway
    })?;
    Ok(AuthorityKey::Token(Arc::new(made)))
}

/// Destroys the key of an authority that is not needed any more, if it is in the token. What can't be destroyed
/// stays there, and the log says so.
pub async fn forget_key(authority: &Authority, vault: &Vault) {
    let (Some(keys), Some((_, point))) = (vault.authority_keys(), public_half(authority)) else {
        return;
    };
    let keys = Arc::clone(keys);
    let ended = |error| TokenError::Failed(format!("the call to the token ended: {error}"));
    let destroyed = tasks::blocking(move || keys.destroy(&point)).await;
    let destroyed = destroyed.map_err(ended).and_then(|destroyed| destroyed);
    let (owner, generation) = (&authority.owner, authority.generation);
    match destroyed {
        Ok(true) => {
            tracing::info!(authority = %owner, generation, "the authority's key in the token was destroyed")
        }
        Ok(false) => {}
        Err(error) => {
            tracing::warn!(authority = %owner, generation, %error, "the authority's key in the token is left: destroy it there");
        }
    }
}

/// As [`forget_key`], when the store did not take the authority: another was faster, or `refused` says why.
pub async fn forget_unused_key(
    authority: &Authority,
    store: &dyn Store,
    vault: &Vault,
    refused: Option<&StoreError>,
) {
    // What is not answered may still be committed.
    let unknown = matches!(refused, Some(StoreError::Unavailable(_)));
    if unknown || vault.authority_keys().is_none() {
        return;
    }
    let stored = store.authorities(&authority.owner).await;
    if stored.is_ok_and(|all| all.iter().all(|it| it.anchor != authority.anchor)) {
        forget_key(authority, vault).await;
    }
}

fn stored_key(algorithm: KeyAlgorithm) -> Result<AuthorityKey, CaError> {
    Ok(AuthorityKey::Held(new_ecdsa_key(algorithm)?.0))
}

fn make(
    plan: &Plan<'_>,
    key: AuthorityKey,
    scope: &ScopeKey,
    serials: &Serials,
    now: Timestamp,
) -> Result<SigningAuthority, CaError> {
    let anchor = plan.contents(plan.path_length, serials.anchor, now);
    let validity = anchor.validity;
    let anchor = self_sign(&anchor, &key)?;
    let provenance = plan.root.map(|root| {
        // An imported root may allow less below it than ours does.
        let below = import::path_length(&root.authority.anchor);
        let length = below.map_or(plan.path_length, |below| {
            plan.path_length.min(below.saturating_sub(1))
        });
        let contents = plan.contents(length, serials.provenance, now);
        vouch(contents, root, &key)
    });
    // Nothing but client certificates may follow the cross certificate.
    let cross = plan.generation.previous.map(|previous| {
        let contents = plan.contents(0, serials.cross, now);
        vouch(contents, previous, &key)
    });
    let record = Record::AuthorityKey(&plan.owner, plan.generation.number);
    let authority = Authority {
        owner: plan.owner.clone(),
        generation: plan.generation.number,
        anchor,
        provenance: provenance.transpose()?,
        cross: cross.transpose()?,
        state: plan.generation.state,
        sealed_key: scope.seal(&key.secret(), &record)?,
        not_before: validity.not_before,
        not_after: validity.not_after,
    };
    SigningAuthority::with_key(authority, key)
}

impl Plan<'_> {
    fn contents(&self, path_length: u8, serial: Serial, now: Timestamp) -> Contents {
        Contents {
            profile: Profile::Authority {
                path_length,
                key: self.key_algorithm,
            },
            common_name: self.common_name.clone(),
            like: self.like.as_ref().map(|(like, _)| like.clone()),
            alternative_names: Vec::new(),
            serial,
            validity: match &self.like {
                Some((_, end)) => Validity::from_now(now, self.life).until(*end),
                None => Validity::from_now(now, self.life),
            },
        }
    }
}

fn self_sign(contents: &Contents, key: &AuthorityKey) -> Result<Vec<u8>, CaError> {
    let signed = contents.params()?.self_signed(key)?;
    let public_key = key.subject_public_key_info();
    check::certificate(signed.der(), contents, &public_key, signed.der())?;
    Ok(signed.der().to_vec())
}

/// The same subject and key, signed by another authority, which it does not outlive.
fn vouch(
    mut contents: Contents,
    authority: &SigningAuthority,
    key: &AuthorityKey,
) -> Result<Vec<u8>, CaError> {
    contents.validity = contents.validity.until(authority.authority.not_after);
    authority.sign(&contents, key)
}

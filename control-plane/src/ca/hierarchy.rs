//! Making authorities: the root, the agents', the server's, and one for each account.

use std::time::Duration;

use countersign_shared::{name::AccountName, secret::SecretBytes, time::Timestamp};
use rcgen::KeyPair;

use super::{
    CaError, SigningAuthority,
    authority::{new_key, new_serials},
    profile::{AUTHORITY_LIFE, Profile, ROOT_LIFE, Validity, common_name},
};
use crate::{
    model::{Authority, AuthorityOwner, AuthorityState, Serial},
    store::Store,
    vault::{Record, ScopeKey},
};

/// What a new authority is made of.
struct Plan<'a> {
    owner: AuthorityOwner,
    generation: u32,
    common_name: String,
    path_length: u8,
    life: Duration,
    /// Who vouches for it; `None`: nobody but itself.
    root: Option<&'a SigningAuthority>,
}

/// The internal root of an installation.
///
/// # Errors
/// [`CaError`].
pub fn new_root(
    installation: &str,
    scope: &ScopeKey,
    serial: Serial,
    now: Timestamp,
) -> Result<SigningAuthority, CaError> {
    let plan = Plan {
        owner: AuthorityOwner::Root,
        generation: 1,
        common_name: format!("Countersign Root {installation}"),
        path_length: 2,
        life: ROOT_LIFE,
        root: None,
    };
    make(&plan, scope, [serial, serial], now)
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
        generation: 1,
        common_name: format!("Countersign Control Plane CA {installation}"),
        path_length: 0,
        life: AUTHORITY_LIFE,
        root: None,
    };
    make(&plan, scope, [serial, serial], now)
}

/// The authority of agents' identities, apart from every delivery CA.
///
/// # Errors
/// [`CaError`].
pub fn new_agents_authority(
    installation: &str,
    root: &SigningAuthority,
    scope: &ScopeKey,
    serials: [Serial; 2],
    now: Timestamp,
) -> Result<SigningAuthority, CaError> {
    let plan = Plan {
        owner: AuthorityOwner::Agents,
        generation: 1,
        common_name: format!("Countersign Agent CA {installation}"),
        path_length: 0,
        life: AUTHORITY_LIFE,
        root: Some(root),
    };
    make(&plan, scope, serials, now)
}

/// The authority of an account: path length 1, so that a later generation can be cross-signed.
///
/// # Errors
/// [`CaError`].
pub async fn new_account_authority(
    account: &AccountName,
    generation: u32,
    root: &SigningAuthority,
    scope: &ScopeKey,
    store: &dyn Store,
    now: Timestamp,
) -> Result<Authority, CaError> {
    let serials = new_serials::<2>(store, now).await?;
    let plan = Plan {
        owner: AuthorityOwner::Account(account.clone()),
        generation,
        common_name: common_name(
            "Countersign Delivery CA — ",
            account.id().as_str(),
            &format!(" G{generation}"),
        ),
        path_length: 1,
        life: AUTHORITY_LIFE,
        root: Some(root),
    };
    Ok(make(&plan, scope, serials, now)?.authority)
}

fn make(
    plan: &Plan<'_>,
    scope: &ScopeKey,
    [anchor_serial, provenance_serial]: [Serial; 2],
    now: Timestamp,
) -> Result<SigningAuthority, CaError> {
    let (key, secret) = new_key()?;
    let validity = Validity::from_now(now, plan.life);
    let anchor = self_sign(plan, &key, anchor_serial, validity)?;
    let provenance = match plan.root {
        Some(root) => Some(vouch(plan, root, &key, provenance_serial, validity)?),
        None => None,
    };
    let record = Record::AuthorityKey(&plan.owner, plan.generation);
    let authority = Authority {
        owner: plan.owner.clone(),
        generation: plan.generation,
        anchor,
        provenance,
        cross: None,
        state: AuthorityState::Active,
        sealed_key: scope.seal(&secret, &record)?,
        not_before: validity.not_before,
        not_after: validity.not_after,
    };
    opened(authority, &secret)
}

fn opened(authority: Authority, secret: &SecretBytes) -> Result<SigningAuthority, CaError> {
    SigningAuthority::from_parts(authority, secret)
}

fn self_sign(
    plan: &Plan<'_>,
    key: &KeyPair,
    serial: Serial,
    validity: Validity,
) -> Result<Vec<u8>, CaError> {
    let profile = Profile::Authority {
        path_length: plan.path_length,
    };
    let params = profile.params(&plan.common_name, Vec::new(), serial, validity)?;
    let signed = params.self_signed(key)?.der().to_vec();
    profile.check(&signed, serial, validity)?;
    Ok(signed)
}

fn vouch(
    plan: &Plan<'_>,
    root: &SigningAuthority,
    key: &KeyPair,
    serial: Serial,
    validity: Validity,
) -> Result<Vec<u8>, CaError> {
    let profile = Profile::Authority {
        path_length: plan.path_length,
    };
    let validity = validity.until(root.authority.not_after);
    let params = profile.params(&plan.common_name, Vec::new(), serial, validity)?;
    root.sign(profile, &params, serial, validity, key)
}

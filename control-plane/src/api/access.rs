//! AccessService.

use std::sync::Arc;

use countersign_proto::v1::{self, access_service_server::AccessService};
use countersign_shared::{
    name::{AccountName, ApiKeyName},
    time::Timestamp,
    wire::{timestamp_from_wire, timestamp_to_wire},
};
use tonic::{Request, Response, Status};

use super::{
    authenticate, page, status,
    violations::{Violations, name},
};
use crate::{
    auth::{ApiKeys, KeyRequest},
    model::{ApiKey, Role, Scope},
};

/// Most accounts that a key may name.
const MAX_ACCOUNTS: usize = 100;
/// Most calls a second that a key may have.
const MAX_CALLS: u32 = 1_000_000;
/// How far ahead a key may expire: ten years.
const MAX_LIFE: std::time::Duration = std::time::Duration::from_secs(3653 * 24 * 3600);

/// AccessService over [`ApiKeys`].
#[derive(Clone)]
pub struct AccessApi(pub Arc<ApiKeys>);

#[tonic::async_trait]
impl AccessService for AccessApi {
    async fn create_api_key(
        &self,
        request: Request<v1::CreateApiKeyRequest>,
    ) -> Result<Response<v1::CreateApiKeyResponse>, Status> {
        let caller = authenticate::principal(&request)?;
        let wanted = key_request(request.into_inner(), self.0.now())?;
        let (key, text) = self.0.create(wanted).await.map_err(status::store)?;
        let (by, api_key) = (&caller.name, &key.id);
        tracing::info!(%by, %api_key, roles = ?key.roles, scope = ?key.scope, "API key made");
        Ok(Response::new(v1::CreateApiKeyResponse {
            api_key: Some(to_wire(&key, self.0.now())),
            key: text.expose().to_owned(),
        }))
    }

    async fn get_api_key(
        &self,
        request: Request<v1::GetApiKeyRequest>,
    ) -> Result<Response<v1::GetApiKeyResponse>, Status> {
        let name: ApiKeyName = name("name", &request.into_inner().name)?;
        let key = self.0.get(&name).await.map_err(status::store)?;
        Ok(Response::new(v1::GetApiKeyResponse {
            api_key: Some(to_wire(&key, self.0.now())),
        }))
    }

    async fn list_api_keys(
        &self,
        request: Request<v1::ListApiKeysRequest>,
    ) -> Result<Response<v1::ListApiKeysResponse>, Status> {
        let request = request.into_inner();
        let mut violations = Violations::default();
        let size = page::size(&mut violations, request.page_size);
        let after = page::after(&mut violations, "apiKeys", &request.page_token);
        violations.check()?;
        let found = self.0.list(&after, size).await.map_err(status::store)?;
        let now = self.0.now();
        Ok(Response::new(v1::ListApiKeysResponse {
            next_page_token: page::token(&found, "apiKeys", |key| key.id.to_string()),
            api_keys: found.items.iter().map(|key| to_wire(key, now)).collect(),
        }))
    }

    async fn revoke_api_key(
        &self,
        request: Request<v1::RevokeApiKeyRequest>,
    ) -> Result<Response<v1::RevokeApiKeyResponse>, Status> {
        let caller = authenticate::principal(&request)?;
        let name: ApiKeyName = name("name", &request.into_inner().name)?;
        if caller.api_key.as_ref() == Some(name.id()) {
            return Err(status::own_key(&name));
        }
        let key = self.0.revoke(&name).await.map_err(status::store)?;
        tracing::info!(by = %caller.name, api_key = %key.id, "API key revoked");
        Ok(Response::new(v1::RevokeApiKeyResponse {
            api_key: Some(to_wire(&key, self.0.now())),
        }))
    }
}

fn key_request(request: v1::CreateApiKeyRequest, now: Timestamp) -> Result<KeyRequest, Status> {
    let wanted = request.api_key.unwrap_or_default();
    let mut violations = Violations::default();
    violations.display_name("api_key.display_name", &wanted.display_name);
    let roles = roles(&mut violations, &wanted.roles);
    let scope = scope(&mut violations, &wanted);
    let calls = u32::try_from(wanted.calls_per_second).ok();
    if calls.is_none_or(|calls| calls > MAX_CALLS) {
        let problem = format!("must be from 0 to {MAX_CALLS}");
        violations.add("api_key.calls_per_second", problem);
    }
    let expires_at = wanted.expire_time.map(timestamp_from_wire);
    if expires_at.is_some_and(|end| end <= now || end > now.plus(MAX_LIFE)) {
        let problem = "must be after now, and at most 10 years ahead";
        violations.add("api_key.expire_time", problem);
    }
    let id = violations.optional_id("api_key_id", &request.api_key_id);
    Ok(KeyRequest {
        id,
        display_name: wanted.display_name,
        roles,
        scope: violations.finish(scope)?,
        calls_per_second: calls.filter(|calls| *calls > 0),
        expires_at,
    })
}

/// In the order of the enum, each once.
fn roles(violations: &mut Violations, asked: &[i32]) -> Vec<Role> {
    let mut roles = Vec::new();
    for number in asked {
        let role = v1::Role::try_from(*number).ok().and_then(role_from_wire);
        match role {
            Some(role) => roles.push(role),
            None => violations.add("api_key.roles", format!("{number} is not a known role")),
        }
    }
    if asked.is_empty() {
        violations.add("api_key.roles", "needs at least one role");
    }
    let mut all = Role::ALL.to_vec();
    all.retain(|role| roles.contains(role));
    all
}

/// Either all accounts or some: never all because none were named.
fn scope(violations: &mut Violations, wanted: &v1::ApiKey) -> Option<Scope> {
    const FIELD: &str = "api_key.accounts";
    if wanted.all_accounts != wanted.accounts.is_empty() {
        violations.add(FIELD, "either name accounts or set all_accounts");
        return None;
    }
    if wanted.all_accounts {
        return Some(Scope::All);
    }
    if wanted.accounts.len() > MAX_ACCOUNTS {
        violations.add(FIELD, format!("at most {MAX_ACCOUNTS} can be named"));
        return None;
    }
    let mut accounts = Vec::with_capacity(wanted.accounts.len());
    for text in &wanted.accounts {
        accounts.extend(violations.parse::<AccountName>(FIELD, text));
    }
    accounts.sort();
    accounts.dedup();
    Some(Scope::Accounts(accounts))
}

fn role_from_wire(role: v1::Role) -> Option<Role> {
    match role {
        v1::Role::Unspecified => None,
        v1::Role::Administrator => Some(Role::Administrator),
        v1::Role::Operator => Some(Role::Operator),
        v1::Role::Sender => Some(Role::Sender),
        v1::Role::Auditor => Some(Role::Auditor),
    }
}

fn role_to_wire(role: Role) -> v1::Role {
    match role {
        Role::Administrator => v1::Role::Administrator,
        Role::Operator => v1::Role::Operator,
        Role::Sender => v1::Role::Sender,
        Role::Auditor => v1::Role::Auditor,
    }
}

fn to_wire(key: &ApiKey, now: Timestamp) -> v1::ApiKey {
    let state = if key.revoked_at.is_some() {
        v1::ApiKeyState::Revoked
    } else if key.is_valid(now) {
        v1::ApiKeyState::Valid
    } else {
        v1::ApiKeyState::Expired
    };
    let accounts = match &key.scope {
        Scope::All => Vec::new(),
        Scope::Accounts(accounts) => accounts.iter().map(ToString::to_string).collect(),
    };
    let roles = key.roles.iter().map(|role| role_to_wire(*role).into());
    let calls = key.calls_per_second.unwrap_or_default();
    v1::ApiKey {
        name: ApiKeyName::from(key.id.clone()).to_string(),
        display_name: key.display_name.clone(),
        roles: roles.collect(),
        all_accounts: key.scope == Scope::All,
        accounts,
        expire_time: key.expires_at.map(timestamp_to_wire),
        calls_per_second: i32::try_from(calls).unwrap_or(i32::MAX),
        create_time: Some(timestamp_to_wire(key.created_at)),
        last_use_time: key.last_used_at.map(timestamp_to_wire),
        revoke_time: key.revoked_at.map(timestamp_to_wire),
        state: state.into(),
    }
}

//! The text of API keys: `csk_<id>.<secret>`. The store keeps the SHA-256 of the secret, which has 256
//! random bits, so a plain hash can't be guessed backwards.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use countersign_shared::{
    digest::sha256,
    name::Id,
    random,
    secret::{SecretBytes, SecretText},
    time::Timestamp,
};

use crate::model::{ApiKey, ApiKeyHash, Role, Scope};

const PREFIX: &str = "csk_";
const SECRET_LENGTH: usize = 32;

/// What a new key is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRequest {
    /// Its id; `None`: a random one.
    pub id: Option<Id>,
    /// For people.
    pub display_name: String,
    /// What it may do.
    pub roles: Vec<Role>,
    /// For which accounts.
    pub scope: Scope,
    /// Most calls a second; `None`: as configured for all.
    pub calls_per_second: Option<u32>,
    /// From when on it is refused; `None`: never.
    pub expires_at: Option<Timestamp>,
}

impl KeyRequest {
    /// The key that the first start makes: it may do everything.
    pub fn administrator() -> Self {
        Self {
            id: None,
            display_name: "administrator".to_owned(),
            roles: vec![Role::Administrator],
            scope: Scope::All,
            calls_per_second: None,
            expires_at: None,
        }
    }
}

/// A new key: what the store keeps, and the text that is shown once.
pub fn generate(request: KeyRequest, now: Timestamp) -> (ApiKey, SecretText) {
    let id = request.id;
    let id = id.unwrap_or_else(|| Id::from(random::uuid_v7(now)));
    let secret = random::secret::<SECRET_LENGTH>();
    let encoded = SecretText::from(URL_SAFE_NO_PAD.encode(secret.expose()));
    let text = SecretText::from(format!("{PREFIX}{id}.{}", encoded.expose()));
    let key = ApiKey {
        id,
        secret_sha256: sha256(secret.expose()),
        display_name: request.display_name,
        roles: request.roles,
        scope: request.scope,
        calls_per_second: request.calls_per_second,
        created_at: now,
        expires_at: request.expires_at,
        last_used_at: None,
        revoked_at: None,
    };
    (key, text)
}

/// What a call presents, not yet judged.
pub(super) struct Presented<'a> {
    /// Which key it says it is.
    pub(super) id: Id,
    encoded: &'a str,
}

impl<'a> Presented<'a> {
    /// Takes `authorization`, the value of that header, apart: `Bearer csk_…` (RFC 6750 section 2.1).
    /// `None` for anything else.
    pub(super) fn parse(authorization: &'a str) -> Option<Self> {
        let (scheme, token) = authorization.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (id, encoded) = token.trim().strip_prefix(PREFIX)?.split_once('.')?;
        let id = Id::existing(id).ok()?;
        Some(Self { id, encoded })
    }

    /// The hash of its secret; `None` when that is not written as one.
    pub(super) fn hash(&self) -> Option<ApiKeyHash> {
        let secret = SecretBytes::from(URL_SAFE_NO_PAD.decode(self.encoded).ok()?);
        Some(sha256(secret.expose()))
    }
}

//! API keys: `csk_<id>.<secret>`. The store keeps the SHA-256 of the secret, which has 256 random
//! bits, so a plain hash can't be guessed backwards.

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use countersign_shared::{
    digest::sha256,
    name::Id,
    random,
    secret::{self, SecretBytes, SecretText},
    time::Timestamp,
};

use crate::model::{ApiKey, ApiKeyHash};

const PREFIX: &str = "csk_";
const SECRET_LENGTH: usize = 32;

/// Who makes a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The API key's id.
    pub api_key: Id,
}

/// A new key: what the store keeps, and the text that is shown once.
pub fn generate(display_name: &str, now: Timestamp) -> (ApiKey, SecretText) {
    let id = Id::from(random::uuid_v7(now));
    let secret = random::secret::<SECRET_LENGTH>();
    let encoded = SecretText::from(URL_SAFE_NO_PAD.encode(secret.expose()));
    let text = SecretText::from(format!("{PREFIX}{id}.{}", encoded.expose()));
    let key = ApiKey {
        id,
        secret_sha256: sha256(secret.expose()),
        display_name: display_name.to_owned(),
        created_at: now,
    };
    (key, text)
}

/// The keys that are valid.
#[derive(Debug, Default)]
pub struct ApiKeys(HashMap<Id, ApiKeyHash>);

impl ApiKeys {
    /// Of these keys.
    pub fn new(keys: Vec<ApiKey>) -> Self {
        let entries = keys.into_iter().map(|key| (key.id, key.secret_sha256));
        Self(entries.collect())
    }

    /// Who presents `authorization`, the value of that header: `Bearer csk_…`. `None` for anything
    /// that is not a valid key; which part was wrong is not told.
    pub fn authenticate(&self, authorization: &str) -> Option<Principal> {
        let (scheme, token) = authorization.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (id, encoded) = token.trim().strip_prefix(PREFIX)?.split_once('.')?;
        let id = Id::existing(id).ok()?;
        let presented = SecretBytes::from(URL_SAFE_NO_PAD.decode(encoded).ok()?);
        let hash = sha256(presented.expose());
        // An unknown id costs the same comparison as a known one.
        let known = self.0.get(&id);
        let matches = secret::equal(&hash, known.unwrap_or(&[0; 32]));
        (matches && known.is_some()).then_some(Principal { api_key: id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_key_is_let_in() {
        let now = Timestamp::from_unix_seconds(1_700_000_000);
        let (key, text) = generate("admin", now);
        let (_, foreign) = generate("other", now);
        let keys = ApiKeys::new(vec![key.clone()]);
        let header = format!("Bearer {}", text.expose());
        let expected = Some(Principal { api_key: key.id });
        assert_eq!(keys.authenticate(&header), expected);
        assert_eq!(
            keys.authenticate(&header.replace("Bearer", "bearer")),
            expected
        );
        for length in 0..header.len() {
            assert_eq!(keys.authenticate(&header[..length]), None, "{length}");
        }
        let refused = [
            format!("Bearer {}", foreign.expose()),
            format!("Basic {}", text.expose()),
            text.expose().to_owned(),
            format!("{header}x"),
        ];
        for header in refused {
            assert_eq!(keys.authenticate(&header), None);
        }
        assert_eq!(ApiKeys::default().authenticate(&header), None);
    }
}

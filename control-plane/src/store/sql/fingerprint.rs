//! What a resource is at a moment, in one hash: of the rows that make it up, without what changes on its own
//! (when it was last seen, what deliveries show). The audit log tells it before and after each change.
//!
//! The same resource has the same hash in either database, so a store that is copied keeps them.

use countersign_shared::{
    digest::sha256,
    name::{AccountName, DeliveryId, DestinationName},
};
use rusqlite::types::Value;

use super::{
    connection::{Connection, Row},
    rows::all,
};
use crate::store::Result;

/// What an account is: itself, and the generations of its authority.
const ACCOUNT: &[&str] = &[
    "SELECT id, display_name, created_at, revision FROM accounts WHERE id = ?",
    "SELECT generation, anchor, provenance, cross_signed, state, sealed_key, not_before, not_after
     FROM authorities WHERE owner = 'accounts/' || ?",
];

/// What the shared authority is.
const SHARED_AUTHORITY: &[&str] = &[
    "SELECT generation, anchor, provenance, cross_signed, state, sealed_key, not_before, not_after
     FROM authorities WHERE owner = ?",
];

/// What a destination is: its configuration, its client certificates, its signing secrets, its request.
const DESTINATION: &[&str] = &[
    "SELECT d.id, d.display_name, d.url, d.trust_model, d.key_algorithm, d.region, d.server_ca_pem,
            d.minimum_tls, d.mtls_enforcement, d.attempt_timeout, d.concurrency_limit, d.allowed_ranges,
            d.signatures, d.retry_waits, d.retry_deadline, d.rate_limit, d.max_offline, d.ordering_failure,
            d.delivery_receipts, d.state, d.active_certificate, d.created_at, d.revision
     FROM destinations d JOIN accounts a ON a.key = d.account WHERE a.id = ? AND d.id = ?",
    "SELECT c.version, c.state, c.trust_model, c.serial, c.certificate, c.chain, c.sealed_key, c.not_after,
            c.activated_at, c.replaced_at, c.revoked_at
     FROM client_certificates c JOIN destinations d ON d.key = c.destination
     JOIN accounts a ON a.key = d.account WHERE a.id = ? AND d.id = ?",
    "SELECT s.version, s.sealed, s.public_key, s.created_at, s.expires_at
     FROM signing_secrets s JOIN destinations d ON d.key = s.destination
     JOIN accounts a ON a.key = d.account WHERE a.id = ? AND d.id = ?",
    "SELECT r.version, r.request, r.sealed_key, r.created_at
     FROM certificate_requests r JOIN destinations d ON d.key = r.destination
     JOIN accounts a ON a.key = d.account WHERE a.id = ? AND d.id = ?",
];

const AGENT: &[&str] = &[
    "SELECT id, region, created_at, identity_not_after, public_key_sha256, draining, evicted_at,
            suspended_at, previous_key_sha256, identity_since
     FROM agents WHERE id = ?",
];

const JOIN_TOKEN: &[&str] = &[
    "SELECT id, secret_sha256, region, agent_id, source_ranges, recovers, created_at, expires_at,
            revoked_at, used_by, public_key_sha256
     FROM join_tokens WHERE id = ?",
];

const API_KEY: &[&str] = &[
    "SELECT id, secret_sha256, display_name, roles, accounts, calls_per_second, created_at, expires_at,
            revoked_at
     FROM api_keys WHERE id = ?",
];

/// Whether it is resolved shows on its own.
const ALERT: &[&str] =
    &["SELECT id, cause, resource, created_at, acknowledged_at FROM alerts WHERE id = ?"];

const DELIVERY: &[&str] = &[
    "SELECT state, attempt_count, earlier_count, due_at, settled_at FROM deliveries WHERE id = ?",
];

/// What a name stands for, and the statements that read it.
struct Resource {
    name: String,
    queries: &'static [&'static str],
    values: Vec<Value>,
}

impl Resource {
    fn new(
        name: impl ToString,
        queries: &'static [&'static str],
        values: impl IntoIterator<Item = Value>,
    ) -> Self {
        let (name, values) = (name.to_string(), values.into_iter().collect());
        Self {
            name,
            queries,
            values,
        }
    }
}

/// The resource whose rows a name is about: its own, or that of which it is a part.
fn resource(name: &str) -> Option<Resource> {
    let text = |text: &str| Value::Text(text.to_owned());
    let parts: Vec<&str> = name.split('/').collect();
    Some(match parts.as_slice() {
        ["accounts", account, "destinations", destination, rest @ ..] => {
            if let ["deliveries", id] = rest {
                let id: DeliveryId = id.parse().ok()?;
                let id = Value::Blob(id.as_bytes().to_vec());
                return Some(Resource::new(name, DELIVERY, [id]));
            }
            let name = format!("accounts/{account}/destinations/{destination}");
            let name: DestinationName = name.parse().ok()?;
            Resource::new(name, DESTINATION, [text(account), text(destination)])
        }
        ["accounts", account, ..] => {
            let name: AccountName = format!("accounts/{account}").parse().ok()?;
            Resource::new(name, ACCOUNT, [text(account)])
        }
        ["certificateAuthorities", ..] => {
            Resource::new("certificateAuthorities", SHARED_AUTHORITY, [text("shared")])
        }
        ["agents", id] => Resource::new(name, AGENT, [text(id)]),
        ["joinTokens", id] => Resource::new(name, JOIN_TOKEN, [text(id)]),
        ["apiKeys", id] => Resource::new(name, API_KEY, [text(id)]),
        ["alerts", id] => Resource::new(name, ALERT, [text(id)]),
        _ => return None,
    })
}

/// What some resources are: the name of each, and its hash; none where it does not exist.
pub(super) type Fingerprints = Vec<(String, Option<[u8; 32]>)>;

/// Of the resources that these names are about, each once.
pub(super) fn of(connection: &Connection, names: &[String]) -> Result<Fingerprints> {
    let mut found: Fingerprints = Vec::new();
    for resource in names.iter().filter_map(|name| resource(name)) {
        if !found.iter().any(|(name, _)| *name == resource.name) {
            let hash = hash(connection, &resource)?;
            found.push((resource.name, hash));
        }
    }
    Ok(found)
}

fn hash(connection: &Connection, resource: &Resource) -> Result<Option<[u8; 32]>> {
    let mut image = Vec::new();
    for (number, query) in resource.queries.iter().enumerate() {
        let values: Vec<&dyn rusqlite::ToSql> = resource
            .values
            .iter()
            .map(|value| value as &dyn rusqlite::ToSql)
            .collect();
        let mut rows = all(connection, query, values.as_slice(), |row| {
            row_image(number, row)
        })?;
        // Here rather than there: it is no order that an index has.
        rows.sort_unstable();
        if number == 0 && rows.is_empty() {
            return Ok(None);
        }
        image.extend(rows.into_iter().flatten());
    }
    Ok(Some(sha256(&image)))
}

/// A row, so that no two that differ look alike: which query, and each value with its type and length.
fn row_image(query: usize, row: &Row<'_>) -> rusqlite::Result<Vec<u8>> {
    let mut image = vec![b'r'];
    image.extend(query.to_be_bytes());
    for place in 0..row.columns() {
        let (kind, bytes) = match row.get::<_, Value>(place)? {
            Value::Null => (b'n', Vec::new()),
            Value::Integer(number) => (b'i', number.to_be_bytes().to_vec()),
            Value::Real(number) => (b'f', number.to_be_bytes().to_vec()),
            Value::Text(text) => (b't', text.into_bytes()),
            Value::Blob(bytes) => (b'b', bytes),
        };
        image.push(kind);
        image.extend(bytes.len().to_be_bytes());
        image.extend(bytes);
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_stands_for_the_whole_and_what_has_no_rows_for_nothing() {
        let name = |of: &str| resource(of).map(|it| it.name);
        let destination = "accounts/acme/destinations/orders";
        for part in [
            "",
            "/clientCertificates/3",
            "/signingSecrets/-",
            "/rotation",
        ] {
            let found = name(&format!("{destination}{part}"));
            assert_eq!(found.as_deref(), Some(destination), "{part}");
        }
        let delivery = format!("{destination}/deliveries/01890000-0000-7000-8000-000000000000");
        assert_eq!(name(&delivery), Some(delivery.clone()));
        let authority = name("accounts/acme/certificateAuthorities/2");
        assert_eq!(authority.as_deref(), Some("accounts/acme"));
        assert_eq!(
            name("certificateAuthorities/1").as_deref(),
            Some("certificateAuthorities")
        );
        assert_eq!(name("agents/edge-1").as_deref(), Some("agents/edge-1"));
        for none in [
            "",
            "shared",
            "system",
            "accounts/Acme",
            "agents",
            "agents/a/b",
            "-",
        ] {
            assert_eq!(name(none), None, "{none}");
        }
    }
}

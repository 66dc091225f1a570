//! Generations of authorities, and what their certificates are used for.

use countersign_shared::{
    name::{DestinationName, Id},
    time::Timestamp,
};
use rusqlite::params;

use super::{
    certificates,
    connection::{Connection, Row},
    revocations::insert_revocation,
    revoking, rotations,
    rows::{Column, all, execute, get, get_optional, limit, one, page},
};
use crate::{
    model::{
        Authority, AuthorityOwner, AuthorityState, ClientCertificate, DestinationTrust,
        GenerationUse, Page, Revocation, RevocationReason, TrustModel,
    },
    store::{AuthorityChange, Result, StoreError},
};

/// Every generation's state, oldest first.
pub(super) fn states(
    connection: &Connection,
    owner: &AuthorityOwner,
) -> Result<Vec<(u32, AuthorityState)>> {
    let query = "SELECT generation, state FROM authorities WHERE owner = ? ORDER BY generation";
    all(connection, query, [owner.to_string()], |row| {
        Ok((row.get("generation")?, get(row, "state")?))
    })
}

/// Writes a new generation and new states, if the others are as the caller saw them.
pub(super) fn change(
    connection: &Connection,
    owner: &AuthorityOwner,
    new: Option<&Authority>,
    changes: &[AuthorityChange],
    now: Timestamp,
) -> Result<()> {
    for change in changes {
        let update = "UPDATE authorities SET state = ? WHERE owner = ? AND generation = ?
                      AND state = ?";
        let made = params![
            Column(change.to),
            owner.to_string(),
            change.generation,
            Column(change.from)
        ];
        if execute(connection, update, made)? == 0 {
            let generation = change.generation;
            return Err(StoreError::Changed(format!(
                "generation {generation} of {owner}"
            )));
        }
    }
    if let Some(new) = new {
        let query = "SELECT 1 FROM authorities WHERE owner = ? AND generation = ?";
        let taken = params![owner.to_string(), new.generation];
        if one(connection, query, taken, |_| Ok(()))?.is_some() {
            return Err(StoreError::Changed(owner.to_string()));
        }
        certificates::insert_authority(connection, new)?;
    }
    look_at_all(connection, owner, now)
}

/// SQL: the destinations whose trust model asks for this owner; its parameter is the account's id.
fn of_owner(owner: &AuthorityOwner) -> (&'static str, String) {
    match owner {
        AuthorityOwner::Account(account) => (
            "d.trust_model = 'DEDICATED' AND a.id = ?1",
            account.id().to_string(),
        ),
        // The parameter has to be used.
        _ => ("d.trust_model = 'SHARED' AND ?1 = ''", String::new()),
    }
}

pub(super) fn look_at_all(
    connection: &Connection,
    owner: &AuthorityOwner,
    now: Timestamp,
) -> Result<()> {
    let (condition, account) = of_owner(owner);
    let update = format!(
        "UPDATE rotations SET next_look_at = min(next_look_at, ?2), epoch = epoch + 1
         WHERE destination IN (SELECT d.key FROM destinations d JOIN accounts a
                               ON a.key = d.account WHERE {condition})"
    );
    execute(connection, &update, params![account, Column(now)])?;
    Ok(())
}

const IN_USE: &str = "state IN ('PENDING', 'DISTRIBUTED', 'ACTIVE', 'RETIRING')";

/// SQL: the certificates in use that a generation signed.
fn signed_by(owner: &AuthorityOwner, columns: &str) -> (String, String) {
    let (model, account) = match owner {
        AuthorityOwner::Account(account) => ("DEDICATED", account.id().to_string()),
        _ => ("SHARED", String::new()),
    };
    let query = format!(
        "SELECT {columns} FROM client_certificates c JOIN destinations d ON d.key = c.destination
         JOIN accounts a ON a.key = d.account
         WHERE c.{IN_USE} AND c.issuer_generation = ?1 AND c.trust_model = '{model}'
         AND (?2 = '' OR a.id = ?2)"
    );
    (query, account)
}

pub(super) fn generation_use(
    connection: &Connection,
    owner: &AuthorityOwner,
    generation: u32,
) -> Result<GenerationUse> {
    let columns = "count(*) FILTER (WHERE c.state = 'ACTIVE') AS active,
                   count(*) FILTER (WHERE c.state <> 'ACTIVE') AS standby";
    let (query, account) = signed_by(owner, columns);
    let counted = one(connection, &query, params![generation, account], |row| {
        Ok(GenerationUse {
            active: row.get::<_, i64>("active")?.unsigned_abs(),
            standby: row.get::<_, i64>("standby")?.unsigned_abs(),
        })
    });
    Ok(counted?.unwrap_or_default())
}

/// Revokes a generation and every certificate of it that is in use.
pub(super) fn revoke(
    connection: &Connection,
    owner: &AuthorityOwner,
    generation: u32,
    now: Timestamp,
) -> Result<Vec<DestinationName>> {
    let update = "UPDATE authorities SET state = 'REVOKED' WHERE owner = ? AND generation = ?";
    if execute(connection, update, params![owner.to_string(), generation])? == 0 {
        return Err(StoreError::NotFound(format!(
            "generation {generation} of {owner}"
        )));
    }
    let columns = "c.*, d.key AS destination_key, d.id AS destination_id, a.id AS account_id";
    let (query, account) = signed_by(owner, columns);
    let found = all(connection, &query, params![generation, account], |row| {
        let name =
            DestinationName::new(&get::<Id>(row, "account_id")?, &get(row, "destination_id")?);
        let key: i64 = row.get("destination_key")?;
        Ok((name, key, certificates::certificate(row)?))
    })?;
    let mut names = Vec::new();
    for (name, key, certificate) in found {
        let reason = RevocationReason::CaCompromise;
        revoking::revoke_one(connection, key, &certificate, reason, now)?;
        rotations::look(connection, key, now)?;
        if names.last() != Some(&name) {
            names.push(name);
        }
    }
    look_at_all(connection, owner, now)?;
    names.sort();
    names.dedup();
    Ok(names)
}

/// A certificate of ours must not be accepted any more: it goes on its generation's revocation list.
pub(super) fn note_revocation(
    connection: &Connection,
    destination: i64,
    certificate: &ClientCertificate,
    reason: RevocationReason,
    now: Timestamp,
) -> Result<()> {
    let Some(generation) = certificate.issuer_generation else {
        return Ok(());
    };
    let owner = match certificate.trust_model {
        TrustModel::Dedicated => {
            let query = "SELECT 'accounts/' || a.id AS owner FROM destinations d
                         JOIN accounts a ON a.key = d.account WHERE d.key = ?";
            one(connection, query, [destination], |row| get(row, "owner"))?
        }
        TrustModel::Shared => Some(AuthorityOwner::Shared),
        TrustModel::Customer => None,
    };
    let Some(owner) = owner else { return Ok(()) };
    let revocation = Revocation {
        serial: certificate.serial.clone(),
        revoked_at: now,
        reason,
        not_after: certificate.not_after,
    };
    insert_revocation(connection, &owner, generation, &revocation)
}

/// How destinations stand towards a generation.
pub(super) fn trust(
    connection: &Connection,
    owner: &AuthorityOwner,
    generation: u32,
    after: Option<&DestinationName>,
    size: usize,
) -> Result<Page<DestinationTrust>> {
    let (condition, account) = of_owner(owner);
    let query = format!(
        "SELECT a.id AS account_id, d.id AS destination_id, r.*, c.issuer_generation AS presented
         FROM destinations d JOIN accounts a ON a.key = d.account
         JOIN rotations r ON r.destination = d.key
         LEFT JOIN client_certificates c ON c.destination = d.key
                                        AND c.version = d.active_certificate
         WHERE {condition} AND (a.id, d.id) > (?2, ?3) ORDER BY a.id, d.id LIMIT ?4"
    );
    let (after_account, after_id) =
        after.map_or(("", ""), |name| (name.account(), name.destination()));
    let wanted = params![account, after_account, after_id, limit(size)];
    page(connection, &query, wanted, size, |row| {
        destination_trust(row, generation)
    })
}

fn destination_trust(row: &Row<'_>, generation: u32) -> rusqlite::Result<DestinationTrust> {
    let account: Id = get(row, "account_id")?;
    let known = row.get::<_, Option<u32>>("trust_generation")? == Some(generation);
    Ok(DestinationTrust {
        destination: DestinationName::new(&account, &get(row, "destination_id")?),
        state: get_optional(row, "trust_state")?
            .filter(|_| known)
            .unwrap_or_default(),
        at: get_optional(row, "trust_at")?.filter(|_| known),
        presented: row.get("presented")?,
        held_up: get_optional(row, "held_up")?,
    })
}

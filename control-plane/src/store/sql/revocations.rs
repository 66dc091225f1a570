//! Revocations, and the lists of them.

use async_trait::async_trait;
use countersign_shared::time::Timestamp;
use rusqlite::params;

use super::{
    Database,
    connection::{Connection, Row},
    rows::{Column, all, execute, get, one, signed},
};
use crate::{
    model::{Authority, AuthorityOwner, Crl, Revocation},
    store::{Generation, Result, RevocationStore, Revoked, StoreError},
};

#[async_trait]
impl<D: Database> RevocationStore for D {
    async fn revoke(
        &self,
        owner: &AuthorityOwner,
        generation: u32,
        revocations: Vec<Revocation>,
    ) -> Result<()> {
        let owner = owner.clone();
        self.write(move |connection| {
            for revocation in &revocations {
                insert_revocation(connection, &owner, generation, revocation)?;
            }
            Ok(())
        })
        .await
    }

    async fn revocations(
        &self,
        owner: &AuthorityOwner,
        generation: u32,
        after: Timestamp,
    ) -> Result<Revoked> {
        let owner = owner.to_string();
        self.read(move |connection| {
            // The number first: what is recorded in between is then at worst listed and not covered.
            let query = "SELECT coalesce(max(sequence), 0) FROM revocations
                         WHERE owner = ? AND generation = ?";
            let last = one(connection, query, params![owner, generation], |row| {
                row.get::<_, i64>(0)
            })?;
            let query = "SELECT * FROM revocations
                         WHERE owner = ? AND generation = ? AND not_after > ? ORDER BY sequence";
            let wanted = params![owner, generation, Column(after)];
            Ok(Revoked {
                revocations: all(connection, query, wanted, revocation)?,
                last: last.unwrap_or_default().unsigned_abs(),
            })
        })
        .await
    }

    async fn put_crl(&self, crl: Crl, covers: u64, due_at: Timestamp) -> Result<()> {
        self.write(move |connection| {
            let update = "
                UPDATE crls SET number = ?3, this_update = ?4, next_update = ?5, der = ?6,
                due_at = CASE WHEN EXISTS (SELECT 1 FROM revocations WHERE owner = ?1
                                           AND generation = ?2 AND sequence > ?7)
                         THEN 0 ELSE CAST(?8 AS BIGINT) END
                WHERE owner = ?1 AND generation = ?2 AND number < ?3";
            let owner = crl.owner.to_string();
            let made = params![
                owner,
                crl.generation,
                signed(crl.number),
                Column(crl.this_update),
                Column(crl.next_update),
                crl.der,
                signed(covers),
                Column(due_at)
            ];
            if execute(connection, update, made)? > 0 {
                return Ok(());
            }
            let known = "SELECT 1 FROM crls WHERE owner = ? AND generation = ?";
            let known = one(
                connection,
                known,
                params![owner, crl.generation],
                |_| Ok(()),
            )?;
            let name = format!("the revocation list of {owner} G{}", crl.generation);
            Err(match known {
                Some(()) => StoreError::Changed(name),
                None => StoreError::NotFound(name),
            })
        })
        .await
    }

    async fn crl(&self, owner: &AuthorityOwner, generation: u32) -> Result<Option<Crl>> {
        let owner = owner.to_string();
        self.read(move |connection| {
            let query = "SELECT * FROM crls WHERE owner = ? AND generation = ? AND number > 0";
            one(connection, query, params![owner, generation], crl)
        })
        .await
    }

    async fn crls(&self, owner: &AuthorityOwner) -> Result<Vec<Crl>> {
        let owner = owner.to_string();
        self.read(move |connection| {
            let query = "SELECT * FROM crls WHERE owner = ? AND number > 0 ORDER BY generation";
            all(connection, query, [owner], crl)
        })
        .await
    }

    async fn crls_due(
        &self,
        now: Timestamp,
        after: Option<Generation>,
        size: usize,
    ) -> Result<Vec<Generation>> {
        self.read(move |connection| {
            let (owner, generation) = match &after {
                Some((owner, generation)) => (owner.to_string(), *generation),
                None => (String::new(), 0),
            };
            let query =
                "SELECT owner, generation FROM crls JOIN authorities USING (owner, generation)
                         WHERE due_at <= ?1 AND not_after > ?1 AND state <> 'ABORTED'
                         AND (owner, generation) > (?2, ?3) ORDER BY owner, generation LIMIT ?4";
            let size = i64::try_from(size).unwrap_or(i64::MAX);
            let wanted = params![Column(now), owner, generation, size];
            all(connection, query, wanted, |row| {
                Ok((get(row, "owner")?, row.get("generation")?))
            })
        })
        .await
    }
}

/// Records a revoked certificate of a generation, unless it is recorded already; its list is due then.
/// For transactions that revoke.
pub(super) fn insert_revocation(
    connection: &Connection,
    owner: &AuthorityOwner,
    generation: u32,
    new: &Revocation,
) -> Result<()> {
    let owner = owner.to_string();
    let insert =
        "INSERT INTO revocations (owner, generation, serial, revoked_at, reason, not_after)
                  VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING";
    let made = params![
        owner,
        generation,
        new.serial,
        Column(new.revoked_at),
        Column(new.reason),
        Column(new.not_after)
    ];
    if execute(connection, insert, made)? > 0 {
        let due = "UPDATE crls SET due_at = 0 WHERE owner = ? AND generation = ?";
        execute(connection, due, params![owner, generation])?;
    }
    Ok(())
}

/// Gives a new delivery authority a list that is due at once and has no content yet.
pub(super) fn insert_list(connection: &Connection, authority: &Authority) -> Result<()> {
    if let AuthorityOwner::Account(_) | AuthorityOwner::Shared = &authority.owner {
        let insert = "INSERT INTO crls (owner, generation, number, this_update, next_update, der,
                                        due_at) VALUES (?, ?, 0, 0, 0, ?, 0)";
        let made = params![authority.owner.to_string(), authority.generation, b""];
        execute(connection, insert, made)?;
    }
    Ok(())
}

fn revocation(row: &Row<'_>) -> rusqlite::Result<Revocation> {
    Ok(Revocation {
        serial: row.get("serial")?,
        revoked_at: get(row, "revoked_at")?,
        reason: get(row, "reason")?,
        not_after: get(row, "not_after")?,
    })
}

fn crl(row: &Row<'_>) -> rusqlite::Result<Crl> {
    Ok(Crl {
        owner: get(row, "owner")?,
        generation: row.get("generation")?,
        number: row.get::<_, i64>("number")?.unsigned_abs(),
        this_update: get(row, "this_update")?,
        next_update: get(row, "next_update")?,
        der: row.get("der")?,
    })
}

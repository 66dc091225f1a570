//! Join tokens, agents, and what they hold.

use std::collections::HashSet;

use async_trait::async_trait;
use countersign_shared::{
    name::{AgentName, DestinationName, Id, JoinTokenName},
    time::Timestamp,
};
use rusqlite::params;

use super::{
    Database,
    connection::{Connection, Row},
    leases,
    rows::{
        Column, agent_key, all, destination_keys, execute, get, get_optional, limit, one, page,
        signed,
    },
};
use crate::{
    audit,
    model::{
        Agent, BundleAcknowledgement, BundleStatus, DestinationKey, Enrollment, JoinToken,
        JoinTokenUse, Page, PresentedIdentity, Renewal,
    },
    store::{AgentStore, Result, StoreError},
};

#[async_trait]
impl<D: Database> AgentStore for D {
    async fn create_join_token(&self, token: JoinToken) -> Result<JoinToken> {
        audit::about(&token.name);
        self.write(move |connection| {
            let insert = "INSERT INTO join_tokens
                          (id, secret_sha256, region, agent_id, source_ranges, recovers, created_at,
                           expires_at)
                          VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING";
            let made = params![
                token.name.id().as_str(),
                token.secret_sha256,
                token.region.as_ref().map(Id::as_str),
                token.agent_id.as_ref().map(Id::as_str),
                Column(token.source_ranges.as_slice()),
                token.recovers,
                Column(token.created_at),
                Column(token.expires_at)
            ];
            if execute(connection, insert, made)? == 0 {
                return Err(StoreError::AlreadyExists(token.name.to_string()));
            }
            read_token(connection, &token.name)
        })
        .await
    }

    async fn join_token(&self, name: &JoinTokenName) -> Result<JoinToken> {
        let name = name.clone();
        self.read(move |connection| read_token(connection, &name))
            .await
    }

    async fn join_tokens(&self, after: &str, size: usize) -> Result<Page<JoinToken>> {
        let after = after.to_owned();
        self.read(move |connection| {
            let query = "SELECT * FROM join_tokens WHERE id > ? ORDER BY id LIMIT ?";
            page(connection, query, params![after, limit(size)], size, token)
        })
        .await
    }

    async fn revoke_join_token(&self, name: &JoinTokenName, now: Timestamp) -> Result<JoinToken> {
        let name = name.clone();
        self.write(move |connection| {
            let update = "UPDATE join_tokens SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?";
            execute(connection, update, params![Column(now), name.id().as_str()])?;
            read_token(connection, &name)
        })
        .await
    }

    async fn enroll(&self, enrollment: Enrollment) -> Result<Agent> {
        audit::about(&enrollment.token);
        self.write(move |connection| enroll(connection, &enrollment))
            .await
    }

    async fn agent(&self, name: &AgentName) -> Result<Agent> {
        let name = name.clone();
        self.read(move |connection| read_agent(connection, &name))
            .await
    }

    async fn agents(&self, after: &str, size: usize) -> Result<Page<Agent>> {
        let after = after.to_owned();
        self.read(move |connection| {
            let query = "SELECT * FROM agents WHERE id > ? ORDER BY id LIMIT ?";
            page(connection, query, params![after, limit(size)], size, agent)
        })
        .await
    }

    async fn agent_seen(
        &self,
        name: &AgentName,
        version: Option<String>,
        identity_not_after: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<()> {
        let name = name.clone();
        self.write(move |connection| {
            let update = "UPDATE agents SET last_seen_at = ?, version = coalesce(?, version),
                          identity_not_after = coalesce(?, identity_not_after) WHERE id = ?";
            let seen = params![
                Column(now),
                version,
                identity_not_after.map(Column),
                name.id().as_str()
            ];
            match execute(connection, update, seen)? {
                0 => Err(StoreError::NotFound(name.to_string())),
                _ => Ok(()),
            }
        })
        .await
    }

    async fn set_agent_draining(&self, name: &AgentName, draining: bool) -> Result<Agent> {
        let name = name.clone();
        self.write(move |connection| {
            let update = "UPDATE agents SET draining = ?1,
                          suspended_at = CASE WHEN CAST(?1 AS BIGINT) = 1 THEN suspended_at END WHERE id = ?2";
            execute(connection, update, params![draining, name.id().as_str()])?;
            read_agent(connection, &name)
        })
        .await
    }

    async fn renew_agent(
        &self,
        name: &AgentName,
        presented: PresentedIdentity,
        requested: [u8; 32],
        now: Timestamp,
    ) -> Result<(Agent, Renewal, Vec<DestinationKey>)> {
        let name = name.clone();
        self.write(move |connection| {
            let renewal = read_agent(connection, &name)?.renewal(&presented, &requested);
            let ended = match renewal {
                Renewal::Repeated | Renewal::Replaced => Vec::new(),
                Renewal::Next => {
                    let update = "UPDATE agents SET previous_key_sha256 = public_key_sha256,
                                  public_key_sha256 = ? WHERE id = ?";
                    execute(connection, update, params![requested, name.id().as_str()])?;
                    Vec::new()
                }
                Renewal::Cloned => suspend(connection, &name, now)?,
            };
            Ok((read_agent(connection, &name)?, renewal, ended))
        })
        .await
    }

    async fn suspend_agent(
        &self,
        name: &AgentName,
        now: Timestamp,
    ) -> Result<(Agent, Vec<DestinationKey>)> {
        let name = name.clone();
        self.write(move |connection| {
            let ended = suspend(connection, &name, now)?;
            Ok((read_agent(connection, &name)?, ended))
        })
        .await
    }

    async fn evict_agent(
        &self,
        name: &AgentName,
        now: Timestamp,
    ) -> Result<(Agent, Vec<DestinationKey>)> {
        let name = name.clone();
        self.write(move |connection| {
            let update = "UPDATE agents SET evicted_at = coalesce(evicted_at, ?) WHERE id = ?";
            execute(connection, update, params![Column(now), name.id().as_str()])?;
            let none = HashSet::new();
            let released = leases::release_all_but(connection, &name, &none, now)?;
            Ok((read_agent(connection, &name)?, released))
        })
        .await
    }

    async fn leases_of(&self, name: &AgentName) -> Result<usize> {
        let name = name.clone();
        self.read(move |connection| {
            let query = "SELECT count(*) FROM leases WHERE agent = ?";
            let key = agent_key(connection, &name)?;
            let count: Option<u32> = one(connection, query, [key], |row| row.get(0))?;
            Ok(count.unwrap_or_default() as usize)
        })
        .await
    }

    async fn acknowledge_bundle(&self, acknowledgement: BundleAcknowledgement) -> Result<()> {
        self.write(move |connection| acknowledge(connection, &acknowledgement))
            .await
    }

    async fn durable_agents(
        &self,
        destination: &DestinationName,
        generation: u64,
    ) -> Result<Vec<AgentName>> {
        let name = destination.clone();
        self.read(move |connection| {
            let (key, _) = destination_keys(connection, &name)?;
            let query =
                "SELECT g.id FROM bundle_acknowledgements b JOIN agents g ON g.key = b.agent
                         WHERE b.destination = ? AND b.generation = ? AND b.status IN (?, ?)
                         ORDER BY g.id";
            let wanted = params![
                key,
                signed(generation),
                Column(BundleStatus::Durable),
                Column(BundleStatus::Active)
            ];
            all(connection, query, wanted, |row| {
                Ok(get::<Id>(row, "id")?.into())
            })
        })
        .await
    }
}

fn read_token(connection: &Connection, name: &JoinTokenName) -> Result<JoinToken> {
    let query = "SELECT * FROM join_tokens WHERE id = ?";
    one(connection, query, [name.id().as_str()], token)?
        .ok_or_else(|| StoreError::NotFound(name.to_string()))
}

fn token(row: &Row<'_>) -> rusqlite::Result<JoinToken> {
    let used_by: Option<Id> = get_optional(row, "used_by")?;
    let public_key: Option<[u8; 32]> = row.get("public_key_sha256")?;
    Ok(JoinToken {
        name: get::<Id>(row, "id")?.into(),
        secret_sha256: row.get("secret_sha256")?,
        region: get_optional(row, "region")?,
        agent_id: get_optional(row, "agent_id")?,
        source_ranges: get(row, "source_ranges")?,
        recovers: row.get("recovers")?,
        created_at: get(row, "created_at")?,
        expires_at: get(row, "expires_at")?,
        revoked_at: get_optional(row, "revoked_at")?,
        used: used_by
            .zip(public_key)
            .map(|(agent, public_key_sha256)| JoinTokenUse {
                agent: agent.into(),
                public_key_sha256,
            }),
    })
}

fn enroll(connection: &Connection, new: &Enrollment) -> Result<Agent> {
    let token = read_token(connection, &new.token)?;
    match &token.used {
        Some(used) if *used != new.used => {
            return Err(StoreError::Precondition(
                "the join token was used by another agent: make a new one".to_owned(),
            ));
        }
        Some(_) => return read_agent(connection, &new.used.agent),
        None => {}
    }
    let update = "UPDATE join_tokens SET used_by = ?, public_key_sha256 = ? WHERE id = ?";
    let used = params![
        new.used.agent.id().as_str(),
        new.used.public_key_sha256,
        new.token.id().as_str()
    ];
    execute(connection, update, used)?;
    if token.recovers {
        return recover(connection, new);
    }
    let insert = "INSERT INTO agents (id, region, version, created_at, last_seen_at,
                  identity_not_after, public_key_sha256, identity_since)
                  VALUES (?1, ?2, '', ?3, ?3, ?4, ?5, ?3)
                  ON CONFLICT DO NOTHING";
    let made = params![
        new.used.agent.id().as_str(),
        new.region.as_ref().map(Id::as_str),
        Column(new.now),
        Column(new.identity_not_after),
        new.used.public_key_sha256
    ];
    if execute(connection, insert, made)? == 0 {
        return Err(StoreError::AlreadyExists(new.used.agent.to_string()));
    }
    read_agent(connection, &new.used.agent)
}

/// A new identity in the place of what the agent had.
fn recover(connection: &Connection, new: &Enrollment) -> Result<Agent> {
    let update = "UPDATE agents SET public_key_sha256 = ?1, previous_key_sha256 = NULL,
                  suspended_at = NULL, identity_not_after = ?2, last_seen_at = ?3, identity_since = ?3
                  WHERE id = ?4";
    let name = new.used.agent.id().as_str();
    let values = params![
        new.used.public_key_sha256,
        Column(new.identity_not_after),
        Column(new.now),
        name
    ];
    execute(connection, update, values)?;
    // No row was changed when there is no such agent.
    read_agent(connection, &new.used.agent)
}

fn suspend(
    connection: &Connection,
    name: &AgentName,
    now: Timestamp,
) -> Result<Vec<DestinationKey>> {
    let update = "UPDATE agents SET suspended_at = coalesce(suspended_at, ?) WHERE id = ?";
    execute(connection, update, params![Column(now), name.id().as_str()])?;
    leases::release_all_but(connection, name, &HashSet::new(), now)
}

fn read_agent(connection: &Connection, name: &AgentName) -> Result<Agent> {
    let query = "SELECT * FROM agents WHERE id = ?";
    one(connection, query, [name.id().as_str()], agent)?
        .ok_or_else(|| StoreError::NotFound(name.to_string()))
}

fn agent(row: &Row<'_>) -> rusqlite::Result<Agent> {
    Ok(Agent {
        name: get::<Id>(row, "id")?.into(),
        region: get_optional(row, "region")?,
        version: row.get("version")?,
        created_at: get(row, "created_at")?,
        last_seen_at: get(row, "last_seen_at")?,
        identity_not_after: get(row, "identity_not_after")?,
        draining: row.get("draining")?,
        evicted_at: get_optional(row, "evicted_at")?,
        suspended_at: get_optional(row, "suspended_at")?,
        public_key_sha256: row.get("public_key_sha256")?,
        previous_key_sha256: row.get("previous_key_sha256")?,
        identity_since: get(row, "identity_since")?,
    })
}

fn acknowledge(connection: &Connection, word: &BundleAcknowledgement) -> Result<()> {
    let (destination, _) = destination_keys(connection, &word.destination)?;
    let agent = agent_key(connection, &word.agent)?;
    let upsert = "INSERT INTO bundle_acknowledgements
                  (destination, agent, generation, status, reason, at) VALUES (?, ?, ?, ?, ?, ?)
                  ON CONFLICT (destination, agent) DO UPDATE SET generation = excluded.generation,
                  status = excluded.status, reason = excluded.reason, at = excluded.at
                  WHERE excluded.generation >= bundle_acknowledgements.generation";
    let said = params![
        destination,
        agent,
        signed(word.generation),
        Column(word.status),
        word.reason,
        Column(word.at)
    ];
    execute(connection, upsert, said)?;
    Ok(())
}

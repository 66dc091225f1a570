//! The trait over the functions that do it.

use async_trait::async_trait;
use countersign_shared::{
    class::FailureClass,
    name::{AgentName, DestinationName, Id},
    time::Timestamp,
};
use rusqlite::params;

use super::{
    Database, authorities, revoking, rotation_steps, rotations,
    rows::{Column, all, destination_keys, execute, get, limit, one},
    stops,
};
use crate::{
    model::{
        Authority, AuthorityOwner, ClientCertificate, Destination, DestinationKey,
        DestinationTrust, GenerationUse, Page, RevocationReason, RotationChange, RotationView,
        Stop, TrustState,
    },
    store::{AuthorityChange, Result, RotationStore},
};

#[async_trait]
impl<D: Database> RotationStore for D {
    async fn rotation(&self, destination: &DestinationName) -> Result<RotationView> {
        let name = destination.clone();
        self.read(move |connection| {
            connection.snapshot(|connection| rotations::view(connection, &name))
        })
        .await
    }

    async fn rotations_due(&self, now: Timestamp, size: usize) -> Result<Vec<DestinationName>> {
        self.read(move |connection| {
            let query = "SELECT a.id AS account_id, d.id AS destination_id FROM rotations r
                         JOIN destinations d ON d.key = r.destination
                         JOIN accounts a ON a.key = d.account
                         WHERE r.next_look_at <= ? ORDER BY r.next_look_at LIMIT ?";
            let wanted = params![Column(now), limit(size) - 1];
            all(connection, query, wanted, |row| {
                let account: Id = get(row, "account_id")?;
                Ok(DestinationName::new(&account, &get(row, "destination_id")?))
            })
        })
        .await
    }

    async fn next_rotation(&self) -> Result<Option<Timestamp>> {
        self.read(|connection| {
            let query = "SELECT min(next_look_at) AS at FROM rotations";
            let at: Option<Option<Column<Timestamp>>> =
                one(connection, query, [], |row| row.get("at"))?;
            Ok(at.flatten().map(|at| at.0))
        })
        .await
    }

    async fn change_rotation(&self, change: RotationChange) -> Result<Destination> {
        self.write(move |connection| rotation_steps::change(connection, &change))
            .await
    }

    async fn ask_rotation(&self, destination: &DestinationName, now: Timestamp) -> Result<()> {
        let name = destination.clone();
        self.write(move |connection| rotations::asked(connection, &name, now))
            .await
    }

    async fn look_at_all(&self, owner: &AuthorityOwner, now: Timestamp) -> Result<()> {
        let owner = owner.clone();
        self.write(move |connection| authorities::look_at_all(connection, &owner, now))
            .await
    }

    async fn confirm_certificate(
        &self,
        destination: DestinationKey,
        version: u32,
        now: Timestamp,
    ) -> Result<bool> {
        self.write(move |connection| rotations::confirm(connection, destination, version, now))
            .await
    }

    async fn note_refusal(
        &self,
        destination: DestinationKey,
        version: u32,
        class: FailureClass,
        now: Timestamp,
    ) -> Result<bool> {
        self.write(move |connection| {
            rotations::refuse(connection, destination, version, class, now)
        })
        .await
    }

    async fn upload_certificate(
        &self,
        destination: &DestinationName,
        certificate: ClientCertificate,
        now: Timestamp,
    ) -> Result<Destination> {
        let name = destination.clone();
        self.write(move |connection| revoking::upload(connection, &name, &certificate, now))
            .await
    }

    async fn revoke_certificate(
        &self,
        destination: &DestinationName,
        version: u32,
        reason: RevocationReason,
        now: Timestamp,
    ) -> Result<ClientCertificate> {
        let name = destination.clone();
        self.write_urgent(1, move |connection| {
            revoking::revoke(connection, &name, version, reason, now)
        })
        .await
    }

    async fn stops(&self, destination: &DestinationName) -> Result<Vec<Stop>> {
        let name = destination.clone();
        self.read(move |connection| stops::of_destination(connection, &name))
            .await
    }

    async fn open_stops(&self, agent: &AgentName) -> Result<Vec<Stop>> {
        let agent = agent.clone();
        self.read(move |connection| stops::open_of(connection, &agent))
            .await
    }

    async fn acknowledge_stop(
        &self,
        agent: &AgentName,
        destination: &DestinationName,
        serials: Vec<String>,
        now: Timestamp,
    ) -> Result<()> {
        let (agent, name) = (agent.clone(), destination.clone());
        self.write(move |connection| stops::acknowledge(connection, &agent, &name, &serials, now))
            .await
    }

    async fn forget_stops(&self, before: Timestamp) -> Result<()> {
        self.write(move |connection| {
            let delete = "DELETE FROM stops WHERE acknowledged_at < ?";
            execute(connection, delete, [Column(before)])?;
            Ok(())
        })
        .await
    }

    async fn change_authorities(
        &self,
        owner: &AuthorityOwner,
        new: Option<Authority>,
        changes: Vec<AuthorityChange>,
        now: Timestamp,
    ) -> Result<()> {
        let owner = owner.clone();
        self.write(move |connection| {
            authorities::change(connection, &owner, new.as_ref(), &changes, now)
        })
        .await
    }

    async fn revoke_authority(
        &self,
        owner: &AuthorityOwner,
        generation: u32,
        now: Timestamp,
    ) -> Result<Vec<DestinationName>> {
        let owner = owner.clone();
        self.write(move |connection| authorities::revoke(connection, &owner, generation, now))
            .await
    }

    async fn generation_use(
        &self,
        owner: &AuthorityOwner,
        generation: u32,
    ) -> Result<GenerationUse> {
        let owner = owner.clone();
        self.read(move |connection| authorities::generation_use(connection, &owner, generation))
            .await
    }

    async fn destination_trust(
        &self,
        owner: &AuthorityOwner,
        generation: u32,
        after: Option<&DestinationName>,
        size: usize,
    ) -> Result<Page<DestinationTrust>> {
        let (owner, after) = (owner.clone(), after.cloned());
        self.read(move |connection| {
            authorities::trust(connection, &owner, generation, after.as_ref(), size)
        })
        .await
    }

    async fn set_trust(
        &self,
        destination: &DestinationName,
        generation: u32,
        state: TrustState,
        now: Timestamp,
    ) -> Result<()> {
        let name = destination.clone();
        self.write(move |connection| {
            let (key, _) = destination_keys(connection, &name)?;
            let update = "UPDATE rotations SET trust_generation = ?, trust_state = ?, trust_at = ?,
                          epoch = epoch + 1 WHERE destination = ?";
            let made = params![generation, Column(state), Column(now), key];
            execute(connection, update, made)?;
            Ok(())
        })
        .await
    }
}

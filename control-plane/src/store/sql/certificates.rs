//! Authorities, client certificates, and serial numbers.

use async_trait::async_trait;
use countersign_shared::{name::DestinationName, time::Timestamp};
use rusqlite::params;

use super::{
    Database,
    connection::{Connection, Row},
    revocations,
    rows::{Column, all, destination_keys, execute, get, get_optional, limit, one, page},
};
use crate::{
    model::{
        Authority, AuthorityOwner, AuthorityState, ClientCertificate, ClientCertificateState, Page,
        Sealed, Serial, TrustModel,
    },
    store::{CertificateStore, Result, StoreError},
};

#[async_trait]
impl<D: Database> CertificateStore for D {
    async fn record_serials(&self, serials: Vec<Serial>, now: Timestamp) -> Result<()> {
        self.write_checked(move |connection| {
            for serial in &serials {
                let query = "SELECT 1 FROM serials WHERE serial = ?";
                if one(connection, query, [Column(*serial)], |_| Ok(()))?.is_some() {
                    let taken = format!("serial number {}", serial.to_hex());
                    return Err(StoreError::AlreadyExists(taken));
                }
            }
            for serial in serials {
                let insert = "INSERT INTO serials (serial, recorded_at) VALUES (?, ?)";
                execute(connection, insert, params![Column(serial), Column(now)])?;
            }
            Ok(())
        })
        .await
    }

    async fn authorities(&self, owner: &AuthorityOwner) -> Result<Vec<Authority>> {
        let owner = owner.clone();
        self.read(move |connection| {
            let query = "SELECT * FROM authorities WHERE owner = ? ORDER BY generation";
            all(connection, query, [owner.to_string()], |row| {
                Ok(Authority {
                    owner: owner.clone(),
                    generation: row.get("generation")?,
                    anchor: row.get("anchor")?,
                    provenance: row.get("provenance")?,
                    cross: row.get("cross_signed")?,
                    state: get(row, "state")?,
                    sealed_key: Sealed(row.get("sealed_key")?),
                    not_before: get(row, "not_before")?,
                    not_after: get(row, "not_after")?,
                })
            })
        })
        .await
    }

    async fn client_certificate(
        &self,
        destination: &DestinationName,
        version: u32,
    ) -> Result<ClientCertificate> {
        let name = destination.clone();
        self.read(move |connection| {
            let (key, _) = destination_keys(connection, &name)?;
            read_certificate(connection, key, version)?
                .ok_or_else(|| StoreError::NotFound(format!("{name}/clientCertificates/{version}")))
        })
        .await
    }

    async fn client_certificates(
        &self,
        destination: &DestinationName,
        before: Option<u32>,
        size: usize,
    ) -> Result<Page<ClientCertificate>> {
        let name = destination.clone();
        self.read(move |connection| {
            let (key, _) = destination_keys(connection, &name)?;
            let query = "SELECT * FROM client_certificates WHERE destination = ? AND version < ?
                         ORDER BY version DESC LIMIT ?";
            let before = before.map_or(i64::MAX, i64::from);
            page(
                connection,
                query,
                params![key, before, limit(size)],
                size,
                certificate,
            )
        })
        .await
    }
}

pub(super) fn insert_authority(connection: &Connection, authority: &Authority) -> Result<()> {
    let insert = "INSERT INTO authorities
                  (owner, generation, anchor, provenance, cross_signed, state, sealed_key,
                   not_before, not_after)
                  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let made = params![
        authority.owner.to_string(),
        authority.generation,
        authority.anchor,
        authority.provenance,
        authority.cross,
        Column(authority.state),
        authority.sealed_key.0,
        Column(authority.not_before),
        Column(authority.not_after)
    ];
    execute(connection, insert, made)?;
    revocations::insert_list(connection, authority)
}

/// Inserts a new certificate. `Changed` when the generation that signed it does not sign any more.
pub(super) fn insert_certificate(
    connection: &Connection,
    destination: i64,
    new: &ClientCertificate,
) -> Result<()> {
    if let Some(generation) = new.issuer_generation {
        let owner = match new.trust_model {
            TrustModel::Shared => "'shared'",
            _ => {
                "(SELECT 'accounts/' || a.id FROM destinations d JOIN accounts a
                  ON a.key = d.account WHERE d.key = ?1)"
            }
        };
        // Both use both parameters.
        let query = format!(
            "SELECT state FROM authorities WHERE owner = {owner} AND generation = ?2
             AND CAST(?1 AS BIGINT) IS NOT NULL"
        );
        let wanted = params![destination, generation];
        let state = one(connection, &query, wanted, |row| get(row, "state"))?;
        if state != Some(AuthorityState::Active) {
            let text = format!("generation {generation} of the authority");
            return Err(StoreError::Changed(text));
        }
    }
    let insert = "INSERT INTO client_certificates
                  (destination, version, state, trust_model, key_algorithm, serial, certificate,
                   chain, issuer_generation, sealed_key, not_before, not_after, activated_at,
                   confirmed_at, replaced_at, revoked_at)
                  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let made = params![
        destination,
        new.version,
        Column(new.state),
        Column(new.trust_model),
        Column(new.key_algorithm),
        new.serial,
        new.certificate,
        Column(new.chain.as_slice()),
        new.issuer_generation,
        new.sealed_key.0,
        Column(new.not_before),
        Column(new.not_after),
        new.activated_at.map(Column),
        new.confirmed_at.map(Column),
        new.replaced_at.map(Column),
        new.revoked_at.map(Column)
    ];
    execute(connection, insert, made)?;
    Ok(())
}

pub(super) fn read_certificate(
    connection: &Connection,
    destination: i64,
    version: u32,
) -> Result<Option<ClientCertificate>> {
    let query = "SELECT * FROM client_certificates WHERE destination = ? AND version = ?";
    one(
        connection,
        query,
        params![destination, version],
        certificate,
    )
}

/// The next certificate and the one before, of those that agents hold besides the active one.
pub(super) fn standby(
    connection: &Connection,
    destination: i64,
) -> Result<(Option<ClientCertificate>, Option<ClientCertificate>)> {
    use ClientCertificateState as State;
    let newest_in = |states: [State; 2]| {
        let query = "SELECT * FROM client_certificates WHERE destination = ? AND state IN (?, ?)
                     ORDER BY version DESC LIMIT 1";
        let wanted = params![destination, Column(states[0]), Column(states[1])];
        one(connection, query, wanted, certificate)
    };
    Ok((
        newest_in([State::Pending, State::Distributed])?,
        newest_in([State::Retiring, State::Retiring])?,
    ))
}

pub(super) fn certificate(row: &Row<'_>) -> rusqlite::Result<ClientCertificate> {
    Ok(ClientCertificate {
        version: row.get("version")?,
        state: get(row, "state")?,
        trust_model: get(row, "trust_model")?,
        key_algorithm: get(row, "key_algorithm")?,
        serial: row.get("serial")?,
        certificate: row.get("certificate")?,
        chain: get(row, "chain")?,
        issuer_generation: row.get("issuer_generation")?,
        sealed_key: Sealed(row.get("sealed_key")?),
        not_before: get(row, "not_before")?,
        not_after: get(row, "not_after")?,
        activated_at: get_optional(row, "activated_at")?,
        confirmed_at: get_optional(row, "confirmed_at")?,
        replaced_at: get_optional(row, "replaced_at")?,
        revoked_at: get_optional(row, "revoked_at")?,
    })
}

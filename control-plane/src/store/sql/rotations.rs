//! How client certificates are being replaced: what is known, which a step is decided from, and what
//! is noted of it from outside. The steps are in `rotation_steps`.

use countersign_shared::{class::FailureClass, name::DestinationName, time::Timestamp};
use rusqlite::params;

use super::{
    authorities, certificates,
    connection::{Connection, Row},
    rows::{Column, all, destination_keys, execute, get, get_optional, one},
    tenants::read_destination,
};
use crate::{
    model::{
        AuthorityOwner, CertificateRequest, ClientCertificate, DestinationKey, HeldUp, ProbeNote,
        Refusal, RevocationReason, Rotation, RotationView, Sealed, TrustModel,
    },
    store::{Result, StoreError},
};

/// A new destination's row.
pub(super) fn begin(connection: &Connection, destination: i64, look_at: Timestamp) -> Result<()> {
    let insert = "INSERT INTO rotations (destination, epoch, next_look_at, asked, refusals)
                  VALUES (?, 1, ?, 0, 0)";
    execute(connection, insert, params![destination, Column(look_at)])?;
    Ok(())
}

/// A destination that goes: what it presented must not be presented any more.
pub(super) fn end(connection: &Connection, destination: i64, now: Timestamp) -> Result<()> {
    for certificate in in_use(connection, destination)? {
        if certificate.trust_model != TrustModel::Customer {
            let reason = RevocationReason::CessationOfOperation;
            authorities::note_revocation(connection, destination, &certificate, reason, now)?;
        }
    }
    for statement in [
        "DELETE FROM rotations WHERE destination = ?",
        "DELETE FROM probe_notes WHERE destination = ?",
        "DELETE FROM certificate_requests WHERE destination = ?",
        "DELETE FROM stops WHERE destination = ?",
    ] {
        execute(connection, statement, [destination])?;
    }
    Ok(())
}

/// Reads the whole view.
pub(super) fn view(connection: &Connection, name: &DestinationName) -> Result<RotationView> {
    let destination = read_destination(connection, name)?;
    let key = destination.key.0;
    let query = "SELECT max(coalesce((SELECT max(version) FROM client_certificates
                                      WHERE destination = ?1), 0),
                            coalesce((SELECT version FROM certificate_requests
                                      WHERE destination = ?1), 0))";
    let highest: Option<u32> = one(connection, query, [key], |row| row.get(0))?;
    let generations = match owner(name, destination.config.trust_model) {
        Some(owner) => authorities::states(connection, &owner)?,
        None => Vec::new(),
    };
    Ok(RotationView {
        certificates: in_use(connection, key)?,
        request: request(connection, key)?,
        rotation: rotation(connection, name, key)?,
        highest_version: highest.unwrap_or_default(),
        generations,
        destination,
    })
}

/// Whose authority signs for a destination of this trust model.
pub(super) fn owner(name: &DestinationName, trust_model: TrustModel) -> Option<AuthorityOwner> {
    match trust_model {
        TrustModel::Dedicated => Some(AuthorityOwner::Account(name.account_name())),
        TrustModel::Shared => Some(AuthorityOwner::Shared),
        TrustModel::Customer => None,
    }
}

pub(super) fn in_use(connection: &Connection, destination: i64) -> Result<Vec<ClientCertificate>> {
    let query = "SELECT * FROM client_certificates WHERE destination = ?
                 AND state IN ('PENDING', 'DISTRIBUTED', 'ACTIVE', 'RETIRING')
                 ORDER BY version DESC";
    all(connection, query, [destination], certificates::certificate)
}

fn request(connection: &Connection, destination: i64) -> Result<Option<CertificateRequest>> {
    let query = "SELECT * FROM certificate_requests WHERE destination = ?";
    one(connection, query, [destination], |row| {
        Ok(CertificateRequest {
            version: row.get("version")?,
            request: row.get("request")?,
            key_algorithm: get(row, "key_algorithm")?,
            sealed_key: Sealed(row.get("sealed_key")?),
            created_at: get(row, "created_at")?,
        })
    })
}

fn rotation(connection: &Connection, name: &DestinationName, key: i64) -> Result<Rotation> {
    let query = "SELECT * FROM rotations WHERE destination = ?";
    let found = one(connection, query, [key], row_of_rotation)?;
    let mut rotation =
        found.ok_or_else(|| StoreError::Corrupt(format!("{name} has no rotation")))?;
    let query = "SELECT * FROM probe_notes WHERE destination = ?";
    rotation.probes = all(connection, query, [key], |row| {
        Ok(ProbeNote {
            version: row.get("version")?,
            presentation: get(row, "presentation")?,
            at: get(row, "at")?,
            class: get(row, "class")?,
            accepted: row.get("accepted")?,
            failures: row.get("failures")?,
        })
    })?;
    Ok(rotation)
}

fn row_of_rotation(row: &Row<'_>) -> rusqlite::Result<Rotation> {
    let refused = match row.get::<_, Option<u32>>("refused_version")? {
        Some(version) => Some(Refusal {
            version,
            class: get(row, "refused_class")?,
            at: get(row, "refused_at")?,
        }),
        None => None,
    };
    let held_up = match get_optional::<HeldUp>(row, "held_up")? {
        Some(held_up) => Some((held_up, get(row, "held_up_since")?)),
        None => None,
    };
    let trust = match row.get::<_, Option<u32>>("trust_generation")? {
        Some(generation) => Some((generation, get(row, "trust_state")?, get(row, "trust_at")?)),
        None => None,
    };
    Ok(Rotation {
        epoch: row.get::<_, i64>("epoch")?.unsigned_abs(),
        next_look_at: get(row, "next_look_at")?,
        asked: row.get("asked")?,
        refused,
        refusals: row.get("refusals")?,
        held_up,
        trust,
        probes: Vec::new(),
    })
}

/// Notes that the receiver accepts the active certificate. Whether that is news.
pub(super) fn confirm(
    connection: &Connection,
    destination: DestinationKey,
    version: u32,
    now: Timestamp,
) -> Result<bool> {
    let update = "UPDATE client_certificates SET confirmed_at = ? WHERE destination = ?
                  AND version = ? AND state = 'ACTIVE' AND confirmed_at IS NULL";
    let confirmed = params![Column(now), destination.0, version];
    let news = execute(connection, update, confirmed)? > 0;
    if news {
        // What was refused before is not any more: somebody may be waiting to hear it.
        let look = "UPDATE rotations SET next_look_at = min(next_look_at, ?), epoch = epoch + 1
                    WHERE destination = ? AND refusals > 0";
        execute(connection, look, params![Column(now), destination.0])?;
    }
    Ok(news)
}

/// Notes that the receiver refuses the active certificate. Whether that is news.
pub(super) fn refuse(
    connection: &Connection,
    destination: DestinationKey,
    version: u32,
    class: FailureClass,
    now: Timestamp,
) -> Result<bool> {
    let update = "UPDATE rotations SET refused_version = ?1, refused_class = ?2, refused_at = ?3,
                  next_look_at = ?3, epoch = epoch + 1 WHERE destination = ?4
                  AND refused_version IS DISTINCT FROM ?1 AND EXISTS (SELECT 1 FROM client_certificates
                  WHERE destination = ?4 AND version = ?1 AND state = 'ACTIVE')";
    let noted = params![version, Column(class), Column(now), destination.0];
    Ok(execute(connection, update, noted)? > 0)
}

/// Somebody asks for a new certificate.
pub(super) fn asked(connection: &Connection, name: &DestinationName, now: Timestamp) -> Result<()> {
    let (key, _) = destination_keys(connection, name)?;
    let update = "UPDATE rotations SET asked = 1, next_look_at = ?, epoch = epoch + 1
                  WHERE destination = ?";
    execute(connection, update, params![Column(now), key])?;
    Ok(())
}

/// The destination was changed: what the receiver refused it may take now, and another receiver is
/// not known at all.
pub(super) fn reconsider(
    connection: &Connection,
    destination: i64,
    moved: bool,
    now: Timestamp,
) -> Result<()> {
    let delete = "DELETE FROM probe_notes WHERE destination = ? AND (? OR accepted = 0)";
    execute(connection, delete, params![destination, moved])?;
    let put_back = "UPDATE rotations SET refused_version = NULL, refused_class = NULL,
                    refused_at = NULL WHERE destination = ?1 AND NOT EXISTS
                    (SELECT 1 FROM client_certificates WHERE destination = ?1
                     AND version = refused_version AND state = 'ACTIVE')";
    execute(connection, put_back, [destination])?;
    if moved {
        let forget = "UPDATE rotations SET trust_generation = NULL, trust_state = NULL,
                      trust_at = NULL WHERE destination = ?";
        execute(connection, forget, [destination])?;
    }
    look(connection, destination, now)
}

/// Something that rotation depends on has changed.
pub(super) fn look(connection: &Connection, destination: i64, now: Timestamp) -> Result<()> {
    let update = "UPDATE rotations SET next_look_at = min(next_look_at, ?), epoch = epoch + 1
                  WHERE destination = ?";
    execute(connection, update, params![Column(now), destination])?;
    Ok(())
}

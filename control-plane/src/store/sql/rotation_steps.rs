//! The steps of a rotation, each in one transaction and fenced by the view that it was decided on.

use countersign_shared::{class::FailureClass, probe::ProbePresentation, time::Timestamp};
use rusqlite::params;

use super::{
    authorities, certificates,
    connection::Connection,
    revoking::{bundle_changed, no_longer_active},
    rotations::{confirm, in_use},
    rows::{Column, destination_keys, execute, signed},
    stops,
    tenants::read_destination,
};
use crate::{
    model::{
        CertificateRequest, ClientCertificateState as State, Destination, DestinationKey,
        ProbeNote, RevocationReason, RotationChange, RotationStep, TrustModel,
    },
    store::{Result, StoreError},
};

/// Takes one step, if the view that it was decided on is still the newest.
pub(super) fn change(connection: &Connection, change: &RotationChange) -> Result<Destination> {
    let name = &change.destination;
    let (key, _) = destination_keys(connection, name)?;
    let fence = "UPDATE rotations SET epoch = epoch + 1 WHERE destination = ? AND epoch = ?";
    if execute(connection, fence, params![key, signed(change.epoch)])? == 0 {
        return Err(StoreError::Changed(name.to_string()));
    }
    let now = change.now;
    match &change.step {
        RotationStep::Add(certificate) => {
            certificates::insert_certificate(connection, key, certificate)?;
            answered(connection, key)?;
            bundle_changed(connection, key, now)?;
        }
        RotationStep::Ask(request) => {
            ask(connection, key, request)?;
            answered(connection, key)?;
        }
        RotationStep::Distributed(version) => {
            set_state(connection, key, *version, State::Distributed)?;
        }
        RotationStep::Activate(version) => {
            answered_by(connection, key, *version)?;
            activate(connection, key, *version, now)?;
            forget_refusal(connection, key)?;
        }
        RotationStep::PutBack { from, to } => put_back(connection, key, *from, *to, now)?,
        RotationStep::Retire(version) => {
            retire(connection, key, *version, now)?;
            let reset = "UPDATE rotations SET refusals = 0 WHERE destination = ?";
            execute(connection, reset, [key])?;
        }
        RotationStep::Expire(version) => {
            set_state(connection, key, *version, State::Expired)?;
            no_longer_active(connection, key, *version)?;
            bundle_changed(connection, key, now)?;
        }
        RotationStep::Probed(note) => probed(connection, key, note, now)?,
        RotationStep::Trust(generation, state) => {
            let update = "UPDATE rotations SET trust_generation = ?, trust_state = ?, trust_at = ?
                          WHERE destination = ?";
            let made = params![generation, Column(*state), Column(now), key];
            execute(connection, update, made)?;
        }
        RotationStep::Look { at, held_up } => {
            let update = "UPDATE rotations SET next_look_at = ?, held_up = ?, held_up_since = ?
                          WHERE destination = ?";
            let (why, since) = held_up.unzip();
            let made = params![Column(*at), why.map(Column), since.map(Column), key];
            execute(connection, update, made)?;
        }
    }
    read_destination(connection, name)
}

fn set_state(connection: &Connection, destination: i64, version: u32, state: State) -> Result<()> {
    let update = "UPDATE client_certificates SET state = ? WHERE destination = ? AND version = ?";
    execute(
        connection,
        update,
        params![Column(state), destination, version],
    )?;
    Ok(())
}

/// What was asked for is under way.
fn answered(connection: &Connection, destination: i64) -> Result<()> {
    let update = "UPDATE rotations SET asked = 0 WHERE destination = ?";
    execute(connection, update, [destination])?;
    Ok(())
}

/// What was asked for is under way, if this is a candidate.
fn answered_by(connection: &Connection, destination: i64, version: u32) -> Result<()> {
    let update = "UPDATE rotations SET asked = 0 WHERE destination = ?1 AND EXISTS
                  (SELECT 1 FROM client_certificates WHERE destination = ?1 AND version = ?2
                   AND state IN ('PENDING', 'DISTRIBUTED'))";
    execute(connection, update, params![destination, version])?;
    Ok(())
}

fn forget_refusal(connection: &Connection, destination: i64) -> Result<()> {
    let update = "UPDATE rotations SET refused_version = NULL, refused_class = NULL,
                  refused_at = NULL WHERE destination = ?";
    execute(connection, update, [destination])?;
    Ok(())
}

fn ask(connection: &Connection, destination: i64, request: &CertificateRequest) -> Result<()> {
    let insert = "INSERT INTO certificate_requests
                  (destination, version, request, key_algorithm, sealed_key, created_at)
                  VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (destination) DO UPDATE SET
                  version = excluded.version, request = excluded.request,
                  key_algorithm = excluded.key_algorithm, sealed_key = excluded.sealed_key,
                  created_at = excluded.created_at";
    let made = params![
        destination,
        request.version,
        request.request,
        Column(request.key_algorithm),
        request.sealed_key.0,
        Column(request.created_at)
    ];
    execute(connection, insert, made)?;
    Ok(())
}

fn activate(connection: &Connection, key: i64, version: u32, now: Timestamp) -> Result<()> {
    let all = in_use(connection, key)?;
    let mut others = all.iter().filter(|it| it.version != version);
    let before = others.find(|it| it.state == State::Retiring);
    let active = all.iter().find(|it| it.state == State::Active);
    // One is kept besides the active one: the last that the receiver was seen to accept.
    match (before, active) {
        (Some(before), Some(active)) if active.confirmed_at.is_none() => {
            retire(connection, key, active.version, now)?;
            replace(connection, key, before.version, now)?;
        }
        (before, active) => {
            if let Some(before) = before {
                retire(connection, key, before.version, now)?;
            }
            if let Some(active) = active {
                replace(connection, key, active.version, now)?;
            }
        }
    }
    let update = "UPDATE client_certificates SET state = 'ACTIVE', activated_at = ?1,
                  confirmed_at = NULL, replaced_at = NULL WHERE destination = ?2 AND version = ?3";
    execute(connection, update, params![Column(now), key, version])?;
    present(connection, key, version, now)
}

fn replace(connection: &Connection, key: i64, version: u32, now: Timestamp) -> Result<()> {
    let update = "UPDATE client_certificates SET state = 'RETIRING', replaced_at = ?
                  WHERE destination = ? AND version = ?";
    execute(connection, update, params![Column(now), key, version])?;
    Ok(())
}

fn put_back(connection: &Connection, key: i64, from: u32, to: u32, now: Timestamp) -> Result<()> {
    let update = "UPDATE client_certificates SET state = 'DISTRIBUTED', activated_at = NULL,
                  confirmed_at = NULL WHERE destination = ? AND version = ?";
    execute(connection, update, params![key, from])?;
    let update = "UPDATE client_certificates SET state = 'ACTIVE', replaced_at = NULL
                  WHERE destination = ? AND version = ?";
    execute(connection, update, params![key, to])?;
    let update = "UPDATE rotations SET refusals = refusals + 1 WHERE destination = ?";
    execute(connection, update, [key])?;
    present(connection, key, to, now)
}

fn present(connection: &Connection, key: i64, version: u32, now: Timestamp) -> Result<()> {
    let update = "UPDATE destinations SET active_certificate = ? WHERE key = ?";
    execute(connection, update, params![version, key])?;
    bundle_changed(connection, key, now)
}

/// Stops using a certificate; one of ours goes on its revocation list.
fn retire(connection: &Connection, key: i64, version: u32, now: Timestamp) -> Result<()> {
    let Some(certificate) = certificates::read_certificate(connection, key, version)? else {
        return Ok(());
    };
    let ours = certificate.trust_model != TrustModel::Customer;
    let update = "UPDATE client_certificates SET state = 'RETIRED',
                  revoked_at = CASE WHEN ?1 THEN CAST(?2 AS BIGINT) END WHERE destination = ?3 AND version = ?4";
    execute(connection, update, params![ours, Column(now), key, version])?;
    if ours {
        let reason = RevocationReason::Superseded;
        authorities::note_revocation(connection, key, &certificate, reason, now)?;
    }
    let forget = "DELETE FROM probe_notes WHERE destination = ? AND version = ?";
    execute(connection, forget, params![key, version])?;
    stops::ask(connection, key, &certificate.serial, now)?;
    bundle_changed(connection, key, now)
}

fn probed(connection: &Connection, key: i64, note: &ProbeNote, now: Timestamp) -> Result<()> {
    let insert = "INSERT INTO probe_notes
                  (destination, version, presentation, at, class, accepted, failures)
                  VALUES (?, ?, ?, ?, ?, ?, ?)
                  ON CONFLICT (destination, version, presentation) DO UPDATE SET
                  at = excluded.at, class = excluded.class, accepted = excluded.accepted,
                  failures = excluded.failures";
    let made = params![
        key,
        note.version,
        Column(note.presentation),
        Column(note.at),
        Column(note.class),
        note.accepted,
        note.failures
    ];
    execute(connection, insert, made)?;
    if note.presentation == ProbePresentation::Chain {
        answered_by(connection, key, note.version)?;
    }
    // A 403 may be about the certificate.
    if note.accepted && note.class != FailureClass::ClientIdentityForbidden {
        confirm(connection, DestinationKey(key), note.version, now)?;
    }
    Ok(())
}

//! How client certificates are being replaced: the view that a step is decided from, and the steps.

use countersign_shared::{
    class::FailureClass, name::DestinationName, probe::ProbePresentation, time::Timestamp,
};
use rusqlite::{Connection, Row, params};

use super::{
    authorities, certificates,
    rows::{Column, all, destination_keys, execute, get, get_optional, one, signed},
    stops,
    tenants::read_destination,
};
use crate::{
    model::{
        AuthorityOwner, CertificateRequest, ClientCertificate, ClientCertificateState as State,
        Destination, DestinationKey, HeldUp, ProbeNote, Refusal, RevocationReason, Rotation,
        RotationChange, RotationStep, RotationView, Sealed, TrustModel,
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
    let generations = match owner(name, destination.config.trust_model)? {
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
pub(super) fn owner(
    name: &DestinationName,
    trust_model: TrustModel,
) -> Result<Option<AuthorityOwner>> {
    let account = || {
        let account = format!("accounts/{}", name.account());
        let account = account.parse();
        account.map_err(|_| StoreError::Corrupt(format!("account of {name}")))
    };
    Ok(match trust_model {
        TrustModel::Dedicated => Some(AuthorityOwner::Account(account()?)),
        TrustModel::Shared => Some(AuthorityOwner::Shared),
        TrustModel::Customer => None,
    })
}

fn in_use(connection: &Connection, destination: i64) -> Result<Vec<ClientCertificate>> {
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
    let insert = "INSERT OR REPLACE INTO certificate_requests
                  (destination, version, request, key_algorithm, sealed_key, created_at)
                  VALUES (?, ?, ?, ?, ?, ?)";
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
    for certificate in in_use(connection, key)? {
        match certificate.state {
            // Only one is kept besides the active one.
            State::Retiring if certificate.version != version => {
                retire(connection, key, certificate.version, now)?;
            }
            State::Active => replace(connection, key, certificate.version, now)?,
            _ => {}
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
                  revoked_at = CASE WHEN ?1 THEN ?2 END WHERE destination = ?3 AND version = ?4";
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

fn no_longer_active(connection: &Connection, key: i64, version: u32) -> Result<()> {
    let update = "UPDATE destinations SET active_certificate = 0
                  WHERE key = ? AND active_certificate = ?";
    execute(connection, update, params![key, version])?;
    Ok(())
}

/// What agents must know is something else now.
fn bundle_changed(connection: &Connection, key: i64, now: Timestamp) -> Result<()> {
    let update = "UPDATE destinations SET generation = generation + 1, updated_at = ?
                  WHERE key = ?";
    execute(connection, update, params![Column(now), key])?;
    Ok(())
}

fn probed(connection: &Connection, key: i64, note: &ProbeNote, now: Timestamp) -> Result<()> {
    let insert = "INSERT OR REPLACE INTO probe_notes
                  (destination, version, presentation, at, class, accepted, failures)
                  VALUES (?, ?, ?, ?, ?, ?, ?)";
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
                  AND refused_version IS NOT ?1 AND EXISTS (SELECT 1 FROM client_certificates
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
    let delete = "DELETE FROM probe_notes WHERE destination = ? AND (? OR NOT accepted)";
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

/// Puts an uploaded certificate in the place of the open request.
pub(super) fn upload(
    connection: &Connection,
    name: &DestinationName,
    certificate: &ClientCertificate,
    now: Timestamp,
) -> Result<Destination> {
    let (key, _) = destination_keys(connection, name)?;
    let delete = "DELETE FROM certificate_requests WHERE destination = ? AND version = ?";
    if execute(connection, delete, params![key, certificate.version])? == 0 {
        return Err(StoreError::Precondition(format!(
            "{name} has no open certificate request with this key: get a new one with \
             GetCertificateSigningRequest and have it signed"
        )));
    }
    certificates::insert_certificate(connection, key, certificate)?;
    look(connection, key, now)?;
    bundle_changed(connection, key, now)?;
    read_destination(connection, name)
}

/// Revokes a certificate by hand.
pub(super) fn revoke(
    connection: &Connection,
    name: &DestinationName,
    version: u32,
    reason: RevocationReason,
    now: Timestamp,
) -> Result<ClientCertificate> {
    let (key, _) = destination_keys(connection, name)?;
    let missing = || StoreError::NotFound(format!("{name}/clientCertificates/{version}"));
    let read = || certificates::read_certificate(connection, key, version)?.ok_or_else(missing);
    let certificate = read()?;
    if certificate.state == State::Revoked {
        return Ok(certificate);
    }
    revoke_one(connection, key, &certificate, reason, now)?;
    let update = "UPDATE rotations SET asked = CASE WHEN ?1 THEN 1 ELSE asked END,
                  next_look_at = ?2, epoch = epoch + 1 WHERE destination = ?3";
    let was_presented = certificate.state == State::Active;
    execute(connection, update, params![was_presented, Column(now), key])?;
    read()
}

/// Revokes a certificate that is not revoked.
pub(super) fn revoke_one(
    connection: &Connection,
    key: i64,
    certificate: &ClientCertificate,
    reason: RevocationReason,
    now: Timestamp,
) -> Result<()> {
    let update = "UPDATE client_certificates SET state = 'REVOKED',
                  revoked_at = coalesce(revoked_at, ?) WHERE destination = ? AND version = ?";
    execute(
        connection,
        update,
        params![Column(now), key, certificate.version],
    )?;
    if certificate.trust_model != TrustModel::Customer {
        authorities::note_revocation(connection, key, certificate, reason, now)?;
    }
    stops::ask(connection, key, &certificate.serial, now)?;
    no_longer_active(connection, key, certificate.version)?;
    bundle_changed(connection, key, now)
}

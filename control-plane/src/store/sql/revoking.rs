//! What is done to client certificates by hand: uploading one that a receiver's CA has signed, and
//! revoking.

use countersign_shared::{name::DestinationName, time::Timestamp};
use rusqlite::params;

use super::{
    authorities, certificates,
    connection::Connection,
    rotations::look,
    rows::{Column, destination_keys, execute},
    stops,
    tenants::read_destination,
};
use crate::{
    model::{
        ClientCertificate, ClientCertificateState as State, Destination, RevocationReason,
        TrustModel,
    },
    store::{Result, StoreError},
};

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

pub(super) fn no_longer_active(connection: &Connection, key: i64, version: u32) -> Result<()> {
    let update = "UPDATE destinations SET active_certificate = 0
                  WHERE key = ? AND active_certificate = ?";
    execute(connection, update, params![key, version])?;
    Ok(())
}

/// What agents must know is something else now.
pub(super) fn bundle_changed(connection: &Connection, key: i64, now: Timestamp) -> Result<()> {
    let update = "UPDATE destinations SET generation = generation + 1, updated_at = ?
                  WHERE key = ?";
    execute(connection, update, params![Column(now), key])?;
    Ok(())
}

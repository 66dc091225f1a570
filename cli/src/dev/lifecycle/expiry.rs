//! What happens when renewal can't happen: the receiver's own CA signs, and nobody asks it in time.

use std::time::Duration;

use countersign_proto::v1::{AlertCause, AlertSeverity, ClientCertificateState as State};
use countersign_shared::wire;

use super::stage::{Seen, Stage};
use crate::dev::{failure::Failure, timeline::Entry};

const SOON: Duration = Duration::from_secs(15);
/// How many deliveries flow at least before the story goes on.
const FEW: u64 = 20;
/// How long nobody does anything after the end.
const NEGLECT: Duration = Duration::from_secs(6);
/// How long the last certificate lives: what a server's certificate lives, too.
const LONG: Duration = Duration::from_secs(90 * 24 * 3600);
/// How long the receiver's first server certificate lives.
pub(super) const ALMOST_OVER: Duration = Duration::from_secs(5 * 24 * 3600);

/// Plays; the certificate that nobody replaces lives for `life`.
///
/// # Errors
/// [`Failure`].
pub(super) async fn play(stage: &mut Stage<'_>, life: Duration) -> Result<(), Failure> {
    stage.chapter("The receiver's own CA signs our certificate");
    let needed = |seen: &Seen| {
        seen.view
            .alert(AlertCause::ClientCertificateNeeded)
            .is_some()
    };
    stage
        .until("the request for a signature", SOON, needed)
        .await?;
    upload(stage, life).await?;
    let flows = |seen: &Seen| {
        seen.view.is(1, State::Active) && seen.tally.webhooks(seen.view.serial(1)) >= FEW
    };
    stage
        .until("deliveries with the signed certificate", SOON, flows)
        .await?;

    stage.chapter("The receiver's server certificate ends in five days");
    let ends = |seen: &Seen| {
        seen.view
            .alert(AlertCause::ServerCertificateExpires)
            .is_some()
    };
    stage
        .until("the alert about the server's certificate", SOON, ends)
        .await?;
    let identity = stage.authority.server_for_loopback(LONG, stage.now())?;
    stage.door.present(identity)?;
    stage.tell(Entry::new("The receiver's operator renews it"));
    let over = |seen: &Seen| {
        seen.view
            .alert(AlertCause::ServerCertificateExpires)
            .is_none()
    };
    stage.until("the alert to resolve", SOON, over).await?;

    stage.chapter("60 % of the client certificate's life are over, and nobody uploads a new one");
    stage.until("the reminder", life, needed).await?;
    let critical = |seen: &Seen| {
        let alert = seen.view.alert(AlertCause::ClientCertificateNeeded);
        alert.is_some_and(|it| it.severity == i32::from(AlertSeverity::Critical))
    };
    stage
        .until("the reminder to become critical", life, critical)
        .await?;

    stage.chapter("It ends: nothing expired is presented, and deliveries are held");
    let ended = |seen: &Seen| seen.view.is(1, State::Expired);
    stage
        .until("the end of the certificate", life, ended)
        .await?;
    let end = stage.seen.view.version(1).and_then(|it| it.not_after_time);
    let end = end.map(wire::timestamp_from_wire);
    let end = end.ok_or(Failure::Unreadable("a client certificate"))?;
    stage.linger(NEGLECT).await?;
    let last = stage.seen.tally.of(stage.seen.view.serial(1));
    let last = last.map_or(end, |it| it.last);
    if last > end {
        let what = "an expired certificate was presented".to_owned();
        return Err(Failure::Promise(what));
    }
    let held = stage
        .submitted()
        .accepted
        .saturating_sub(stage.seen.tally.received());
    let entry = Entry::new(format!("{held} deliveries are accepted, durable, and wait"))
        .fact("refused connections", stage.seen.tally.refused.to_string())
        .fact(
            "last use of the certificate",
            format!("{:.3} s before its end", end.since(last).as_secs_f64()),
        );
    stage.tell(entry);

    stage.chapter("Somebody uploads at last");
    let from = stage.now();
    let accepted = stage.submitted().accepted;
    upload(stage, LONG).await?;
    let out = |seen: &Seen| seen.tally.received() >= accepted;
    stage
        .until("everything that was held to go out", SOON, out)
        .await?;
    let now = stage.now();
    stage.took(
        format!("uploaded → all {held} held deliveries at the receiver"),
        from,
        now,
    );
    stage.tell(Entry::new("Everything that was held is at the receiver"));
    let resolved = |seen: &Seen| {
        seen.view
            .alert(AlertCause::ClientCertificateNeeded)
            .is_none()
    };
    stage.until("the reminder to resolve", SOON, resolved).await
}

/// Does what the reminder asks for.
async fn upload(stage: &mut Stage<'_>, life: Duration) -> Result<(), Failure> {
    let request = stage.api().signing_request(&stage.destination).await?;
    stage.tell(Entry::new(
        "GetCertificateSigningRequest: the private key stays where it is",
    ));
    let signed = stage.authority.sign_client(&request, life, stage.now())?;
    let uploaded = stage.api().upload(&stage.destination, signed).await?;
    let end = uploaded.not_after_time.map(wire::timestamp_from_wire);
    let entry = Entry::new("The receiver's CA signs it; UploadClientCertificate takes it")
        .fact("ends at", end.map_or_else(String::new, |at| at.to_string()));
    stage.tell(entry);
    Ok(())
}

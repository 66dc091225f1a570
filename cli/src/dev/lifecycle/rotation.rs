//! Client certificates are replaced while deliveries flow: by themselves when 60 % of their life is
//! over, by hand, and with a receiver that does not want the new one.

use std::time::Duration;

use countersign_proto::v1::{AlertCause, ClientCertificateState as State};
use countersign_shared::wire;
use tokio::time::Instant;

use super::{
    list::{has, told},
    stage::{Seen, Stage},
};
use crate::dev::{failure::Failure, timeline::Entry};

/// How long what takes milliseconds may take on a busy machine.
const SOON: Duration = Duration::from_secs(15);
/// How long to wait before looking again.
const AGAIN: Duration = Duration::from_millis(50);
/// How many deliveries each certificate carries at least before the story goes on.
const FEW: u64 = 20;

/// Plays; certificates live for `life`.
///
/// # Errors
/// [`Failure`].
pub(super) async fn play(stage: &mut Stage<'_>, life: Duration) -> Result<(), Failure> {
    let began = |seen: &Seen| seen.tally.received() >= FEW;
    stage.until("the first deliveries", SOON, began).await?;
    stage.chapter(&format!(
        "A certificate is renewed by itself, at 60 to 65 % of its {} seconds",
        life.as_secs()
    ));
    let way = "issued → on every agent's disk → accepted by the receiver in a probe → presented → the \
               one before is out of use after the grace period, and on the revocation list";
    stage.tell(Entry::new("A new certificate makes its way in steps").fact("each", way));
    replaced(stage, 2, life).await?;
    retired(stage, 1, life).await?;

    stage.chapter("An operator asks for a new one: RotateClientCertificate");
    let asked = stage.now();
    stage.api().rotate(&stage.destination).await?;
    stage.tell(Entry::new("RotateClientCertificate is answered at once"));
    replaced(stage, 3, SOON).await?;
    let first = stage.seen.tally.of(stage.seen.view.serial(3));
    if let Some(first) = first.map(|it| it.first) {
        stage.took("asked by hand → first delivery with v3", asked, first);
    }
    retired(stage, 2, life).await?;

    stage.chapter("The receiver accepts the next one in the probe, and then refuses it");
    replaced(stage, 4, life).await?;
    refused(stage).await?;
    retired(stage, 3, life).await?;
    let waiting = "the alert to resolve";
    let resolved = |seen: &Seen| seen.view.alert(AlertCause::RotationHeldUp).is_none();
    stage.until(waiting, SOON, resolved).await
}

/// Waits until version `new` is presented and has carried deliveries.
async fn replaced(stage: &mut Stage<'_>, new: i32, limit: Duration) -> Result<(), Failure> {
    let waiting = "the next certificate to be issued";
    let issued = |seen: &Seen| seen.view.version(new).is_some();
    stage.until(waiting, limit, issued).await?;
    let issued = stage.now();
    let waiting = "the next certificate to be presented";
    let used = |seen: &Seen| {
        seen.view.is(new, State::Active) && seen.tally.webhooks(seen.view.serial(new)) > 0
    };
    stage.until(waiting, SOON, used).await?;
    let certificate = stage.seen.view.version(new);
    let active = certificate.and_then(|it| it.activate_time);
    let first = stage.seen.tally.of(stage.seen.view.serial(new));
    if let (Some(active), Some(first)) = (active, first.map(|it| it.first)) {
        let active = wire::timestamp_from_wire(active);
        stage.took(
            format!("v{new} seen → on the agent's disk, probed, active"),
            issued,
            active,
        );
        stage.took(
            format!("v{new} active → first delivery over it"),
            active,
            first,
        );
    }
    Ok(())
}

/// Waits until version `old` is on the revocation list.
async fn retired(stage: &mut Stage<'_>, old: i32, limit: Duration) -> Result<(), Failure> {
    let waiting = "the grace period of the certificate before to pass";
    let gone = |seen: &Seen| seen.view.is_gone(old);
    stage.until(waiting, limit, gone).await?;
    let certificate = stage.seen.view.version(old).cloned();
    let certificate = certificate.ok_or(Failure::Unreadable("a client certificate"))?;
    let replaced = certificate.replace_time.map(wire::timestamp_from_wire);
    let now = stage.now();
    if let Some(replaced) = replaced {
        stage.took(format!("v{old} replaced → out of use"), replaced, now);
    }
    let serial = &certificate.serial_number;
    // Nobody waits for the list where nothing was revoked by hand: it is signed a moment later.
    let end = Instant::now() + SOON;
    let list = loop {
        let list = stage.api().revocation_list(&certificate.issuer).await?;
        if has(&list, serial)? || Instant::now() >= end {
            break list;
        }
        stage.linger(AGAIN).await?;
    };
    stage.tell(told(&list, serial)?);
    Ok(())
}

/// The receiver refuses v4, which is presented; v3 is in its grace period.
async fn refused(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let from = stage.now();
    let (new, before) = (
        stage.seen.view.serial(4).to_owned(),
        stage.seen.view.serial(3).to_owned(),
    );
    let entry = Entry::new("The receiver gets a rule that refuses v4, and closes its connections")
        .fact(
            "what follows",
            "within one and the same delivery v4 is refused and v3 is presented",
        );
    let barred = new.clone();
    stage.receiver(entry, |demand| {
        demand.barred.insert(barred);
    })?;
    stage.carried(&before, 1, SOON).await?;
    if let Some(first) = stage.seen.tally.of(&before).map(|it| it.last) {
        stage.took("v4 refused → first delivery over v3 again", from, first);
    }
    let waiting = "v3 to be put back and the alert";
    let back = |seen: &Seen| {
        seen.view.is(3, State::Active) && seen.view.alert(AlertCause::RotationHeldUp).is_some()
    };
    stage.until(waiting, SOON, back).await?;
    stage.carried(&before, FEW, SOON).await?;
    let right = stage.now();
    let entry = Entry::new("The receiver's operator reads the alert and takes the rule away");
    stage.receiver(entry, |demand| demand.barred.clear())?;
    stage.doubt(from);
    let waiting = "v4 to be presented again";
    let forward = |seen: &Seen| seen.view.is(4, State::Active);
    stage.until(waiting, SOON, forward).await?;
    stage.carried(&new, FEW, SOON).await?;
    let active = stage.seen.view.version(4).and_then(|it| it.activate_time);
    if let Some(active) = active.map(wire::timestamp_from_wire) {
        stage.took("receiver put right → v4 presented again", right, active);
    }
    Ok(())
}

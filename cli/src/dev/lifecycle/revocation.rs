//! A client certificate is revoked while busy connections present it.

use std::time::Duration;

use countersign_proto::v1;
use countersign_shared::{time::Timestamp, tls::certificates_from_pem, wire};

use super::{
    list::{loadable, told},
    stage::{Seen, Stage},
    tally::short,
};
use crate::dev::{failure::Failure, timeline::Entry};

const SOON: Duration = Duration::from_secs(15);
/// How many deliveries each certificate carries at least before the story goes on.
const MANY: u64 = 200;

/// What the agent had sent before it stopped may get the receiver's attention so much later, on a busy
/// machine.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// Attempts that are cut off when a certificate is revoked end in one of these; the deliveries go out
/// again with the new one.
pub(super) const CUT_OFF: &[&str] = &[
    "CLIENT_CERTIFICATE_REVOKED",
    "CONNECTION_LOST",
    "NOT_ATTEMPTED",
];

/// Plays.
///
/// # Errors
/// [`Failure`].
pub(super) async fn play(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let began = |seen: &Seen| seen.tally.received() >= MANY && seen.view.version(1).is_some();
    stage.until("the first deliveries", SOON, began).await?;
    let old = stage.seen.view.version(1).cloned();
    let old = old.ok_or(Failure::Unreadable("a client certificate"))?;

    stage.chapter("The key may be in other hands: RevokeClientCertificate, amid deliveries");
    let called = stage.now();
    let answer = stage.api().revoke(&old.name).await?;
    let answered = stage.now();
    stage.took("RevokeClientCertificate → answered", called, answered);
    let agents: Vec<_> = answer.stops.iter().map(|it| it.agent.clone()).collect();
    let entry = Entry::new(format!(
        "RevokeClientCertificate of {} is answered",
        short(&old.serial_number)
    ));
    stage.tell(entry.fact("told to stop", agents.join(", ")));
    let acknowledged = acknowledged(stage, &old).await?;
    let waiting = "the next certificate to carry deliveries";
    let serial = old.serial_number.clone();
    let next = |seen: &Seen| newest(seen, &serial).is_some();
    stage.until(waiting, SOON, next).await?;
    let new = newest(&stage.seen, &serial).unwrap_or_default();
    stage.carried(&new, MANY, SOON).await?;
    tell_times(stage, &serial, &new, called, acknowledged)?;

    stage.chapter("The receiver fetches the revocation list and refuses the old certificate");
    let list = stage.api().revocation_list(&old.issuer).await?;
    stage.tell(told(&list, &serial)?);
    let list = loadable(&list);
    let entry = Entry::new("The receiver loads the list");
    stage.receiver(entry, |demand| demand.lists = vec![list])?;
    let presented = certificates_from_pem(&old.certificate_pem)?;
    let presented = presented.first();
    let presented = presented.ok_or(Failure::Unreadable("the client certificate"))?;
    let verdict = stage.door.judges(presented, stage.now())?;
    let Err(verdict) = verdict else {
        let what = "the receiver would still accept the revoked certificate".to_owned();
        return Err(Failure::Promise(what));
    };
    let headline = format!("What it would say of {} now: {verdict}", short(&serial));
    stage.tell(Entry::new(headline));
    stage.carried(&new, MANY, SOON).await
}

/// The serial number of a certificate other than `old` that carries deliveries.
fn newest(seen: &Seen, old: &str) -> Option<String> {
    let mut carried = seen.tally.carried.iter();
    carried
        .find(|it| it.serial != old)
        .map(|it| it.serial.clone())
}

/// Waits for the proof that every agent has stopped; when the last one had.
async fn acknowledged(
    stage: &mut Stage<'_>,
    old: &v1::ClientCertificate,
) -> Result<Timestamp, Failure> {
    let began = stage.now();
    loop {
        let found = stage.api().client_certificate(&old.name).await?;
        let times = found.stops.iter().map(|stop| stop.acknowledge_time);
        let times: Option<Vec<_>> = times.collect();
        let last = times.and_then(|times| times.into_iter().map(wire::timestamp_from_wire).max());
        if let Some(last) = last {
            let agents: Vec<_> = found.stops.into_iter().map(|stop| stop.agent).collect();
            let entry =
                Entry::new("Proof of stop: every agent acknowledged that nothing goes over it")
                    .fact("acknowledged by", agents.join(", "));
            stage.tell_of(last, entry);
            return Ok(last);
        }
        if stage.now().since(began) > SOON {
            let what = "no agent acknowledged that it stopped using the certificate".to_owned();
            return Err(Failure::Promise(what));
        }
        stage.linger(Duration::from_millis(20)).await?;
    }
}

fn tell_times(
    stage: &mut Stage<'_>,
    old: &str,
    new: &str,
    called: Timestamp,
    acknowledged: Timestamp,
) -> Result<(), Failure> {
    let (Some(last), Some(first)) = (
        stage.seen.tally.of(old).map(|it| it.last),
        stage.seen.tally.of(new).map(|it| it.first),
    ) else {
        return Err(Failure::Unreadable("what the receiver counted"));
    };
    let took = |at: Timestamp| match at >= called {
        true => format!(
            "{:.1} ms after the call",
            at.since(called).as_secs_f64() * 1000.0
        ),
        false => format!(
            "{:.1} ms before it",
            called.since(at).as_secs_f64() * 1000.0
        ),
    };
    let entry = Entry::new("How fast it was")
        .fact("agent's acknowledgement", took(acknowledged))
        .fact("last request with the revoked certificate", took(last))
        .fact("first request with the new one", took(first));
    stage.tell(entry);
    stage.took("call → agent's acknowledgement", called, acknowledged);
    stage.took(
        "call → last request with the revoked certificate",
        called,
        last,
    );
    stage.took("call → first request with the new one", called, first);
    if last > acknowledged.plus(ON_ITS_WAY) {
        let after = last.since(acknowledged).as_secs_f64() * 1000.0;
        let what =
            format!("a request came {after:.1} ms after the agent had acknowledged its stop");
        return Err(Failure::Promise(what));
    }
    Ok(())
}

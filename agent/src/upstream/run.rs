//! Keeps a session up: opens one, talks until it ends, waits a random while, opens the next. Jobs in
//! hand go on whether there is a session or not.

use std::{sync::Arc, time::Duration};

use countersign_proto::v1::{HeldBundle, Hello, Welcome};
use countersign_shared::{VERSION, hpke::RecipientKey, random, time::Timestamp, wire};
use tokio::sync::mpsc;

use super::{
    connect::{Open, OpenError, open},
    parts::Parts,
    reconnect::Reconnect,
    session::{Ended, converse},
};
use crate::{
    deliver::{Activation, Prepared},
    identity::Identity,
};

/// Clocks that differ by more are worth a warning.
const SKEW: Duration = Duration::from_secs(30);

/// Keeps a session up until `shutdown`; then finishes what is in hand, reports it while there is a
/// session, and returns.
pub async fn run(parts: Parts, mut activations: mpsc::Receiver<Activation>) {
    let mut reconnect = Reconnect::default();
    loop {
        let identity = parts.identity.load_full();
        let opened = tokio::select! {
            opened = begin(&parts, &identity) => opened,
            () = parts.shutdown.cancelled() => break,
        };
        match opened {
            Ok((open, key)) => {
                reconnect.welcomed(reconnect_window(&open.welcome));
                if let Ended::Done = hold(&parts, open, &key, &mut activations).await {
                    return;
                }
            }
            Err(error) => {
                reconnect.failed();
                let control_plane = parts.places.current();
                tracing::warn!(%control_plane, %error, "no session with the control plane");
                parts.places.next();
            }
        }
        parts.metrics.reconnects.inc();
        let wait = random::full_jitter(reconnect.window());
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = parts.shutdown.cancelled() => break,
        }
    }
    finish_alone(&parts).await;
}

/// Opens a session, with a key of its own that its secrets are sealed to.
async fn begin(parts: &Parts, identity: &Identity) -> Result<(Open, RecipientKey), OpenError> {
    let key = RecipientKey::generate()?;
    let hello = Hello {
        sealing_key: key.public().to_vec().into(),
        sealing_key_signature: identity.vouch(key.public())?.into(),
        ..hello(parts)
    };
    Ok((open(parts.places.current(), identity, hello).await?, key))
}

/// One session, from welcome to its end.
async fn hold(
    parts: &Parts,
    open: Open,
    key: &RecipientKey,
    activations: &mut mpsc::Receiver<Activation>,
) -> Ended {
    let session = open.welcome.session_id.clone();
    tracing::info!(session, "connected to the control plane");
    warn_of_skew(&open.welcome, parts.clock.now());
    parts.outbox.begin_session();
    parts.metrics.connected.set(1);
    let ended = converse(parts, open, key, activations).await;
    parts.metrics.connected.set(0);
    parts.outbox.end_session();
    match &ended {
        Ended::Done | Ended::Closed => tracing::info!(session, "the session ended"),
        Ended::Moves => {
            parts.places.next();
            let control_plane = parts.places.current();
            tracing::info!(session, %control_plane, "going on to the next control plane");
        }
        Ended::Silent => tracing::warn!(session, "the control plane fell silent; reconnecting"),
        Ended::Failed(status) => {
            tracing::warn!(session, code = ?status.code(), reason = status.message(), "the session broke; reconnecting");
        }
    }
    ended
}

/// Without a session only the attempts in flight are waited for: their outcomes go to the journal.
async fn finish_alone(parts: &Parts) {
    while parts.lanes.in_hand().size().0 > 0 {
        // The outcome is there just before the job is out of hand, so look again soon in any case.
        let again = Duration::from_millis(20);
        let _ = tokio::time::timeout(again, parts.outbox.news()).await;
    }
}

/// What the agent still holds.
fn hello(parts: &Parts) -> Hello {
    let held = |bundle: &Arc<Prepared>| HeldBundle {
        destination: bundle.destination.to_string(),
        generation: i64::try_from(bundle.generation).unwrap_or(i64::MAX),
        content_sha256: bundle.content_sha256.to_vec().into(),
    };
    let mut leases = parts.lanes.in_hand().leases();
    leases.extend(parts.outbox.leases());
    leases.sort_unstable();
    leases.dedup();
    Hello {
        version: VERSION.to_owned(),
        held_bundles: parts.lanes.bundles().iter().map(held).collect(),
        held_leases: leases.into_iter().map(wire::lease_to_wire).collect(),
        agent_time: Some(wire::timestamp_to_wire(parts.clock.now())),
        ..Hello::default()
    }
}

fn reconnect_window(welcome: &Welcome) -> Option<Duration> {
    welcome.reconnect_window.and_then(wire::duration_from_wire)
}

fn warn_of_skew(welcome: &Welcome, now: Timestamp) {
    let Some(theirs) = welcome.control_plane_time.map(wire::timestamp_from_wire) else {
        return;
    };
    let skew = now.since(theirs).max(theirs.since(now));
    if skew > SKEW {
        tracing::warn!(
            seconds = skew.as_secs(),
            "this host's clock and the control plane's differ; receivers refuse signatures that are too old"
        );
    }
}

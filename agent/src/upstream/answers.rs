//! What takes a while to answer: probes and revocations. Each runs as a task of its own beside the
//! session and ends with it; what the control plane has not heard it asks for again.

use std::convert::Infallible;

use countersign_proto::v1::{self, RevocationAcknowledgement, connect_request::Message as Out};
use countersign_shared::{name::DestinationName, tasks::OnFailure, wire};
use tokio::sync::mpsc;

use super::parts::Parts;

/// Answers that wait for the session to take them.
const WAITING: usize = 64;

/// The answers that are being worked on.
pub(super) struct Answers {
    sender: mpsc::Sender<Out>,
    ready: mpsc::Receiver<Out>,
}

impl Answers {
    pub(super) fn new() -> Self {
        let (sender, ready) = mpsc::channel(WAITING);
        Self { sender, ready }
    }

    /// The next answer that is ready.
    pub(super) async fn next(&mut self) -> Option<Out> {
        self.ready.recv().await
    }

    /// Makes a probe.
    pub(super) fn probe(&self, parts: &Parts, message: &v1::Probe) {
        let probe = match wire::probe_from_wire(message) {
            Ok(probe) => probe,
            Err(error) => return tracing::warn!(%error, "a probe is not understood"),
        };
        let probes = parts.probes.clone();
        self.later(parts, "probe", async move {
            let report = probes.make(&probe).await;
            Out::ProbeResult(wire::probe_report_to_wire(&report))
        });
    }

    /// Stops the use of certificates at once, and says so when the last of their connections is
    /// closed.
    pub(super) fn revoke(&self, parts: &Parts, revocation: v1::Revocation) {
        let Ok(destination) = revocation.destination.parse::<DestinationName>() else {
            return tracing::warn!("a revocation without a destination is not understood");
        };
        let serials = revocation.serial_numbers.iter();
        let serials: Vec<String> = serials.map(|it| it.to_ascii_lowercase()).collect();
        let stopped = parts.clients.revoke(&destination, &serials);
        tracing::warn!(
            %destination, ?serials, connections = stopped.connections(),
            "client certificates revoked: their use has stopped, their connections are closed"
        );
        self.later(parts, "revocation", async move {
            stopped.ended().await;
            Out::RevocationAcknowledgement(RevocationAcknowledgement {
                destination: revocation.destination,
                serial_numbers: revocation.serial_numbers,
            })
        });
    }

    fn later(
        &self,
        parts: &Parts,
        name: &'static str,
        answer: impl Future<Output = Out> + Send + 'static,
    ) {
        let sender = self.sender.clone();
        parts.tasks.spawn(name, OnFailure::Log, async move {
            tokio::select! {
                // Nobody to take it means that the session has ended.
                answer = answer => drop(sender.send(answer).await),
                () = sender.closed() => {}
            }
            Ok::<_, Infallible>(())
        });
    }
}

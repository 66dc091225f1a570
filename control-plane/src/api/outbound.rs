//! What goes to an agent: a stream over a session's two lanes, control ahead of work.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use countersign_proto::v1::{self, connect_response::Message};
use countersign_shared::{
    job::LeaseId,
    time::Clock,
    wire::{duration_to_wire, job_to_wire, lease_to_wire, probe_to_wire, timestamp_to_wire},
};
use tokio_stream::Stream;
use tonic::{Code, Status};

use super::status::status;
use crate::dispatch::{Control, Lanes, Session, Work};

/// The stream to one agent. Its first message is the welcome.
pub struct Outbound {
    pub(super) welcome: Option<v1::Welcome>,
    pub(super) lanes: Lanes,
    pub(super) session: Arc<Session>,
    pub(super) clock: Arc<dyn Clock>,
    /// Wakes when the session has ended.
    pub(super) ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    pub(super) done: bool,
}

impl Stream for Outbound {
    type Item = Result<v1::ConnectResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.done {
            return Poll::Ready(None);
        }
        if let Some(welcome) = this.welcome.take() {
            return message(Message::Welcome(welcome));
        }
        if let Poll::Ready(Some(control)) = this.lanes.control.poll_recv(context) {
            let now = this.clock.as_ref();
            return message(control_to_wire(control, now));
        }
        if this.ended.as_mut().poll(context).is_ready() {
            this.done = true;
            let text = "this session has ended: a newer one took over, or it fell silent";
            return Poll::Ready(Some(Err(status(Code::Aborted, "SESSION_ENDED", text))));
        }
        match this.lanes.work.poll_recv(context) {
            Poll::Ready(Some(work)) => message(work_to_wire(work, this.clock.as_ref())),
            // The session holds the sending ends, so the lanes close with it.
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// When the connection goes, so does the session.
impl Drop for Outbound {
    fn drop(&mut self) {
        self.session.ended.cancel();
    }
}

fn message(message: Message) -> Poll<Option<Result<v1::ConnectResponse, Status>>> {
    Poll::Ready(Some(Ok(v1::ConnectResponse {
        message: Some(message),
    })))
}

fn control_to_wire(control: Control, clock: &dyn Clock) -> Message {
    let leases = |leases: Vec<LeaseId>| leases.into_iter().map(lease_to_wire).collect();
    match control {
        Control::OutcomesSettled(settled) => {
            Message::OutcomeAcknowledgement(v1::OutcomeAcknowledgement {
                outcomes: leases(settled),
            })
        }
        Control::LeasesExtended(extended, lost, lease) => {
            Message::LeaseExtensionResult(v1::LeaseExtensionResult {
                extended: leases(extended),
                lost: leases(lost),
                lease_duration: Some(duration_to_wire(lease)),
            })
        }
        Control::Revoke(destination, serial_numbers) => Message::Revocation(v1::Revocation {
            destination: destination.to_string(),
            serial_numbers,
        }),
        Control::Heartbeat => Message::Heartbeat(v1::Heartbeat {
            time: Some(timestamp_to_wire(clock.now())),
        }),
        Control::Drain(within) => Message::Drain(v1::Drain {
            deadline: Some(timestamp_to_wire(clock.now().plus(within))),
        }),
    }
}

fn work_to_wire(work: Work, clock: &dyn Clock) -> Message {
    match work {
        Work::Bundle(bundle) => Message::Bundle(*bundle),
        Work::RemoveBundle(destination) => Message::BundleRemoval(v1::BundleRemoval {
            destination: destination.to_string(),
        }),
        Work::Probe(probe) => Message::Probe(probe_to_wire(&probe)),
        Work::NoMoreJobs => Message::NoMoreJobs(v1::NoMoreJobs {}),
        Work::Job(job, lease) => Message::Job(job_to_wire(job, lease, clock.now())),
    }
}

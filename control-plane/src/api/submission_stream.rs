//! SubmitDeliveries: one stream of submissions, and what a submission is.

use std::{convert::Infallible, sync::Arc, task::Poll};

use countersign_proto::v1;
use countersign_shared::{
    headers::Headers,
    name::{DeliveryId, DestinationName},
    tasks::{OnFailure, Tasks},
    time::Timestamp,
};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::Stream as _;
use tonic::{Status, Streaming};

use super::{status, violations::Violations};
use crate::{
    auth::{Denied, Principal},
    deliveries::{Submission, Submit},
    model::Delivery,
};

/// Longest media type and event type.
const MAX_TYPE: usize = 200;
/// Longest ordering key.
const MAX_ORDERING_KEY: usize = 128;
/// How many submissions of one stream may be on their way to the disk at once.
const STREAM_WINDOW: usize = 1024;
/// How many go there together at most, when so many have come.
const STREAM_BATCH: usize = 64;

/// Where a stream's answers come out.
pub(super) type Answers = mpsc::Receiver<Result<v1::SubmitDeliveriesResponse, Status>>;

/// One SubmitDeliveries stream. What has come by the time it is looked at goes to the disk together,
/// and nothing waits for company; at most [`STREAM_WINDOW`] submissions are on their way at once.
pub(super) struct SubmissionStream {
    submit: Submit,
    caller: Arc<Principal>,
    tasks: Tasks,
    window: Arc<Semaphore>,
    answers: mpsc::Sender<Result<v1::SubmitDeliveriesResponse, Status>>,
    /// Ends when the last submissions with ordering keys are stored or refused: those that come after
    /// them wait for that, so that they are accepted in the order of the stream.
    in_order: Option<oneshot::Receiver<Infallible>>,
}

/// A message of the stream, as far as it is a submission of the caller's.
struct Taken {
    sequence: i64,
    submission: Result<Submission, Status>,
}

impl Taken {
    /// Whether its place among the others counts.
    fn is_ordered(&self) -> bool {
        let submission = self.submission.as_ref();
        submission.is_ok_and(|submission| !submission.ordering_key.is_empty())
    }
}

impl SubmissionStream {
    /// One of `caller`'s, and where its answers come out.
    pub(super) fn new(submit: Submit, caller: Arc<Principal>, tasks: Tasks) -> (Self, Answers) {
        let (answers, receiver) = mpsc::channel(STREAM_WINDOW);
        let stream = Self {
            submit,
            caller,
            tasks,
            window: Arc::new(Semaphore::new(STREAM_WINDOW)),
            answers,
            in_order: None,
        };
        (stream, receiver)
    }

    /// Runs until the sender ends it, or goes away.
    pub(super) async fn run(
        mut self,
        mut messages: Streaming<v1::SubmitDeliveriesRequest>,
    ) -> Result<(), Status> {
        loop {
            let message = tokio::select! {
                () = self.tasks.shutdown().cancelled() => return Ok(()),
                () = self.answers.closed() => return Ok(()),
                message = messages.message() => message,
            };
            let Some(message) = message? else {
                return Ok(());
            };
            let now = self.submit.clock.now();
            if !self.caller.is_valid(now) {
                // A sender that went away needs no reason.
                let _ = self.answers.send(Err(status::no_key())).await;
                return Ok(());
            }
            let mut batch = vec![self.take(message, now)];
            let end = loop {
                if batch.len() == STREAM_BATCH {
                    break None;
                }
                match arrived(&mut messages).await {
                    Some(Ok(message)) => batch.push(self.take(message, now)),
                    Some(Err(error)) => break Some(Err(error)),
                    None => break None,
                }
            };
            self.send(batch).await;
            if let Some(end) = end {
                return end;
            }
        }
    }

    fn take(&self, message: v1::SubmitDeliveriesRequest, now: Timestamp) -> Taken {
        let permitted = permitted(&self.caller, &message, now);
        let delivery = message.delivery.unwrap_or_default();
        Taken {
            sequence: message.sequence,
            submission: permitted.and_then(|()| submission(delivery)),
        }
    }

    /// Hands submissions to the disk and leaves the answers to a task.
    async fn send(&mut self, batch: Vec<Taken>) {
        let count = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        // Never closed, and never asked for more than there is.
        let Ok(slots) = Arc::clone(&self.window).acquire_many_owned(count).await else {
            return;
        };
        let (submit, answers) = (self.submit.clone(), self.answers.clone());
        let turn = batch.iter().any(Taken::is_ordered).then(|| {
            let (done, next) = oneshot::channel();
            (self.in_order.replace(next), done)
        });
        self.tasks.spawn("submissions", OnFailure::Log, async move {
            let (before, done) = turn.unzip();
            if let Some(before) = before.flatten() {
                // Nothing is ever sent: it ends.
                let _ = before.await;
            }
            let all = answer_all(&submit, batch).await;
            drop(done);
            for answer in all {
                // A sender that went away repeats what it got no answer for.
                let _ = answers.send(Ok(answer)).await;
            }
            drop(slots);
            Ok::<_, Status>(())
        });
    }
}

/// The next message if it is there already, or why there will be none; `None` when it is not yet
/// there, or the stream has ended, which the next look tells.
async fn arrived(
    messages: &mut Streaming<v1::SubmitDeliveriesRequest>,
) -> Option<Result<v1::SubmitDeliveriesRequest, Status>> {
    let mut messages = std::pin::Pin::new(messages);
    std::future::poll_fn(|context| match messages.as_mut().poll_next(context) {
        Poll::Ready(message) => Poll::Ready(message),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Whether `caller` may submit this message of its stream now.
fn permitted(
    caller: &Principal,
    message: &v1::SubmitDeliveriesRequest,
    now: Timestamp,
) -> Result<(), Status> {
    let counted = caller.count(now);
    counted.map_err(|wait| status::too_many_calls(&caller.name, wait))?;
    let delivery = message.delivery.as_ref();
    let destination = delivery.map_or("", |delivery| delivery.destination.as_str());
    if caller.scope.covers(destination) {
        return Ok(());
    }
    Err(status::denied(&Denied::Account(caller.name.clone())))
}

async fn answer_all(submit: &Submit, batch: Vec<Taken>) -> Vec<v1::SubmitDeliveriesResponse> {
    let mut refused = Vec::with_capacity(batch.len());
    let mut submissions = Vec::with_capacity(batch.len());
    for Taken {
        sequence,
        submission,
    } in batch
    {
        let status = submission.map(|submission| submissions.push(submission));
        refused.push((sequence, status.err()));
    }
    let mut answers = submit.submit_all(submissions).await.into_iter();
    let answers = refused.into_iter().map(|(sequence, refused)| {
        let accepted = match refused {
            Some(status) => Err(status),
            None => match answers.next() {
                Some(answer) => answer.map_err(status::submit),
                None => Err(Status::internal("no answer to a submission")),
            },
        };
        answer(sequence, accepted)
    });
    answers.collect()
}

fn answer(sequence: i64, accepted: Result<Delivery, Status>) -> v1::SubmitDeliveriesResponse {
    use v1::submit_deliveries_response::Result as Answer;
    let result = match accepted {
        Ok(delivery) => Answer::Name(delivery_resource(&delivery)),
        Err(status) => Answer::Error(v1::SubmitError {
            code: status.code().into(),
            reason: status::reason(&status),
            message: status.message().to_owned(),
            retry_after: status::retry_after(&status).and_then(|wait| wait.try_into().ok()),
        }),
    };
    v1::SubmitDeliveriesResponse {
        sequence,
        result: Some(result),
    }
}

/// What a sender hands in, checked whole.
pub(super) fn submission(request: v1::SubmitDeliveryRequest) -> Result<Submission, Status> {
    let mut violations = Violations::default();
    let destination = violations.parse::<DestinationName>("destination", &request.destination);
    violations.visible_ascii("content_type", &request.content_type, MAX_TYPE);
    violations.visible_ascii("event_type", &request.event_type, MAX_TYPE);
    violations.visible_ascii("ordering_key", &request.ordering_key, MAX_ORDERING_KEY);
    violations.request_id(&request.request_id);
    let headers = Headers::new(request.headers);
    let headers = headers.map_err(|error| violations.add("headers", error.to_string()));
    let content_type = match request.content_type.as_str() {
        "" => "application/json".to_owned(),
        _ => request.content_type,
    };
    let (destination, headers) = violations.finish(destination.zip(headers.ok()))?;
    Ok(Submission {
        destination,
        headers,
        payload: request.payload,
        content_type,
        event_type: request.event_type,
        ordering_key: request.ordering_key,
        request_id: request.request_id,
    })
}

/// A delivery's resource name.
pub(super) fn delivery_resource(delivery: &Delivery) -> String {
    resource(delivery, delivery.id)
}

/// A delivery of the same account.
pub(super) fn resource(delivery: &Delivery, id: DeliveryId) -> String {
    format!(
        "accounts/{}/deliveries/{id}",
        delivery.destination.account()
    )
}

//! DeliveryService.

use countersign_proto::v1::{self, delivery_service_server::DeliveryService};
use countersign_shared::{
    headers::Headers,
    name::{AccountName, DeliveryId, DestinationName, split},
    tasks::{OnFailure, Tasks},
    time::Timestamp,
    wire::{
        class_from_wire, class_to_wire, handshake_to_wire, refusal_to_wire, timestamp_from_wire,
        timestamp_to_wire, timings_to_wire,
    },
};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::{Stream as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use std::{convert::Infallible, sync::Arc, task::Poll};

use super::{authenticate, page, status, violations::Violations};
use crate::{
    auth::{Denied, Principal},
    deliveries::{ByHand, Submission, Submit},
    model::{Attempt, Delivery, DeliveryFilter, DeliveryState, ReplayFilter},
};

/// Longest media type and event type.
const MAX_TYPE: usize = 200;
/// Longest ordering key.
const MAX_ORDERING_KEY: usize = 128;
/// How many submissions of one stream may be on their way to the disk at once.
const STREAM_WINDOW: usize = 1024;
/// How many go there together at most, when so many have come.
const STREAM_BATCH: usize = 64;

/// DeliveryService over [`Submit`], [`ByHand`] and the store.
#[derive(Clone)]
pub struct DeliveryApi {
    /// Accepts.
    pub submit: Submit,
    /// Retries, replays and cancels.
    pub by_hand: ByHand,
    /// Runs streams.
    pub tasks: Tasks,
}

#[tonic::async_trait]
impl DeliveryService for DeliveryApi {
    async fn submit_delivery(
        &self,
        request: Request<v1::SubmitDeliveryRequest>,
    ) -> Result<Response<v1::SubmitDeliveryResponse>, Status> {
        let submission = submission(request.into_inner())?;
        let accepted = self
            .submit
            .submit(submission)
            .await
            .map_err(status::submit)?;
        Ok(Response::new(v1::SubmitDeliveryResponse {
            delivery: Some(to_wire(&accepted)),
        }))
    }

    type SubmitDeliveriesStream = ReceiverStream<Result<v1::SubmitDeliveriesResponse, Status>>;

    async fn submit_deliveries(
        &self,
        request: Request<Streaming<v1::SubmitDeliveriesRequest>>,
    ) -> Result<Response<Self::SubmitDeliveriesStream>, Status> {
        let caller = authenticate::principal(&request)?;
        let (answers, receiver) = mpsc::channel(STREAM_WINDOW);
        let stream = SubmissionStream {
            submit: self.submit.clone(),
            caller,
            tasks: self.tasks.clone(),
            window: Arc::new(Semaphore::new(STREAM_WINDOW)),
            answers,
            in_order: None,
        };
        let run = stream.run(request.into_inner());
        self.tasks.spawn("submission stream", OnFailure::Log, run);
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn get_delivery(
        &self,
        request: Request<v1::GetDeliveryRequest>,
    ) -> Result<Response<v1::GetDeliveryResponse>, Status> {
        let (account, id) = delivery_name("name", &request.into_inner().name)?;
        let found = self.submit.store.delivery(&account, id).await;
        Ok(Response::new(v1::GetDeliveryResponse {
            delivery: Some(to_wire(&found.map_err(status::store)?)),
        }))
    }

    async fn list_deliveries(
        &self,
        request: Request<v1::ListDeliveriesRequest>,
    ) -> Result<Response<v1::ListDeliveriesResponse>, Status> {
        let request = request.into_inner();
        let mut violations = Violations::default();
        let account = violations.parse::<AccountName>("parent", &request.parent);
        let size = page::size(&mut violations, request.page_size);
        let before = page::after(&mut violations, "deliveries", &request.page_token);
        let filter = filter(&mut violations, &request, account.as_ref());
        let account = violations.finish(account)?;
        let before = before.parse::<DeliveryId>().ok();
        let found = self
            .submit
            .store
            .deliveries(&account, &filter, before, size)
            .await;
        let found = found.map_err(status::store)?;
        Ok(Response::new(v1::ListDeliveriesResponse {
            next_page_token: page::token(&found, "deliveries", |item| item.id.to_string()),
            deliveries: found.items.iter().map(to_wire).collect(),
        }))
    }

    async fn retry_delivery(
        &self,
        request: Request<v1::RetryDeliveryRequest>,
    ) -> Result<Response<v1::RetryDeliveryResponse>, Status> {
        let (account, id) = delivery_name("name", &request.into_inner().name)?;
        let retried = self.by_hand.retry(&account, id).await;
        let retried = retried.map_err(status::store)?;
        Ok(Response::new(v1::RetryDeliveryResponse {
            delivery: Some(to_wire(&retried)),
        }))
    }

    async fn cancel_delivery(
        &self,
        request: Request<v1::CancelDeliveryRequest>,
    ) -> Result<Response<v1::CancelDeliveryResponse>, Status> {
        let (account, id) = delivery_name("name", &request.into_inner().name)?;
        let cancelled = self.by_hand.cancel(&account, id).await;
        Ok(Response::new(v1::CancelDeliveryResponse {
            delivery: Some(to_wire(&cancelled.map_err(status::store)?)),
        }))
    }

    async fn replay_deliveries(
        &self,
        request: Request<v1::ReplayDeliveriesRequest>,
    ) -> Result<Response<v1::ReplayDeliveriesResponse>, Status> {
        let request = request.into_inner();
        let mut violations = Violations::default();
        let account = violations.parse::<AccountName>("parent", &request.parent);
        let filter = replay_filter(&mut violations, &request, account.as_ref());
        let account = violations.finish(account)?;
        let replayed = self
            .by_hand
            .replay(&account, &filter, request.dry_run)
            .await;
        let (count, more) = replayed.map_err(status::store)?;
        Ok(Response::new(v1::ReplayDeliveriesResponse {
            count: i32::try_from(count).unwrap_or(i32::MAX),
            more,
        }))
    }

    async fn list_attempts(
        &self,
        request: Request<v1::ListAttemptsRequest>,
    ) -> Result<Response<v1::ListAttemptsResponse>, Status> {
        let request = request.into_inner();
        let mut violations = Violations::default();
        let size = page::size(&mut violations, request.page_size);
        let after = page::after(&mut violations, "attempts", &request.page_token);
        violations.check()?;
        let (account, id) = delivery_name("parent", &request.parent)?;
        let after = after.parse().unwrap_or_default();
        let found = self.submit.store.attempts(&account, id, after, size).await;
        let found = found.map_err(status::store)?;
        let parent = request.parent.as_str();
        Ok(Response::new(v1::ListAttemptsResponse {
            next_page_token: page::token(&found, "attempts", |item| item.number.to_string()),
            attempts: found
                .items
                .iter()
                .map(|item| attempt_to_wire(parent, item))
                .collect(),
        }))
    }
}

/// One SubmitDeliveries stream. What has come by the time it is looked at goes to the disk together,
/// and nothing waits for company; at most [`STREAM_WINDOW`] submissions are on their way at once.
struct SubmissionStream {
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
    async fn run(
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

fn submission(request: v1::SubmitDeliveryRequest) -> Result<Submission, Status> {
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

fn filter(
    violations: &mut Violations,
    request: &v1::ListDeliveriesRequest,
    account: Option<&AccountName>,
) -> DeliveryFilter {
    let state = match v1::DeliveryState::try_from(request.state) {
        Ok(v1::DeliveryState::Unspecified) => None,
        Ok(v1::DeliveryState::Pending) => Some(DeliveryState::Pending),
        Ok(v1::DeliveryState::Leased) => Some(DeliveryState::Leased),
        Ok(v1::DeliveryState::Delivered) => Some(DeliveryState::Delivered),
        Ok(v1::DeliveryState::DeadLetter) => Some(DeliveryState::DeadLetter),
        Ok(v1::DeliveryState::Cancelled) => Some(DeliveryState::Cancelled),
        Err(_) => {
            violations.add("state", "is not a known state");
            None
        }
    };
    let destination = destination_of(violations, &request.destination, account);
    DeliveryFilter { state, destination }
}

/// A destination to filter by; empty: none.
fn destination_of(
    violations: &mut Violations,
    text: &str,
    account: Option<&AccountName>,
) -> Option<DestinationName> {
    if text.is_empty() {
        return None;
    }
    let destination = violations.parse::<DestinationName>("destination", text)?;
    if account.is_some_and(|account| destination.account() != account.id().as_str()) {
        violations.add("destination", "must belong to the account in parent");
    }
    Some(destination)
}

fn replay_filter(
    violations: &mut Violations,
    request: &v1::ReplayDeliveriesRequest,
    account: Option<&AccountName>,
) -> ReplayFilter {
    let last_class = class_from_wire(request.last_class);
    if last_class.is_none() && request.last_class != 0 {
        violations.add("last_class", "is not a known class");
    }
    ReplayFilter {
        destination: destination_of(violations, &request.destination, account),
        accepted_from: request.accepted_from.map(timestamp_from_wire),
        accepted_until: request.accepted_until.map(timestamp_from_wire),
        last_class,
    }
}

fn delivery_name(field: &str, text: &str) -> Result<(AccountName, DeliveryId), Status> {
    let mut violations = Violations::default();
    let parsed = split::<2>(text, "accounts/{account}/deliveries/{delivery}");
    let parsed = parsed.and_then(|[account, delivery]| {
        Ok((format!("accounts/{account}").parse()?, delivery.parse()?))
    });
    let parsed = parsed
        .map_err(|error| violations.add(field, error.to_string()))
        .ok();
    violations.finish(parsed)
}

fn delivery_resource(delivery: &Delivery) -> String {
    resource(delivery, delivery.id)
}

/// A delivery of the same account.
fn resource(delivery: &Delivery, id: DeliveryId) -> String {
    format!(
        "accounts/{}/deliveries/{id}",
        delivery.destination.account()
    )
}

fn to_wire(delivery: &Delivery) -> v1::Delivery {
    let state = match delivery.state {
        DeliveryState::Pending => v1::DeliveryState::Pending,
        DeliveryState::Leased => v1::DeliveryState::Leased,
        DeliveryState::Delivered => v1::DeliveryState::Delivered,
        DeliveryState::DeadLetter => v1::DeliveryState::DeadLetter,
        DeliveryState::Cancelled => v1::DeliveryState::Cancelled,
    };
    let next = delivery
        .due_at
        .filter(|_| delivery.state == DeliveryState::Pending);
    let class = delivery.last_class;
    v1::Delivery {
        name: delivery_resource(delivery),
        destination: delivery.destination.to_string(),
        state: state.into(),
        content_type: delivery.content_type.clone(),
        event_type: delivery.event_type.clone(),
        payload_size: i64::from(delivery.payload_size),
        attempt_count: i32::try_from(delivery.attempt_count).unwrap_or(i32::MAX),
        last_class: class
            .map_or(v1::FailureClass::Unspecified, class_to_wire)
            .into(),
        create_time: Some(timestamp_to_wire(delivery.accepted_at)),
        next_attempt_time: next.map(timestamp_to_wire),
        settle_time: delivery.settled_at.map(timestamp_to_wire),
        resolution: class.map_or("", |class| class.resolution()).to_owned(),
        held: delivery.state == DeliveryState::Pending && delivery.held_since.is_some(),
        ordering_key: delivery.ordering_key.clone().unwrap_or_default(),
        waits_for: delivery
            .waits_for
            .map_or_else(String::new, |id| resource(delivery, id)),
    }
}

fn attempt_to_wire(delivery: &str, attempt: &Attempt) -> v1::Attempt {
    let outcome = &attempt.outcome;
    v1::Attempt {
        name: format!("{delivery}/attempts/{}", attempt.number),
        number: i32::try_from(attempt.number).unwrap_or(i32::MAX),
        class: class_to_wire(outcome.class).into(),
        mtls_not_enforced: outcome.mtls_not_enforced,
        http_status: outcome.http_status.map_or(0, i32::from),
        handshake: outcome.handshake.as_ref().map(handshake_to_wire),
        timings: Some(timings_to_wire(&outcome.timings)),
        agent: attempt.agent.to_string(),
        start_time: Some(timestamp_to_wire(outcome.started_at)),
        resolution: outcome.class.resolution().to_owned(),
        detail: outcome.detail.clone().into_owned(),
        epoch: i64::try_from(outcome.epoch).unwrap_or(i64::MAX),
        refused_certificate: outcome.refused.as_deref().map(refusal_to_wire),
    }
}

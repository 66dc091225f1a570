//! DeliveryService.

use countersign_proto::v1::{self, delivery_service_server::DeliveryService};
use countersign_shared::{
    name::{AccountName, DeliveryId, DestinationName, split},
    tasks::{OnFailure, Tasks},
    wire::{
        class_from_wire, class_to_wire, handshake_to_wire, refusal_to_wire, timestamp_from_wire,
        timestamp_to_wire, timings_to_wire,
    },
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    authenticate, page, status,
    submission_stream::{SubmissionStream, delivery_resource, resource, submission},
    violations::Violations,
};
use crate::{
    deliveries::{ByHand, Submit},
    model::{Attempt, Delivery, DeliveryFilter, DeliveryState, ReplayFilter},
};

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
        let (submit, tasks) = (self.submit.clone(), self.tasks.clone());
        let (stream, answers) = SubmissionStream::new(submit, caller, tasks);
        let run = stream.run(request.into_inner());
        self.tasks.spawn("submission stream", OnFailure::Log, run);
        Ok(Response::new(ReceiverStream::new(answers)))
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
        handshake: outcome.handshake.as_deref().map(handshake_to_wire),
        timings: Some(timings_to_wire(&outcome.timings)),
        agent: attempt.agent.to_string(),
        start_time: Some(timestamp_to_wire(outcome.started_at)),
        resolution: outcome.class.resolution().to_owned(),
        detail: outcome.detail.clone().into_owned(),
        epoch: i64::try_from(outcome.epoch).unwrap_or(i64::MAX),
        refused_certificate: outcome.refused.as_deref().map(refusal_to_wire),
        receipt: outcome.receipt.as_deref().unwrap_or_default().to_owned(),
        unrecorded_attempts: i32::try_from(outcome.unrecorded_attempts).unwrap_or(i32::MAX),
    }
}

//! One SubmitDeliveries stream of the generator: submits what is due, and takes the answers.

use std::time::Duration;

use bytes::Bytes;
use countersign_proto::v1::{self, submit_deliveries_response::Result as Answer};
use countersign_shared::time::{Clock as _, SystemClock, Timestamp};
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{
    files::PlannedDestination,
    pace::Pace,
    payload::CONTENT_TYPE,
    records::{Accepted, delivery_number},
    sequence::Sequence,
};
use crate::api_client::ApiClient;

/// How many submissions may wait for their answers: as many as the control plane takes of a stream.
const WINDOW: usize = 1024;
/// What is due sooner is not worth a timer, whose steps are as long.
const AT_ONCE: Duration = Duration::from_millis(1);

/// What went wrong with a stream.
#[derive(Debug, Error)]
pub(crate) enum StreamError {
    /// The call failed.
    #[error("SubmitDeliveries failed with {:?}: {}", .0.code(), .0.message())]
    Refused(#[from] Status),
    /// It ended early.
    #[error("SubmitDeliveries ended with {0} submissions unanswered")]
    Unanswered(usize),
    /// An answer that makes no sense.
    #[error("SubmitDeliveries answered with what can't be read: the versions do not fit together")]
    Unreadable,
}

/// What a stream submits.
#[derive(Debug)]
pub(crate) struct Load<'a> {
    /// Where to, in turn.
    pub(crate) destinations: &'a [PlannedDestination],
    /// What.
    pub(crate) payload: Bytes,
    /// Each with a request id.
    pub(crate) request_ids: bool,
    /// When.
    pub(crate) pace: Pace,
    /// From when on.
    pub(crate) start: Timestamp,
    /// Index of its first delivery.
    pub(crate) first: u64,
    /// From one of its deliveries to the next.
    pub(crate) step: u64,
}

/// What became of it.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// Accepted deliveries.
    pub(crate) accepted: Vec<Accepted>,
    /// How many submissions were refused.
    pub(crate) refused: u64,
    /// Why the first was.
    pub(crate) first_refusal: Option<String>,
}

impl Taken {
    /// Adds another stream's.
    pub(crate) fn add(&mut self, other: Self) {
        self.accepted.extend(other.accepted);
        self.refused += other.refused;
        self.first_refusal = self.first_refusal.take().or(other.first_refusal);
    }
}

/// Submits a load to its end and waits for all answers.
///
/// # Errors
/// [`StreamError`].
pub(crate) async fn submit(client: &ApiClient, load: Load<'_>) -> Result<Taken, StreamError> {
    let (messages, queue) = mpsc::channel(WINDOW);
    let window = Semaphore::new(WINDOW);
    let start = load.start;
    let call = client
        .deliveries()
        .submit_deliveries(ReceiverStream::new(queue))
        .await?;
    let mut answers = call.into_inner();
    let receiving = async {
        let taken = take_all(&mut answers, start, &window).await;
        // Nobody needs to wait for answers any more.
        window.close();
        taken
    };
    // The queue closes when the sending is done, and the answers end when the last has come.
    let (sent, taken) = tokio::join!(send(&load, messages, &window), receiving);
    let taken = taken?;
    let answered = taken.accepted.len() + usize::try_from(taken.refused).unwrap_or(usize::MAX);
    match sent.checked_sub(answered) {
        Some(0) => Ok(taken),
        missing => Err(StreamError::Unanswered(missing.unwrap_or_default())),
    }
}

/// Takes answers until they end.
async fn take_all(
    answers: &mut Streaming<v1::SubmitDeliveriesResponse>,
    start: Timestamp,
    window: &Semaphore,
) -> Result<Taken, StreamError> {
    let mut taken = Taken::default();
    while let Some(answer) = answers.message().await? {
        taken.take(answer, start, SystemClock.now())?;
        window.add_permits(1);
    }
    Ok(taken)
}

/// Sends what is due when it is due. How many it were.
async fn send(
    load: &Load<'_>,
    messages: mpsc::Sender<v1::SubmitDeliveriesRequest>,
    window: &Semaphore,
) -> usize {
    let mut sent = 0;
    let mut index = load.first;
    loop {
        // Closed when the answers have ended.
        let Ok(permit) = window.acquire().await else {
            return sent;
        };
        let elapsed = SystemClock.now().since(load.start);
        let Some(due) = load.pace.due(index, elapsed) else {
            return sent;
        };
        let early = due.saturating_sub(elapsed);
        if early >= AT_ONCE {
            tokio::time::sleep(early).await;
        }
        if messages.send(message(load, index, due)).await.is_err() {
            // The call has ended; the answers say why.
            return sent;
        }
        permit.forget();
        sent += 1;
        index += load.step;
    }
}

fn message(load: &Load<'_>, index: u64, due: Duration) -> v1::SubmitDeliveriesRequest {
    let turn = index % (load.destinations.len().max(1) as u64);
    // An index into a Vec of at most a million.
    let destination = u32::try_from(turn).unwrap_or_default();
    let planned = load.destinations.get(destination as usize);
    let sequence = Sequence { due, destination };
    v1::SubmitDeliveriesRequest {
        sequence: sequence.to_number(),
        delivery: Some(v1::SubmitDeliveryRequest {
            destination: planned.map(|it| it.name.clone()).unwrap_or_default(),
            payload: load.payload.clone(),
            content_type: CONTENT_TYPE.to_owned(),
            event_type: "bench".to_owned(),
            request_id: match load.request_ids {
                true => format!("{}-{index}", load.start.as_unix_micros()),
                false => String::new(),
            },
            ..v1::SubmitDeliveryRequest::default()
        }),
    }
}

impl Taken {
    fn take(
        &mut self,
        answer: v1::SubmitDeliveriesResponse,
        start: Timestamp,
        now: Timestamp,
    ) -> Result<(), StreamError> {
        match answer.result {
            Some(Answer::Name(name)) => {
                let sequence =
                    Sequence::from_number(answer.sequence).ok_or(StreamError::Unreadable)?;
                self.accepted.push(Accepted {
                    id: delivery_number(&name).ok_or(StreamError::Unreadable)?,
                    destination: sequence.destination,
                    due: start.plus(sequence.due),
                    accepted: now,
                });
            }
            Some(Answer::Error(error)) => {
                self.refused += 1;
                let reason = format!("{}: {}", error.reason, error.message);
                self.first_refusal.get_or_insert(reason);
            }
            None => return Err(StreamError::Unreadable),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "accounts/a/deliveries/01890000-0000-7000-8000-000000000001";

    fn answer(sequence: i64, result: Option<Answer>) -> v1::SubmitDeliveriesResponse {
        v1::SubmitDeliveriesResponse { sequence, result }
    }

    #[test]
    fn answers_become_records_or_refusals() {
        let start = Timestamp::from_unix_seconds(1_700_000_000);
        let now = start.plus(Duration::from_millis(5));
        let sequence = Sequence {
            due: Duration::from_millis(2),
            destination: 7,
        };
        let mut taken = Taken::default();
        let name = Some(Answer::Name(NAME.to_owned()));
        taken
            .take(answer(sequence.to_number(), name), start, now)
            .unwrap();
        let accepted = taken.accepted[0];
        assert_eq!(accepted.destination, 7);
        assert_eq!(accepted.due, start.plus(Duration::from_millis(2)));
        assert_eq!(accepted.accepted, now);
        for message in ["first", "second"] {
            let error = v1::SubmitError {
                reason: "FULL".to_owned(),
                message: message.to_owned(),
                ..v1::SubmitError::default()
            };
            taken
                .take(answer(0, Some(Answer::Error(error))), start, now)
                .unwrap();
        }
        assert_eq!(taken.refused, 2);
        assert_eq!(taken.first_refusal.as_deref(), Some("FULL: first"));
    }

    #[test]
    fn answers_that_make_no_sense_are_errors() {
        let now = Timestamp::from_unix_seconds(1);
        let mut taken = Taken::default();
        assert!(taken.take(answer(0, None), now, now).is_err());
        let other = Some(Answer::Name("accounts/a".to_owned()));
        assert!(taken.take(answer(0, other), now, now).is_err());
        let name = Some(Answer::Name(NAME.to_owned()));
        assert!(taken.take(answer(-1, name), now, now).is_err());
    }

    #[test]
    fn destinations_get_deliveries_in_turn() {
        let destination = |name: &str| PlannedDestination {
            name: name.to_owned(),
            kind: crate::bench::pace::Kind::Live,
        };
        let destinations = [destination("a"), destination("b"), destination("c")];
        let load = Load {
            destinations: &destinations,
            payload: Bytes::from_static(b"\"\""),
            request_ids: true,
            pace: Pace {
                rate: 1,
                duration: Duration::ZERO,
            },
            start: Timestamp::default(),
            first: 0,
            step: 1,
        };
        let made = message(&load, 4, Duration::from_secs(1));
        assert_eq!(made.delivery.unwrap().destination, "b");
        let sequence = Sequence::from_number(made.sequence).unwrap();
        assert_eq!((sequence.destination, sequence.due.as_secs()), (1, 1));
    }
}

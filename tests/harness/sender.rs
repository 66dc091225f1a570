//! A sender that does not give up: it submits every delivery over the stream SubmitDeliveries, goes on
//! after a broken connection with what had no answer, and counts only what was answered.
//!
//! It keeps a bounded distance to the receiver, so that a story can interrupt it midway.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use countersign_proto::v1::{
    SubmitDeliveriesRequest, SubmitDeliveriesResponse, SubmitDeliveryRequest,
    submit_deliveries_response::Result as Answer,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::{
    client::{DeliveryClient, connect},
    control_plane::ControlPlane,
};

/// Messages without an answer at once.
const WINDOW: usize = 128;
/// How far acceptance may run ahead of the receiver.
const AHEAD: usize = 400;

/// Submits deliveries until each has an answer, over as many connections as that takes.
pub struct Sender {
    destination: String,
    deliveries: i64,
    payload: fn(i64) -> String,
    ordering_key: fn(i64) -> String,
    ca_file: PathBuf,
    key: String,
    /// Where the control plane listens; another one after a restart.
    address: Mutex<SocketAddr>,
    /// How many have arrived.
    received: AtomicUsize,
    /// Resource names by sequence number.
    accepted: Mutex<BTreeMap<i64, String>>,
    /// The story has ended; there is nothing more to prove.
    given_up: AtomicBool,
}

/// Ends its sender when it is dropped: a story that fails waits for the sender's thread.
pub struct EndsWithScope<'a>(&'a Sender);

impl Drop for EndsWithScope<'_> {
    fn drop(&mut self) {
        self.0.given_up.store(true, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sender {
    /// One that will submit `deliveries` to `destination`, numbered from 0, each with its `payload`.
    pub fn new(
        control_plane: &ControlPlane,
        destination: &str,
        deliveries: i64,
        payload: fn(i64) -> String,
    ) -> Self {
        Self {
            destination: destination.to_owned(),
            deliveries,
            payload,
            ordering_key: |_| String::new(),
            ca_file: control_plane.ca_file(),
            key: control_plane.admin_key(),
            address: Mutex::new(control_plane.listeners().api),
            received: AtomicUsize::new(0),
            accepted: Mutex::default(),
            given_up: AtomicBool::new(false),
        }
    }

    /// Gives the delivery of each number an ordering key; empty: none.
    pub fn with_ordering_keys(mut self, ordering_key: fn(i64) -> String) -> Self {
        self.ordering_key = ordering_key;
        self
    }

    /// Where the control plane is from now on.
    pub fn connect_to(&self, address: SocketAddr) {
        *lock(&self.address) = address;
    }

    /// Tells how many have arrived.
    pub fn has_arrived(&self, count: usize) {
        self.received.store(count, Ordering::Relaxed);
    }

    /// The resource names of what was accepted, by number.
    pub fn accepted(&self) -> BTreeMap<i64, String> {
        lock(&self.accepted).clone()
    }

    /// Makes [`Sender::send_all`] end when the result is dropped.
    pub fn ends_with_this_scope(&self) -> EndsWithScope<'_> {
        EndsWithScope(self)
    }

    /// Submits until every delivery is accepted.
    ///
    /// # Panics
    /// When one is refused for good, or accepted under two names.
    pub fn send_all(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            while !self.all_accepted() && !self.given_up.load(Ordering::Relaxed) {
                let address = *lock(&self.address);
                match connect(address, &self.ca_file, &self.key).await {
                    // A broken stream is what this story is about.
                    Ok(client) => drop(self.one_stream(client).await),
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
    }

    async fn one_stream(&self, mut client: DeliveryClient) -> Result<(), Status> {
        let (messages, outgoing) = mpsc::channel(WINDOW);
        let mut waiting = self.unanswered();
        let mut in_flight = 0;
        // A server may wait for the first message before it opens its side of the stream.
        while in_flight < WINDOW
            && let Some(sequence) = waiting.pop_first()
        {
            let sent = messages.try_send(self.message(sequence));
            sent.expect("the channel holds a window");
            in_flight += 1;
        }
        let answers = client.submit_deliveries(ReceiverStream::new(outgoing));
        let mut answers = answers.await?.into_inner();
        while in_flight > 0 || !waiting.is_empty() {
            let may_send = in_flight < WINDOW && !waiting.is_empty() && !self.is_ahead();
            tokio::select! {
                answer = answers.message() => {
                    let ended = || Status::unavailable("the stream ended");
                    waiting.extend(self.take(answer?.ok_or_else(ended)?));
                    in_flight -= 1;
                }
                permit = messages.reserve(), if may_send => {
                    let permit = permit.map_err(|_| Status::unavailable("the stream ended"))?;
                    if let Some(sequence) = waiting.pop_first() {
                        permit.send(self.message(sequence));
                        in_flight += 1;
                    }
                }
                // Looks again whether the receiver has caught up, or the story has failed.
                () = tokio::time::sleep(Duration::from_millis(5)), if !may_send => {
                    if self.given_up.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether acceptance is far enough ahead of the receiver.
    fn is_ahead(&self) -> bool {
        let accepted = lock(&self.accepted).len();
        accepted >= self.received.load(Ordering::Relaxed) + AHEAD
    }

    fn all_accepted(&self) -> bool {
        lock(&self.accepted).len() as i64 == self.deliveries
    }

    fn unanswered(&self) -> BTreeSet<i64> {
        let accepted = lock(&self.accepted);
        (0..self.deliveries)
            .filter(|sequence| !accepted.contains_key(sequence))
            .collect()
    }

    fn message(&self, sequence: i64) -> SubmitDeliveriesRequest {
        SubmitDeliveriesRequest {
            sequence,
            delivery: Some(SubmitDeliveryRequest {
                destination: self.destination.clone(),
                payload: (self.payload)(sequence).into(),
                content_type: "application/json".to_owned(),
                event_type: "order.paid".to_owned(),
                // What makes it safe to send again after a lost answer.
                request_id: format!("order-{sequence}"),
                ordering_key: (self.ordering_key)(sequence),
                ..SubmitDeliveryRequest::default()
            }),
        }
    }

    /// Notes an answer; gives the sequence number again when it is to be sent again.
    fn take(&self, answer: SubmitDeliveriesResponse) -> Option<i64> {
        match answer.result.expect("a result") {
            Answer::Name(name) => {
                let earlier = lock(&self.accepted).insert(answer.sequence, name.clone());
                assert!(earlier.is_none_or(|earlier| earlier == name));
                None
            }
            Answer::Error(error) if error.code == Code::Unavailable as i32 => Some(answer.sequence),
            Answer::Error(error) => panic!("refused: {error:?}"),
        }
    }
}

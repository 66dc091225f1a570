//! Five thousand deliveries, and the power goes: first at the control plane, then at the agent. The
//! sender goes on where it had no answer. Everything that was accepted arrives, under one
//! `webhook-id` each, and the store says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use countersign_proto::v1::{
    SubmitDeliveriesRequest, SubmitDeliveriesResponse, SubmitDeliveryRequest,
    submit_deliveries_response::Result as Answer,
};
use countersign_tests::{
    certificates::TestCertificate,
    client::{DeliveryClient, connect},
    receiver::Receiver,
    setting::Setting,
    wait::wait_for,
};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

const DELIVERIES: i64 = 5_000;
/// Messages without an answer at once.
const WINDOW: usize = 128;
/// How far acceptance may run ahead of the receiver, so that both kills come while it goes on.
const AHEAD: usize = 400;
/// Reached only when something is lost.
const DEADLINE: Duration = Duration::from_secs(180);

#[test]
fn five_thousand_deliveries_survive_two_power_cuts() {
    let mut setting = Setting::with("kill-9", "delivery.lease_seconds = 3", "info");
    let account = setting.account("acme");
    let server = TestCertificate::make(&setting.folder.subfolder("server"));
    let receiver = Receiver::start(&server, &setting.trust_bundle(&account));
    let url = receiver.url("/hooks");
    let destination = setting.destination(&account, "orders", &url, &server.ca_pem);
    let mut agent = setting.agent("edge-1", &["--log-filter", "info"]);

    let sender = Sender {
        destination,
        ca_file: setting.control_plane.ca_file(),
        key: setting.control_plane.admin_key(),
        address: Mutex::new(setting.control_plane.listeners().api),
        received: AtomicUsize::new(0),
        accepted: Mutex::default(),
        given_up: AtomicBool::new(false),
    };
    thread::scope(|scope| {
        let sending = scope.spawn(|| sender.send_all());
        let _guard = GiveUp(&sender);
        let wait_for_arrivals = |count: usize| {
            wait_for(&format!("{count} arrivals"), DEADLINE, || {
                let arrived = receiver.distinct();
                sender.received.store(arrived, Ordering::Relaxed);
                assert!(
                    arrived < count || !sending.is_finished(),
                    "all was sent before the kill"
                );
                arrived >= count
            });
        };
        wait_for_arrivals(1_600);
        setting.control_plane.kill9();
        setting.control_plane.restart();
        *lock(&sender.address) = setting.control_plane.listeners().api;

        wait_for_arrivals(3_300);
        agent.kill9();
        agent.restart();

        wait_for("the rest", DEADLINE, || {
            sender
                .received
                .store(receiver.distinct(), Ordering::Relaxed);
            sending.is_finished()
        });
        sending.join().expect("the sender");
    });

    assert_all_arrived(&sender, &receiver);
    assert_all_settled(&setting, &account);
}

fn assert_all_arrived(sender: &Sender, receiver: &Receiver) {
    let accepted = lock(&sender.accepted);
    assert_eq!(accepted.len() as i64, DELIVERIES);
    let expected: BTreeMap<&str, i64> = accepted
        .iter()
        .map(|(sequence, name)| (name.rsplit('/').next().unwrap(), *sequence))
        .collect();
    assert_eq!(
        expected.len() as i64,
        DELIVERIES,
        "two deliveries share a name"
    );
    wait_for("every accepted delivery to arrive", DEADLINE, || {
        receiver.distinct() >= expected.len()
    });
    let received = receiver.received();
    for (id, sequence) in &expected {
        let arrived = received.get(*id).unwrap_or_else(|| panic!("{id} was lost"));
        assert!(arrived.same_body, "{id} came with different bodies");
        assert_eq!(arrived.body, payload(*sequence));
    }
    let unknown: Vec<_> = received
        .keys()
        .filter(|id| !expected.contains_key(id.as_str()))
        .collect();
    assert!(
        unknown.is_empty(),
        "delivered, but accepted under no such name: {unknown:?}"
    );
}

fn assert_all_settled(setting: &Setting, account: &str) {
    wait_for("the store to say DELIVERED for all", DEADLINE, || {
        let states = states(setting, account);
        assert_eq!(
            states.len() as i64,
            DELIVERIES,
            "the store has another number of deliveries"
        );
        states
            .values()
            .all(|state| state == "DELIVERY_STATE_DELIVERED")
    });
}

/// Every delivery of the account with its state, page by page.
fn states(setting: &Setting, account: &str) -> BTreeMap<String, String> {
    let mut states = BTreeMap::new();
    let mut token = String::new();
    loop {
        let request = json!({"parent": account, "page_size": 1000, "page_token": token});
        let page = setting.api().ok("DeliveryService/ListDeliveries", &request);
        for delivery in page["deliveries"].as_array().unwrap() {
            let text = |field: &str| delivery[field].as_str().unwrap().to_owned();
            states.insert(text("name"), text("state"));
        }
        page["next_page_token"]
            .as_str()
            .unwrap()
            .clone_into(&mut token);
        if token.is_empty() {
            return states;
        }
    }
}

fn payload(sequence: i64) -> String {
    format!(r#"{{"order":{sequence}}}"#)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Submits every delivery until each has an answer, over as many connections as that takes.
struct Sender {
    destination: String,
    ca_file: PathBuf,
    key: String,
    /// Where the control plane listens; another one after a restart.
    address: Mutex<SocketAddr>,
    /// How many have arrived.
    received: AtomicUsize,
    /// Resource names by sequence number.
    accepted: Mutex<BTreeMap<i64, String>>,
    /// The story has failed; there is nothing more to prove.
    given_up: AtomicBool,
}

/// Ends the sender when the story ends early: its thread would be waited for.
struct GiveUp<'a>(&'a Sender);

impl Drop for GiveUp<'_> {
    fn drop(&mut self) {
        self.0.given_up.store(true, Ordering::Relaxed);
    }
}

impl Sender {
    fn send_all(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
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
        lock(&self.accepted).len() as i64 == DELIVERIES
    }

    fn unanswered(&self) -> BTreeSet<i64> {
        let accepted = lock(&self.accepted);
        (0..DELIVERIES)
            .filter(|sequence| !accepted.contains_key(sequence))
            .collect()
    }

    fn message(&self, sequence: i64) -> SubmitDeliveriesRequest {
        SubmitDeliveriesRequest {
            sequence,
            delivery: Some(SubmitDeliveryRequest {
                destination: self.destination.clone(),
                payload: payload(sequence).into(),
                content_type: "application/json".to_owned(),
                event_type: "order.paid".to_owned(),
                // What makes it safe to send again after a lost answer.
                request_id: format!("order-{sequence}"),
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

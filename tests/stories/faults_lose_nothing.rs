//! Load with ordering keys and without, while at random agents are stopped, agents and the control plane
//! killed and paused, for longer than leases last, and the wires between them and to the receiver are cut, hang,
//! crawl, or close in one direction. Afterwards, at the receiver and in the store:
//!
//! - what was accepted has arrived and is DELIVERED, by exactly one attempt that says so;
//! - what arrived was accepted; what arrived more than once had the same body every time;
//! - the deliveries of a key arrived, each for the first time, in the order in which they were accepted.
//!   More can't be promised: an agent that hung in the middle of an attempt sends the rest of it when it
//!   goes on, although another agent has delivered it meanwhile, and the next ones too.
//!
//! `COUNTERSIGN_TESTS_FAULTS_SECONDS` makes the faults go on for longer; `COUNTERSIGN_TESTS_FAULTS_SEED`
//! repeats what is done, though not when the processes notice.

use std::{
    collections::BTreeMap,
    env, thread,
    time::{Duration, Instant},
};

use countersign_shared::random;
use countersign_tests::{
    agent::{Agent, enroll},
    certificates::TestCertificate,
    fault_proxy::{FaultProxy, Wire},
    receiver::Receiver,
    setting::Setting,
    steady::Steady,
    wait::wait_for,
};
use serde_json::json;

/// The shortest that there is.
const LEASE: Duration = Duration::from_secs(2);
/// How long faults go on, unless the environment says otherwise.
const FAULTS: Duration = Duration::from_secs(20);
/// Deliveries a second.
const RATE: u32 = 60;
const AGENTS: usize = 3;
/// Reached only when something is lost.
const DEADLINE: Duration = Duration::from_secs(180);

const CONFIG: &str = "delivery.lease_seconds = 2
agents.heartbeat_seconds = 1
agents.reconnect_window_ms = 100
";

/// Throws a sequence of its own for each seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.throw(most - least))
    }
}

struct Edge {
    agent: Agent,
    wire: FaultProxy,
}

struct World {
    edges: Vec<Edge>,
    to_receiver: FaultProxy,
    receiver: Receiver,
    sender: Steady,
    setting: Setting,
    /// How often each fault was done.
    done: BTreeMap<&'static str, u32>,
}

#[test]
fn faults_of_all_kinds_lose_nothing() {
    let number = |name: &str| {
        env::var(name)
            .ok()
            .map(|text| text.parse().expect("a number"))
    };
    let seed = number("COUNTERSIGN_TESTS_FAULTS_SEED");
    let seed = seed.unwrap_or_else(|| u64::from_be_bytes(random::bytes()));
    let seconds = number("COUNTERSIGN_TESTS_FAULTS_SECONDS");
    let lasts = seconds.map_or(FAULTS, Duration::from_secs);
    say(&format!("COUNTERSIGN_TESTS_FAULTS_SEED={seed}"));
    let mut world = World::new();
    let mut dice = Dice(seed);
    let begun = Instant::now();
    while begun.elapsed() < lasts {
        world.do_a_fault(&mut dice);
        // Something has to arrive between two faults.
        thread::sleep(dice.millis(100, 800));
    }
    let accepted = world.sender.accepted();
    world.sender.stop();
    wait_for("all that was accepted to be DELIVERED", DEADLINE, || {
        let deliveries = world.sender.deliveries();
        deliveries.values().all(|it| it.state == DELIVERED)
    });
    say(&format!("{accepted} deliveries, {:?}", world.done));
    world.check();
}

/// `DELIVERY_STATE_DELIVERED`.
const DELIVERED: i32 = countersign_proto::v1::DeliveryState::Delivered as i32;

impl World {
    fn new() -> Self {
        let setting = Setting::with("faults", CONFIG, "info");
        let account = setting.account("acme");
        let server = TestCertificate::make(&setting.folder.subfolder("server"));
        let receiver = Receiver::start(&server, &setting.trust_bundle(&account));
        let to_receiver = FaultProxy::start(receiver.address());
        let request = json!({
            "parent": account,
            "destination_id": "orders",
            "destination": {
                "url": format!("https://{}/hooks", to_receiver.address()),
                "server_ca_pem": server.ca_pem,
                // Attempts that hang, and retries, are part of the subject.
                "attempt_timeout": "3s",
                "retry_policy": {"schedule": {"waits": vec!["1s"; 32]}},
            },
        });
        let api = setting.api();
        let made = api.ok("DestinationService/CreateDestination", &request);
        let destination = made["destination"]["name"].as_str().unwrap().to_owned();
        let edges = (0..AGENTS).map(|at| {
            let wire = FaultProxy::start(setting.control_plane.listeners().agents);
            let name = format!("edge-{at}");
            let (data_dir, token) = (setting.agent_data_dir(&name), setting.join_token(&name));
            let control_plane = format!("https://{}", wire.address());
            let enrolled = enroll(&data_dir, &control_plane, &token, &name);
            assert!(enrolled.status.success(), "enroll: {enrolled:?}");
            let agent = Agent::start(&setting.folder, &data_dir, &[]);
            setting.wait_until_connected(&name);
            Edge { agent, wire }
        });
        Self {
            edges: edges.collect(),
            sender: Steady::start_in_order(&setting.control_plane, &destination, RATE),
            to_receiver,
            receiver,
            setting,
            done: BTreeMap::new(),
        }
    }

    fn do_a_fault(&mut self, dice: &mut Dice) {
        let which = usize::try_from(dice.throw(AGENTS as u64)).unwrap();
        let edge = &mut self.edges[which];
        let (short, long) = (dice.millis(50, 500), dice.millis(100, 5_000));
        let control_plane = &mut self.setting.control_plane;
        let what = match dice.throw(11) {
            0 | 1 => {
                edge.agent.kill9();
                thread::sleep(short);
                edge.agent.restart();
                "agent killed"
            }
            2 | 3 => {
                edge.agent.pause();
                thread::sleep(long);
                edge.agent.resume();
                match long > LEASE {
                    true => "agent paused for longer than a lease",
                    false => "agent paused",
                }
            }
            4 | 5 => {
                edge.wire.set(wire(dice));
                thread::sleep(long);
                edge.wire.set(Wire::Whole);
                "wire to the control plane"
            }
            6 | 7 => {
                self.to_receiver.set(wire(dice));
                thread::sleep(long.min(LEASE));
                self.to_receiver.set(Wire::Whole);
                "wire to the receiver"
            }
            8 => {
                edge.agent.stop();
                edge.agent.restart();
                "agent stopped"
            }
            9 => {
                control_plane.pause();
                thread::sleep(long);
                control_plane.resume();
                "control plane paused"
            }
            _ => {
                control_plane.kill9();
                thread::sleep(short);
                control_plane.restart();
                self.sender.connect_to(control_plane.listeners().api);
                "control plane killed"
            }
        };
        *self.done.entry(what).or_default() += 1;
    }

    fn check(&self) {
        let deliveries = self.sender.deliveries();
        let attempts = self.sender.attempts();
        let received = self.receiver.received();
        let mut last: BTreeMap<&str, (u64, usize)> = BTreeMap::new();
        let mut by_number = BTreeMap::new();
        let mut more_than_once = 0;
        for (name, delivery) in &deliveries {
            let (_, id) = name.rsplit_once('/').unwrap();
            let arrived = received.get(id).unwrap_or_else(|| panic!("{name} is lost"));
            assert!(arrived.same_body, "{name} came with different bodies");
            more_than_once += u32::from(arrived.times > 1);
            let made = &attempts[name];
            let numbers: Vec<_> = made.iter().map(|attempt| attempt.number).collect();
            let expected: Vec<_> = (1..=delivery.attempt_count).collect();
            assert_eq!(numbers, expected, "{name}");
            let class = countersign_proto::v1::FailureClass::Delivered;
            let delivered = made.iter().filter(|attempt| attempt.class() == class);
            assert_eq!(delivered.count(), 1, "{name} is settled twice: {made:?}");
            by_number.insert(number(&arrived.body), (delivery, arrived.after));
        }
        assert_eq!(received.len(), deliveries.len(), "arrived without a name");
        for (number, (delivery, after)) in &by_number {
            if !delivery.ordering_key.is_empty() {
                let before = last.insert(&delivery.ordering_key, (*number, *after));
                let in_order = before.is_none_or(|(_, earlier)| earlier < *after);
                assert!(in_order, "{number} came before {before:?} of its key");
            }
        }
        let tried: usize = attempts.values().map(Vec::len).sum();
        say(&format!(
            "{tried} attempts recorded, {more_than_once} deliveries came more than once, {} keys",
            last.len()
        ));
    }
}

/// How the wire is during a fault.
fn wire(dice: &mut Dice) -> Wire {
    match dice.throw(4) {
        0 => Wire::Cut,
        1 => Wire::Hanging,
        2 => Wire::Slow(dice.millis(20, 300)),
        _ => Wire::HalfClosed,
    }
}

/// The number in a payload.
fn number(body: &[u8]) -> u64 {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap();
    body["order"].as_u64().unwrap()
}

/// Shown when the story fails, or with `--nocapture`.
fn say(text: &str) {
    #[allow(clippy::print_stdout)]
    {
        println!("{text}");
    }
}

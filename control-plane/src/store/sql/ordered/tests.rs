//! Whatever happens to deliveries with ordering keys, in whatever order: each is leased when it is first
//! of its key, and no key is stuck; nor is any without a key, wherever it waits. A model says what is first; the store
//! is the real one, the time is not.

use std::{collections::HashMap, sync::Arc};

use countersign_shared::{
    class::FailureClass,
    job::LeaseId,
    name::{AccountName, AgentName, DestinationName},
    outcome::{AttemptTimings, Outcome},
    tasks::Tasks,
    time::Timestamp,
};
use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};

use crate::{
    model::{
        DeliveryState, DestinationKey, DestinationState, Grant, JoinToken, JoinTokenUse,
        NewDelivery, Next, OrderingFailure, ReplayFilter, Settled, Settlement,
    },
    store::{
        Store,
        conformance::{at, destination_name, id, new_account, new_destination},
        postgres::testing::Server,
        sql::arrivals::Arrivals,
        sqlite::SqliteStore,
    },
};

/// Seconds that a lease lasts.
const LEASE: i64 = 10;
/// Seconds after its acceptance until which a delivery may be attempted, where that counts.
const DEADLINE: i64 = 40;

#[derive(Debug, Clone)]
enum Op {
    /// With the key of this number; without one at 0.
    Submit(u8),
    /// To this agent, so many, with or without a deadline.
    Lease(bool, usize, bool),
    /// One of the leases that were ever given, and how its attempt ended.
    Settle(prop::sample::Index, End),
    Extend(prop::sample::Index),
    /// An agent comes back and holds nothing.
    Release(bool),
    Cancel(prop::sample::Index),
    Retry(prop::sample::Index),
    Replay,
    ReleaseHeld,
    Policy(bool),
    Enabled(bool),
    Erase,
    Remove,
    Wait(i64),
    /// Closes the store and opens it again, where that can be done.
    Reopen,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Delivered,
    DeadLetter,
    Retry,
    GivenBack,
    Held,
}

fn ends() -> impl Strategy<Value = End> {
    prop_oneof![
        4 => Just(End::Delivered),
        2 => Just(End::DeadLetter),
        1 => Just(End::Retry),
        1 => Just(End::GivenBack),
        1 => Just(End::Held),
    ]
}

fn ops() -> impl Strategy<Value = Op> {
    let one = any::<prop::sample::Index>;
    prop_oneof![
        8 => (0_u8..4).prop_map(Op::Submit),
        8 => (any::<bool>(), 1_usize..4, prop::bool::weighted(0.2))
            .prop_map(|(agent, limit, deadline)| Op::Lease(agent, limit, deadline)),
        8 => (one(), ends()).prop_map(|(lease, end)| Op::Settle(lease, end)),
        1 => one().prop_map(Op::Extend),
        1 => any::<bool>().prop_map(Op::Release),
        2 => one().prop_map(Op::Cancel),
        2 => one().prop_map(Op::Retry),
        1 => Just(Op::Replay),
        1 => Just(Op::ReleaseHeld),
        1 => any::<bool>().prop_map(Op::Policy),
        1 => any::<bool>().prop_map(Op::Enabled),
        1 => Just(Op::Erase),
        1 => Just(Op::Remove),
        3 => (1_i64..2 * LEASE).prop_map(Op::Wait),
        1 => Just(Op::Reopen),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Dead,
    Over,
}

struct Item {
    key: u8,
    state: State,
    erased: bool,
    accepted_at: i64,
}

/// Opens the store that was open before.
type Reopen<S> = Box<dyn Fn() -> S>;

struct World<S> {
    store: S,
    reopen: Option<Reopen<S>>,
    name: DestinationName,
    key: DestinationKey,
    now: i64,
    policy: OrderingFailure,
    items: Vec<Item>,
    ids: Vec<countersign_shared::name::DeliveryId>,
    /// Of each key, in the order of acceptance: what is open, or a dead letter that holds it.
    queues: HashMap<u8, Vec<usize>>,
    given: Vec<(LeaseId, AgentName)>,
}

fn account() -> AccountName {
    id("acme").into()
}

fn agent(second: bool) -> AgentName {
    id(if second { "edge-2" } else { "edge-1" }).into()
}

impl<S: Store> World<S> {
    /// In a store with nothing in it.
    async fn new(store: S, reopen: Option<Reopen<S>>) -> Self {
        store
            .create_account(new_account("acme", None))
            .await
            .unwrap();
        let name = destination_name("acme", "orders");
        let made = store.create_destination(new_destination(&name, None)).await;
        for second in [false, true] {
            enroll(&store, &agent(second)).await;
        }
        Self {
            store,
            reopen,
            name,
            key: made.unwrap().key,
            now: 1000,
            policy: OrderingFailure::Hold,
            items: Vec::new(),
            ids: Vec::new(),
            queues: HashMap::new(),
            given: Vec::new(),
        }
    }

    async fn run(&mut self, op: Op) {
        let now = at(self.now);
        match op {
            Op::Submit(key) => self.submit(key).await,
            Op::Lease(second, limit, deadline) => {
                let from = deadline.then_some(self.now - DEADLINE);
                self.lease(&agent(second), limit, from).await;
            }
            Op::Settle(which, end) if !self.given.is_empty() => {
                let (lease, agent) = which.get(&self.given).clone();
                self.settle(lease, &agent, end).await;
            }
            Op::Extend(which) if !self.given.is_empty() => {
                let (lease, agent) = which.get(&self.given).clone();
                let usual = std::time::Duration::from_secs(LEASE.unsigned_abs());
                let extended = self.store.extend(&agent, vec![lease], usual, now).await;
                extended.unwrap();
            }
            Op::Release(second) => {
                let held = std::collections::HashSet::new();
                let released = self.store.release_all_but(&agent(second), held, now).await;
                released.unwrap();
            }
            Op::Cancel(which) if !self.ids.is_empty() => {
                self.cancel(which.index(self.ids.len())).await
            }
            Op::Retry(which) if !self.ids.is_empty() => {
                self.retry(which.index(self.ids.len())).await
            }
            Op::Replay => self.replay().await,
            Op::ReleaseHeld => {
                let released = self.store.release_held(self.key, now, 9).await;
                released.unwrap();
            }
            Op::Policy(skip) => self.set_policy(skip).await,
            Op::Enabled(enabled) => self.set_enabled(enabled).await,
            Op::Erase => {
                let erased = self.store.erase_payloads(now, None, 999).await;
                erased.unwrap();
                for at in self.over() {
                    self.items[at].erased = true;
                }
            }
            Op::Remove => {
                let removed = self.store.remove_deliveries(now, None, 999).await;
                removed.unwrap();
                for at in self.over() {
                    self.items[at].state = State::Over;
                }
            }
            Op::Wait(seconds) => self.now += seconds,
            Op::Reopen => {
                if let Some(reopen) = &self.reopen {
                    self.store = reopen();
                }
            }
            Op::Settle(..) | Op::Extend(..) | Op::Cancel(..) | Op::Retry(..) => {}
        }
    }

    async fn submit(&mut self, key: u8) {
        // Ids of one time sort at random; the order is that of acceptance all the same.
        let accepted_at = at(self.now);
        let new = NewDelivery {
            id: countersign_shared::random::uuid_v7(accepted_at).into(),
            destination: self.name.clone(),
            sealed_payload: vec![1],
            payload_size: 1,
            content_type: String::new(),
            event_type: String::new(),
            accepted_at,
            ordering_key: (key > 0).then(|| format!("key-{key}")),
            request: None,
        };
        self.ids.push(new.id);
        self.store.submit(new).await.unwrap();
        self.items.push(Item {
            key,
            state: State::Open,
            erased: false,
            accepted_at: self.now,
        });
        self.join(self.items.len() - 1);
    }

    async fn lease(&mut self, agent: &AgentName, limit: usize, from: Option<i64>) -> usize {
        let grant = Grant {
            destination: self.key,
            agent: agent.clone(),
            limit,
            accepted_from: from.map(at),
            until: at(self.now + LEASE),
        };
        let leased = self.store.lease(vec![grant], at(self.now)).await;
        let leased = leased.unwrap();
        self.expire(from, leased.expired.len()).await;
        for job in &leased.jobs {
            let at = self.at(job.lease);
            let item = &self.items[at];
            assert_eq!(item.state, State::Open);
            assert!(self.is_first(at), "{at} goes ahead of its turn");
            self.given.push((job.lease, agent.clone()));
        }
        leased.jobs.len()
    }

    /// What was past its deadline, when it was to be leased, is a dead letter.
    async fn expire(&mut self, from: Option<i64>, count: usize) {
        let mut expired = 0;
        for at in 0..self.items.len() {
            let late = from.is_some_and(|from| self.items[at].accepted_at < from);
            if !late || self.items[at].state != State::Open || !self.is_first(at) {
                continue;
            }
            let found = self.store.delivery(&account(), self.ids[at]).await.unwrap();
            if found.state == DeliveryState::DeadLetter {
                expired += 1;
                self.dies(at);
            }
        }
        assert_eq!(expired, count);
    }

    fn dies(&mut self, at: usize) {
        self.items[at].state = State::Dead;
        if self.policy == OrderingFailure::Skip {
            self.leave(at);
        }
    }

    async fn settle(&mut self, lease: LeaseId, agent: &AgentName, end: End) {
        let (now, soon) = (at(self.now), at(self.now + 3));
        let (class, next) = match end {
            End::Delivered => (FailureClass::Delivered, Next::Delivered),
            End::DeadLetter => (FailureClass::HttpServerError, Next::DeadLetter),
            End::Retry => (FailureClass::HttpServerError, Next::Retry(soon)),
            End::GivenBack => (FailureClass::NotAttempted, Next::Again(now)),
            End::Held => (FailureClass::ClientCaNotTrusted, Next::Hold(soon)),
        };
        let settlement = Settlement {
            agent: agent.clone(),
            outcomes: [outcome(lease, class)].into(),
            now,
            decide: Arc::new(move |_, _| next),
        };
        let settled = self.store.settle(settlement).await.unwrap();
        if settled[0] == Settled::Stale {
            return;
        }
        let at = self.at(lease);
        assert!(self.is_first(at), "{at} was attempted ahead of its turn");
        match end {
            End::Delivered => {
                self.items[at].state = State::Over;
                self.leave(at);
            }
            End::DeadLetter => self.dies(at),
            End::Retry | End::GivenBack | End::Held => {}
        }
    }

    async fn cancel(&mut self, at: usize) {
        let now = self::at(self.now);
        let cancelled = self.store.cancel(&account(), self.ids[at], now).await;
        let state = self.items[at].state;
        let may = state == State::Open || state == State::Dead && self.is_queued(at);
        assert_eq!(cancelled.is_ok(), may, "{at}");
        if may {
            self.items[at].state = State::Over;
            self.leave(at);
        }
    }

    async fn retry(&mut self, at: usize) {
        let now = self::at(self.now);
        let retried = self.store.retry(&account(), self.ids[at], now).await;
        let item = &self.items[at];
        match (item.state, retried) {
            (State::Dead, retried) if !item.erased => {
                assert!(retried.unwrap().revived);
                self.revive(at);
            }
            // Leased or behind another: refused; otherwise due.
            (State::Open, Ok(retried)) => assert!(!retried.revived && self.is_first(at)),
            (State::Open, Err(_)) => {}
            (State::Dead | State::Over, retried) => assert!(retried.is_err()),
        }
    }

    async fn replay(&mut self) {
        let filter = ReplayFilter::default();
        let now = at(self.now);
        let found = self
            .store
            .replay(&account(), &filter, false, 999, now)
            .await;
        let mut dead: Vec<_> = (0..self.items.len())
            .filter(|at| self.items[*at].state == State::Dead && !self.items[*at].erased)
            .collect();
        assert_eq!(found.unwrap().items.len(), dead.len());
        // By id, which is not the order of acceptance here.
        dead.sort_by_key(|at| self.ids[*at]);
        for at in dead {
            self.revive(at);
        }
    }

    async fn set_policy(&mut self, skip: bool) {
        self.policy = match skip {
            true => OrderingFailure::Skip,
            false => OrderingFailure::Hold,
        };
        let mut config = self.store.destination(&self.name).await.unwrap().config;
        config.ordering_failure = self.policy;
        let now = at(self.now);
        let changed = self
            .store
            .update_destination(&self.name, config, None, now)
            .await;
        changed.unwrap();
        if skip {
            let items = &self.items;
            for queue in self.queues.values_mut() {
                queue.retain(|at| items[*at].state == State::Open);
            }
        }
    }

    async fn set_enabled(&self, enabled: bool) {
        let state = match enabled {
            true => DestinationState::Enabled,
            false => DestinationState::Disabled,
        };
        let now = at(self.now);
        let changed = self
            .store
            .set_destination_state(&self.name, state, now)
            .await;
        changed.unwrap();
    }

    /// All that is open is counted, whatever place it has.
    async fn check(&self) {
        let open = self.items.iter().filter(|item| item.state == State::Open);
        let counted = self.store.backlog(self.key).await.unwrap();
        assert_eq!(counted.deliveries, open.count() as i64);
        let held = self.queues.values().any(|queue| {
            let first = queue.first();
            first.is_some_and(|at| self.items[*at].state == State::Dead)
        });
        let blocked = self.store.with_blocked_keys().await.unwrap();
        assert_eq!(!blocked.is_empty(), held);
    }

    /// With dead letters sent again and every attempt a success, all that is open goes.
    async fn finish(&mut self) {
        self.set_enabled(true).await;
        self.replay().await;
        loop {
            self.now += 10 * LEASE;
            if self.lease(&agent(false), 99, None).await == 0 {
                break;
            }
            for (lease, agent) in std::mem::take(&mut self.given) {
                self.settle(lease, &agent, End::Delivered).await;
            }
        }
        for (at, item) in self.items.iter().enumerate() {
            assert_ne!(item.state, State::Open, "{at} is stuck");
        }
        self.check().await;
    }

    fn at(&self, lease: LeaseId) -> usize {
        let found = self.ids.iter().position(|id| *id == lease.delivery);
        found.unwrap()
    }

    fn is_first(&self, at: usize) -> bool {
        let key = self.items[at].key;
        key == 0 || self.queues[&key].first() == Some(&at)
    }

    fn is_queued(&self, at: usize) -> bool {
        let queue = self.queues.get(&self.items[at].key);
        queue.is_some_and(|queue| queue.contains(&at))
    }

    /// Dead letters and what is over, if accepted before now, but for those that hold their keys.
    fn over(&self) -> Vec<usize> {
        (0..self.items.len())
            .filter(|at| self.items[*at].accepted_at < self.now)
            .filter(|at| self.items[*at].state != State::Open && !self.is_queued(*at))
            .collect()
    }

    fn join(&mut self, at: usize) {
        match self.items[at].key {
            0 => {}
            key => self.queues.entry(key).or_default().push(at),
        }
    }

    fn leave(&mut self, at: usize) {
        for queue in self.queues.values_mut() {
            queue.retain(|queued| *queued != at);
        }
    }

    fn revive(&mut self, at: usize) {
        self.items[at].state = State::Open;
        if !self.is_queued(at) {
            self.join(at);
        }
    }
}

fn outcome(lease: LeaseId, class: FailureClass) -> Outcome {
    Outcome {
        delivery: lease.delivery,
        epoch: lease.epoch,
        class,
        mtls_not_enforced: false,
        http_status: None,
        handshake: None,
        timings: AttemptTimings::default(),
        started_at: Timestamp::default(),
        retry_after: None,
        detail: "".into(),
        refused: None,
        receipt: None,
        unrecorded_attempts: 0,
    }
}

async fn enroll(store: &impl Store, agent: &AgentName) {
    let token = JoinToken {
        name: agent.id().clone().into(),
        secret_sha256: [1; 32],
        region: None,
        agent_id: None,
        source_ranges: Vec::new(),
        recovers: false,
        created_at: at(1),
        expires_at: at(2),
        revoked_at: None,
        used: None,
    };
    let enrollment = crate::model::Enrollment {
        token: token.name.clone(),
        used: JoinTokenUse {
            agent: agent.clone(),
            public_key_sha256: [1; 32],
        },
        region: None,
        identity_not_after: at(2),
        now: at(1),
    };
    store.create_join_token(token).await.unwrap();
    store.enroll(enrollment).await.unwrap();
}

proptest! {
    // Each step is a commit on disk.
    #![proptest_config(ProptestConfig {
        cases: 96,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn each_goes_in_its_turn_and_no_key_is_stuck(
        ops in prop::collection::vec(ops(), 20..150),
        // Arrivals that there is room for.
        room in prop_oneof![Just(0), 1_usize..6, Just(usize::MAX)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("store");
            let (tasks, _failures) = Tasks::new();
            let open = move || SqliteStore::open_with(Arrivals::bounded(room), &path, &tasks).unwrap();
            play(open(), Some(Box::new(open)), ops).await;
        });
    }
}

async fn play<S: Store>(store: S, reopen: Option<Reopen<S>>, ops: Vec<Op>) {
    let mut world = World::new(store, reopen).await;
    for op in ops {
        world.run(op).await;
        world.check().await;
    }
    world.finish().await;
}

/// The same on a server, where leasing and settling are other statements.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_goes_in_its_turn_on_a_server_too() {
    let server = Server::start().await;
    let mut runner = TestRunner::default();
    for _ in 0..12 {
        let ops = prop::collection::vec(ops(), 20..150).new_tree(&mut runner);
        let (tasks, _failures) = Tasks::new();
        let store = server.empty_store(&tasks).await;
        play(store, None, ops.unwrap().current()).await;
    }
}

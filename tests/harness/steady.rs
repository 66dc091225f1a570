//! A sender that keeps its pace whatever happens meanwhile: so many deliveries a second until it is
//! told to stop. It submits again what was not answered, under the same `request_id`. Afterwards it
//! asks the store what became of each delivery.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use countersign_proto::v1::{
    Attempt, Delivery, ListAttemptsRequest, ListDeliveriesRequest, SubmitDeliveryRequest,
};
use countersign_shared::tasks::{OnFailure, Tasks};
use tokio::{
    runtime::Runtime,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tonic::{Code, Status};

use crate::{
    client::{DeliveryClient, connect},
    control_plane::ControlPlane,
    wait::PATIENCE,
};

/// How many submit at once, each in its turn.
const SUBMITTERS: u32 = 8;
/// How long to leave a control plane alone that does not answer.
const PAUSE: Duration = Duration::from_millis(20);

/// A running sender. It stops when it is dropped.
pub struct Steady {
    shared: Arc<Shared>,
    tasks: Tasks,
    runtime: Runtime,
}

struct Shared {
    destination: String,
    every: Duration,
    in_order: bool,
    ca_file: PathBuf,
    key: String,
    next: AtomicU64,
    state: Mutex<State>,
}

struct State {
    /// Where the control plane listens; another one after a restart.
    address: SocketAddr,
    /// Resource names of what was accepted.
    accepted: Vec<String>,
    /// What was refused, and why: a mistake of the story or of the product.
    refused: Vec<String>,
}

impl Steady {
    /// Submits `rate` deliveries a second to `destination` from now on.
    ///
    /// # Panics
    /// When a runtime can't be made.
    pub fn start(control_plane: &ControlPlane, destination: &str, rate: u32) -> Self {
        Self::begin(control_plane, destination, rate, false)
    }

    /// As [`Steady::start`]; half of the deliveries have ordering keys. Those of one key are accepted in
    /// the order of the numbers in their payloads.
    ///
    /// # Panics
    /// When a runtime can't be made.
    pub fn start_in_order(control_plane: &ControlPlane, destination: &str, rate: u32) -> Self {
        Self::begin(control_plane, destination, rate, true)
    }

    fn begin(control_plane: &ControlPlane, destination: &str, rate: u32, in_order: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let shared = Arc::new(Shared {
            destination: destination.to_owned(),
            every: Duration::from_secs(1) * SUBMITTERS / rate,
            in_order,
            ca_file: control_plane.ca_file(),
            key: control_plane.admin_key(),
            next: AtomicU64::new(0),
            state: Mutex::new(State {
                address: control_plane.listeners().api,
                accepted: Vec::new(),
                refused: Vec::new(),
            }),
        });
        let (tasks, _) = Tasks::new();
        for turn in 0..SUBMITTERS {
            let submitting = submit_steadily(Arc::clone(&shared), turn, tasks.clone());
            runtime.block_on(async { tasks.spawn("submitter", OnFailure::Log, submitting) });
        }
        Self {
            shared,
            tasks,
            runtime,
        }
    }

    /// Where the control plane is from now on.
    pub fn connect_to(&self, address: SocketAddr) {
        self.shared.state().address = address;
    }

    /// How many deliveries were accepted until now.
    pub fn accepted(&self) -> usize {
        self.shared.state().accepted.len()
    }

    /// Stops submitting; what is under way is still accepted.
    ///
    /// # Panics
    /// When something was refused, or still has no answer after [`PATIENCE`].
    pub fn stop(&self) {
        let at_rest = self.runtime.block_on(self.tasks.stop(PATIENCE));
        assert_eq!(at_rest, Ok(()), "not every submission was answered");
        let refused = &self.shared.state().refused;
        assert!(refused.is_empty(), "{refused:?}");
    }

    /// What was accepted, by resource name, as the store has it.
    ///
    /// # Panics
    /// When the store does not know one.
    pub fn deliveries(&self) -> BTreeMap<String, Delivery> {
        let accepted = self.shared.state().accepted.clone();
        let mut known = self.runtime.block_on(self.shared.list());
        let known = accepted.into_iter().map(|name| {
            let found = known.remove(&name);
            (name, found.expect("what was accepted is in the store"))
        });
        known.collect()
    }

    /// Every attempt of each delivery that was accepted, by resource name.
    pub fn attempts(&self) -> BTreeMap<String, Vec<Attempt>> {
        let accepted = self.shared.state().accepted.clone();
        self.runtime.block_on(async {
            let mut client = self.shared.client().await.expect("the API");
            let mut attempts = BTreeMap::new();
            for parent in accepted {
                let request = ListAttemptsRequest {
                    parent: parent.clone(),
                    page_size: 1000,
                    ..ListAttemptsRequest::default()
                };
                let answer = client.list_attempts(request).await.expect("attempts");
                attempts.insert(parent, answer.into_inner().attempts);
            }
            attempts
        })
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.tasks.shutdown().cancel();
    }
}

async fn submit_steadily(shared: Arc<Shared>, turn: u32, tasks: Tasks) -> Result<(), Infallible> {
    let first = shared.every * turn / SUBMITTERS;
    let mut ticks = interval_at(Instant::now() + first, shared.every);
    // The pace after a pause is the same as before.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut client, mut ordered) = (None, false);
    while !tasks.shutdown().is_cancelled() {
        ticks.tick().await;
        let mut request = shared.next_request();
        if ordered {
            // A key is this submitter's own, which goes on only when it has its answer.
            request.ordering_key = format!("submitter-{turn}");
        }
        ordered = shared.in_order && !ordered;
        loop {
            match shared.submit(&mut client, request.clone()).await {
                Ok(name) => {
                    shared.state().accepted.push(name);
                    break;
                }
                Err(status) if may_pass(&status) => tokio::time::sleep(PAUSE).await,
                Err(status) => {
                    shared.state().refused.push(status.to_string());
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Whether a control plane that has ended, or is starting, may be the reason.
fn may_pass(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled
    )
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // An address and a list: a panic can't leave half of an entry.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn client(&self) -> Option<DeliveryClient> {
        let address = self.state().address;
        let client = connect(address, &self.ca_file, &self.key).await.ok()?;
        Some(client.max_decoding_message_size(64 * 1024 * 1024))
    }

    /// Submits over `client`, which is made anew after a failure; gives the resource name.
    async fn submit(
        &self,
        client: &mut Option<DeliveryClient>,
        request: SubmitDeliveryRequest,
    ) -> Result<String, Status> {
        let connected = match client.take() {
            Some(connected) => Some(connected),
            None => self.client().await,
        };
        let mut connected = connected.ok_or_else(|| Status::unavailable("nobody answers"))?;
        let answer = connected.submit_delivery(request).await?.into_inner();
        *client = Some(connected);
        Ok(answer.delivery.expect("a delivery").name)
    }

    fn next_request(&self) -> SubmitDeliveryRequest {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        SubmitDeliveryRequest {
            destination: self.destination.clone(),
            payload: format!(r#"{{"order":{number}}}"#).into(),
            // Unique in the account.
            request_id: format!("{}-{number}", self.id()),
            ..SubmitDeliveryRequest::default()
        }
    }

    fn id(&self) -> &str {
        let (_, id) = self.destination.rsplit_once('/').expect("a name");
        id
    }

    async fn list(&self) -> BTreeMap<String, Delivery> {
        let mut client = self.client().await.expect("the API");
        let (account, _) = self
            .destination
            .split_once("/destinations/")
            .expect("a name");
        let mut request = ListDeliveriesRequest {
            parent: account.to_owned(),
            page_size: 1000,
            destination: self.destination.clone(),
            ..ListDeliveriesRequest::default()
        };
        let mut known = BTreeMap::new();
        loop {
            let page = client.list_deliveries(request.clone()).await;
            let page = page.expect("a page").into_inner();
            let named = page.deliveries.into_iter();
            known.extend(named.map(|delivery| (delivery.name.clone(), delivery)));
            if page.next_page_token.is_empty() {
                return known;
            }
            request.page_token = page.next_page_token;
        }
    }
}

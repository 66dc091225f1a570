//! A whole agent with a control plane that says what the test wants, and a receiver whose answers
//! need permits.

use std::{path::Path, sync::Arc, time::Duration};

use countersign_agent::{
    app::{self, AppError},
    config::{Config, JournalKey},
    identity::enroll::{Enrollment, enroll},
};
use countersign_proto::v1::{self, BundleStatus, Job, connect_response::Message as ToAgent};
use countersign_shared::{
    bundle::Bundle,
    digest::sha256,
    logging::LogFormat,
    random,
    tasks::{OnFailure, Tasks},
    time::{Clock as _, SystemClock},
    wire,
};
use prost::Message as _;
use tokio::sync::{Semaphore, oneshot};

use super::{
    bench::{bundle, destination, loopback},
    control_plane::{ControlPlane, Session},
    pki::Authority,
    receiver::{Clients, Receiver, Setup, answer},
};

/// Every heartbeat but those of the test about heartbeats.
pub(crate) const CALM: i32 = 60_000;

/// A control plane, a receiver whose answers need permits, and an agent's data directory.
pub(crate) struct World {
    pub(crate) tasks: Tasks,
    pub(crate) control_plane: ControlPlane,
    pub(crate) receiver: Receiver,
    pub(crate) gate: Arc<Semaphore>,
    pub(crate) receiver_ca: Authority,
    pub(crate) account: Authority,
    pub(crate) folder: tempfile::TempDir,
}

/// A running agent.
pub(crate) struct Agent {
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) ended: oneshot::Receiver<Result<(), AppError>>,
}

impl Agent {
    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.ended.await.unwrap().unwrap();
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        let (tasks, _failures) = Tasks::new();
        let control_plane = ControlPlane::start(&tasks).await;
        let (receiver_ca, account) = (Authority::new("Receiver"), Authority::new("Acme"));
        let gate = Arc::new(Semaphore::new(0));
        let pass = Arc::clone(&gate);
        let config = Setup::new(receiver_ca.server(), Clients::Of(&account)).config();
        let receiver = Receiver::answering(&tasks, config, move |_| {
            let pass = Arc::clone(&pass);
            async move {
                pass.acquire().await.unwrap().forget();
                answer(204, "")
            }
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        let enrollment = Enrollment {
            kek_file: None,
            control_plane: control_plane.url().parse().unwrap(),
            token: control_plane.token(),
            agent: "agents/edge-1".parse().unwrap(),
        };
        let enrolled = enroll(&folder.path().join("agent"), &enrollment, SystemClock.now()).await;
        enrolled.unwrap();
        Self {
            tasks,
            control_plane,
            receiver,
            gate,
            receiver_ca,
            account,
            folder,
        }
    }

    pub(crate) fn agent(&self) -> Agent {
        let (stop, stopped) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();
        let config = config(&self.folder.path().join("agent"));
        self.tasks.spawn("agent", OnFailure::Log, async move {
            let reason = async {
                // A test that failed has dropped its end.
                let _ = stopped.await;
                Ok("test")
            };
            let result = app::run_until(config, reason).await;
            let text = result.as_ref().err().map(ToString::to_string);
            let _ = end.send(result);
            text.map_or(Ok(()), Err)
        });
        Agent { stop, ended }
    }

    pub(crate) fn bundle(&self, generation: u64) -> v1::Bundle {
        let client = self.account.client();
        let bundle = bundle(&self.receiver.url(), &client, vec![self.receiver_ca.der()]);
        hashed(wire::bundle_to_wire(&Bundle {
            generation,
            concurrency_limit: 1,
            ..bundle
        }))
    }

    /// Gives the agent a bundle and waits until it is on its disk.
    pub(crate) async fn give_bundle(&self, session: &mut Session) {
        session.say(ToAgent::Bundle(self.bundle(1))).await;
        let (generation, status, _) = session.acknowledgement().await;
        assert_eq!((generation, status), (1, BundleStatus::Received));
        let (generation, status, _) = session.acknowledgement().await;
        assert_eq!((generation, status), (1, BundleStatus::Durable));
    }

    pub(crate) async fn stop(self) {
        self.tasks.stop(Duration::from_secs(10)).await.unwrap();
    }
}

pub(crate) fn config(data_dir: &Path) -> Config {
    Config {
        data_dir: data_dir.to_owned(),
        kek_file: None,
        journal_key: JournalKey::File,
        listen_http: Some("127.0.0.1:0".parse().unwrap()),
        control_planes: Vec::new(),
        stay: Duration::from_secs(60),
        max_jobs: 100,
        max_bytes: 1 << 20,
        egress: loopback(),
        log_format: LogFormat::Human,
        log_filter: "info".into(),
        shutdown_deadline: Duration::from_secs(10),
    }
}

pub(crate) fn hashed(mut bundle: v1::Bundle) -> v1::Bundle {
    bundle.content_sha256 = bytes::Bytes::new();
    let hash = sha256(&bundle.encode_to_vec());
    bundle.content_sha256 = hash.to_vec().into();
    bundle
}

pub(crate) fn job(lease: Duration) -> Job {
    Job {
        delivery_id: random::uuid_v7(SystemClock.now())
            .as_bytes()
            .to_vec()
            .into(),
        destination: destination().to_string(),
        epoch: 1,
        lease_expire_time: None,
        payload: "{}".into(),
        content_type: "application/json".into(),
        headers: Default::default(),
        attempt_number: 1,
        lease_duration: Some(wire::duration_to_wire(lease)),
        offline_work: None,
    }
}

pub(crate) const LEASE: Duration = Duration::from_secs(90);

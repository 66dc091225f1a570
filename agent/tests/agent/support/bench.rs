//! An agent's lanes on a bench: bundles and jobs are put in by hand, outcomes are taken out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use countersign_agent::{
    deliver::{Activation, Clients, Dialler, Lanes, Parts, PrepareError, Prepared, Probes},
    egress::{Egress, Policy},
    journal::{self, Journal, Outbox},
    metrics::Metrics,
};
use countersign_shared::{
    bundle::{Bundle, Credential, MinimumTls, MtlsEnforcement, parse_destination_url},
    headers::Headers,
    job::{LeaseId, LeasedJob},
    name::DestinationName,
    outcome::Outcome,
    random,
    seal::SealingKey,
    secret::SecretBytes,
    signature,
    tasks::Tasks,
    time::{Clock, SystemClock},
};
use rustls_pki_types::CertificateDer;
use tokio::sync::mpsc;

use super::pki::Leaf;

/// Lanes with all that they need.
pub(crate) struct Bench {
    pub(crate) lanes: Lanes,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) tasks: Tasks,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) activations: mpsc::Receiver<Activation>,
    pub(crate) clients: Clients,
    pub(crate) probes: Probes,
    generation: AtomicU64,
    _folder: tempfile::TempDir,
}

pub(crate) fn destination() -> DestinationName {
    "accounts/acme/destinations/orders".parse().unwrap()
}

/// A bundle that presents `client` to `url` and trusts `server_cas`.
pub(crate) fn bundle(url: &str, client: &Leaf, server_cas: Vec<CertificateDer<'static>>) -> Bundle {
    Bundle {
        destination: destination(),
        generation: 1,
        content_sha256: [0; 32],
        url: parse_destination_url(url).unwrap(),
        active: Credential {
            version: 7,
            chain: vec![client.certificate.clone()],
            private_key: SecretBytes::from(client.key.clone()),
        },
        candidate: None,
        fallback: None,
        server_cas,
        minimum_tls: MinimumTls::Tls12,
        mtls_enforcement: MtlsEnforcement::Deliver,
        signing_secrets: vec![signature::generate_secret()],
        attempt_timeout: Duration::from_secs(20),
        signing_seeds: Vec::new(),
        concurrency_limit: 64,
        allowed_ranges: Vec::new(),
        receipts: false,
    }
}

/// Lets an agent connect to the receivers of these tests.
pub(crate) fn loopback() -> Egress {
    Egress {
        policy: Policy {
            allow: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
            deny: Vec::new(),
        },
        proxy: None,
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::at(Arc::new(SystemClock))
    }

    pub(crate) fn at(clock: Arc<dyn Clock>) -> Self {
        Self::with(clock, Dialler::new(loopback()))
    }

    pub(crate) fn reaching(dialler: Dialler) -> Self {
        Self::with(Arc::new(SystemClock), dialler)
    }

    fn with(clock: Arc<dyn Clock>, dialler: Dialler) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (tasks, _failures) = Tasks::new();
        let metrics = Arc::new(Metrics::default());
        let opened = journal::open(folder.path(), &SealingKey::generate(), clock.now());
        let journal = Journal::start(opened.unwrap().0, &tasks).unwrap();
        let outbox = Arc::new(Outbox::new(
            journal,
            Vec::new(),
            Vec::new(),
            Arc::clone(&metrics),
            countersign_shared::time::Timestamp::default(),
        ));
        let (sender, activations) = mpsc::channel(16);
        let lanes = Lanes::new(Parts {
            outbox: Arc::clone(&outbox),
            tasks: tasks.clone(),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
            receipts: None,
            activations: sender,
        });
        Self {
            probes: Probes::new(lanes.clone(), Arc::clone(&clock), Arc::clone(&metrics)),
            lanes,
            outbox,
            clients: Clients::new(dialler, Arc::clone(&clock), Arc::clone(&metrics)),
            tasks,
            clock,
            metrics,
            activations,
            generation: AtomicU64::new(1),
            _folder: folder,
        }
    }

    /// Installs `bundle` under the next generation.
    pub(crate) fn install(&self, bundle: Bundle) {
        self.try_install(bundle).unwrap();
    }

    pub(crate) fn try_install(&self, mut bundle: Bundle) -> Result<(), PrepareError> {
        bundle.generation = self.generation.fetch_add(1, Ordering::SeqCst);
        let prepared = Prepared::new(bundle, &self.clients)?;
        self.lanes.install(Arc::new(prepared));
        Ok(())
    }

    pub(crate) fn job(&self, payload: impl Into<Bytes>) -> LeasedJob {
        let now = self.clock.now();
        LeasedJob {
            lease: LeaseId {
                delivery: random::uuid_v7(SystemClock.now()).into(),
                epoch: 1,
            },
            destination: destination(),
            expires_at: now.plus(Duration::from_secs(90)),
            payload: payload.into(),
            headers: Headers::default(),
            content_type: "application/json".into(),
            attempt_number: 1,
            offline: None,
        }
    }

    /// Puts a job in and waits for its outcome.
    pub(crate) async fn deliver(&self, payload: impl Into<Bytes>) -> Outcome {
        self.lanes.take(self.job(payload));
        self.next().await
    }

    /// The next outcome.
    pub(crate) async fn next(&self) -> Outcome {
        loop {
            if let Some(outcome) = self.outbox.take_unsent(1).pop() {
                let outcome = Arc::unwrap_or_clone(outcome);
                self.outbox.acknowledge(&[LeaseId {
                    delivery: outcome.delivery,
                    epoch: outcome.epoch,
                }]);
                return outcome;
            }
            self.outbox.news().await;
        }
    }

    /// Stops everything that the test has started.
    pub(crate) async fn stop(self) {
        let tasks = self.tasks;
        drop((self.lanes, self.outbox, self.clients, self.probes));
        tasks.stop(Duration::from_secs(10)).await.unwrap();
    }
}

//! The agent's delivery code by itself: bundles and payloads are put in by hand, outcomes come out.
//! This is how certificates that the control plane would never sign get to real receivers.

use std::{sync::Arc, time::Duration};

use countersign_agent::{
    deliver::{Clients, Dialler, Lanes, Parts, Prepared},
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
    time::Clock,
};
use rustls_pki_types::CertificateDer;
use tokio::{runtime::Runtime, sync::mpsc};

use crate::{authority::Leaf, folder::Folder};

/// What is delivered, and how.
#[derive(Debug)]
pub struct Delivery<'a> {
    /// Where to.
    pub url: String,
    /// The client certificate.
    pub client: &'a Leaf,
    /// Who may have signed the server's certificate.
    pub server_authority: CertificateDer<'static>,
    /// Lowest TLS version.
    pub minimum_tls: MinimumTls,
    /// What to do with a receiver that does not ask.
    pub enforcement: MtlsEnforcement,
    /// Size of the payload in bytes.
    pub size: usize,
}

/// The servers that are tried are on this machine.
fn loopback() -> Egress {
    let policy = Policy {
        allow: vec!["127.0.0.0/8".parse().expect("a range")],
        deny: Vec::new(),
    };
    Egress {
        policy,
        proxy: None,
    }
}

/// Lanes with all that they need.
pub struct DeliveryBench {
    lanes: Lanes,
    outbox: Arc<Outbox>,
    clients: Clients,
    clock: Arc<dyn Clock>,
    destination: DestinationName,
    tasks: Tasks,
    generation: u64,
    runtime: Runtime,
    _folder: Folder,
}

impl DeliveryBench {
    /// A bench whose agent has `clock` and delivers to `destination`.
    ///
    /// # Panics
    /// When a part of it can't be made.
    pub fn new(destination: DestinationName, clock: Arc<dyn Clock>) -> Self {
        let folder = Folder::new("delivery-bench");
        let runtime = Runtime::new().expect("a runtime");
        let (tasks, _failures) = Tasks::new();
        let metrics = Arc::new(Metrics::default());
        let opened = journal::open(&folder, &SealingKey::generate(), clock.now());
        let (opened, _) = opened.expect("a journal");
        let inside = runtime.enter();
        let journal = Journal::start(opened, &tasks).expect("a journal's thread");
        let outbox = Arc::new(Outbox::new(
            journal,
            Vec::new(),
            Vec::new(),
            Arc::clone(&metrics),
            countersign_shared::time::Timestamp::default(),
        ));
        // Nobody listens: an activation that finds no room is said again with the next use.
        let (activations, _) = mpsc::channel(1);
        let lanes = Lanes::new(Parts {
            outbox: Arc::clone(&outbox),
            tasks: tasks.clone(),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
            receipts: None,
            activations,
        });
        drop(inside);
        Self {
            lanes,
            outbox,
            clients: Clients::new(Dialler::new(loopback()), Arc::clone(&clock), metrics),
            clock,
            destination,
            tasks,
            generation: 0,
            runtime,
            _folder: folder,
        }
    }

    /// Delivers once and gives the outcome.
    ///
    /// # Panics
    /// When the agent refuses the bundle.
    pub fn deliver(&mut self, delivery: &Delivery<'_>) -> Outcome {
        self.generation += 1;
        let _inside = self.runtime.enter();
        let prepared = Prepared::new(self.bundle(delivery), &self.clients);
        let prepared = prepared.expect("a usable bundle");
        self.lanes.install(Arc::new(prepared));
        self.lanes.take(self.job(delivery.size));
        self.runtime.block_on(next(&self.outbox))
    }

    fn bundle(&self, delivery: &Delivery<'_>) -> Bundle {
        Bundle {
            destination: self.destination.clone(),
            generation: self.generation,
            content_sha256: [0; 32],
            url: parse_destination_url(&delivery.url).expect("a URL"),
            active: Credential {
                version: 1,
                chain: delivery.client.chain.clone(),
                private_key: SecretBytes::from(delivery.client.key.clone()),
            },
            candidate: None,
            fallback: None,
            server_cas: vec![delivery.server_authority.clone()],
            minimum_tls: delivery.minimum_tls,
            mtls_enforcement: delivery.enforcement,
            signing_secrets: vec![signature::generate_secret()],
            attempt_timeout: Duration::from_secs(20),
            signing_seeds: Vec::new(),
            concurrency_limit: 1,
            allowed_ranges: Vec::new(),
            receipts: false,
        }
    }

    fn job(&self, size: usize) -> LeasedJob {
        let now = self.clock.now();
        LeasedJob {
            lease: LeaseId {
                delivery: random::uuid_v7(now).into(),
                epoch: 1,
            },
            destination: self.destination.clone(),
            expires_at: now.plus(Duration::from_secs(90)),
            payload: vec![b'x'; size].into(),
            headers: Headers::default(),
            content_type: "text/plain".to_owned(),
            attempt_number: 1,
            offline: None,
        }
    }
}

impl DeliveryBench {
    /// Stops all of it.
    ///
    /// # Panics
    /// When a task does not stop.
    pub fn stop(self) {
        // The journal's thread ends when nobody can write any more.
        drop((self.lanes, self.outbox, self.clients));
        let stopped = self.tasks.stop(Duration::from_secs(10));
        self.runtime.block_on(stopped).expect("tasks that stop");
    }
}

async fn next(outbox: &Outbox) -> Outcome {
    loop {
        if let Some(outcome) = outbox.take_unsent(1).pop() {
            let outcome = Arc::unwrap_or_clone(outcome);
            outbox.acknowledge(&[LeaseId {
                delivery: outcome.delivery,
                epoch: outcome.epoch,
            }]);
            return outcome;
        }
        outbox.news().await;
    }
}

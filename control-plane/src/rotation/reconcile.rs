//! Carries rotations on: looks at what is due, decides, takes one step, and looks again until the next
//! step has to wait for something.

use std::{collections::HashSet, sync::Arc, time::Duration};

use countersign_shared::{
    class::FailureClass,
    name::DestinationName,
    probe::ProbePresentation,
    random,
    tasks::{OnFailure, Tasks},
    time::{Clock, Timestamp},
};
use thiserror::Error;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    agents::{Agents, ProbeError},
    leaf::{self, Holding, Next},
    policy::Policy,
    say,
};
use crate::{
    alerts::Alerts,
    audit::{self, Call},
    bundles::BundleError,
    ca::CaError,
    crl::RevocationLists,
    issuing::Issuing,
    metrics::Metrics,
    model::{
        ClientCertificateState as State, DestinationKey, HeldUp, ProbeNote, RotationChange,
        RotationStep, RotationView,
    },
    signals::{Changes, Holds, Poke, Wake},
    store::{Store, StoreError},
};

/// How many destinations are worked on at once: most of the time is spent waiting for receivers.
const WORKERS: usize = 32;
/// How many that are due are looked up in one query.
const BATCH: usize = 256;
/// Most steps in a row for one destination: more would be a decision that undoes itself.
const STEPS: usize = 24;
/// Longest time without a look at what is due.
const LOOK: Duration = Duration::from_secs(5);
/// How long it is shown which agents have stopped using a certificate.
const KEEP_STOPS: Duration = Duration::from_secs(90 * 24 * 3600);
/// How often what is older is removed.
const TIDY: Duration = Duration::from_secs(3600);
/// How long to leave the store alone after it failed.
const BACK_OFF: Duration = Duration::from_secs(1);

/// Why a rotation could not be carried on now; it is tried again.
#[derive(Debug, Error)]
pub enum RotationError {
    /// The store did not do its part.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A bundle can't be put together.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// Carries rotations on.
#[derive(Clone)]
pub struct Rotations {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// Makes certificates.
    pub issuing: Issuing,
    /// Those who hold and present them.
    pub agents: Arc<dyn Agents>,
    /// Told what holds a rotation up.
    pub alerts: Alerts,
    /// Told when a bundle changes.
    pub changes: Arc<Changes>,
    /// Told when deliveries may go out.
    pub holds: Arc<Holds>,
    /// Told when deliveries may go out.
    pub wake: Arc<Wake>,
    /// Told when something is due.
    pub poke: Arc<Poke>,
    /// Signs revocation lists.
    pub lists: RevocationLists,
    /// When things are due.
    pub policy: Policy,
    /// Counts.
    pub metrics: Metrics,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

impl Rotations {
    /// Takes the steps that a destination's rotation can take now.
    ///
    /// # Errors
    /// [`RotationError`]; what was done until then stays done.
    pub async fn carry_on(&self, name: &DestinationName) -> Result<(), RotationError> {
        for _ in 0..STEPS {
            let view = match self.store.rotation(name).await {
                // Deleted meanwhile.
                Err(StoreError::NotFound(_)) => return Ok(()),
                view => view?,
            };
            let holding = self.holding(&view).await?;
            let next = leaf::next(&view, holding, &self.policy, self.clock.now());
            match self.take(&view, next).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                // Somebody else took a step, or the authority is another now: decide anew.
                Err(RotationError::Store(StoreError::Changed(_))) => self.issuing.opened.forget(),
                Err(error) => return Err(error),
            }
        }
        tracing::error!(destination = %name, "a rotation goes round in circles; it is looked at again later");
        let view = self.store.rotation(name).await?;
        self.look_later(&view, self.policy.retry.1, None).await
    }

    /// Whether a control plane whose agents deliver to a destination carries its rotation on.
    async fn is_left_to_others(&self, name: &DestinationName) -> bool {
        if !self.agents.are_some_elsewhere() {
            return false;
        }
        let destination = self.store.destination(name).await;
        destination.is_ok_and(|destination| self.agents.are_elsewhere(&destination))
    }

    async fn holding(&self, view: &RotationView) -> Result<Holding, BundleError> {
        let pending = |state| state == State::Pending;
        let active = view.certificates.iter().any(|it| it.state == State::Active);
        match active && view.certificates.iter().any(|it| pending(it.state)) {
            true => self.agents.holding(&view.destination).await,
            false => Ok(Holding::NoAgent),
        }
    }

    /// Takes one step; false when it is to wait.
    async fn take(&self, view: &RotationView, next: Next) -> Result<bool, RotationError> {
        let name = &view.destination.name;
        match next {
            Next::Issue => return self.issue(view).await,
            Next::Request => {
                let (config, version) = (&view.destination.config, view.highest_version + 1);
                match self.issuing.request(name, config, version).await {
                    Ok(made) => {
                        tracing::info!(destination = %name, version, "a certificate request waits for the receiver's CA");
                        self.write(view, RotationStep::Ask(Box::new(made))).await?;
                    }
                    Err(error) => return self.not_issued(view, &error).await,
                }
            }
            Next::Distributed(version) => {
                tracing::info!(destination = %name, version, "the next client certificate is durable at the agents");
                self.write(view, RotationStep::Distributed(version)).await?;
            }
            Next::Activate(version) => {
                self.write(view, RotationStep::Activate(version)).await?;
                self.metrics.rotation("activated");
                tracing::info!(destination = %name, version, "client certificate activated");
                self.released(view.destination.key);
            }
            Next::PutBack { from, to } => {
                let step = RotationStep::PutBack { from, to };
                self.write(view, step).await?;
                self.metrics.rotation("put_back");
                tracing::warn!(destination = %name, refused = from, version = to, "the receiver refuses the new client certificate; the one before is presented again");
            }
            Next::Retire(version) => {
                self.stop(view, version).await?;
                self.metrics.rotation("retired");
                tracing::info!(destination = %name, version, "client certificate retired");
            }
            Next::Expire(version) => {
                self.write(view, RotationStep::Expire(version)).await?;
                self.metrics.rotation("expired");
                tracing::warn!(destination = %name, version, "client certificate expired");
            }
            Next::Probe(version, presentation) => self.probe(view, version, presentation).await?,
            Next::Trust(generation, state) => {
                let step = RotationStep::Trust(generation, state);
                self.write(view, step).await?;
                tracing::info!(destination = %name, generation, state = ?state, "the receiver's trust in the new authority is known");
            }
            Next::Wait { until, held_up } => {
                let now = self.clock.now();
                self.look_later(view, until.since(now), held_up).await?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn issue(&self, view: &RotationView) -> Result<bool, RotationError> {
        let (name, config) = (&view.destination.name, &view.destination.config);
        let version = view.highest_version + 1;
        let issued = self.issuing.issue(name, config, version, State::Pending);
        match issued.await {
            Ok(Some(certificate)) => {
                let serial = certificate.serial.clone();
                let step = RotationStep::Add(Box::new(certificate));
                self.write(view, step).await?;
                self.metrics.rotation("issued");
                tracing::info!(destination = %name, version, serial, "client certificate issued");
                Ok(true)
            }
            // The decision was made for another trust model.
            Ok(None) => Ok(true),
            Err(error) => self.not_issued(view, &error).await,
        }
    }

    async fn not_issued(
        &self,
        view: &RotationView,
        error: &CaError,
    ) -> Result<bool, RotationError> {
        tracing::error!(destination = %view.destination.name, %error, "no client certificate could be issued; trying again");
        self.look_later(view, self.policy.retry.0, Some(HeldUp::NotIssued))
            .await?;
        Ok(false)
    }

    async fn stop(&self, view: &RotationView, version: u32) -> Result<(), RotationError> {
        let gone = view.certificates.iter().find(|it| it.version == version);
        self.write(view, RotationStep::Retire(version)).await?;
        if let Some(gone) = gone {
            let serials = [gone.serial.clone()];
            self.agents.revoke(&view.destination.name, &serials).await;
        }
        self.lists.due.poke();
        Ok(())
    }

    async fn probe(
        &self,
        view: &RotationView,
        version: u32,
        presentation: ProbePresentation,
    ) -> Result<(), RotationError> {
        let (destination, name) = (&view.destination, &view.destination.name);
        let (class, accepted) = match self.agents.probe(destination, version, presentation).await {
            Ok(probed) => (probed.report.class, probed.report.accepted),
            Err(ProbeError::NoAgent(_) | ProbeError::Silent) => (FailureClass::NotAttempted, false),
            Err(ProbeError::Bundle(error)) => return Err(error.into()),
        };
        tracing::info!(destination = %name, version, presentation = ?presentation, %class, accepted, "receiver probed");
        let same = |it: &&ProbeNote| (it.version, it.presentation) == (version, presentation);
        let before = view.rotation.probes.iter().find(same);
        let failures = before.map_or(0, |it| it.failures);
        let note = ProbeNote {
            version,
            presentation,
            at: self.clock.now(),
            class,
            accepted,
            failures: match accepted && class != FailureClass::ClientIdentityForbidden {
                true => 0,
                false => failures.saturating_add(1),
            },
        };
        self.write(view, RotationStep::Probed(note)).await?;
        if accepted && presentation == ProbePresentation::Chain {
            self.released(destination.key);
        }
        Ok(())
    }

    /// What was held for a certificate may go out.
    fn released(&self, destination: DestinationKey) {
        self.holds.release(destination);
        self.wake.due(destination, self.clock.now());
    }

    async fn write(&self, view: &RotationView, step: RotationStep) -> Result<(), StoreError> {
        let change = RotationChange {
            destination: view.destination.name.clone(),
            epoch: view.rotation.epoch,
            now: self.clock.now(),
            step,
        };
        let changed = self.store.change_rotation(change).await?;
        if changed.generation != view.destination.generation {
            self.changes.changed(view.destination.name.clone());
        }
        Ok(())
    }

    async fn look_later(
        &self,
        view: &RotationView,
        after: Duration,
        held_up: Option<HeldUp>,
    ) -> Result<(), RotationError> {
        let now = self.clock.now();
        let held_up = held_up.map(|it| (it, say::since(view.rotation.held_up, it, now)));
        // First, so that nobody waits for the next look to hear of it if this process ends in between.
        let verdicts = say::verdicts(view, held_up, &self.policy, now);
        self.alerts.apply_all(verdicts).await;
        let at = now.plus(after);
        self.write(view, RotationStep::Look { at, held_up }).await?;
        Ok(())
    }
}

/// The background task: finds what is due and has workers carry it on.
pub struct Reconciler {
    /// What carries on.
    pub rotations: Rotations,
    /// Runs the workers.
    pub tasks: Tasks,
}

impl Reconciler {
    /// Runs until `shutdown`.
    ///
    /// # Errors
    /// None for now: a store that fails is tried again.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), StoreError> {
        let (queue, waiting) = mpsc::channel::<DestinationName>(WORKERS);
        let waiting = Arc::new(Mutex::new(waiting));
        let at_work: Arc<Mutex<HashSet<DestinationName>>> = Arc::default();
        for _ in 0..WORKERS {
            let (rotations, waiting) = (self.rotations.clone(), Arc::clone(&waiting));
            let at_work = Arc::clone(&at_work);
            let work = async move {
                loop {
                    let next = waiting.lock().await.recv().await;
                    let Some(name) = next else {
                        return Ok::<_, StoreError>(());
                    };
                    if rotations.is_left_to_others(&name).await {
                        // It stays due, and is looked at again if they do not.
                        at_work.lock().await.remove(&name);
                        continue;
                    }
                    let clock = Arc::clone(&rotations.clock);
                    let call = Call::system("rotation", vec![name.to_string()], clock);
                    if let Err(error) = audit::scope(call, rotations.carry_on(&name)).await {
                        tracing::warn!(destination = %name, %error, "rotation not carried on; trying again");
                        tokio::time::sleep(random::full_jitter(BACK_OFF)).await;
                    }
                    at_work.lock().await.remove(&name);
                    rotations.poke.heard();
                }
            };
            let stop = shutdown.clone();
            self.tasks
                .spawn("rotation worker", OnFailure::StopProcess, async move {
                    tokio::select! {
                        () = stop.cancelled() => Ok(()),
                        ended = work => ended,
                    }
                });
        }
        let mut tidied: Option<Timestamp> = None;
        while !shutdown.is_cancelled() {
            let now = self.rotations.clock.now();
            if tidied.is_none_or(|at| now.since(at) > TIDY) {
                tidied = Some(now);
                let before = now.minus(KEEP_STOPS);
                if let Err(error) = self.rotations.store.forget_stops(before).await {
                    tracing::warn!(%error, "old stops not removed; trying again later");
                }
            }
            let pause = match self.find(&queue, &at_work).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(%error, "rotations not looked through; trying again");
                    BACK_OFF
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.rotations.poke.wait() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        Ok(())
    }

    /// Queues what is due; answers how long there is nothing more to do.
    async fn find(
        &self,
        queue: &mpsc::Sender<DestinationName>,
        at_work: &Mutex<HashSet<DestinationName>>,
    ) -> Result<Duration, StoreError> {
        let (store, now) = (&self.rotations.store, self.rotations.clock.now());
        for name in store.rotations_due(now, BATCH).await? {
            if at_work.lock().await.insert(name.clone()) {
                // The workers end only after this.
                let _ = queue.send(name).await;
            }
        }
        let next = store.next_rotation().await?;
        // What is due and at work is looked at again when a worker pokes.
        let next = next.filter(|at| *at > now).map_or(LOOK, |at| at.since(now));
        Ok(next.min(LOOK))
    }
}

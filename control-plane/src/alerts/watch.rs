//! Carries out what `judge` decides: looks for certificates that end soon, takes in what attempts
//! show, and tells everybody who listens of every change.

use std::{sync::Arc, time::Duration};

use countersign_shared::{
    class::FailureClass,
    name::{AlertName, DestinationName, Id},
    random,
    time::{Clock, Timestamp},
};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::{
    failing::{self, Turn, WARN_AFTER},
    judge::{self, Verdict, WARN_WITHIN},
    notify::Notifier,
};
use crate::{
    audit::{self, Call},
    metrics::Metrics,
    model::{
        Alert, AlertCause, AlertSeverity, Destination, DestinationKey, DestinationState, Evidence,
    },
    signals::{DeadLetters, Observer},
    store::{Store, StoreError},
};

/// How often certificates are looked through.
const LOOK: Duration = Duration::from_secs(300);
/// How many certificates are looked at in one query.
const PAGE: usize = 500;
/// A watcher that falls behind by more than this is ended.
const BACKLOG: usize = 256;

/// Opens, resolves and acknowledges alerts.
#[derive(Clone)]
pub struct Alerts {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    metrics: Metrics,
    changes: broadcast::Sender<Alert>,
    /// Tells an operator's destination, if there is one.
    notifier: Option<Notifier>,
}

impl Alerts {
    /// Over this store.
    pub fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
        notifier: Option<Notifier>,
    ) -> Self {
        Self {
            store,
            clock,
            metrics,
            changes: broadcast::Sender::new(BACKLOG),
            notifier,
        }
    }

    /// Every change from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Alert> {
        self.changes.subscribe()
    }

    /// Notes that somebody takes care.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn acknowledge(&self, name: &AlertName) -> Result<Alert, StoreError> {
        let alert = self.store.acknowledge_alert(name, self.clock.now()).await?;
        // Nobody listening is fine.
        let _ = self.changes.send(alert.clone());
        Ok(alert)
    }

    /// Carries out verdicts, and tells everybody who must hear of a change. What can't be recorded is
    /// found again at the next look.
    pub async fn apply_all(&self, verdicts: Vec<Verdict>) {
        let mut any = false;
        for verdict in verdicts {
            match self.apply(verdict).await {
                Ok(Some(alert)) => {
                    any = true;
                    if let Some(notifier) = &self.notifier {
                        notifier.tell(&alert).await;
                    }
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "alert not recorded"),
            }
        }
        if any {
            self.count().await;
        }
    }

    /// Carries out one verdict; answers with the alert when it changed.
    async fn apply(&self, verdict: Verdict) -> Result<Option<Alert>, StoreError> {
        let now = self.clock.now();
        let changed = match verdict {
            Verdict::Raise(finding) => {
                let name = AlertName::from(Id::from(random::uuid_v7(now)));
                let about = vec![finding.resource.clone(), name.to_string()];
                let raise = self.store.raise_alert(name, finding, now);
                self.on_record(about, raise).await?
            }
            Verdict::Clear(cause, resource) => {
                let resolve = self.store.resolve_alert(cause, &resource, now);
                self.on_record(vec![resource.clone()], resolve).await?
            }
        };
        if let Some(alert) = &changed {
            self.say(alert);
            let _ = self.changes.send(alert.clone());
        }
        Ok(changed)
    }

    /// Disables a destination that its receiver does not want, or that has failed for too long.
    async fn disable(&self, name: &DestinationName, now: Timestamp) -> Result<(), StoreError> {
        let disabled = DestinationState::Disabled;
        let disable = self.store.set_destination_state(name, disabled, now);
        self.on_record(vec![name.to_string()], disable).await?;
        Ok(())
    }

    /// What `work` changes is our own doing.
    async fn on_record<T>(&self, about: Vec<String>, work: impl Future<Output = T>) -> T {
        let call = Call::system("alerts", about, Arc::clone(&self.clock));
        audit::scope(call, work).await
    }

    fn say(&self, alert: &Alert) {
        let (name, resource) = (&alert.name, &alert.finding.resource);
        let (cause, message) = (alert.finding.cause.as_str(), &alert.finding.message);
        match (alert.resolved_at, alert.finding.severity) {
            (Some(_), _) => tracing::info!(alert = %name, cause, resource, "alert resolved"),
            (None, AlertSeverity::Warning) => {
                tracing::warn!(alert = %name, cause, resource, message, "alert");
            }
            (None, AlertSeverity::Critical) => {
                tracing::error!(alert = %name, cause, resource, message, "critical alert");
            }
        }
    }

    async fn count(&self) {
        match self.store.open_alert_counts().await {
            Ok(counts) => {
                for cause in AlertCause::ALL {
                    let open = counts.iter().find(|(counted, _)| counted == cause);
                    self.metrics
                        .open_alerts(cause.as_str(), open.map_or(0, |(_, open)| *open));
                }
            }
            Err(error) => tracing::warn!(%error, "open alerts not counted"),
        }
    }
}

/// The background task.
pub struct Watchman {
    /// Carries out.
    pub alerts: Alerts,
    /// What attempts show.
    pub observer: Observer,
    /// Where deliveries were given up.
    pub dead_letters: Arc<DeadLetters>,
}

impl Watchman {
    /// Runs until `shutdown`.
    ///
    /// # Errors
    /// None for now: a store that fails is tried again.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), StoreError> {
        let mut look = tokio::time::interval(LOOK);
        self.alerts.count().await;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = look.tick() => {
                    self.look_at_certificates().await;
                    self.look_at_destinations().await;
                    self.look_at_ordering_keys().await;
                }
                destinations = self.dead_letters.next() => {
                    for destination in destinations {
                        self.look_at_dead_letters(destination).await;
                    }
                    self.look_at_ordering_keys().await;
                }
                evidence = self.observer.next() => {
                    for evidence in evidence {
                        self.take(evidence).await;
                    }
                }
            }
        }
    }

    async fn take(&self, evidence: Evidence) {
        let store = &self.alerts.store;
        // Deleted meanwhile: nobody needs to know.
        let Ok(destination) = store.destination_by_key(evidence.destination).await else {
            return;
        };
        let (name, now) = (&destination.name, self.alerts.clock.now());
        if evidence.shown.class == FailureClass::HttpGone
            && let Err(error) = self.alerts.disable(name, now).await
        {
            tracing::warn!(destination = %name, %error, "destination not disabled");
        }
        let mut verdicts = judge::from_evidence(name.as_str(), &evidence, now);
        let key = destination.key;
        let noted = match failing::turn(evidence.shown.class, destination.failing_since) {
            Turn::None => Ok(()),
            Turn::Fails => store.set_failing(key, Some(now)).await,
            Turn::Recovers => {
                let cause = AlertCause::DestinationFailing;
                verdicts.push(Verdict::Clear(cause, name.to_string()));
                store.set_failing(key, None).await
            }
        };
        if let Err(error) = noted {
            tracing::warn!(destination = %name, %error, "not noted whether deliveries fail");
        }
        self.alerts.apply_all(verdicts).await;
    }

    /// Destinations that fail for days, and dead letters that are gone.
    async fn look_at_destinations(&self) {
        let store = &self.alerts.store;
        let result = async {
            let now = self.alerts.clock.now();
            let (until, mut after) = (now.minus(WARN_AFTER), None);
            loop {
                let page = store.failing(until, after, PAGE).await?;
                for destination in &page.items {
                    self.look_at_failing(destination, now).await?;
                }
                match page.items.last() {
                    Some(last) if page.more => after = Some(last.key),
                    _ => break,
                }
            }
            self.look_at_what_is_open(until).await
        };
        if let Err(error) = result.await {
            tracing::warn!(%error, "destinations not looked through; trying again");
        }
    }

    /// Alerts about destinations whose cause may be gone without an attempt.
    async fn look_at_what_is_open(&self, until: Timestamp) -> Result<(), StoreError> {
        let store = &self.alerts.store;
        for cause in [
            AlertCause::DestinationFailing,
            AlertCause::DeliveriesDeadLettered,
        ] {
            for alert in store.open_alerts_of(cause).await? {
                let resource = alert.finding.resource;
                let destination = match resource.parse() {
                    Ok(name) => store.destination(&name).await,
                    Err(_) => Err(StoreError::NotFound(resource.clone())),
                };
                let gone = match destination {
                    Ok(destination) if cause == AlertCause::DeliveriesDeadLettered => {
                        !store.has_dead_letters(destination.key).await?
                    }
                    // One that was enabled again begins its time anew.
                    Ok(destination) => {
                        destination.state == DestinationState::Enabled
                            && destination.failing_since.is_none_or(|since| since > until)
                    }
                    Err(StoreError::NotFound(_)) => true,
                    Err(error) => return Err(error),
                };
                if gone {
                    let gone = Verdict::Clear(cause, resource);
                    self.alerts.apply_all(vec![gone]).await;
                }
            }
        }
        Ok(())
    }

    async fn look_at_failing(
        &self,
        destination: &Destination,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let Some(since) = destination.failing_since else {
            return Ok(());
        };
        let name = &destination.name;
        let (verdict, disable) = failing::of_failing(name.as_str(), since, now);
        if disable {
            self.alerts.disable(name, now).await?;
        }
        self.alerts.apply_all(verdict.into_iter().collect()).await;
        Ok(())
    }

    async fn look_at_dead_letters(&self, key: DestinationKey) {
        let store = &self.alerts.store;
        // Deleted meanwhile: nobody needs to know.
        let Ok(destination) = store.destination_by_key(key).await else {
            return;
        };
        match store.has_dead_letters(key).await {
            Ok(any) => {
                let verdict = failing::of_dead_letters(destination.name.as_str(), any);
                self.alerts.apply_all(vec![verdict]).await;
            }
            Err(error) => tracing::warn!(%error, "dead letters not looked for"),
        }
    }

    async fn look_at_ordering_keys(&self) {
        let store = &self.alerts.store;
        let result = async {
            let mut verdicts = Vec::new();
            for key in store.with_blocked_keys().await? {
                // Deleted meanwhile: nothing is held any more.
                if let Ok(destination) = store.destination_by_key(key).await {
                    verdicts.push(judge::of_blocked_keys(destination.name.as_str()));
                }
            }
            let open = store
                .open_alerts_of(AlertCause::OrderingKeysBlocked)
                .await?;
            let open = open.into_iter().map(|alert| alert.finding.resource);
            verdicts.extend(judge::of_keys_not_blocked(&verdicts, open));
            self.alerts.apply_all(verdicts).await;
            Ok::<_, StoreError>(())
        };
        if let Err(error) = result.await {
            tracing::warn!(%error, "ordering keys not looked at; trying again");
        }
    }

    async fn look_at_certificates(&self) {
        let now = self.alerts.clock.now();
        // A certificate that was replaced no longer comes up here, so what is open is looked at too.
        let result = async {
            self.clear_what_was_replaced(now).await?;
            let mut after = None;
            loop {
                let until = now.plus(WARN_WITHIN);
                let page = self.alerts.store.expiring(until, after, PAGE).await?;
                let verdicts = page.items.iter().map(|item| judge::of_expiring(item, now));
                self.alerts.apply_all(verdicts.collect()).await;
                match page.items.last() {
                    Some(last) if page.more => after = Some(last.clone()),
                    _ => return Ok::<_, StoreError>(()),
                }
            }
        };
        if let Err(error) = result.await {
            tracing::warn!(%error, "certificates not looked through; trying again");
        }
    }

    async fn clear_what_was_replaced(&self, now: Timestamp) -> Result<(), StoreError> {
        for alert in self.alerts.store.open_expiry_alerts().await? {
            let (cause, resource) = (alert.finding.cause, alert.finding.resource);
            let found = self.alerts.store.end_of(cause, &resource).await?;
            let verdict = match found.map(|found| judge::of_expiring(&found, now)) {
                Some(Verdict::Raise(_)) => continue,
                Some(verdict) => verdict,
                None => Verdict::Clear(cause, resource),
            };
            self.alerts.apply_all(vec![verdict]).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

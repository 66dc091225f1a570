//! Watches over the KEK's provider. While it is away, or says no, this process goes on with the data keys that
//! it holds, for as long as the configuration allows; then it forgets them, and waits. As soon as the provider
//! serves again, so does this process.

use std::{convert::Infallible, sync::Arc, time::Duration};

use countersign_shared::{
    random,
    time::{Clock, Timestamp},
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    alerts::{Alerts, Verdict},
    kek::{Standing, standing},
    metrics::Metrics,
    model::{AlertCause, AlertSeverity, Finding},
    signals::Wake,
    vault::Vault,
};

/// How often the provider is asked while it serves, and while it does not.
const LOOK: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// It is never asked without a pause.
const LEAST: Duration = Duration::from_millis(200);
/// How long it may take to answer.
const WITHIN: Duration = Duration::from_secs(20);
/// An outage that is shorter wakes nobody.
const BLIP: Duration = Duration::from_secs(60);

/// The background task.
pub struct Custody {
    /// Holds the data keys.
    pub vault: Arc<Vault>,
    /// For how long they are held while the provider does not serve.
    pub max_outage: Duration,
    /// Says it to whom it concerns.
    pub alerts: Alerts,
    /// What was leased to nobody meanwhile is leased then.
    pub wake: Arc<Wake>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Whether the KEK can be used.
    pub metrics: Metrics,
}

/// What is known of the provider.
struct Watch {
    served: Timestamp,
    standing: Standing,
    /// Why it did not serve, when that began.
    problem: String,
    /// The alert that was raised last.
    raised: Option<Verdict>,
}

impl Custody {
    /// Runs until `shutdown`.
    ///
    /// # Errors
    /// None.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Infallible> {
        let mut watch = Watch {
            // It was tried out at the start.
            served: self.clock.now(),
            standing: Standing::Good,
            problem: String::new(),
            raised: None,
        };
        self.metrics.kek_usable.set(1);
        // What an earlier process has raised.
        self.alerts.apply_all(vec![self.clear()]).await;
        loop {
            let pause = match watch.standing {
                Standing::Good => LOOK,
                Standing::Away { until, .. } => LOOK_AGAIN.min(until.since(self.clock.now())),
                Standing::Closed { .. } => LOOK_AGAIN,
            };
            let pause = pause.min(self.max_outage / 4).max(LEAST);
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                // Several control planes do not ask in step.
                () = sleep(pause / 2 + random::full_jitter(pause / 2)) => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = self.look(&mut watch) => {}
            }
        }
    }

    async fn look(&self, watch: &mut Watch) {
        let failure = match timeout(WITHIN, self.vault.check()).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {} s", WITHIN.as_secs())),
        };
        let now = self.clock.now();
        let next = standing(failure.is_none(), watch.served, now, self.max_outage);
        match failure {
            None => watch.served = now,
            Some(problem) if watch.standing == Standing::Good => watch.problem = problem,
            Some(_) => {}
        }
        self.turn(watch, next);
        watch.standing = next;
        let verdict = match next {
            Standing::Good => watch.raised.is_some().then(|| self.clear()),
            _ => finding(
                next,
                self.vault.kek_id(),
                &watch.problem,
                now,
                self.max_outage,
            ),
        };
        match verdict {
            Some(Verdict::Clear(..)) => watch.raised = None,
            Some(_) if verdict == watch.raised => return,
            _ => watch.raised.clone_from(&verdict),
        }
        self.alerts.apply_all(verdict.into_iter().collect()).await;
    }

    /// Acts on a change.
    fn turn(&self, watch: &Watch, next: Standing) {
        let problem = watch.problem.as_str();
        match (watch.standing, next) {
            (Standing::Good, Standing::Good)
            | (Standing::Away { .. }, Standing::Away { .. })
            | (Standing::Closed { .. }, Standing::Closed { .. }) => {}
            (_, Standing::Good) => {
                tracing::info!("the KEK's provider serves again");
                self.metrics.kek_usable.set(1);
                self.vault.reopen();
                self.wake.poke();
            }
            (_, Standing::Away { until, .. }) => {
                tracing::warn!(problem, %until, "the KEK's provider does not serve; data keys that are held are used until then");
                self.metrics.kek_usable.set(0);
            }
            (_, Standing::Closed { since }) => {
                tracing::error!(problem, %since, "the KEK's provider has not served for too long: no data key is used until it does");
                self.metrics.kek_usable.set(0);
                self.vault.close(since);
            }
        }
    }

    fn clear(&self) -> Verdict {
        Verdict::Clear(AlertCause::KeyProviderAway, resource(self.vault.kek_id()))
    }
}

fn resource(kek: &str) -> String {
    format!("keyEncryptionKeys/{kek}")
}

/// What follows for people from how it stands at `now`.
fn finding(
    standing: Standing,
    kek: &str,
    problem: &str,
    now: Timestamp,
    bound: Duration,
) -> Option<Verdict> {
    let (severity, then) = match standing {
        Standing::Good => return None,
        Standing::Away { since, .. } if now.since(since) < BLIP.min(bound / 2) => return None,
        Standing::Away { until, .. } => {
            let severity = match until.since(now) > bound / 4 {
                true => AlertSeverity::Warning,
                false => AlertSeverity::Critical,
            };
            let then = format!("Deliveries go on until {until}, with the data keys that are held");
            (severity, then)
        }
        Standing::Closed { since } => {
            let then = format!(
                "It has not served since {since}, and nothing is accepted or delivered until it does"
            );
            (AlertSeverity::Critical, then)
        }
    };
    Some(Verdict::Raise(Finding {
        cause: AlertCause::KeyProviderAway,
        resource: resource(kek),
        severity,
        message: format!("The KEK's provider does not serve: {problem}. {then}."),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_of_before_it_hurts() {
        let bound = Duration::from_secs(3600);
        let since = Timestamp::from_unix_seconds(1_000);
        let severity = |seconds| {
            let now = since.plus(Duration::from_secs(seconds));
            let standing = standing(false, since, now, bound);
            match finding(standing, "k", "no route", now, bound)? {
                Verdict::Raise(finding) => Some(finding.severity),
                Verdict::Clear(..) => panic!("cleared"),
            }
        };
        assert_eq!(severity(59), None);
        assert_eq!(severity(60), Some(AlertSeverity::Warning));
        assert_eq!(severity(2600), Some(AlertSeverity::Warning));
        assert_eq!(severity(2800), Some(AlertSeverity::Critical));
        assert_eq!(severity(3600), Some(AlertSeverity::Critical));
        assert_eq!(finding(Standing::Good, "k", "", since, bound), None);
    }
}

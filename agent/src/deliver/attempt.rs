//! One attempt, as stages that consume each other: a job is signed, sent over a connection of the
//! bundle's client, and what happened is classified. When the receiver refuses the certificate and
//! there is one before it, the attempt goes on with that at once. A request that met a kept connection
//! just as the receiver closed it is sent once more. The whole is under the bundle's timeout.

use std::time::Duration;

use countersign_shared::{
    class::FailureClass,
    job::LeasedJob,
    outcome::{AttemptTimings, Outcome},
    time::{Clock, Timestamp},
};
use tokio::time::Instant;

use super::{
    choice::{Ended, Lesson, OfActive, Role, lesson, order, settle, unusable},
    credential::{Ready, Usability},
    exchange::{Judged, send},
    prepared::Prepared,
    sign::sign,
};

/// The least time that makes a second try worth while.
const LEAST_LEFT: Duration = Duration::from_secs(1);

/// How often a request is sent again that met a connection which was being closed: the next one that
/// was kept may be closing as well, as when the receiver's server starts anew.
const REPEATS: u32 = 3;

/// Why a job was given back.
pub(super) mod given_back {
    pub(in super::super) use super::super::detail::NO_BUNDLE;
    pub(in super::super) const LEASE_ENDED: &str =
        "The lease ended before the attempt could start.";
    pub(in super::super) const TOO_LATE: &str =
        "The deadline was over before the attempt could start.";
    pub(in super::super) const STOPPING: &str = "The agent is stopping.";
    pub(in super::super) const DRAINED: &str = "The agent is being drained.";
    pub(in super::super) const CONTENT_TYPE: &str =
        "The content type can't be sent as a header value.";
}

/// What an attempt works with.
struct Attempt<'a> {
    job: &'a LeasedJob,
    bundle: &'a Prepared,
    clock: &'a dyn Clock,
    deadline: Instant,
}

/// Makes one attempt; `queued` is how long the job has waited for it.
///
/// Presents the active certificate, and the fallback when that is refused; the other way round once
/// the receiver has refused the active one and taken the fallback. The outcome is the fallback's,
/// with the refusal of the active one, unless the fallback is refused too (see `choice`).
pub(super) async fn attempt(
    job: &LeasedJob,
    bundle: &Prepared,
    queued: Duration,
    clock: &dyn Clock,
) -> Outcome {
    let (started_at, started) = (clock.now(), Instant::now());
    let attempt = Attempt {
        job,
        bundle,
        clock,
        deadline: started + bundle.attempt_timeout,
    };
    let Ok(ended) = attempt.make(started_at).await else {
        return not_attempted(job, started_at, given_back::CONTENT_TYPE);
    };
    let mut outcome = Outcome {
        started_at,
        ..into_outcome(job, ended)
    };
    outcome.timings.queued = Some(queued);
    outcome.timings.total = Some(started.elapsed());
    outcome
}

impl Attempt<'_> {
    async fn make(&self, now: Timestamp) -> Result<Ended, http::Error> {
        let bundle = self.bundle;
        let usability = bundle.active.usability(now);
        let remembered = bundle.refusal();
        let fallback = bundle.fallback.as_ref().map(|it| it.usability(now));
        let (first, second) = order(usability, remembered.is_some(), fallback);
        let mut tried = Tried::default();
        for role in [first, second].into_iter().flatten() {
            let ready = match role {
                Role::Active => Some(&bundle.active),
                Role::Fallback => bundle.fallback.as_ref(),
            };
            if let Some(ready) = ready.filter(|_| tried.goes_on(self.left())) {
                let judged = self.try_with(ready).await?;
                tried.put(role, judged);
            }
        }
        let Tried { active, fallback } = tried;
        let lesson = match bundle.active.client.http.standing().is_revoked() {
            // It was not the receiver that refused it, and it is not presented again in any case.
            true => Lesson::Nothing,
            false => lesson(active.as_ref(), fallback.as_ref()),
        };
        let active = match (active, remembered) {
            (Some(active), _) => OfActive::Tried(active),
            (None, Some(known)) if usability == Usability::Usable => {
                OfActive::Known((*known).clone())
            }
            (None, _) => OfActive::Known(unusable(bundle.active.version, usability)),
        };
        let ended = settle(bundle.active.version, active, fallback);
        self.learn(lesson, &ended);
        Ok(ended)
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    async fn try_with(&self, ready: &Ready) -> Result<Judged, http::Error> {
        let client = &ready.client;
        let mut repeats = 0;
        loop {
            let request = sign(self.job, self.bundle, self.clock.now())?;
            let exchange = send(
                request,
                &self.bundle.target,
                &client.http,
                self.left(),
                self.clock,
            );
            let exchange = Box::pin(exchange).await;
            if !exchange.met_closing() || repeats == REPEATS || self.left() < LEAST_LEFT {
                return Ok(exchange.judge(ready.validity(self.clock.now())));
            }
            repeats += 1;
        }
    }

    /// Remembers which certificate to present first, and says so when that changes.
    fn learn(&self, lesson: Lesson, ended: &Ended) {
        let bundle = self.bundle;
        match lesson {
            Lesson::FallbackFirst => {
                if let Ended::With(_, Some(refusal)) = ended
                    && bundle.remember(refusal)
                {
                    tracing::warn!(
                        destination = %bundle.destination, refused = refusal.version,
                        used = bundle.fallback.as_ref().map(|it| it.version),
                        class = %refusal.class, detail = %refusal.detail,
                        resolution = refusal.class.resolution(),
                        "the receiver refuses the client certificate; going on with the one before"
                    );
                }
            }
            Lesson::ActiveFirst if bundle.forget_refusal() => {
                tracing::info!(
                    destination = %bundle.destination, version = bundle.active.version,
                    "presenting the newest client certificate first again"
                );
            }
            Lesson::ActiveFirst | Lesson::Nothing => {}
        }
    }
}

/// What was tried.
#[derive(Default)]
struct Tried {
    active: Option<Judged>,
    fallback: Option<Judged>,
}

impl Tried {
    /// Whether to try (again) with this much time `left`: nothing was tried, or what was tried was
    /// refused.
    fn goes_on(&self, left: Duration) -> bool {
        match (&self.active, &self.fallback) {
            (None, None) => true,
            (Some(only), None) | (None, Some(only)) => only.refused() && left >= LEAST_LEFT,
            (Some(_), Some(_)) => false,
        }
    }

    fn put(&mut self, role: Role, judged: Judged) {
        match role {
            Role::Active => self.active = Some(judged),
            Role::Fallback => self.fallback = Some(judged),
        }
    }
}

fn into_outcome(job: &LeasedJob, ended: Ended) -> Outcome {
    let outcome = |class, detail| Outcome {
        class,
        detail,
        ..not_attempted(job, Timestamp::default(), "")
    };
    match ended {
        Ended::As(refusal) => outcome(refusal.class, refusal.detail),
        Ended::With(judged, refused) => {
            let Judged {
                verdict,
                record,
                head,
                timings,
                ..
            } = judged;
            Outcome {
                mtls_not_enforced: verdict.mtls_not_enforced,
                http_status: head.map(|head| head.status.as_u16()),
                handshake: record,
                timings,
                retry_after: head.and_then(|head| head.retry_after),
                refused,
                ..outcome(verdict.class, verdict.detail.into())
            }
        }
    }
}

/// The outcome of a job that is given back without an attempt.
pub(super) fn not_attempted(job: &LeasedJob, at: Timestamp, detail: &'static str) -> Outcome {
    Outcome {
        delivery: job.lease.delivery,
        epoch: job.lease.epoch,
        class: FailureClass::NotAttempted,
        mtls_not_enforced: false,
        http_status: None,
        handshake: None,
        timings: AttemptTimings::default(),
        started_at: at,
        retry_after: None,
        detail: detail.into(),
        refused: None,
        receipt: None,
        unrecorded_attempts: 0,
    }
}

/// Whether `outcome` shows that the receiver took the bundle's active certificate: there was an
/// answer to it, and it was not about the certificate.
pub(super) fn proves_bundle(outcome: &Outcome) -> bool {
    outcome.http_status.is_some()
        && outcome.refused.is_none()
        && outcome.handshake.as_ref().is_some_and(|it| it.completed)
        && !outcome.class.refuses_client_certificate()
}

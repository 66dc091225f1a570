//! Renewal: a new key and certificate at half of the old one's life, over the old one's connection
//! rights. Until it has worked the old identity stays, on disk and in use.

use std::{sync::Arc, time::Duration};

use countersign_proto::v1::{
    RenewIdentityRequest, enrollment_service_client::EnrollmentServiceClient,
};
use countersign_shared::{
    random,
    time::{Clock, Timestamp},
};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::{
    agent_identity::{Held, Identity, IdentityError, Parts, der_chain},
    file::{FileError, IdentityFile},
    keys,
};
use crate::{
    metrics::Metrics,
    transport::{ControlPlaneUrl, DialError, Places, channel, code_name, dial},
};

/// How long a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The wall clock is looked at this often: a host that slept must notice that it is late.
const LOOK: Duration = Duration::from_secs(60);
/// Least time between two renewals, whatever validity the control plane gives.
const PAUSE: Duration = Duration::from_secs(60);
/// Window of the first retry, and the widest.
const RETRY: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(1800));

/// Why an identity was not renewed.
#[derive(Debug, Error)]
pub enum RenewError {
    /// The control plane is not reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// It said no.
    #[error("the control plane refused ({code}): {message}", code = code_name(.0.code()), message = .0.message())]
    Refused(#[from] tonic::Status),
    /// It says nothing.
    #[error("no answer within {} s", CALL_TIMEOUT.as_secs())]
    Timeout,
    /// There is no new key.
    #[error("no key could be made ({0})")]
    Key(#[from] rcgen::Error),
    /// What it answered is no identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The new identity could not be kept.
    #[error(transparent)]
    File(#[from] FileError),
}

/// When a certificate should be renewed: at half of its life, spread over a tenth of it so that
/// agents that were enrolled together don't renew together. `spread` is in `0.0..1.0`.
pub fn renew_at(not_before: Timestamp, not_after: Timestamp, spread: f64) -> Timestamp {
    let life = not_after.since(not_before);
    not_before.plus(life.mul_f64(0.45 + 0.1 * spread.clamp(0.0, 1.0)))
}

/// The window in which to try again after `failures` failures in a row: doubling, but never so wide
/// that fewer than four tries are left before `not_after`.
pub fn retry_window(failures: u32, now: Timestamp, not_after: Timestamp) -> Duration {
    let (first, widest) = RETRY;
    let doubled = first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
    let left = not_after.since(now) / 4;
    doubled.min(widest).min(left.max(first))
}

/// Keeps the identity fresh until `shutdown`.
pub async fn keep_fresh(
    held: Held,
    places: Arc<Places>,
    file: IdentityFile,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) {
    let mut due = next_due(&held.load());
    let mut failures = 0;
    while wait_until(due, &*clock, &shutdown).await {
        let current = held.load_full();
        let renewed = tokio::select! {
            renewed = renew(&current, places.current(), &file) => renewed,
            () = shutdown.cancelled() => return,
        };
        match renewed {
            Ok(identity) => {
                tracing::info!(agent = %identity.agent, until = %identity.not_after, "identity renewed");
                metrics.identity_expires(identity.not_after);
                failures = 0;
                due = next_due(&identity).max(clock.now().plus(PAUSE));
                held.store(Arc::new(identity));
            }
            Err(error) => {
                failures += 1;
                let now = clock.now();
                say_failed(&current, now, &error);
                let window = retry_window(failures, now, current.not_after);
                due = now.plus(window / 2 + random::full_jitter(window / 2));
            }
        }
    }
}

fn next_due(identity: &Identity) -> Timestamp {
    renew_at(identity.not_before, identity.not_after, random::fraction())
}

fn say_failed(current: &Identity, now: Timestamp, error: &RenewError) {
    if now < current.not_after {
        tracing::warn!(agent = %current.agent, until = %current.not_after, %error, "identity not renewed; the present one stays in use");
    } else {
        tracing::error!(agent = %current.agent, until = %current.not_after, %error, "the agent's identity has expired: remove the file 'identity' from the data directory and enroll again with a new join token");
    }
}

/// Waits for the wall clock to reach `due`; false when `shutdown` came first.
async fn wait_until(due: Timestamp, clock: &dyn Clock, shutdown: &CancellationToken) -> bool {
    loop {
        let left = due.since(clock.now());
        if left.is_zero() {
            return !shutdown.is_cancelled();
        }
        tokio::select! {
            () = tokio::time::sleep(left.min(LOOK)) => {}
            () = shutdown.cancelled() => return false,
        }
    }
}

/// One renewal. The new identity is on disk before it is returned.
///
/// # Errors
/// [`RenewError`]; the present identity stays.
pub async fn renew(
    current: &Identity,
    url: &ControlPlaneUrl,
    file: &IdentityFile,
) -> Result<Identity, RenewError> {
    let private_key = file.next_key(current, || Ok::<_, RenewError>(keys::generate()?))?;
    let stream = dial(url, current.tls()?).await?;
    let mut client = EnrollmentServiceClient::new(channel(url, stream).await?);
    let call = client.renew_identity(RenewIdentityRequest {
        certificate_signing_request: keys::signing_request(&private_key)?.into(),
    });
    let answer = tokio::time::timeout(CALL_TIMEOUT, call)
        .await
        .map_err(|_| RenewError::Timeout)??;
    let identity = Identity::new(Parts {
        control_plane: current.control_plane.clone(),
        ca: current.ca.clone(),
        agent: current.agent.clone(),
        region: current.region.clone(),
        chain: der_chain(answer.into_inner().certificate_chain),
        private_key,
    })?;
    file.save_identity(&identity)?;
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn renewal_is_due_around_half_of_life() {
        let start = Timestamp::from_unix_seconds(1_000_000);
        let end = start.plus(DAY);
        assert_eq!(renew_at(start, end, 0.5), start.plus(DAY / 2));
        assert!(renew_at(start, end, 0.0) >= start.plus(DAY.mul_f64(0.44)));
        assert!(renew_at(start, end, 1.0) <= start.plus(DAY.mul_f64(0.56)));
    }

    proptest! {
        #[test]
        fn retries_stay_frequent_enough_and_never_busy(failures in 1_u32..100, left in 0_u64..86_400) {
            let now = Timestamp::from_unix_seconds(1_000_000);
            let not_after = now.plus(Duration::from_secs(left));
            let window = retry_window(failures, now, not_after);
            prop_assert!(window >= RETRY.0 && window <= RETRY.1);
            prop_assert!(window <= (Duration::from_secs(left) / 4).max(RETRY.0));
        }
    }
}

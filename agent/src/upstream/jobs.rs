//! Jobs as they come: checked once, with the lease's end by this host's clock.

use countersign_proto::v1;
use countersign_shared::{
    headers::Headers,
    job::{LeaseId, LeasedJob},
    time::Timestamp,
    wire::{self, WireError},
};

/// Takes a job off the wire at `now`. The lease's remaining time counts, so that a clock that is off
/// does no harm; its end by the control plane's clock is for control planes that don't send that.
///
/// # Errors
/// [`WireError`], naming the field.
pub(super) fn job_from_wire(job: v1::Job, now: Timestamp) -> Result<LeasedJob, WireError> {
    let lease = LeaseId {
        delivery: wire::delivery_id(&job.delivery_id)?,
        epoch: wire::epoch(job.epoch)?,
    };
    let lasts = job.lease_duration.map(wire::duration_from_wire);
    let expires_at = match (lasts, job.lease_expire_time) {
        (Some(Some(lasts)), _) => now.plus(lasts),
        (Some(None), _) => return Err(WireError::Value("lease_duration")),
        (None, Some(at)) => wire::timestamp_from_wire(at),
        (None, None) => return Err(WireError::Missing("lease_duration")),
    };
    Ok(LeasedJob {
        lease,
        destination: job.destination.parse()?,
        expires_at,
        payload: job.payload,
        headers: Headers::new(job.headers).map_err(|_| WireError::Value("headers"))?,
        content_type: job.content_type,
        attempt_number: u32::try_from(job.attempt_number)
            .map_err(|_| WireError::Value("attempt_number"))?,
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, time::Duration};

    use countersign_shared::random;

    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_700_000_000);

    fn wire_job() -> v1::Job {
        v1::Job {
            delivery_id: random::uuid_v7(NOW).as_bytes().to_vec().into(),
            destination: "accounts/a/destinations/d".into(),
            epoch: 1,
            lease_expire_time: Some(wire::timestamp_to_wire(NOW)),
            payload: "x".into(),
            content_type: "text/plain".into(),
            headers: HashMap::from([("x-tenant".into(), "7".into())]),
            attempt_number: 1,
            lease_duration: Some(wire::duration_to_wire(Duration::from_secs(90))),
        }
    }

    #[test]
    fn the_remaining_time_counts_before_the_control_plane_s_clock() {
        let job = job_from_wire(wire_job(), NOW).unwrap();
        assert_eq!(job.expires_at, NOW.plus(Duration::from_secs(90)));
        let older = v1::Job {
            lease_duration: None,
            ..wire_job()
        };
        assert_eq!(job_from_wire(older, NOW).unwrap().expires_at, NOW);
    }

    #[test]
    fn what_is_wrong_is_named() {
        type Case = (&'static str, fn(&mut v1::Job));
        let cases: [Case; 5] = [
            ("delivery_id", |job| job.delivery_id.clear()),
            ("epoch", |job| job.epoch = -1),
            ("accounts/", |job| job.destination = "nowhere".into()),
            ("headers", |job| {
                job.headers.insert("host".into(), "elsewhere".into());
            }),
            ("lease_duration", |job| {
                job.lease_duration = None;
                job.lease_expire_time = None;
            }),
        ];
        for (field, spoil) in cases {
            let mut job = wire_job();
            spoil(&mut job);
            let error = job_from_wire(job, NOW).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}

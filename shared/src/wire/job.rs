//! Jobs: to an agent, and on its disk.

use std::time::Duration;

use countersign_proto::v1;

use super::{
    WireError, delivery_id, duration_from_wire, duration_to_wire, epoch, timestamp_from_wire,
    timestamp_to_wire,
};
use crate::{
    headers::Headers,
    job::{LeaseId, LeasedJob, OfflineWork},
    time::Timestamp,
};

/// To an agent, at `now`, under a lease that lasts for so much longer.
pub fn job_to_wire(job: LeasedJob, lasts: Duration, now: Timestamp) -> v1::Job {
    let offline_work = job.offline.map(|offline| v1::OfflineWork {
        attempts_for: offline
            .attempt_deadline
            .map(|deadline| duration_to_wire(deadline.since(now))),
        attempt_deadline: None,
    });
    v1::Job {
        lease_duration: Some(duration_to_wire(lasts)),
        offline_work,
        ..job_to_disk(job)
    }
}

/// To the disk of the agent that has it, by whose clock its times are.
pub fn job_to_disk(job: LeasedJob) -> v1::Job {
    let headers = job.headers.iter();
    v1::Job {
        delivery_id: job.lease.delivery.as_bytes().to_vec().into(),
        destination: job.destination.to_string(),
        epoch: i64::try_from(job.lease.epoch).unwrap_or(i64::MAX),
        lease_expire_time: Some(timestamp_to_wire(job.expires_at)),
        payload: job.payload,
        headers: headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        content_type: job.content_type,
        attempt_number: i32::try_from(job.attempt_number).unwrap_or(i32::MAX),
        lease_duration: None,
        offline_work: job.offline.map(|offline| v1::OfflineWork {
            attempts_for: None,
            attempt_deadline: offline.attempt_deadline.map(timestamp_to_wire),
        }),
    }
}

/// Takes a job off the wire, or off the disk, at `now`. The lease's remaining time counts, so that a clock that is off
/// does no harm; its end by a clock is for the disk, and for control planes that don't send that.
///
/// # Errors
/// [`WireError`], naming the field.
pub fn job_from_wire(job: v1::Job, now: Timestamp) -> Result<LeasedJob, WireError> {
    let lease = LeaseId {
        delivery: delivery_id(&job.delivery_id)?,
        epoch: epoch(job.epoch)?,
    };
    let lasts = job.lease_duration.map(duration_from_wire);
    let expires_at = match (lasts, job.lease_expire_time) {
        (Some(Some(lasts)), _) => now.plus(lasts),
        (Some(None), _) => return Err(WireError::Value("lease_duration")),
        (None, Some(at)) => timestamp_from_wire(at),
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
        offline: job
            .offline_work
            .map(|offline| offline_from_wire(&offline, now))
            .transpose()?,
    })
}

fn offline_from_wire(offline: &v1::OfflineWork, now: Timestamp) -> Result<OfflineWork, WireError> {
    let attempt_deadline = match offline.attempts_for.map(duration_from_wire) {
        Some(Some(so_long)) => Some(now.plus(so_long)),
        Some(None) => return Err(WireError::Value("attempts_for")),
        None => offline.attempt_deadline.map(timestamp_from_wire),
    };
    Ok(OfflineWork { attempt_deadline })
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, time::Duration};

    use super::*;
    use crate::{random, wire};

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
            offline_work: Some(v1::OfflineWork {
                attempts_for: Some(wire::duration_to_wire(Duration::from_secs(60))),
                attempt_deadline: None,
            }),
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
    fn a_job_is_the_same_on_disk_and_on_its_way() {
        let job = job_from_wire(wire_job(), NOW).unwrap();
        let deadline = job.offline.unwrap().attempt_deadline;
        assert_eq!(deadline, Some(NOW.plus(Duration::from_secs(60))));
        let later = NOW.plus(Duration::from_secs(7));
        assert_eq!(
            job_from_wire(job_to_disk(job.clone()), later),
            Ok(job.clone())
        );
        let sent = job_to_wire(job.clone(), Duration::from_secs(90), NOW);
        assert_eq!(job_from_wire(sent, NOW), Ok(job));
    }

    #[test]
    fn what_is_wrong_is_named() {
        type Case = (&'static str, fn(&mut v1::Job));
        let cases: [Case; 6] = [
            ("delivery_id", |job| job.delivery_id.clear()),
            ("epoch", |job| job.epoch = -1),
            ("attempts_for", |job| {
                let negative = prost_types::Duration {
                    seconds: -1,
                    nanos: 0,
                };
                job.offline_work = Some(v1::OfflineWork {
                    attempts_for: Some(negative),
                    attempt_deadline: None,
                });
            }),
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

//! The load generator, a process of its own: it submits over several SubmitDeliveries streams and
//! writes down when each delivery was due and when it was accepted.
//!
//! Deliveries are due by the clock, whether or not the control plane keeps up: a delivery that has to
//! wait for a slow answer counts as late.

use std::{io, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use countersign_shared::{
    tasks::stop_signal,
    time::{Clock as _, SystemClock, Timestamp},
};
use thiserror::Error;

use super::{
    child,
    files::{Plan, Started, Submitted, tell, told},
    pace::Pace,
    payload, records,
    stream::{self, Load, StreamError, Taken},
};
use crate::{
    api_client::ApiClient,
    local::commands::{self, AccessError},
};

/// The warm-up leaves no backlog behind.
const WARM_UP_RATE: u32 = 500;
/// Between the announcement and the start, so that whoever measures is ready.
const ANNOUNCED: Duration = Duration::from_millis(250);

/// Flags of the generator.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What to do.
    #[arg(long)]
    plan: PathBuf,
}

#[derive(Debug, Error)]
enum GeneratorError {
    #[error("a file of the benchmark: {0}")]
    File(#[from] io::Error),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// Runs until it is told to stop.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    child::run("generator", generate(arguments))
}

async fn generate(arguments: &Arguments) -> Result<(), GeneratorError> {
    let plan: Plan =
        told(&arguments.plan)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let clients = connect(&plan).await?;
    let warm_up = Pace {
        rate: warm_up_rate(plan.rate),
        duration: plan.warm_up,
    };
    let mut taken = phase(&clients, &plan, warm_up, SystemClock.now()).await?;
    let start = SystemClock.now().plus(ANNOUNCED);
    let at = start.as_unix_micros();
    tell(&plan.started, &Started { at })?;
    tokio::time::sleep(ANNOUNCED).await;
    let measured = Pace {
        rate: plan.rate,
        duration: plan.duration,
    };
    taken.add(phase(&clients, &plan, measured, start).await?);
    records::save(&plan.records, &taken.accepted)?;
    let submitted = Submitted {
        refused: taken.refused,
        first_refusal: taken.first_refusal,
    };
    tell(&plan.submitted, &submitted)?;
    // Whoever measures still wants to know what this process has cost.
    stop_signal().await?;
    Ok(())
}

fn warm_up_rate(rate: u32) -> u32 {
    match rate {
        0 => WARM_UP_RATE,
        rate => rate.min(WARM_UP_RATE),
    }
}

/// A connection for each stream, to the control planes in turn: one would be a bottleneck of its own.
async fn connect(plan: &Plan) -> Result<[ApiClient; 4], AccessError> {
    let connect = |number: usize| {
        let api = plan.apis[number % plan.apis.len()];
        commands::connect(api, &plan.ca_file, &plan.key_file)
    };
    Ok([
        connect(0).await?,
        connect(1).await?,
        connect(2).await?,
        connect(3).await?,
    ])
}

/// Submits at `pace` from `start` on; returns when everything is answered.
async fn phase(
    clients: &[ApiClient; 4],
    plan: &Plan,
    pace: Pace,
    start: Timestamp,
) -> Result<Taken, StreamError> {
    let payload = payload::of_size(plan.payload);
    let streams = clients.len() as u64;
    let load = |first| Load {
        destinations: &plan.destinations,
        payload: payload.clone(),
        request_ids: plan.request_ids,
        pace,
        start,
        first,
        step: streams,
    };
    let [a, b, c, d] = clients;
    let (mut taken, b, c, d) = tokio::try_join!(
        stream::submit(a, load(0)),
        stream::submit(b, load(1)),
        stream::submit(c, load(2)),
        stream::submit(d, load(3)),
    )?;
    taken.add(b);
    taken.add(c);
    taken.add(d);
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warm_up_leaves_no_backlog() {
        assert_eq!(warm_up_rate(0), WARM_UP_RATE);
        assert_eq!(warm_up_rate(20), 20);
        assert_eq!(warm_up_rate(20_000), WARM_UP_RATE);
    }
}

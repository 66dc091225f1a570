//! The run: destinations are made as fast as their certificates are durable; then some of them get a
//! delivery, so that an agent needs their certificates.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use countersign_proto::v1::{CreateDestinationRequest, Destination, SubmitDeliveryRequest};
use countersign_shared::tasks::{OnFailure, Tasks};
use tokio::sync::mpsc;
use tonic::Status;

use super::{bare, options::Options, report::Report};
use crate::{
    api_client::ApiClient,
    bench::{
        failure::Failure,
        machine::Machine,
        parts::Parts,
        process::Usage,
        receiver::DELIVERIES,
        settled::Metrics,
        setup::{self, Prepared},
    },
    local::{children::Child, commands, provision::ApiError},
};

/// Connections that the calls are spread over.
const CONNECTIONS: usize = 4;
/// Deliveries submitted at once.
const SUBMITTED_AT_ONCE: u32 = 64;
/// How long the deliveries may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Measures.
///
/// # Errors
/// The first [`Failure`]; what was started until then is in `parts`.
pub(crate) async fn run(parts: &mut Parts, options: &Options) -> Result<Report, Failure> {
    let bare = bare::per_certificate()?;
    let prepared = setup::prepare(parts, 1, None).await?;
    let clients = connect(parts, prepared.addresses.api).await?;
    setup::agent(parts, &prepared.administrator, prepared.addresses.agents, 1).await?;
    let before = usage(parts.control_plane.as_ref())?;
    let started = Instant::now();
    issue(parts, options, &prepared, &clients).await?;
    let elapsed = started.elapsed();
    let costs = usage(parts.control_plane.as_ref())?.since(before);

    let idle = usage(parts.agents.first())?.peak_rss;
    let served = options.served.min(options.count);
    let started = Instant::now();
    serve(parts, served, &prepared, &clients).await?;
    let serving = started.elapsed();
    let agent = usage(parts.agents.first())?.peak_rss;

    let each = |total: f64| total / f64::from(options.count);
    let cpu = each(costs.cpu.as_secs_f64() * 1e6);
    let bare = bare.as_secs_f64() * 1e6;
    let (version, profile) = Report::BUILD;
    Ok(Report {
        version,
        profile,
        options: options.clone(),
        machine: Machine::this(),
        issued: options.count,
        issued_per_second: f64::from(options.count) / elapsed.as_secs_f64(),
        cpu_us_per_certificate: cpu,
        bare_cpu_us: bare,
        cpu_ratio: cpu / bare,
        bytes_written_per_certificate: each(costs.bytes_written as f64),
        control_plane_peak_rss_bytes: usage(parts.control_plane.as_ref())?.peak_rss,
        served,
        served_per_second: f64::from(served) / serving.as_secs_f64(),
        agent_idle_rss_bytes: idle,
        agent_peak_rss_bytes: agent,
    })
}

fn usage(child: Option<&Child>) -> Result<Usage, Failure> {
    let pid = child.and_then(Child::pid).unwrap_or_default();
    Usage::of(pid).map_err(Failure::io("can't read what the processes have cost"))
}

async fn connect(parts: &Parts, api: SocketAddr) -> Result<Vec<ApiClient>, Failure> {
    let (ca, key) = (parts.directory.ca_file(), parts.directory.key_file());
    let mut clients = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        clients.push(commands::connect(api, &ca, &key).await?);
    }
    Ok(clients)
}

/// Makes every destination; each call is answered when its certificate is durable.
async fn issue(
    parts: &mut Parts,
    options: &Options,
    prepared: &Prepared,
    clients: &[ApiClient],
) -> Result<(), Failure> {
    let account = prepared.accounts[0].clone();
    let (receiver, ca) = (prepared.receiver, prepared.receiver_ca_pem.clone());
    let one = move |client: ApiClient, number: u32| {
        let request = CreateDestinationRequest {
            parent: account.clone(),
            destination_id: format!("d{number}"),
            destination: Some(Destination {
                url: format!("https://{receiver}{DELIVERIES}{number}"),
                server_ca_pem: ca.clone(),
                ..Destination::default()
            }),
            ..CreateDestinationRequest::default()
        };
        async move {
            let made = client.destinations().create_destination(request).await;
            made.map(drop)
        }
    };
    let call = "CreateDestination";
    calls(
        parts,
        (call, options.count, options.in_flight),
        clients,
        one,
    )
    .await
}

/// Delivers once to each of the first `served` destinations.
async fn serve(
    parts: &mut Parts,
    served: u32,
    prepared: &Prepared,
    clients: &[ApiClient],
) -> Result<(), Failure> {
    let account = prepared.accounts[0].clone();
    let one = move |client: ApiClient, number: u32| {
        let request = SubmitDeliveryRequest {
            destination: format!("{account}/destinations/d{number}"),
            payload: b"{}".to_vec().into(),
            content_type: "application/json".to_owned(),
            ..SubmitDeliveryRequest::default()
        };
        async move {
            let accepted = client.deliveries().submit_delivery(request).await;
            accepted.map(drop)
        }
    };
    calls(
        parts,
        ("SubmitDelivery", served, SUBMITTED_AT_ONCE),
        clients,
        one,
    )
    .await?;
    let metrics = Metrics::new([prepared.addresses.http])?;
    parts
        .wait_for("the deliveries to arrive", PATIENCE, async |_| {
            let counters = metrics.counters().await?;
            Ok((counters.delivered >= u64::from(served)).then_some(()))
        })
        .await
}

/// Makes `count` calls, `in_flight` at once; the first that fails ends it.
async fn calls<F: Future<Output = Result<(), Status>> + Send + 'static>(
    parts: &mut Parts,
    (name, count, in_flight): (&'static str, u32, u32),
    clients: &[ApiClient],
    one: impl Fn(ApiClient, u32) -> F + Clone + Send + Sync + 'static,
) -> Result<(), Failure> {
    let (tasks, _failures) = Tasks::new();
    let next = Arc::new(AtomicU32::new(0));
    let (ended, mut ends) = mpsc::channel(in_flight as usize);
    for worker in 0..in_flight {
        let client = clients[worker as usize % clients.len()].clone();
        let (next, ended, one) = (Arc::clone(&next), ended.clone(), one.clone());
        tasks.spawn(name, OnFailure::Log, async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok::<_, Status>(());
                }
                let result = one(client.clone(), number).await;
                // Nobody listens any more: another call has failed.
                if ended.send(result).await.is_err() {
                    return Ok(());
                }
            }
        });
    }
    drop(ended);
    let mut done = 0;
    while let Some(result) = ends.recv().await {
        result.map_err(|status| ApiError::Refused {
            call: name,
            code: status.code(),
            message: status.message().to_owned(),
        })?;
        done += 1;
        parts
            .console
            .progress(|| format!("{name}: {done} of {count}"));
    }
    Ok(())
}

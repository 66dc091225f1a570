//! The demonstration, step by step: each file is one step, and takes what the ones before it made.

pub(crate) mod account;
pub(crate) mod agent;
pub(crate) mod control_plane;
mod delivery;
pub(crate) mod destination;
mod stay;

use tokio::sync::mpsc;

pub(crate) use stay::stay;

use super::{failure::Failure, grpcurl_hints, receiver::record::Event, story, system::System};
use crate::demo_pki;
use destination::Receiving;

/// The demonstration's account.
const ACCOUNT: &str = "demo";

/// What is up once the first delivery is confirmed.
pub(crate) struct Running {
    /// What happens at the receiver.
    pub(crate) events: mpsc::Receiver<Event>,
    /// Commands to try, as text.
    pub(crate) hints: String,
}

/// Starts everything and makes one delivery.
///
/// # Errors
/// The first [`Failure`]; what was started until then is in `system`.
pub(crate) async fn demonstrate(system: &mut System) -> Result<Running, Failure> {
    let plane = control_plane::start(system).await?;
    let account = account::prepare(system, &plane, ACCOUNT).await?;
    let identity = demo_pki::server_for_loopback(system.clock.now())?;
    let receiving = Receiving::of(identity, &account.anchors);
    let mut destination = destination::prepare(system, &plane, &account, receiving).await?;
    agent::start(system, &plane).await?;
    let events = &mut destination.events;
    let delivery = delivery::make(system, &plane, &destination.name, events).await?;
    system.report.delivered = true;
    let hints = grpcurl_hints::hints(&grpcurl_hints::Target {
        api: plane.addresses.api,
        ca_file: &system.directory.ca_file(),
        key_file: &system.directory.key_file(),
        account: &account.name,
        destination: &destination.name,
        delivery: &delivery,
    });
    Ok(Running {
        events: destination.events,
        hints: story::ready(&hints),
    })
}

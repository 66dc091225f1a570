//! Step 1: the control plane, and a connection to its API.

use std::net::SocketAddr;

use crate::{
    dev::{failure::Failure, story, system::System},
    local::{
        children::Child,
        commands,
        directory::{Addresses, Remembered, all_free},
        provision::Administrator,
    },
};

/// A control plane that answers.
pub(crate) struct ControlPlane {
    /// Where it listens.
    pub(crate) addresses: Addresses,
    /// Its API.
    pub(crate) administrator: Administrator,
    /// What an earlier run left that still fits: the control plane listens where it did then.
    pub(crate) remembered: Option<Remembered>,
}

/// Starts it and waits until it listens.
///
/// # Errors
/// [`Failure`].
pub(crate) async fn start(system: &mut System) -> Result<ControlPlane, Failure> {
    system.tell(&story::starting(
        system.directory.root(),
        system.directory.is_temporary(),
    ));
    // An enrolled agent looks for the control plane where it was; and so do people's notes.
    let remembered = system.directory.remembered();
    let remembered = remembered.filter(|earlier| all_free(&earlier.addresses));
    let wanted = remembered.as_ref().map(|earlier| earlier.addresses);
    let log = system.directory.log("control-plane");
    let arguments = commands::control_plane(&system.directory, wanted, system.settings.as_deref());
    let child = Child::start("control plane", arguments, &log)?;
    let pid = child.pid();
    system.control_plane = Some(child);
    system.wait_for("the control plane to listen");
    let addresses = loop {
        match pid.and_then(|pid| system.directory.listeners(pid)) {
            Some(addresses) => break addresses,
            None => system.pause().await?,
        }
    };
    note(system, addresses);
    let administrator = connect(system, addresses.api).await?;
    system.tell(&story::control_plane_up(&addresses));
    Ok(ControlPlane {
        addresses,
        administrator,
        remembered: remembered.filter(|earlier| earlier.addresses == addresses),
    })
}

fn note(system: &mut System, addresses: Addresses) {
    let (ca_file, key_file) = (system.directory.ca_file(), system.directory.key_file());
    let report = &mut system.report;
    report.api = Some(addresses.api);
    report.agents = Some(addresses.agents);
    report.http = Some(addresses.http);
    report.ca_file = Some(ca_file);
    report.key_file = Some(key_file);
}

async fn connect(system: &mut System, api: SocketAddr) -> Result<Administrator, Failure> {
    system.wait_for("a connection to the API");
    let (ca_file, key_file) = (system.directory.ca_file(), system.directory.key_file());
    let client = commands::connect(api, &ca_file, &key_file).await?;
    Ok(Administrator::new(client))
}

//! Starts everything: control plane, accounts, receiver, destinations, agents.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use countersign_proto::v1;
use countersign_shared::{
    files,
    name::Id,
    time::{Clock as _, SystemClock},
};
use tokio::net::TcpSocket;

use super::{
    database::Database,
    failure::Failure,
    files::{Listening, PlannedDestination, told},
    options::{Options, Store},
    pace::{self, Kind},
    parts::Parts,
    receiver::{DELIVERIES, SLOW},
};
use crate::{
    demo_pki::{self, ClientIdentity},
    local::{children, commands, directory::Addresses, provision::Administrator, trust_anchor},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Everything that is up.
#[derive(Debug)]
pub(crate) struct Setup {
    /// Where the control plane listens.
    pub(crate) addresses: Addresses,
    /// Where the others do.
    pub(crate) others: Vec<Addresses>,
    /// Its API.
    pub(crate) administrator: Administrator,
    /// Resource names of the accounts.
    pub(crate) accounts: Vec<String>,
    /// The destinations.
    pub(crate) destinations: Vec<PlannedDestination>,
    /// Where the receiver says that it listens.
    pub(crate) listening: PathBuf,
    /// Where the receiver writes its records.
    pub(crate) received: PathBuf,
    /// A client certificate that the receiver takes, for the bare client.
    pub(crate) client: ClientIdentity,
    /// Bound and not listening: connections to it are refused, and nobody else gets its port.
    _dead: TcpSocket,
}

/// What is there before any destination.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Where the control plane listens.
    pub(crate) addresses: Addresses,
    /// Its API.
    pub(crate) administrator: Administrator,
    /// Resource names of the accounts.
    pub(crate) accounts: Vec<String>,
    /// Where the receiver listens.
    pub(crate) receiver: SocketAddr,
    /// The authority of its certificate, in PEM.
    pub(crate) receiver_ca_pem: String,
    /// Where it says so.
    pub(crate) listening: PathBuf,
    /// Where it writes its records.
    pub(crate) received: PathBuf,
    /// A client certificate that it takes, for the bare client.
    pub(crate) client: ClientIdentity,
}

impl Setup {
    /// Where all control planes listen.
    pub(crate) fn all(&self) -> impl Iterator<Item = Addresses> {
        [self.addresses]
            .into_iter()
            .chain(self.others.iter().copied())
    }
}

/// Starts control plane and receiver, and makes accounts. `settings` is the control plane's configuration
/// file.
///
/// # Errors
/// The first [`Failure`]; what was started until then is in `parts`.
pub(crate) async fn prepare(
    parts: &mut Parts,
    count: u32,
    settings: Option<&Path>,
) -> Result<Prepared, Failure> {
    let (addresses, administrator) = control_plane(parts, settings).await?;
    parts.console.busy("accounts");
    let client = demo_pki::client(SystemClock.now())?;
    let mut anchors = client.ca_pem.clone();
    let accounts = accounts(&administrator, addresses.http, count, &mut anchors).await?;
    let listening = parts.directory.root().join("receiver.json");
    let received = parts.directory.root().join("received");
    let receiver = receiver(parts, &anchors, &listening, &received).await?;
    Ok(Prepared {
        addresses,
        administrator,
        accounts,
        receiver: receiver.address,
        receiver_ca_pem: receiver.ca_pem,
        listening,
        received,
        client,
    })
}

/// Starts it.
///
/// # Errors
/// The first [`Failure`]; what was started until then is in `parts`.
pub(crate) async fn start(parts: &mut Parts, options: &Options) -> Result<Setup, Failure> {
    let kinds = pace::kinds(options.destinations, options.slow_share, options.dead_share);
    if !kinds.contains(&Kind::Live) {
        return Err(Failure::NothingLive);
    }
    let (dead, refusing) = refusing_address()?;
    if options.store == Store::Embedded && options.control_planes > 1 {
        return Err(Failure::NotShared);
    }
    let settings = store(parts, options.store).await?;
    let Prepared {
        addresses,
        administrator,
        accounts,
        receiver,
        receiver_ca_pem,
        listening,
        received,
        client,
    } = prepare(parts, options.accounts, settings.as_deref()).await?;
    let mut others = Vec::new();
    for number in 1..options.control_planes {
        others.push(other_control_plane(parts, number, settings.as_deref()).await?);
    }
    let mut destinations = Vec::with_capacity(kinds.len());
    for (number, kind) in kinds.into_iter().enumerate() {
        let console = &mut parts.console;
        console.progress(|| format!("destinations: {number} of {}", options.destinations));
        let url = url(number, kind, receiver, refusing);
        let account = &accounts[number % accounts.len()];
        let wanted = v1::Destination {
            url,
            server_ca_pem: receiver_ca_pem.clone(),
            concurrency_limit: i32::try_from(options.concurrency_limit).unwrap_or(i32::MAX),
            ..v1::Destination::default()
        };
        let (made, _) = administrator
            .destination(account, &format!("d{number}"), wanted)
            .await?;
        let name = made.name;
        destinations.push(PlannedDestination { name, kind });
    }
    for number in 1..=options.agents {
        let turn = (number - 1) % options.control_planes;
        let other = turn
            .checked_sub(1)
            .and_then(|other| others.get(other as usize));
        let served_by = other.unwrap_or(&addresses).agents;
        agent(parts, &administrator, served_by, number).await?;
    }
    Ok(Setup {
        addresses,
        others,
        administrator,
        accounts,
        destinations,
        listening,
        received,
        client,
        _dead: dead,
    })
}

/// Starts the store's server, if it is to have one; gives the control planes' configuration file.
///
/// # Errors
/// [`Failure`].
pub(crate) async fn store(parts: &mut Parts, store: Store) -> Result<Option<PathBuf>, Failure> {
    match store {
        Store::Embedded => Ok(None),
        Store::Postgres => {
            let database = Database::start().await?;
            let file = parts.directory.root().join("control-plane.toml");
            files::replace_private(&file, database.setting().as_bytes())
                .map_err(Failure::io("can't write to the data directory"))?;
            parts.database = Some(database);
            Ok(Some(file))
        }
    }
}

/// Starts another control plane, with the KEK of the first.
async fn other_control_plane(
    parts: &mut Parts,
    number: u32,
    settings: Option<&Path>,
) -> Result<Addresses, Failure> {
    let root = parts.directory.other_control_plane(number);
    let first = parts.directory.control_plane();
    let give = || {
        files::private_directory(&root)?;
        std::fs::copy(first.join("kek"), root.join("kek"))
    };
    give().map_err(Failure::io("can't give the KEK to another control plane"))?;
    let arguments = commands::control_plane_in(&root, &parts.directory, None, settings);
    let log = format!("control-plane-{}", number + 1);
    let child = parts.start("control plane", &log, arguments)?;
    let pid = child.pid().unwrap_or_default();
    parts.others.push(child);
    parts
        .wait_for("the control planes to listen", PATIENCE, async |_| {
            Ok(crate::local::directory::listeners(&root, pid))
        })
        .await
}

/// Kills the control plane, and starts it again where it was; it listens then. Answers with when it was
/// started.
///
/// # Errors
/// [`Failure`].
pub(crate) async fn restart(
    parts: &mut Parts,
    addresses: Addresses,
    settings: Option<&Path>,
) -> Result<Instant, Failure> {
    if let Some(child) = parts.control_plane.take() {
        child.kill().await;
    }
    let started = Instant::now();
    run(parts, Some(addresses), settings).await?;
    Ok(started)
}

/// Starts the control plane, and waits until it listens.
async fn run(
    parts: &mut Parts,
    wanted: Option<Addresses>,
    settings: Option<&Path>,
) -> Result<Addresses, Failure> {
    let arguments = commands::control_plane(&parts.directory, wanted, settings);
    let child = parts.start("control plane", "control-plane", arguments)?;
    let pid = child.pid().unwrap_or_default();
    parts.control_plane = Some(child);
    let root = parts.directory.control_plane();
    let listens = parts.wait_for("the control plane to listen", PATIENCE, async |_| {
        Ok(crate::local::directory::listeners(&root, pid))
    });
    listens.await
}

async fn control_plane(
    parts: &mut Parts,
    settings: Option<&Path>,
) -> Result<(Addresses, Administrator), Failure> {
    let addresses = run(parts, None, settings).await?;
    let (ca_file, key_file) = (parts.directory.ca_file(), parts.directory.key_file());
    let client = commands::connect(addresses.api, &ca_file, &key_file).await?;
    Ok((addresses, Administrator::new(client)))
}

/// Makes the accounts; their trust anchors are appended to `anchors`.
async fn accounts(
    administrator: &Administrator,
    http: SocketAddr,
    count: u32,
    anchors: &mut String,
) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for number in 0..count {
        let (account, _) = administrator
            .account(&format!("bench-{number}"), "Benchmark")
            .await?;
        let url = trust_anchor::url(http, &account.name);
        anchors.push_str(&trust_anchor::fetch_pem(&url).await?);
        names.push(account.name);
    }
    Ok(names)
}

fn refusing_address() -> Result<(TcpSocket, SocketAddr), Failure> {
    let bind = || {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = socket.local_addr()?;
        Ok((socket, address))
    };
    bind().map_err(Failure::io("can't take a port"))
}

async fn receiver(
    parts: &mut Parts,
    anchors: &str,
    listening: &Path,
    received: &Path,
) -> Result<Listening, Failure> {
    let file = parts.directory.root().join("anchors.pem");
    files::replace_private(&file, anchors.as_bytes())
        .map_err(Failure::io("can't write to the data directory"))?;
    let arguments = vec![
        "bench-receiver".into(),
        "--anchors".into(),
        file.into(),
        "--listening".into(),
        listening.into(),
        "--records".into(),
        received.into(),
    ];
    parts.receiver = Some(parts.start("receiver", "receiver", arguments)?);
    parts
        .wait_for("the receiver to listen", PATIENCE, async |_| {
            told(listening).map_err(Failure::io("the receiver's address"))
        })
        .await
}

fn url(number: usize, kind: Kind, receiver: SocketAddr, refusing: SocketAddr) -> String {
    let (address, path) = match kind {
        Kind::Live => (receiver, DELIVERIES),
        Kind::Slow => (receiver, SLOW),
        Kind::Dead => (refusing, DELIVERIES),
    };
    let mut url = format!("https://{address}{path}");
    // Writing to a String can't fail.
    let _ = write!(url, "{number}");
    url
}

/// Enrolls an agent and starts it; it is connected then.
///
/// # Errors
/// [`Failure`].
pub(crate) async fn agent(
    parts: &mut Parts,
    administrator: &Administrator,
    agents: SocketAddr,
    number: u32,
) -> Result<(), Failure> {
    let text = format!("agent-{number}");
    let id = Id::chosen(&text).map_err(|_| Failure::Unreadable("an agent's id"))?;
    let token = administrator.join_token(&id).await?;
    let arguments = commands::enroll(&parts.directory, &id, agents);
    let log = parts.directory.log(&text);
    children::run_to_end("agent's enrollment", arguments, &token, &log).await?;
    let arguments = commands::agent(&parts.directory, &id);
    let child = parts.start("agent", &text, arguments)?;
    parts.agents.push(child);
    let name = format!("agents/{id}");
    parts
        .wait_for("the agents to connect", PATIENCE, async |_| {
            let agent = administrator.agent(&name).await?;
            Ok(agent.filter(|agent| agent.connected).map(|_| ()))
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_place() {
        let (receiver, refusing) = (
            SocketAddr::from(([127, 0, 0, 1], 1)),
            SocketAddr::from(([127, 0, 0, 1], 2)),
        );
        let url = |kind| url(7, kind, receiver, refusing);
        assert_eq!(url(Kind::Live), "https://127.0.0.1:1/deliveries/7");
        assert_eq!(url(Kind::Slow), "https://127.0.0.1:1/slow/7");
        assert_eq!(url(Kind::Dead), "https://127.0.0.1:2/deliveries/7");
    }

    #[tokio::test]
    async fn a_dead_destination_refuses() {
        let (_socket, address) = refusing_address().unwrap();
        let error = tokio::net::TcpStream::connect(address).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}

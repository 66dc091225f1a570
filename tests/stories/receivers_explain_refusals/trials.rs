//! Servers are started as each case wants them, and deliveries go to them.

use std::sync::Arc;

use countersign_control_plane::ca::pem;
use countersign_shared::{
    bundle::{MinimumTls, MtlsEnforcement},
    outcome::Outcome,
    time::{Clock, ManualClock, SystemClock, Timestamp},
};
use countersign_tests::{
    authority::NOW,
    delivery_bench::{Delivery, DeliveryBench},
    folder::Folder,
    receivers::{Kind, Receiver, Setup},
};

use super::world::{Case, World};

/// A payload that is sent in one go.
const SMALL: usize = 100;
/// A payload that is still being sent when the receiver refuses.
const LARGE: usize = 1 << 20;

/// What one trial led to.
pub(super) struct Cell {
    pub(super) kind: Kind,
    pub(super) tls12: bool,
    pub(super) case: Case,
    pub(super) size: usize,
    pub(super) outcome: Outcome,
}

/// One server in one TLS version, with all that is tried against it.
struct Trials<'a> {
    world: &'a World,
    folder: &'a Folder,
    pub(super) kind: Kind,
    application: u16,
    text: String,
    benches: Benches,
    cells: Vec<Cell>,
}

/// The agents' clocks.
struct Benches {
    right: DeliveryBench,
    behind: DeliveryBench,
    ahead: DeliveryBench,
}

impl Benches {
    pub(super) fn new(world: &World) -> Self {
        let bench = |clock: Arc<dyn Clock>| DeliveryBench::new(world.destination.clone(), clock);
        // 2022-06-01 and 2101-01-01.
        let at = |seconds| Arc::new(ManualClock::at(Timestamp::from_unix_seconds(seconds)));
        Self {
            right: bench(Arc::new(SystemClock)),
            behind: bench(at(1_654_041_600)),
            ahead: bench(at(4_133_980_800)),
        }
    }

    fn of(&mut self, case: Case) -> &mut DeliveryBench {
        match case {
            Case::ExpiredThere => &mut self.behind,
            Case::NotYetThere => &mut self.ahead,
            _ => &mut self.right,
        }
    }

    fn stop(self) {
        self.right.stop();
        self.behind.stop();
        self.ahead.stop();
    }
}

/// How a server is set up for some of the trials.
#[derive(Default)]
struct Change<'a> {
    tls12_only: bool,
    open: bool,
    expired: bool,
    revocation_list: Option<&'a str>,
}

impl Trials<'_> {
    /// Starts the server with `change` and tries `cases`.
    fn try_all(&mut self, name: &str, change: &Change<'_>, cases: &[Case]) {
        let world = self.world;
        let years = if change.expired { (2022, 2022) } else { NOW };
        let setup = Setup {
            text: &self.text,
            trust_anchor: &pem(&world.account.der()),
            server: &world.receiver.server(years),
            application: self.application,
            tls12_only: change.tls12_only,
            asks: !change.open,
            revocation_list: change.revocation_list,
        };
        let folder = self.folder.subfolder(&format!("{:?}-{name}", self.kind));
        let receiver = Receiver::start(self.kind, &folder, &setup);
        for &case in cases {
            for size in [SMALL, LARGE] {
                let bench = self.benches.of(case);
                self.cells.push(Cell {
                    kind: self.kind,
                    tls12: change.tls12_only,
                    case,
                    size,
                    outcome: deliver(world, bench, &receiver, case, size),
                });
            }
        }
    }
}

fn deliver(
    world: &World,
    bench: &mut DeliveryBench,
    receiver: &Receiver,
    case: Case,
    size: usize,
) -> Outcome {
    // A new certificate for each, so that no session and no connection is shared.
    let client = world.client(case);
    let server_authority = match case {
        Case::ServerUnknown => world.other_receiver.der(),
        _ => world.receiver.der(),
    };
    bench.deliver(&Delivery {
        url: receiver.url(match case {
            Case::ServerOtherName => "127.0.0.1",
            _ => "localhost",
        }),
        client: &client,
        server_authority,
        minimum_tls: match case {
            Case::TlsTooOld => MinimumTls::Tls13,
            _ => MinimumTls::Tls12,
        },
        enforcement: match case {
            Case::NotAskedRefused => MtlsEnforcement::Refuse,
            _ => MtlsEnforcement::Deliver,
        },
        size,
    })
}

const CERTIFICATES: [Case; 8] = [
    Case::Good,
    Case::LaterGeneration,
    Case::ExpiredThere,
    Case::ExpiredHere,
    Case::NotYetThere,
    Case::NotYetHere,
    Case::OtherAccount,
    Case::OtherName,
];

/// All trials against one kind of server.
pub(super) fn try_kind(world: &World, folder: &Folder, kind: Kind, application: u16) -> Vec<Cell> {
    let mut trials = Trials {
        world,
        folder,
        kind,
        application,
        text: world.text(kind),
        benches: Benches::new(world),
        cells: Vec::new(),
    };
    let list = world.account.revocation_list(&[&world.revoked], 2190);
    let lists = list.clone() + &world.newer.revocation_list(&[], 2190);
    let stale = world.account.revocation_list(&[&world.revoked], 2024);
    for (version, tls12_only) in [("tls13", false), ("tls12", true)] {
        let with = |list| Change {
            tls12_only,
            revocation_list: list,
            ..Change::default()
        };
        trials.try_all(version, &with(None), &CERTIFICATES);
        if kind == Kind::Caddy {
            // It reads no revocation lists.
            trials.try_all(&format!("revoked-{version}"), &with(None), &[Case::Revoked]);
        } else {
            let cases = [
                Case::GoodWithList,
                Case::Revoked,
                Case::LaterGenerationOneList,
            ];
            trials.try_all(&format!("list-{version}"), &with(Some(&list)), &cases);
            // openssl takes no more than one list from a file.
            if kind != Kind::OpenSsl {
                let cases = [Case::LaterGenerationWithLists];
                trials.try_all(&format!("lists-{version}"), &with(Some(&lists)), &cases);
            }
            let cases = [Case::StaleList];
            trials.try_all(&format!("stale-{version}"), &with(Some(&stale)), &cases);
        }
    }
    let change = Change::default();
    let cases = [Case::ServerUnknown, Case::ServerOtherName];
    trials.try_all("server", &change, &cases);
    let change = Change {
        tls12_only: true,
        ..Change::default()
    };
    trials.try_all("older", &change, &[Case::TlsTooOld]);
    let change = Change {
        open: true,
        ..Change::default()
    };
    trials.try_all("open", &change, &[Case::NotAsked, Case::NotAskedRefused]);
    let change = Change {
        expired: true,
        ..Change::default()
    };
    trials.try_all("expired", &change, &[Case::ServerExpired]);
    trials.benches.stop();
    trials.cells
}

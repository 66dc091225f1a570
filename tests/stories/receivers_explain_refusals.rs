//! Every refusal has the right class, whoever refuses: servers with three TLS libraries, each started
//! from the configuration that the product gives for it, against certificates good and bad, in both
//! TLS versions, with a small payload and one that is still being written when the refusal comes.
//!
//! The end of the test prints what came out, as a table (`cargo test … -- --nocapture`).

mod expected;
mod table;
mod trials;
mod world;

use std::thread;

use countersign_shared::class::FailureClass as Class;
use countersign_tests::{folder::Folder, receiver_script::ReceiverScript, receivers::Kind};

use self::{
    table::table,
    trials::{Cell, try_kind},
    world::World,
};

const KINDS: [Kind; 6] = [
    Kind::Nginx,
    Kind::HaProxy,
    Kind::Apache,
    Kind::Caddy,
    Kind::Envoy,
    Kind::OpenSsl,
];

#[test]
fn every_refusal_has_its_class_whoever_refuses() {
    let world = World::new();
    let folder = Folder::new("receivers");
    let application = ReceiverScript::start(folder.subfolder("application"));
    let cells: Vec<Cell> = thread::scope(|scope| {
        let try_kind = |kind| {
            let (world, folder, port) = (&world, &folder, application.port());
            scope.spawn(move || try_kind(world, folder, kind, port))
        };
        let running = KINDS.map(try_kind);
        let ended = running.map(|it| it.join().unwrap());
        ended.into_iter().flatten().collect()
    });
    println!("{}", table(&cells));
    let wrong: Vec<String> = cells.iter().filter_map(Cell::wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    // What was refused did not get to the application.
    let delivered = cells
        .iter()
        .filter(|it| it.outcome.class == Class::Delivered);
    assert_eq!(application.requests().len(), delivered.count());
}

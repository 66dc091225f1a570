//! Two control planes over a PostgreSQL cluster that Patroni runs, in synchronous mode. The primary is
//! killed under load, a standby takes over, and the control planes follow it by themselves: nothing that
//! was accepted is lost, nothing is settled twice.

use countersign_tests::{
    cluster::{Cluster, DEADLINE},
    folder::Folder,
    patroni::Patroni,
    steady::Steady,
    wait::wait_for,
};

#[test]
fn a_standby_takes_over_and_nothing_is_lost() {
    let mut database = Patroni::start();
    let folder = Folder::new("fails-over");
    let toml = format!("delivery.lease_seconds = 5\n{}", database.settings());
    let two = Cluster::new(folder, &[toml.clone(), toml]);
    let _agents = ["edge-1", "edge-2"].map(|name| two.agent(name));
    let steady = Steady::start(&two.first.control_plane, &two.destination, 100);
    two.has_arrived(200);
    let killed = database.kill9_primary();
    let before = steady.accepted();
    wait_for("submissions to be accepted again", DEADLINE, || {
        steady.accepted() > before + 200
    });
    assert_ne!(database.primary(), killed);
    steady.stop();
    two.has_arrived(steady.accepted());
    two.assert_all_settled(|statement| database.ask(statement));
    let accepted = steady.accepted().to_string();
    let stored = database.ask("SELECT count(*) FROM countersign.deliveries");
    assert!(
        stored.parse::<usize>().unwrap() >= steady.accepted(),
        "{stored} of {accepted}"
    );
}

//! Two control planes and two agents of the version before the newest change of the tables on a server are replaced by
//! this one, one after the other, under load. For a while both versions serve one database. Nothing is lost, and no
//! attempt fails. `tests/upgrade` builds the older version and runs this.

use std::fs;

use countersign_tests::{
    cluster::{Cluster, DEADLINE},
    folder::Folder,
    postgres::Postgres,
    steady::Steady,
    tools::{self, PROGRAM},
    wait::wait_for,
};

const SETTINGS: &str = "delivery.lease_seconds = 30\nagents.heartbeat_seconds = 1\n";

/// Waits until so many more are accepted and have arrived.
fn goes_on(steady: &Steady, cluster: &Cluster) {
    let before = steady.accepted();
    wait_for("submissions to be accepted", DEADLINE, || {
        steady.accepted() >= before + 200
    });
    cluster.has_arrived(before + 100);
}

#[test]
#[ignore = "needs a program of the older version: tests/upgrade builds it"]
fn a_rolling_upgrade_costs_no_delivery() {
    let database = Postgres::start();
    let folder = Folder::new("upgrade");
    let older = tools::older_countersign().display().to_string();
    fs::write(folder.join(PROGRAM), &older).unwrap();
    for agent in ["edge-1", "edge-2"] {
        let work = folder.subfolder(&format!("work-of-{agent}"));
        fs::write(work.join(PROGRAM), &older).unwrap();
    }
    let toml = format!("{SETTINGS}{}", database.settings(&folder));
    let mut two = Cluster::new(folder, &[toml.clone(), toml]);
    let mut agents = ["edge-1", "edge-2"].map(|name| two.agent(name));
    let steady = Steady::start(&two.first.control_plane, &two.destination, 100);
    goes_on(&steady, &two);
    let version = || database.ask("SELECT version FROM countersign.schema_version");
    let before: u32 = version().parse().unwrap();

    for turn in [1, 0] {
        steady.connect_to(two.plane(1 - turn).listeners().api);
        goes_on(&steady, &two);
        two.plane(turn).stop();
        fs::remove_file(two.work(turn).join(PROGRAM)).unwrap();
        two.plane(turn).restart();
        // The first of them changed the tables, under the other one.
        assert_eq!(version(), (before + 1).to_string());
        goes_on(&steady, &two);
        steady.connect_to(two.plane(turn).listeners().api);
        goes_on(&steady, &two);
    }
    for (agent, name) in agents.iter_mut().zip(["edge-1", "edge-2"]) {
        agent.stop();
        fs::remove_file(two.first.folder.join(format!("work-of-{name}/{PROGRAM}"))).unwrap();
        agent.restart();
        goes_on(&steady, &two);
    }
    steady.stop();
    two.has_arrived(steady.accepted());
    two.assert_all_settled(|statement| database.ask(statement));
    let failed = "SELECT count(*) FROM countersign.deliveries WHERE attempt_count <> 1";
    assert_eq!(
        database.ask(failed),
        "0",
        "an attempt failed or was repeated"
    );
}

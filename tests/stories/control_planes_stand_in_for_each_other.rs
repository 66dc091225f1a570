//! Three control planes and three agents over one PostgreSQL server, and everything that can go away does:
//! each control plane in turn (killed, and restarted as in an upgrade), the database (crashed, frozen), the
//! wire between a control plane and the database, the wire between an agent and its control plane. Nothing
//! that was accepted is lost, nothing is settled twice, and the audit log stays one chain.

use std::{
    fs,
    time::{Duration, Instant},
};

use countersign_tests::{
    agent::Agent,
    cluster::{Cluster, DEADLINE},
    control_plane::ControlPlane,
    fault_proxy::{FaultProxy, Wire},
    folder::Folder,
    http_get,
    postgres::Postgres,
    steady::Steady,
    wait::wait_for,
};
use serde_json::json;

/// For how long a database hangs.
const PAUSE: Duration = Duration::from_secs(30);

const SETTINGS: &str = "delivery.lease_seconds = 5\nagents.heartbeat_seconds = 1\n";

fn cluster(story: &str, database: &Postgres, count: usize) -> Cluster {
    let folder = Folder::new(story);
    let toml = format!("{SETTINGS}{}", database.settings(&folder));
    Cluster::new(folder, &vec![toml; count])
}

/// What a control plane says of itself.
fn ready(plane: &ControlPlane) -> Option<u16> {
    let answer = http_get::get(plane.listeners().http, "/readyz");
    answer.map(|answer| answer.status).ok()
}

/// Waits until so many more are accepted.
fn accepts(steady: &Steady, more: usize) {
    let before = steady.accepted();
    wait_for("submissions to be accepted", DEADLINE, || {
        steady.accepted() >= before + more
    });
}

#[test]
fn each_is_killed_in_turn() {
    let database = Postgres::start();
    let mut three = cluster("killed", &database, 3);
    let _agents = ["edge-1", "edge-2", "edge-3"].map(|name| three.agent(name));
    let steady = Steady::start(&three.first.control_plane, &three.destination, 100);
    three.has_arrived(100);
    for turn in 0..3 {
        three.plane(turn).kill9();
        steady.connect_to(three.plane((turn + 1) % 3).listeners().api);
        accepts(&steady, 150);
        three.plane(turn).restart();
    }
    steady.stop();
    three.has_arrived(steady.accepted());
    three.assert_all_settled(|statement| database.ask(statement));
}

#[test]
fn a_rolling_restart_costs_no_delivery() {
    let database = Postgres::start();
    let mut two = cluster("rolling", &database, 2);
    let _agents = ["edge-1", "edge-2"].map(|name| two.agent(name));
    let steady = Steady::start(&two.first.control_plane, &two.destination, 100);
    two.has_arrived(100);
    for turn in 0..2 {
        steady.connect_to(two.plane((turn + 1) % 2).listeners().api);
        accepts(&steady, 50);
        two.plane(turn).stop();
        accepts(&steady, 100);
        two.plane(turn).restart();
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

#[test]
fn agents_spread_again_by_themselves() {
    let database = Postgres::start();
    let mut two = cluster("spread", &database, 2);
    let moves = two.first.folder.join("agent.toml");
    fs::write(&moves, "control_plane_stay_seconds = 2\n").unwrap();
    let urls = [0, 1].map(|number| two.plane(number).agents_url());
    let agents = ["edge-1", "edge-2"].map(|name| two.agent_with(name, &urls, Some(&moves)));
    let steady = Steady::start(&two.first.control_plane, &two.destination, 100);
    for turn in 0..2 {
        let met = |agent: &Agent| agent.output().matches("going on to the next").count();
        wait_for("each to have been at each", DEADLINE, || {
            agents.iter().all(|agent| met(agent) > turn + 1)
        });
    }
    steady.stop();
    two.has_arrived(steady.accepted());
    two.assert_all_settled(|statement| database.ask(statement));
    for number in 0..2 {
        let said = two.plane(number).output();
        for agent in ["edge-1", "edge-2"] {
            assert!(
                said.contains(&format!("agent connected agent=agents/{agent}")),
                "{said}"
            );
        }
    }
    let failed = "SELECT count(*) FROM countersign.deliveries WHERE last_class <> 'DELIVERED'";
    assert_eq!(database.ask(failed), "0");
}

#[test]
fn a_database_that_crashes_or_hangs_loses_nothing() {
    let mut database = Postgres::start();
    let two = cluster("crash", &database, 2);
    let _agents = ["edge-1", "edge-2"].map(|name| two.agent(name));
    let steady = Steady::start(&two.first.control_plane, &two.destination, 100);
    two.has_arrived(100);
    database.crash_and_restart();
    accepts(&steady, 100);

    let paused = Instant::now();
    database.pause();
    // Longer than callers wait for an answer: they are told so, and may try again.
    let request = json!({"destination": two.destination, "payload": "e30="});
    let refused = two
        .other_api(0)
        .refused("DeliveryService/SubmitDelivery", &request);
    assert_eq!(refused.reason(), "STORE_UNAVAILABLE");
    assert!(refused.detail("RetryInfo").is_some(), "{refused:?}");
    wait_for("it to say that it is not ready", DEADLINE, || {
        ready(&two.others[0]) == Some(503)
    });
    // As long as a host that moves to another machine, or longer.
    wait_for("half a minute to be over", DEADLINE, || {
        paused.elapsed() > PAUSE
    });
    database.resume();
    accepts(&steady, 100);
    wait_for("it to be ready again", DEADLINE, || {
        ready(&two.others[0]) == Some(200)
    });
    steady.stop();
    two.has_arrived(steady.accepted());
    two.assert_all_settled(|statement| database.ask(statement));
}

#[test]
fn one_that_is_cut_off_from_the_database_keeps_its_agents_and_comes_back() {
    let database = Postgres::start();
    let wire = FaultProxy::start(database.address());
    let folder = Folder::new("cut-off");
    let own = database.settings_at(&folder, wire.address().port());
    let other = database.settings(&folder);
    let toml = [own, other].map(|store| format!("{SETTINGS}{store}"));
    let mut two = Cluster::new(folder, &toml);
    let urls = [0, 1].map(|number| vec![two.plane(number).agents_url()]);
    let agent = two.agent_of("edge-1", &urls[0]);
    let _other_agent = two.agent_of("edge-2", &urls[1]);
    two.first.wait_until_connected("edge-1");
    let steady = Steady::start(&two.first.control_plane, &two.destination, 100);
    two.has_arrived(100);
    // Cut, and then hanging: the one is an error, the other is silence.
    for fault in [Wire::Cut, Wire::Hanging] {
        wire.set(fault);
        steady.connect_to(two.plane(1).listeners().api);
        accepts(&steady, 150);
        wait_for("it to feel that", DEADLINE, || {
            ready(&two.first.control_plane) == Some(503)
        });
        wire.set(Wire::Whole);
        steady.connect_to(two.plane(0).listeners().api);
        accepts(&steady, 150);
    }
    steady.stop();
    two.has_arrived(steady.accepted());
    two.assert_all_settled(|statement| database.ask(statement));
    let connected = agent
        .output()
        .matches("connected to the control plane")
        .count();
    assert_eq!(
        connected,
        1,
        "the agent's session outlived it: {}",
        agent.output()
    );
}

#[test]
fn an_agent_that_is_cut_off_from_its_control_plane_goes_to_another() {
    let database = Postgres::start();
    let mut two = cluster("agent-cut", &database, 2);
    let wire = FaultProxy::start(two.plane(0).listeners().agents);
    let other = two.plane(1).agents_url();
    let urls = [format!("https://{}", wire.address()), other];
    let _agent = two.agent_of("edge-1", &urls);
    let steady = Steady::start(&two.first.control_plane, &two.destination, 50);
    two.has_arrived(50);
    // Wherever it began, it has been at the first after this.
    for fault in [Wire::Cut, Wire::Hanging] {
        wire.set(fault);
        let before = two.receiver.distinct();
        two.has_arrived(before + 100);
        wire.set(Wire::Whole);
        // The other way round: it has nowhere else to go.
        two.plane(1).kill9();
        let before = two.receiver.distinct();
        two.has_arrived(before + 100);
        two.plane(1).restart();
    }
    steady.stop();
    two.has_arrived(steady.accepted());
    two.assert_all_settled(|statement| database.ask(statement));
}

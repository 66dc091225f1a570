//! Two control planes over one PostgreSQL server, reached over TLS with a password: what one accepts, an
//! agent of the other delivers, and what is decided at one counts at the other at once. Their clocks may
//! differ by five minutes: the server's counts.

use std::fs;

use countersign_tests::{
    cluster::Cluster,
    control_plane::ENVIRONMENT,
    folder::Folder,
    postgres::Postgres,
    steady::Steady,
    tools,
    wait::{PATIENCE, wait_for, wait_until},
};
use serde_json::json;

#[test]
fn what_one_accepts_or_decides_counts_at_the_other() {
    let database = Postgres::start();
    let folder = Folder::new("share");
    let toml = database.settings(&folder);
    let two = Cluster::new(folder, &[toml.clone(), toml]);
    let (one, other) = (two.first.api(), two.other_api(0));
    // It knows of one control plane only.
    let _agent = two.first.agent("edge-1", &[]);
    let found = json!({"name": "agents/edge-1"});
    wait_until(
        "the other to know that the agent is connected",
        PATIENCE,
        || {
            let answer = other.ok("AgentAdministrationService/GetAgent", &found);
            (answer["agent"]["connected"] == true).then_some(())
        },
    );

    let request = json!({"destination": two.destination, "payload": "e30="});
    let accepted = other.ok("DeliveryService/SubmitDelivery", &request);
    let delivery = accepted["delivery"]["name"].as_str().unwrap();
    two.first.wait_until_delivered(delivery);

    // A certificate is replaced, whoever is asked: the steps need the agent, which one of them has.
    let renew = json!({"parent": two.destination});
    other.ok("CertificateService/RotateClientCertificate", &renew);
    let second = format!("{}/clientCertificates/2", two.destination);
    wait_until("the next certificate to be presented", PATIENCE, || {
        let look = json!({"name": two.destination});
        let answer = one.ok("DestinationService/GetDestination", &look);
        (answer["destination"]["active_client_certificate"] == second).then_some(())
    });

    // An API key that is made at one opens the other, and is shut there when it is revoked here.
    let request = json!({
        "api_key_id": "reader",
        "api_key": {"roles": ["ROLE_AUDITOR"], "all_accounts": true},
    });
    let made = one.ok("AccessService/CreateApiKey", &request);
    let reader = two.others[0].anonymous_api();
    let reader = reader.with_key(made["key"].as_str().unwrap());
    let look = json!({"name": two.account});
    wait_for("the key to open the other", PATIENCE, || {
        reader.call("AccountService/GetAccount", &look).is_ok()
    });
    let request = json!({"name": made["api_key"]["name"]});
    one.ok("AccessService/RevokeApiKey", &request);
    wait_for("the key to open the other no more", PATIENCE, || {
        reader.call("AccountService/GetAccount", &look).is_err()
    });

    // An agent that is suspended at the other loses its session here.
    other.ok("AgentAdministrationService/SuspendAgent", &found);
    wait_until("the agent to be out", PATIENCE, || {
        let answer = one.ok("AgentAdministrationService/GetAgent", &found);
        (answer["agent"]["connected"] != true).then_some(())
    });
    two.assert_all_settled(|statement| database.ask(statement));
}

#[test]
fn clocks_that_differ_by_minutes_harm_nobody() {
    let database = Postgres::start();
    let folder = Folder::new("clocks");
    let work = folder.subfolder("plane-2");
    let library = tools::faketime();
    let environment = format!("LD_PRELOAD={}\nFAKETIME=+300s\n", library.display());
    fs::write(work.join(ENVIRONMENT), environment).unwrap();
    let toml = format!("delivery.lease_seconds = 5\n{}", database.settings(&folder));
    let mut two = Cluster::new(folder, &[toml.clone(), toml]);
    let _agents = [two.agent("edge-1"), two.agent("edge-2")];
    let steady = Steady::start(&two.first.control_plane, &two.destination, 50);
    two.has_arrived(150);
    steady.connect_to(two.plane(1).listeners().api);
    let before = steady.accepted();
    wait_for("the other to accept", PATIENCE, || {
        steady.accepted() > before + 150
    });
    steady.stop();
    two.has_arrived(steady.accepted());
    two.assert_all_settled(|statement| database.ask(statement));
    // No lease of one seemed to have ended to the other, and all was accepted within these minutes.
    let query = "SELECT max(attempt_count) FROM countersign.deliveries";
    assert_eq!(database.ask(query), "1");
    let query =
        "SELECT max(accepted_at) - min(accepted_at) < 120 * 1000000 FROM countersign.deliveries";
    assert_eq!(database.ask(query), "t");
    let said = two.plane(1).output();
    assert!(
        said.contains("ahead_seconds=-299") || said.contains("ahead_seconds=-300"),
        "{said}"
    );
}

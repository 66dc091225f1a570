//! Two control planes over one PostgreSQL server, reached over TLS with a password. What one accepts, an
//! agent of the other delivers; what is decided at one counts at the other at once; and when one dies or
//! the database does, nothing that was accepted is lost.

use std::{fs, time::Duration};

use countersign_tests::{
    agent::Agent,
    certificates::TestCertificate,
    control_plane::ControlPlane,
    grpcurl::Grpcurl,
    postgres::Postgres,
    receiver::Receiver,
    setting::Setting,
    steady::Steady,
    wait::{PATIENCE, wait_for, wait_until},
};
use serde_json::json;

/// Reached only when something is lost.
const DEADLINE: Duration = Duration::from_secs(180);

/// Two control planes, a destination, and its receiver.
struct Two {
    /// The one that an agent enrolls at.
    one: Setting,
    other: ControlPlane,
    receiver: Receiver,
    account: String,
    destination: String,
    /// Last: the others have to stop before it.
    database: Postgres,
}

impl Two {
    fn new(story: &str, more: &str) -> Self {
        let database = Postgres::start();
        let folder = countersign_tests::folder::Folder::new(story);
        let toml = format!("{more}{}", database.settings(&folder));
        let one = Setting::in_folder(folder, &toml, "info");
        // As an operator does: every control plane has the KEK.
        let work = one.folder.subfolder("other");
        fs::create_dir(work.join("control-plane")).unwrap();
        let private = fs::metadata(one.control_plane.data_dir()).unwrap();
        fs::set_permissions(work.join("control-plane"), private.permissions()).unwrap();
        let kek = one.control_plane.data_dir().join("kek");
        fs::copy(kek, work.join("control-plane/kek")).unwrap();
        let other = ControlPlane::start(&work, &toml);

        let account = one.account("acme");
        let server = TestCertificate::make(&one.folder.subfolder("server"));
        let receiver = Receiver::start(&server, &one.trust_bundle(&account));
        let url = receiver.url("/hooks");
        let destination = one.destination(&account, "orders", &url, &server.ca_pem);
        Self {
            one,
            other,
            receiver,
            account,
            destination,
            database,
        }
    }

    /// A caller of the other control plane with the administrator's API key, which the first start made.
    fn other_api(&self) -> Grpcurl {
        let key = self.one.control_plane.admin_key();
        self.other.anonymous_api().with_key(&key)
    }

    /// An agent that either of them can serve.
    fn agent(&self, name: &str) -> Agent {
        let data_dir = self.one.enrolled(name);
        let flags = [
            "--control-plane",
            &self.one.control_plane.agents_url(),
            "--control-plane",
            &self.other.agents_url(),
        ];
        let work = self.one.folder.subfolder(&format!("work-of-{name}"));
        Agent::start(&work, &data_dir, &flags)
    }

    fn has_arrived(&self, count: usize) {
        wait_for("every accepted delivery to arrive", DEADLINE, || {
            self.receiver.distinct() >= count
        });
    }
}

#[test]
fn what_one_accepts_or_decides_counts_at_the_other() {
    let two = Two::new("share", "");
    // It knows of one control plane only.
    let _agent = two.one.agent("edge-1", &[]);
    let found = json!({"name": "agents/edge-1"});
    wait_until(
        "the other to know that the agent is connected",
        PATIENCE,
        || {
            let answer = two
                .other_api()
                .ok("AgentAdministrationService/GetAgent", &found);
            (answer["agent"]["connected"] == true).then_some(())
        },
    );

    let request = json!({"destination": two.destination, "payload": "e30="});
    let accepted = two
        .other_api()
        .ok("DeliveryService/SubmitDelivery", &request);
    let delivery = accepted["delivery"]["name"].as_str().unwrap();
    two.one.wait_until_delivered(delivery);

    // A certificate is replaced, whoever is asked: the steps need the agent, which one of them has.
    let renew = json!({"parent": two.destination});
    let method = "CertificateService/RotateClientCertificate";
    two.other_api().ok(method, &renew);
    let second = format!("{}/clientCertificates/2", two.destination);
    wait_until("the next certificate to be presented", PATIENCE, || {
        let look = json!({"name": two.destination});
        let answer = two.one.api().ok("DestinationService/GetDestination", &look);
        (answer["destination"]["active_client_certificate"] == second).then_some(())
    });

    // An API key that is made at one opens the other, and is shut there as soon as it is revoked here.
    let request = json!({"api_key_id": "reader", "api_key": {"roles": ["ROLE_AUDITOR"], "all_accounts": true}});
    let made = two.one.api().ok("AccessService/CreateApiKey", &request);
    let reader = two
        .other
        .anonymous_api()
        .with_key(made["key"].as_str().unwrap());
    let look = json!({"name": two.account});
    wait_until("the key to open the other", PATIENCE, || {
        reader
            .call("AccountService/GetAccount", &look)
            .is_ok()
            .then_some(())
    });
    let request = json!({"name": made["api_key"]["name"]});
    two.one.api().ok("AccessService/RevokeApiKey", &request);
    wait_until("the key to open the other no more", PATIENCE, || {
        reader
            .call("AccountService/GetAccount", &look)
            .is_err()
            .then_some(())
    });

    // An agent that is suspended at the other loses its session here.
    two.other_api()
        .ok("AgentAdministrationService/SuspendAgent", &found);
    wait_until("the agent to be out", PATIENCE, || {
        let answer = two
            .one
            .api()
            .ok("AgentAdministrationService/GetAgent", &found);
        (answer["agent"]["connected"] != true).then_some(())
    });
}

#[test]
fn one_that_dies_is_stood_in_for() {
    let mut two = Two::new("dies", "delivery.lease_seconds = 5\n");
    let _agents = [two.agent("edge-1"), two.agent("edge-2")];
    let steady = Steady::start(&two.one.control_plane, &two.destination, 100);
    two.has_arrived(200);
    two.one.control_plane.kill9();
    steady.connect_to(two.other.listeners().api);
    let before = steady.accepted();
    wait_for("the other to accept", DEADLINE, || {
        steady.accepted() > before + 300
    });
    two.one.control_plane.restart();
    let before = two.receiver.distinct();
    two.has_arrived(before + 200);
    steady.stop();
    two.has_arrived(steady.accepted());
    assert_settled_once(&two);
}

#[test]
fn a_database_that_crashes_or_hangs_loses_nothing() {
    let mut two = Two::new("crash", "delivery.lease_seconds = 5\n");
    let _agents = [two.agent("edge-1"), two.agent("edge-2")];
    let steady = Steady::start(&two.one.control_plane, &two.destination, 100);
    two.has_arrived(200);
    two.database.crash_and_restart();
    let before = steady.accepted();
    wait_for("submissions to be accepted again", DEADLINE, || {
        steady.accepted() > before + 100
    });
    two.database.pause();
    // Whatever was under way has been answered, or waits.
    std::thread::park_timeout(Duration::from_secs(3));
    two.database.resume();
    let before = steady.accepted();
    wait_for("submissions to be accepted again", DEADLINE, || {
        steady.accepted() > before + 100
    });
    steady.stop();
    two.has_arrived(steady.accepted());
    assert_settled_once(&two);
}

/// Every delivery is DELIVERED, by one attempt that says so, and nothing is leased.
fn assert_settled_once(two: &Two) {
    wait_for("the store to say DELIVERED for all", DEADLINE, || {
        two.database
            .ask("SELECT count(*) FROM countersign.deliveries WHERE state <> 3")
            == "0"
    });
    let leases = "SELECT count(*) FROM countersign.leases";
    assert_eq!(two.database.ask(leases), "0");
    let without = "SELECT count(*) FROM countersign.deliveries d WHERE attempt_count <>
                   (SELECT count(*) FROM countersign.attempts a WHERE a.delivery = d.id)";
    assert_eq!(
        two.database.ask(without),
        "0",
        "attempts are as many as were counted"
    );
}

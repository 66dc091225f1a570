//! The control plane is killed in every phase of a rotation, with the agent at work or away, while
//! deliveries flow. Each time the rotation goes on where it was: it ends, it makes no certificate twice,
//! and no delivery fails.

use countersign_tests::{
    agent::Agent,
    certificates::TestCertificate,
    gate::{Gate, Rules},
    setting::Setting,
    steady::Steady,
    wait::{PATIENCE, wait_for},
};
use serde_json::{Value, json};

struct Stage {
    sender: Steady,
    gate: Gate,
    agent: Agent,
    orders: String,
    acme: String,
    setting: Setting,
}

fn stage() -> Stage {
    let toml = "[certificates]\nclient_life_seconds = 200\ngrace_seconds = 2\n\
                [delivery]\nlease_seconds = 10\n";
    let setting = Setting::with("rotation-kill-9", toml, "info");
    let acme = setting.account("acme");
    let server = TestCertificate::make(&setting.folder.subfolder("server"));
    let rules = Rules {
        trusted: setting.trust_bundle(&acme),
        ..Rules::default()
    };
    let gate = Gate::start(setting.folder.subfolder("gate"), &server, &rules);
    let orders = setting.destination(&acme, "orders", &gate.url("/"), &server.ca_pem);
    let agent = setting.agent("edge-1", &["--log-filter", "info"]);
    Stage {
        sender: Steady::start(&setting.control_plane, &orders, 50),
        gate,
        agent,
        orders,
        acme,
        setting,
    }
}

impl Stage {
    fn call(&self, method: &str, request: &Value) -> Value {
        self.setting.api().ok(method, request)
    }

    fn rotate(&self) {
        let parent = json!({"parent": self.orders});
        self.call("CertificateService/RotateClientCertificate", &parent);
    }

    fn kill_and_restart(&mut self) {
        self.setting.control_plane.kill9();
        self.setting.control_plane.restart();
        let address = self.setting.control_plane.listeners().api;
        self.sender.connect_to(address);
    }

    /// States of the client certificates, newest first.
    fn states(&self) -> Vec<String> {
        let request = json!({"parent": self.orders});
        let answer = self.call("CertificateService/ListClientCertificates", &request);
        let certificates = answer["client_certificates"].as_array().unwrap().iter();
        let state = |it: &Value| it["state"].as_str().unwrap().to_owned();
        certificates.map(state).collect()
    }

    fn wait_until_newest_is(&self, state: &str) {
        let state = format!("CLIENT_CERTIFICATE_STATE_{state}");
        let what = format!("the newest certificate to be {state}");
        wait_for(&what, PATIENCE, || self.states()[0] == state);
    }

    /// Waits until the newest certificate is the only one that is held, and deliveries arrive with it.
    /// There are `versions` in all.
    fn wait_until_it_has_ended(&self, versions: usize) {
        wait_for("the rotation to end", PATIENCE, || {
            let states = self.states();
            let ended = |state: &String| state == "CLIENT_CERTIFICATE_STATE_RETIRED";
            states[0] == "CLIENT_CERTIFICATE_STATE_ACTIVE" && states[1..].iter().all(ended)
        });
        assert_eq!(self.states().len(), versions);
        let before = self.gate.seen().len();
        wait_for("deliveries to arrive", PATIENCE, || {
            self.gate.seen().len() > before + 20
        });
    }
}

#[test]
fn a_rotation_ends_well_whenever_the_control_plane_is_killed() {
    let mut stage = stage();
    stage.rotate();
    stage.kill_and_restart();
    stage.wait_until_it_has_ended(2);

    stage.rotate();
    wait_for("the next certificate", PATIENCE, || {
        stage.states().len() == 3
    });
    stage.kill_and_restart();
    stage.wait_until_newest_is("ACTIVE");
    // In the grace period.
    stage.kill_and_restart();
    stage.wait_until_it_has_ended(3);

    // Nobody is there to take the new one.
    stage.agent.stop();
    stage.rotate();
    stage.wait_until_newest_is("PENDING");
    stage.kill_and_restart();
    stage.agent.restart();
    stage.wait_until_it_has_ended(4);

    // The receiver does not know the generation that signs now, so that the new one waits for it.
    let emergency = json!({"parent": stage.acme, "emergency": true});
    stage.call("CertificateService/RotateCertificateAuthority", &emergency);
    stage.kill_and_restart();
    stage.wait_until_newest_is("DISTRIBUTED");
    stage.kill_and_restart();
    stage.agent.stop();
    stage.kill_and_restart();
    stage.agent.restart();
    assert_eq!(stage.states()[0], "CLIENT_CERTIFICATE_STATE_DISTRIBUTED");
    stage.gate.rule(&Rules {
        trusted: stage.setting.trust_bundle(&stage.acme),
        ..Rules::default()
    });
    stage.wait_until_it_has_ended(5);
    let parent = json!({"parent": stage.acme});
    for phase in ["ROTATION_PHASE_RETIRING", "ROTATION_PHASE_STABLE"] {
        wait_for("the authority's rotation to go on", PATIENCE, || {
            let api = stage.setting.api();
            let advanced = api.call("CertificateService/AdvanceRotation", &parent);
            advanced.is_ok_and(|answer| answer["rotation"]["phase"] == phase)
        });
        stage.kill_and_restart();
    }

    stage.sender.stop();
    wait_for("every delivery to be DELIVERED", PATIENCE, || {
        let deliveries = stage.sender.deliveries();
        let mut states = deliveries.values().map(|it| it.state().as_str_name());
        states.all(|state| state == "DELIVERY_STATE_DELIVERED")
    });
    let attempts = stage.sender.attempts();
    for (delivery, attempts) in &attempts {
        for attempt in attempts {
            let class = attempt.class().as_str_name();
            assert_eq!(class, "FAILURE_CLASS_DELIVERED", "{delivery}: {attempts:?}");
        }
    }
    println!("{} deliveries, none failed", attempts.len());
}

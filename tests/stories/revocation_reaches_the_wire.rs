//! A certificate is revoked while deliveries flow over kept connections and wait for slow answers: from
//! the moment that the agent says it has stopped, no request with that certificate begins anywhere.
//! An agent that was away is told before it gets a job. A revoked authority stops all of its account,
//! and nothing is lost.

use countersign_tests::{
    agent::Agent,
    certificates::TestCertificate,
    gate::{Gate, Rules, Seen, short},
    http_get,
    receiver_script::ReceiverScript,
    setting::Setting,
    steady::Steady,
    times::{now, seconds},
    wait::{PATIENCE, wait_for, wait_until},
};
use serde_json::{Value, json};

/// How long a revocation may take until the agent has stopped, in seconds: a bound that only a mistake
/// exceeds. What it takes is in docs/performance.md.
const BOUND: f64 = 10.0;

struct Stage {
    server: TestCertificate,
    setting: Setting,
}

fn stage(story: &str) -> Stage {
    let setting = Setting::new(story);
    Stage {
        server: TestCertificate::make(&setting.folder.subfolder("server")),
        setting,
    }
}

/// A destination with its receiver, and the serial number of its first certificate.
struct Receiver {
    gate: Gate,
    rules: Rules,
    destination: String,
    first: String,
}

impl Stage {
    fn call(&self, method: &str, request: &Value) -> Value {
        self.setting.api().ok(method, request)
    }

    /// A destination `id` of `account` whose receiver trusts that account, and is answered for by
    /// `application` if there is one.
    fn receiver(&self, account: &str, id: &str, application: Option<u16>) -> Receiver {
        let rules = Rules {
            trusted: self.setting.trust_bundle(account),
            application,
            ..Rules::default()
        };
        let name = format!("{}-{id}", account.replace('/', "-"));
        let gate = Gate::start(self.setting.folder.subfolder(&name), &self.server, &rules);
        let destination =
            self.setting
                .destination(account, id, &gate.url("/"), &self.server.ca_pem);
        let first = self.certificate(&destination, 1);
        Receiver {
            gate,
            rules,
            first: short(first["serial_number"].as_str().unwrap()),
            destination,
        }
    }

    fn certificate(&self, destination: &str, version: u32) -> Value {
        let name = json!({"name": format!("{destination}/clientCertificates/{version}")});
        let answer = self.call("CertificateService/GetClientCertificate", &name);
        answer["client_certificate"].clone()
    }

    fn revoke(&self, destination: &str) {
        let name = format!("{destination}/clientCertificates/1");
        let request = json!({"name": name, "reason": "REVOCATION_REASON_KEY_COMPROMISE"});
        let answer = self.call("CertificateService/RevokeClientCertificate", &request);
        let state = &answer["client_certificate"]["state"];
        assert_eq!(state, "CLIENT_CERTIFICATE_STATE_REVOKED");
        assert_eq!(answer["stops"][0]["agent"], "agents/edge-1", "{answer}");
    }

    /// When the agent said that it has stopped using the first certificate.
    fn acknowledged(&self, destination: &str) -> Option<f64> {
        let certificate = self.certificate(destination, 1);
        let stops = certificate["stops"].as_array().unwrap();
        assert_eq!(stops.len(), 1, "{certificate}");
        stops[0]["acknowledge_time"].as_str().map(seconds)
    }
}

impl Receiver {
    fn deliveries(&self) -> Vec<Seen> {
        let mut seen = self.gate.seen();
        seen.retain(|seen| !seen.id.is_empty());
        seen
    }

    /// When the last request with the first certificate began.
    fn last_use(&self) -> f64 {
        let seen = self.deliveries();
        let first = seen.iter().filter(|seen| seen.serial == self.first);
        first.map(Seen::began_at).fold(0.0, f64::max)
    }

    fn wait_for_another_certificate(&self) {
        wait_for("deliveries with another certificate", PATIENCE, || {
            let mut seen = self.deliveries().into_iter();
            seen.any(|seen| seen.status == 204 && seen.serial != self.first)
        });
    }
}

fn wait_until_all_delivered(sender: &Steady) {
    sender.stop();
    wait_for("every delivery to be DELIVERED", PATIENCE, || {
        let deliveries = sender.deliveries();
        let mut states = deliveries.values().map(|it| it.state().as_str_name());
        states.all(|state| state == "DELIVERY_STATE_DELIVERED")
    });
}

#[test]
fn no_request_begins_after_the_agent_has_stopped() {
    let stage = stage("revocation");
    let acme = stage.setting.account("acme");
    let application = ReceiverScript::start(stage.setting.folder.subfolder("application"));
    application.delay(0.5);
    let busy = stage.receiver(&acme, "busy", None);
    let slow = stage.receiver(&acme, "slow", Some(application.port()));
    let _agent = stage.setting.agent("edge-1", &["--log-filter", "info"]);
    let flows = [(&busy, 200), (&slow, 20)].map(|(receiver, rate)| {
        let control_plane = &stage.setting.control_plane;
        let sender = Steady::start(control_plane, &receiver.destination, rate);
        (receiver, sender)
    });
    for (receiver, _) in &flows {
        wait_for("deliveries over kept connections", PATIENCE, || {
            receiver.deliveries().len() > 20
        });
    }
    for (receiver, _) in &flows {
        let called = now();
        stage.revoke(&receiver.destination);
        let answered = now();
        let stopped = wait_until("the agent to have stopped", PATIENCE, || {
            stage.acknowledged(&receiver.destination)
        });
        receiver.wait_for_another_certificate();
        let last = receiver.last_use();
        println!(
            "{}: revoked at 0 ms; acknowledged {:.0} ms; answered {:.0} ms; last use {:.0} ms",
            receiver.destination,
            (stopped - called) * 1e3,
            (answered - called) * 1e3,
            (last - called) * 1e3,
        );
        assert!(
            last <= stopped,
            "a request began {} s later",
            last - stopped
        );
        assert!(stopped - called < BOUND);
    }
    for (receiver, sender) in &flows {
        wait_until_all_delivered(sender);
        // Again: nothing came later either.
        let certificate = stage.acknowledged(&receiver.destination);
        assert!(certificate.is_some_and(|stopped| receiver.last_use() <= stopped));
    }
    let cut = |receiver: &Receiver| {
        let seen = receiver.deliveries();
        seen.iter().filter(|seen| seen.status == 499).count()
    };
    assert!(cut(&slow) > 0, "no request was under way");
}

#[test]
fn an_agent_that_was_away_is_told_before_it_gets_a_job() {
    let stage = stage("revoked-offline");
    let acme = stage.setting.account("acme");
    let receiver = stage.receiver(&acme, "orders", None);
    let mut agent: Agent = stage.setting.agent("edge-1", &["--log-filter", "info"]);
    let first = stage
        .setting
        .submit(&receiver.destination, b"{}", "application/json");
    stage.setting.wait_until_delivered(&first);
    agent.kill9();
    stage.revoke(&receiver.destination);
    let waiting = stage
        .setting
        .submit(&receiver.destination, b"{}", "application/json");
    assert_eq!(stage.acknowledged(&receiver.destination), None);

    agent.restart();
    stage.setting.wait_until_delivered(&waiting);
    wait_for("the agent to say that it has stopped", PATIENCE, || {
        stage.acknowledged(&receiver.destination).is_some()
    });
    let seen = receiver.deliveries();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].serial, receiver.first);
    assert_ne!(seen[1].serial, receiver.first);
    assert!(agent.output().contains("client certificates revoked"));
}

#[test]
fn a_revoked_authority_stops_its_account_and_the_new_anchor_lets_it_go_on() {
    let stage = stage("revoked-authority");
    let (acme, globex) = (
        stage.setting.account("acme"),
        stage.setting.account("globex"),
    );
    let mut revoked = ["orders", "refunds"].map(|id| stage.receiver(&acme, id, None));
    let other = stage.receiver(&globex, "orders", None);
    let _agent = stage.setting.agent("edge-1", &["--log-filter", "info"]);
    let flow = |receiver: &Receiver| {
        Steady::start(&stage.setting.control_plane, &receiver.destination, 20)
    };
    let senders = [flow(&revoked[0]), flow(&revoked[1])];
    let undisturbed = flow(&other);
    for receiver in revoked.iter().chain([&other]) {
        wait_for("deliveries to arrive", PATIENCE, || {
            receiver.deliveries().len() > 10
        });
    }

    let name = json!({"name": format!("{acme}/certificateAuthorities/1")});
    let called = now();
    let answer = stage.call("CertificateService/RevokeCertificateAuthority", &name);
    assert_eq!(answer["destination_count"], "2");
    for (receiver, sender) in revoked.iter().zip(&senders) {
        let stopped = wait_until("the agent to have stopped", PATIENCE, || {
            stage.acknowledged(&receiver.destination)
        });
        assert!(stopped - called < BOUND);
        wait_for("deliveries to be held", PATIENCE, || {
            let deliveries = sender.deliveries();
            deliveries.values().filter(|it| it.held).count() > 5
        });
        assert!(receiver.last_use() <= stopped);
    }
    // The receivers' people install what is served over HTTP.
    let http = stage.setting.control_plane.listeners().http;
    let anchor = http_get::get(http, "/trust/accounts/acme.pem").unwrap();
    let anchor = String::from_utf8(anchor.body).unwrap();
    assert_ne!(anchor, revoked[0].rules.trusted);
    let list = http_get::get(http, "/crl/accounts/acme.pem").unwrap();
    assert_eq!(list.status, 200);
    for receiver in &mut revoked {
        receiver.rules.trusted.clone_from(&anchor);
        receiver.gate.rule(&receiver.rules);
    }
    for (receiver, sender) in revoked.iter().zip(&senders) {
        receiver.wait_for_another_certificate();
        wait_until_all_delivered(sender);
        for (delivery, attempts) in sender.attempts() {
            let classes = attempts.iter().map(|it| it.class().as_str_name());
            let classes: Vec<_> = classes.collect();
            let (last, before) = classes.split_last().unwrap();
            assert_eq!(*last, "FAILURE_CLASS_DELIVERED", "{delivery}");
            let of_the_certificate = |class: &&str| class.contains("_CLIENT_");
            assert!(
                before.iter().all(of_the_certificate),
                "{delivery}: {classes:?}"
            );
        }
    }
    wait_until_all_delivered(&undisturbed);
    let attempts = undisturbed.attempts();
    assert!(attempts.values().all(|attempts| attempts.len() == 1));
}

//! Deliveries flow at 200 a second while client certificates, authorities, trust models and kinds of
//! keys are replaced. Not one attempt fails: the receiver counts, and so does the store.

use std::collections::BTreeSet;

use countersign_tests::{
    agent::Agent,
    certificates::TestCertificate,
    gate::{Gate, Rules, short},
    setting::Setting,
    steady::Steady,
    wait::{PATIENCE, wait_for, wait_until},
};
use serde_json::{Value, json};

/// Deliveries a second.
const RATE: u32 = 200;

struct Stage {
    sender: Steady,
    gate: Gate,
    _agent: Agent,
    orders: String,
    acme: String,
    setting: Setting,
}

/// Deliveries flow to a receiver that trusts `acme`, and the shared authority if it `knows_both`.
fn stage(story: &str, toml: &str, knows_both: bool) -> Stage {
    let setting = Setting::with(story, toml, "info");
    let acme = setting.account("acme");
    let mut trusted = setting.trust_bundle(&acme);
    if knows_both {
        trusted += &setting.trust_bundle("shared");
    }
    let server = TestCertificate::make(&setting.folder.subfolder("server"));
    let rules = Rules {
        trusted,
        ..Rules::default()
    };
    let gate = Gate::start(setting.folder.subfolder("gate"), &server, &rules);
    let orders = setting.destination(&acme, "orders", &gate.url("/"), &server.ca_pem);
    let agent = setting.agent("edge-1", &["--log-filter", "info"]);
    let stage = Stage {
        sender: Steady::start(&setting.control_plane, &orders, RATE),
        gate,
        _agent: agent,
        orders,
        acme,
        setting,
    };
    stage.some_arrive();
    stage
}

impl Stage {
    fn call(&self, method: &str, request: &Value) -> Value {
        self.setting.api().ok(method, request)
    }

    /// Waits until deliveries that were not yet submitted have arrived.
    fn some_arrive(&self) {
        let enough = self.sender.accepted() + RATE as usize / 2;
        wait_for("deliveries to arrive", PATIENCE, || {
            self.gate.seen().len() >= enough
        });
    }

    fn update(&self, field: &str, value: &str) {
        let mut destination = json!({"name": self.orders});
        destination[field] = json!(value);
        let request = json!({"destination": destination});
        self.call("DestinationService/UpdateDestination", &request);
    }

    /// The versions of the client certificate, newest first.
    fn certificates(&self) -> Vec<Value> {
        let request = json!({"parent": self.orders});
        let answer = self.call("CertificateService/ListClientCertificates", &request);
        answer["client_certificates"].as_array().unwrap().clone()
    }

    /// Waits until the newest certificate fits, is presented, and the receiver has taken deliveries
    /// with it; gives it.
    fn presents(&self, fits: impl Fn(&Value) -> bool) -> Value {
        let active = wait_until("a new certificate to be presented", PATIENCE, || {
            let newest = self.certificates().swap_remove(0);
            let active = newest["state"] == "CLIENT_CERTIFICATE_STATE_ACTIVE";
            (active && fits(&newest)).then_some(newest)
        });
        let serial = short(active["serial_number"].as_str().unwrap());
        wait_for("deliveries with the new certificate", PATIENCE, || {
            let seen = self.gate.seen();
            seen.iter()
                .any(|seen| seen.serial == serial && !seen.id.is_empty())
        });
        active
    }

    fn advance(&self, owner: &str) -> Value {
        let answer = self.call(
            "CertificateService/AdvanceRotation",
            &json!({"parent": owner}),
        );
        answer["rotation"].clone()
    }

    /// Ends the flow: every delivery arrived, each by its only attempt, which was taken at once.
    fn none_failed(&self) {
        self.sender.stop();
        wait_for("every delivery to be settled", PATIENCE, || {
            let deliveries = self.sender.deliveries();
            let mut states = deliveries.values().map(|it| it.state().as_str_name());
            states.all(|state| state == "DELIVERY_STATE_DELIVERED")
        });
        let attempts = self.sender.attempts();
        for (delivery, attempts) in &attempts {
            assert_eq!(attempts.len(), 1, "{delivery}: {attempts:#?}");
            let class = attempts[0].class().as_str_name();
            assert_eq!(class, "FAILURE_CLASS_DELIVERED", "{delivery}");
            assert_eq!(attempts[0].refused_certificate, None, "{delivery}");
            assert!(!attempts[0].mtls_not_enforced);
        }
        let seen = self.gate.seen();
        let came: Vec<_> = seen.iter().filter(|seen| !seen.id.is_empty()).collect();
        let refused: Vec<_> = came.iter().filter(|seen| seen.status != 204).collect();
        assert!(refused.is_empty(), "{refused:?}");
        let different: BTreeSet<_> = came.iter().map(|seen| &seen.id).collect();
        assert_eq!(different.len(), attempts.len());
        // For who runs it with --nocapture.
        #[allow(clippy::print_stdout)]
        {
            println!(
                "{} deliveries, {} requests, every one taken at once",
                attempts.len(),
                came.len()
            );
        }
    }
}

#[test]
fn a_client_certificate_is_replaced_by_hand_and_then_by_itself() {
    let toml = "[certificates]\nclient_life_seconds = 30\ngrace_seconds = 1\n";
    let stage = stage("leaf-rotation", toml, false);
    let parent = json!({"parent": stage.orders});
    stage.call("CertificateService/RotateClientCertificate", &parent);
    let by_hand = stage.presents(|newest| newest["version"] == 2);
    // At 60 % of its life, which nobody asks for.
    stage.presents(|newest| newest["version"] == 3);
    let state = |version: &str| {
        let name = json!({"name": format!("{}/clientCertificates/{version}", stage.orders)});
        let answer = stage.call("CertificateService/GetClientCertificate", &name);
        answer["client_certificate"]["state"].clone()
    };
    wait_for("the ones before to be out of use", PATIENCE, || {
        state("1") == "CLIENT_CERTIFICATE_STATE_RETIRED" && state("2") == state("1")
    });
    assert_ne!(by_hand["confirm_time"], "");
    stage.some_arrive();
    stage.none_failed();
}

#[test]
fn an_authority_is_replaced_under_a_receiver_that_follows_in_its_own_time() {
    let toml = "[certificates]\nclient_life_seconds = 600\ngrace_seconds = 1\n";
    let stage = stage("authority-rotation", toml, false);
    let first = stage.setting.trust_bundle(&stage.acme);
    let parent = json!({"parent": stage.acme});
    stage.call("CertificateService/RotateCertificateAuthority", &parent);
    let both = stage.setting.trust_bundle(&stage.acme);
    assert!(both.starts_with(&first) && both.len() > first.len());
    let second = both[first.len()..].to_owned();
    let again = stage.setting.api();
    let again = again.refused("CertificateService/RotateCertificateAuthority", &parent);
    assert_eq!(again.code, "FAILED_PRECONDITION", "{again:?}");

    // The receiver knows the first generation alone, and takes what the second signs all the same.
    let phase = stage.advance(&stage.acme)["phase"].clone();
    assert_eq!(phase, "ROTATION_PHASE_ISSUING");
    let of_second = |newest: &Value| newest["issuer"].as_str().unwrap().ends_with("/2");
    stage.presents(of_second);
    stage.some_arrive();
    let advanced = wait_until("the first generation to be out of use", PATIENCE, || {
        let api = stage.setting.api();
        match api.call("CertificateService/AdvanceRotation", &parent) {
            Ok(answer) => Some(answer["rotation"].clone()),
            Err(refusal) => {
                assert_eq!(refusal.code, "FAILED_PRECONDITION", "{refusal:?}");
                assert!(refusal.message.contains("still in use"), "{refusal:?}");
                None
            }
        }
    });
    assert_eq!(advanced["phase"], "ROTATION_PHASE_RETIRING");

    // Nobody may take the first one out while the receiver needs it.
    let trust = || {
        let answer = stage.call("CertificateService/ListDestinationTrust", &parent);
        answer["destination_trust"][0]["state"].clone()
    };
    wait_for(
        "the receiver to be known as one that waits",
        PATIENCE,
        || trust() == "TRUST_STATE_PROBED_REFUSED",
    );
    let waits = stage.setting.api();
    let waits = waits.refused("CertificateService/AdvanceRotation", &parent);
    assert_eq!(waits.code, "FAILED_PRECONDITION");
    assert!(waits.message.contains("not known to trust"), "{waits:?}");

    let trusting = |trusted: &str| Rules {
        trusted: trusted.to_owned(),
        ..Rules::default()
    };
    stage.gate.rule(&trusting(&both));
    wait_for(
        "the receiver to be seen to trust the second",
        PATIENCE,
        || trust() == "TRUST_STATE_PROBED_OK",
    );
    assert_eq!(stage.advance(&stage.acme)["phase"], "ROTATION_PHASE_STABLE");
    assert_eq!(stage.setting.trust_bundle(&stage.acme), second);
    stage.gate.rule(&trusting(&second));
    stage.some_arrive();
    stage.none_failed();
}

#[test]
fn a_destination_moves_between_trust_models_and_kinds_of_keys() {
    let toml = "[certificates]\nclient_life_seconds = 600\ngrace_seconds = 1\n";
    let stage = stage("moves", toml, true);
    let mut rules = Rules {
        trusted: stage.setting.trust_bundle(&stage.acme) + &stage.setting.trust_bundle("shared"),
        ..Rules::default()
    };
    let own = |newest: &Value| newest["subject"].as_str().unwrap()[3..].to_owned();
    let dedicated = stage.presents(|_| true);
    rules.common_names = vec![own(&dedicated)];
    stage.gate.rule(&rules);

    // The receiver checks the name, so the new certificate has to wait for it.
    stage.update("trust_model", "TRUST_MODEL_SHARED");
    let get = json!({"name": stage.orders});
    wait_for("the receiver's refusal to be told", PATIENCE, || {
        let answer = stage.call("DestinationService/GetDestination", &get);
        let rotation = &answer["destination"]["client_certificate_rotation"];
        let reason = rotation["held_up_reason"].as_str().unwrap();
        reason.contains("refuses the new client certificate")
    });
    let waiting = stage.certificates().swap_remove(0);
    assert_eq!(waiting["trust_model"], "TRUST_MODEL_SHARED");
    assert_ne!(waiting["state"], "CLIENT_CERTIFICATE_STATE_ACTIVE");
    stage.some_arrive();
    rules.common_names.push(own(&waiting));
    stage.gate.rule(&rules);
    let parent = json!({"parent": stage.orders});
    stage.call("CertificateService/RotateClientCertificate", &parent);
    stage.presents(|newest| newest["trust_model"] == "TRUST_MODEL_SHARED");

    for algorithm in ["KEY_ALGORITHM_RSA_2048", "KEY_ALGORITHM_ECDSA_P384"] {
        stage.update("key_algorithm", algorithm);
        stage.presents(|newest| newest["key_algorithm"] == algorithm);
    }
    stage.update("trust_model", "TRUST_MODEL_DEDICATED");
    stage.presents(|newest| newest["trust_model"] == "TRUST_MODEL_DEDICATED");
    stage.some_arrive();
    stage.none_failed();
}

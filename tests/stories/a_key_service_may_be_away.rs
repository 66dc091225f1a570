//! The KEK is in OpenBao, and OpenBao is killed while certificates are issued and webhooks go out. What the
//! control plane holds it goes on with; what it would have to ask for it refuses, and says so. When that has
//! taken too long it forgets its keys and takes nothing more. OpenBao is started, and as soon as it is unsealed
//! everything goes on by itself. A start without it fails, and changes nothing.

use std::{fs, process::Command};

use countersign_shared::files;
use countersign_tests::{
    bao::Bao,
    certificates::TestCertificate,
    control_plane,
    folder::Folder,
    http_get,
    ports::free_port,
    process::run,
    receiver::Receiver,
    setting::Setting,
    wait::{PATIENCE, wait_for},
};
use serde_json::{Value, json};

/// For how long the control plane goes on alone, in seconds.
const MAX_OUTAGE: u32 = 12;

/// A transit key, and a login whose tokens live so briefly that they have to be renewed, and after that made
/// anew; gives the control plane's configuration.
fn make_key(folder: &Folder, bao: &Bao) -> String {
    bao.run(&["secrets", "enable", "transit"]);
    bao.run(&["write", "-f", "transit/keys/countersign"]);
    let policy = "
        path \"transit/encrypt/countersign\" { capabilities = [\"update\"] }
        path \"transit/decrypt/countersign\" { capabilities = [\"update\"] }
    ";
    bao.run_with(&["policy", "write", "countersign", "-"], policy.as_bytes());
    bao.run(&["auth", "enable", "approle"]);
    let role = "auth/approle/role/countersign";
    let lives = [
        "token_ttl=4s",
        "token_max_ttl=9s",
        "token_policies=countersign",
    ];
    bao.run(&[&["write", role], &lives[..]].concat());
    let role_id = bao.run(&["read", "-field=role_id", &format!("{role}/role-id")]);
    let secret_id = bao.run(&[
        "write",
        "-f",
        "-field=secret_id",
        &format!("{role}/secret-id"),
    ]);
    let file = folder.join("secret-id");
    files::create_private(&file, secret_id.as_bytes()).unwrap();
    format!(
        "[kek]\nmax_outage_seconds = {MAX_OUTAGE}\n[kek.vault]\naddress = '{}'\nca_file = '{}'\n\
         key = 'countersign'\napprole = {{ role_id = '{role_id}', secret_id_file = '{}' }}\n",
        bao.address(),
        bao.ca_file().display(),
        file.display()
    )
}

struct Stage {
    setting: Setting,
    destination: String,
    server_ca_pem: String,
}

impl Stage {
    fn deliver(&self) {
        let delivery = self
            .setting
            .submit(&self.destination, b"{}", "application/json");
        self.setting.wait_until_delivered(&delivery);
    }

    fn page(&self, path: &str) -> (u16, String) {
        let http = self.setting.control_plane.listeners().http;
        let answer = http_get::get(http, path).unwrap();
        (answer.status, String::from_utf8(answer.body).unwrap())
    }

    fn wait_until_ready(&self, status: u16) {
        let what = format!("readiness to be answered with {status}");
        wait_for(&what, PATIENCE, || self.page("/readyz").0 == status);
    }

    /// The alert about the key service, open or resolved.
    fn alert(&self) -> Value {
        let request = json!({"include_resolved": true});
        let answer = self.setting.api().ok("AlertService/ListAlerts", &request);
        let mut alerts = answer["alerts"].as_array().cloned().unwrap_or_default();
        alerts.retain(|alert| alert["cause"] == "ALERT_CAUSE_KEY_PROVIDER_AWAY");
        assert!(alerts.len() < 2, "{alerts:?}");
        alerts.pop().unwrap_or_default()
    }

    fn refuses(&self, method: &str, request: &Value) {
        let refusal = self.setting.api().refused(method, request);
        assert_eq!(refusal.code, "UNAVAILABLE", "{refusal:?}");
        assert_eq!(refusal.reason(), "KEY_PROVIDER_UNAVAILABLE", "{refusal:?}");
        assert!(refusal.detail("RetryInfo").is_some(), "{refusal:?}");
    }
}

#[test]
fn what_is_held_is_used_for_a_time_and_all_goes_on_afterwards() {
    let folder = Folder::new("key-service");
    let mut bao = Bao::start(&folder.subfolder("bao"));
    let toml = make_key(&folder, &bao);
    let setting = Setting::in_folder(folder, &toml, "info");
    let account = setting.account("acme");
    let server = TestCertificate::make(&setting.folder.subfolder("server"));
    let receiver = Receiver::start(&server, &setting.trust_bundle(&account));
    let url = receiver.url("/hooks");
    let destination = setting.destination(&account, "orders", &url, &server.ca_pem);
    let _agent = setting.agent("edge-1", &[]);
    let mut stage = Stage {
        setting,
        destination,
        server_ca_pem: server.ca_pem.clone(),
    };
    stage.deliver();
    assert!(!stage.setting.control_plane.data_dir().join("kek").exists());
    tokens_are_renewed(&stage, &bao);

    bao.kill9();
    stage.deliver();
    // Another certificate, by the account's authority, whose data key is held.
    let (setting, ca) = (&stage.setting, stage.server_ca_pem.as_str());
    let second = setting.destination(&account, "invoices", &url, ca);
    let delivery = setting.submit(&second, b"{}", "application/json");
    setting.wait_until_delivered(&delivery);
    let new_account = json!({"account_id": "globex", "account": {}});
    stage.refuses("AccountService/CreateAccount", &new_account);
    wait_for("an alert", PATIENCE, || {
        stage.alert()["severity"] == "ALERT_SEVERITY_WARNING"
    });
    stage.deliver();

    stage.wait_until_ready(503);
    assert!(
        stage
            .page("/metrics")
            .1
            .contains("\ncountersign_kek_usable 0\n")
    );
    let submission = json!({"destination": stage.destination, "payload": "e30="});
    stage.refuses("DeliveryService/SubmitDelivery", &submission);
    wait_for("the alert to be critical", PATIENCE, || {
        stage.alert()["severity"] == "ALERT_SEVERITY_CRITICAL"
    });

    // Sealed it is of no more use than not at all.
    bao.restart();
    bao.unseal();
    stage.wait_until_ready(200);
    assert!(
        stage
            .page("/metrics")
            .1
            .contains("\ncountersign_kek_usable 1\n")
    );
    stage.deliver();
    wait_for("the alert to be resolved", PATIENCE, || {
        stage.alert()["resolve_time"].is_string()
    });
    stage.setting.account("globex");

    a_start_without_it_fails(&mut stage, &mut bao);
    stage.deliver();
    let log = stage.setting.control_plane.output();
    let secret_id = fs::read_to_string(stage.setting.folder.join("secret-id")).unwrap();
    assert!(
        !log.contains(secret_id.trim()),
        "the secret id is in the log"
    );
}

/// Longer than any token may live: the first one was renewed, and then another took its place.
fn tokens_are_renewed(stage: &Stage, bao: &Bao) {
    let accessors = || {
        let list = bao.run(&["list", "-format=json", "auth/token/accessors"]);
        let list: Vec<String> = serde_json::from_str(&list).unwrap();
        list
    };
    let first = accessors();
    wait_for("a token in the place of the first one", PATIENCE, || {
        accessors().iter().any(|accessor| !first.contains(accessor))
    });
    // Needs the key service.
    stage.setting.account("initech");
}

fn a_start_without_it_fails(stage: &mut Stage, bao: &mut Bao) {
    let plane = &mut stage.setting.control_plane;
    plane.stop();
    let store = plane.data_dir().join("store.sqlite");
    let before = fs::read(&store).unwrap();
    let folder = &stage.setting.folder;
    let start = |change: &dyn Fn(&mut Command)| {
        let mut command = control_plane::command(folder, free_port(), "info");
        change(&mut command);
        let refused = run(&mut command, b"");
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        refused.all()
    };
    let said = start(&|command| {
        command.env("VAULT_TOKEN", "hvs.secret");
    });
    assert!(said.contains("VAULT_TOKEN is in the environment"), "{said}");
    assert!(!said.contains("hvs.secret"), "{said}");
    bao.kill9();
    let said = start(&|_| ());
    assert!(said.contains("can't be used now"), "{said}");
    assert!(said.contains("Connection refused"), "{said}");
    bao.restart();
    wait_for("OpenBao to say that it is sealed", PATIENCE, || {
        start(&|_| ()).contains("sealed")
    });
    assert!(fs::read(&store).unwrap() == before, "the store was changed");
    bao.unseal();
    stage.setting.control_plane.restart();
}

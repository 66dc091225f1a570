//! A KEK moves from its file to OpenBao's transit engine, is rotated there, and moves on to AWS KMS (a
//! simulator), while webhooks go out: none of them fails. Data keys are wrapped anew by the newest version, so
//! that the old one can be switched off. The simulator stops answering for a while, and nobody notices.

use std::fs;

use countersign_shared::files;
use countersign_tests::{
    bao::Bao,
    certificates::TestCertificate,
    control_plane::ENVIRONMENT,
    moto::Moto,
    receiver::Receiver,
    setting::Setting,
    steady::Steady,
    wait::{PATIENCE, wait_for},
};
use serde_json::{Value, json};

const ACCOUNTS: usize = 12;
/// Of these accounts, of the one that deliveries are for, and of the installation.
const DATA_KEYS: usize = ACCOUNTS + 2;
const RATE: u32 = 50;

struct Stage {
    setting: Setting,
    sender: Steady,
}

impl Stage {
    /// Stops the control plane and starts it with this configuration.
    fn reconfigure(&mut self, toml: &str) {
        let file = self.setting.folder.join("control-plane.toml");
        self.setting.control_plane.stop();
        fs::write(file, toml).unwrap();
        self.setting.control_plane.restart();
        let listeners = self.setting.control_plane.listeners();
        self.sender.connect_to(listeners.api);
    }

    fn kek(&self) -> Value {
        let method = "KeyEncryptionKeyService/GetKeyEncryptionKey";
        self.setting.api().ok(method, &json!({}))["key_encryption_key"].clone()
    }

    /// Waits until the present KEK has wrapped every data key.
    fn wait_until_moved(&self) {
        wait_for("every data key to be wrapped anew", PATIENCE, || {
            let kek = self.kek();
            assert_eq!(
                (&kek["usable"], &kek["problem"]),
                (&json!(true), &json!(""))
            );
            let all = json!([{"kek_id": kek["kek_id"], "count": DATA_KEYS.to_string()}]);
            kek["wrapped"] == all
        });
    }

    /// How many data keys were wrapped anew, of how many.
    fn rewrap(&self) -> (Value, Value) {
        let method = "KeyEncryptionKeyService/RewrapDataKeys";
        let progress = self.setting.api().ok(method, &json!({}));
        (progress["rewrapped"].clone(), progress["total"].clone())
    }

    /// Waits until so many more deliveries were accepted.
    fn go_on(&self, more: usize) {
        let before = self.sender.accepted();
        wait_for("more deliveries", PATIENCE, || {
            self.sender.accepted() >= before + more
        });
    }
}

#[test]
fn no_delivery_fails_meanwhile() {
    let setting = Setting::new("moving-kek");
    let server = TestCertificate::make(&setting.folder.subfolder("server"));
    let account = setting.account("acme");
    let receiver = Receiver::start(&server, &setting.trust_bundle(&account));
    let url = receiver.url("/hooks");
    let destination = setting.destination(&account, "orders", &url, &server.ca_pem);
    for number in 0..ACCOUNTS {
        setting.account(&format!("account-{number}"));
    }
    let _agent = setting.agent("edge-1", &[]);
    let sender = Steady::start(&setting.control_plane, &destination, RATE);
    let mut stage = Stage { setting, sender };
    stage.wait_until_moved();
    stage.go_on(20);

    let mut bao = Bao::start(&stage.setting.folder.subfolder("bao"));
    let transit = |table: &str, token: &str| {
        let (address, ca_file) = (bao.address(), bao.ca_file());
        format!(
            "[{table}.vault]\naddress = '{address}'\nca_file = '{}'\nkey = 'countersign'\ntoken_file = '{token}'\n",
            ca_file.display()
        )
    };
    bao.run(&["secrets", "enable", "transit"]);
    bao.run(&["write", "-f", "transit/keys/countersign"]);
    let token = stage.setting.folder.join("token");
    let text = bao.run(&["token", "create", "-field=token", "-ttl=1h"]);
    files::create_private(&token, text.as_bytes()).unwrap();
    let token = token.display().to_string();
    let file = stage.setting.control_plane.data_dir().join("kek");
    let in_transit = transit("kek", &token);
    stage.reconfigure(&format!(
        "kek.previous.file = '{}'\n{in_transit}",
        file.display()
    ));
    stage.wait_until_moved();
    fs::remove_file(&file).unwrap();
    stage.reconfigure(&in_transit);
    stage.go_on(20);

    bao.run(&["write", "-f", "transit/keys/countersign/rotate"]);
    let all = json!(DATA_KEYS.to_string());
    assert_eq!(stage.rewrap(), (all.clone(), all.clone()));
    assert_eq!(stage.rewrap(), (json!("0"), all), "nothing is left to do");
    bao.run(&[
        "write",
        "transit/keys/countersign/config",
        "min_decryption_version=2",
    ]);
    stage.reconfigure(&in_transit);
    stage.go_on(20);

    let moto = Moto::start(&stage.setting.folder.subfolder("moto"));
    let made = moto.call(&[("kms.create_key", json!({"Description": "KEK"}))]);
    let environment = moto.environment().into_iter();
    let environment: String = environment
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect();
    fs::write(stage.setting.folder.join(ENVIRONMENT), environment).unwrap();
    let at_aws = format!(
        "[kek.aws_kms]\nkey = {}\nregion = 'eu-central-1'\nendpoint = '{}'\n",
        made[0]["KeyMetadata"]["KeyId"],
        moto.endpoint()
    );
    let before = transit("kek.previous", &token);
    stage.reconfigure(&format!("{at_aws}{before}"));
    stage.wait_until_moved();
    stage.reconfigure(&at_aws);
    bao.kill9();
    stage.go_on(20);
    moto.pause();
    stage.go_on(50);
    moto.resume();
    stage.setting.account("after-all");

    stage.sender.stop();
    for delivery in stage.sender.deliveries().keys() {
        stage.setting.wait_until_delivered(delivery);
    }
    for (delivery, attempts) in stage.sender.attempts() {
        assert_eq!(attempts.len(), 1, "{delivery}: {attempts:#?}");
        let class = attempts[0].class().as_str_name();
        assert_eq!(class, "FAILURE_CLASS_DELIVERED", "{delivery}");
    }
}

//! One suite for whatever holds a KEK: a file, SoftHSM, OpenBao's transit engine with each way to log in, and
//! AWS's two services in a simulator. What is wrapped opens for its purpose, under its key, and not otherwise;
//! a start with a key that is not there, or may not be used, says what to do.
//!
//! SoftHSM's library and AWS's client take what they need from the environment, so the suite runs in a
//! process of its own: this program again, for one test.

use std::{env, fs, process::Command};

use countersign_control_plane::{
    config::Config,
    kek::{self, KekError, KekProvider},
};
use countersign_shared::{files, secret::SecretBytes, tls};
use countersign_tests::{
    bao::Bao, folder::Folder, kubernetes::Kubernetes, moto::Moto, process::run, softhsm,
};
use serde_json::json;
use std::sync::Arc;
use toml::Value;

/// Folder of the suite; set in its process only.
const SUITE: &str = "COUNTERSIGN_KEK_SUITE";

/// Of each provider, the settings of two keys, as `<name>.<1 or 2>.toml`.
const PROVIDERS: [&str; 7] = [
    "file",
    "token",
    "vault-token",
    "vault-approle",
    "vault-kubernetes",
    "aws-kms",
    "aws-secrets-manager",
];

#[test]
fn what_is_wrapped_opens_for_its_purpose_only() {
    if let Some(folder) = env::var_os(SUITE) {
        tls::install_default_provider();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        return runtime.block_on(suite(&folder.into_string().unwrap()));
    }
    let folder = Folder::new("kek-suite");
    let write = |name: &str, toml: String| {
        fs::write(folder.join(format!("{name}.toml")), toml).unwrap();
    };
    for number in 1..=2 {
        let file = folder.join(format!("kek-{number}"));
        write(
            &format!("file.{number}"),
            format!("kek.file = '{}'", file.display()),
        );
    }
    softhsm::make_token(&folder);
    for number in 1..=2 {
        let key = format!("kek-{number}");
        softhsm::make_aes_key(&folder, &key);
        write(
            &format!("token.{number}"),
            softhsm::settings(&folder, "kek.token", &key),
        );
    }
    let bao = Bao::start(&folder.subfolder("bao"));
    let cluster = Kubernetes::start(&folder.subfolder("cluster"));
    vault(&folder, &bao, &cluster, &write);
    let moto = Moto::start(&folder.subfolder("moto"));
    aws(&moto, &write);

    let mut suite = Command::new(env::current_exe().unwrap());
    let path =
        "every_kek_provider_keeps_the_same_promises::what_is_wrapped_opens_for_its_purpose_only";
    suite.args(["--exact", path, "--nocapture"]);
    suite
        .env(SUITE, folder.join(""))
        .env("SOFTHSM2_CONF", folder.join(softhsm::CONF));
    suite.envs(moto.environment());
    let finished = run(&mut suite, b"");
    assert!(finished.status.success(), "{}", finished.all());
    assert!(finished.stdout.contains("1 passed"), "{}", finished.all());
}

/// Keys, a policy, and each way to log in.
fn vault(folder: &Folder, bao: &Bao, cluster: &Kubernetes, write: &dyn Fn(&str, String)) {
    bao.run(&["secrets", "enable", "-path=keys/transit", "transit"]);
    for key in ["countersign-1", "countersign-2"] {
        bao.run(&["write", "-f", &format!("keys/transit/keys/{key}")]);
    }
    bao.run(&["write", "keys/transit/keys/takeable", "exportable=true"]);
    let policy = "
        path \"keys/transit/encrypt/countersign-*\" { capabilities = [\"update\"] }
        path \"keys/transit/decrypt/countersign-*\" { capabilities = [\"update\"] }
    ";
    bao.run_with(&["policy", "write", "countersign", "-"], policy.as_bytes());
    let private = |name: &str, content: &str| {
        let file = folder.join(name);
        files::create_private(&file, format!("{content}\n").as_bytes()).unwrap();
        file.display().to_string()
    };
    let token = |policy: &str| {
        let policy = format!("-policy={policy}");
        bao.run(&["token", "create", "-field=token", &policy, "-ttl=10m"])
    };
    let good = private("token", &token("countersign"));
    private("token-of-another", &token("default"));
    let root = private("token-of-root", &token("root"));

    bao.run(&["auth", "enable", "approle"]);
    let role = "auth/approle/role/countersign";
    bao.run(&["write", role, "token_policies=countersign", "token_ttl=10m"]);
    let role_id = bao.run(&["read", "-field=role_id", &format!("{role}/role-id")]);
    let secret_id = bao.run(&[
        "write",
        "-f",
        "-field=secret_id",
        &format!("{role}/secret-id"),
    ]);
    let secret_id = private("secret-id", &secret_id);

    bao.run(&["auth", "enable", "-path=cluster", "kubernetes"]);
    let host = format!("kubernetes_host={}", cluster.address());
    let config = ["write", "auth/cluster/config", "disable_local_ca_jwt=true"];
    let trusted = format!("kubernetes_ca_cert={}", cluster.ca_pem());
    bao.run(&[&config[..], &[&host, &trusted]].concat());
    bao.run(&[
        "write",
        "auth/cluster/role/countersign",
        "bound_service_account_names=control-plane",
        "bound_service_account_namespaces=countersign",
        "audience=vault",
        "token_policies=countersign",
    ]);
    let jwt = cluster.token_file().display();

    let settings = |key: &str, login: &str| {
        let (address, ca_file) = (bao.address(), bao.ca_file());
        format!(
            "[kek.vault]\naddress = '{address}'\nca_file = '{}'\nmount = 'keys/transit'\nkey = '{key}'\n{login}\n",
            ca_file.display()
        )
    };
    let token = |file: &str| format!("token_file = '{file}'");
    let approle = format!("approle = {{ role_id = '{role_id}', secret_id_file = '{secret_id}' }}");
    let kubernetes =
        format!("kubernetes = {{ mount = 'cluster', role = 'countersign', token_file = '{jwt}' }}");
    for number in 1..=2 {
        let key = format!("countersign-{number}");
        write(
            &format!("vault-token.{number}"),
            settings(&key, &token(&good)),
        );
        write(&format!("vault-approle.{number}"), settings(&key, &approle));
        write(
            &format!("vault-kubernetes.{number}"),
            settings(&key, &kubernetes),
        );
    }
    let other = folder.join("token-of-another").display().to_string();
    write("refused-policy", settings("countersign-1", &token(&other)));
    write("refused-missing", settings("no-such-key", &token(&root)));
    write("refused-exportable", settings("takeable", &token(&root)));
    let wrong = approle.replace(&role_id, "another-role");
    write("refused-login", settings("countersign-1", &wrong));
    let wrong = kubernetes.replace("role = 'countersign'", "role = 'another'");
    write("refused-role", settings("countersign-1", &wrong));
    let forged = forged(&fs::read_to_string(cluster.token_file()).unwrap());
    let forged = kubernetes.replace(&jwt.to_string(), &private("forged", &forged));
    write("refused-token", settings("countersign-1", &forged));
    let nobody =
        settings("countersign-1", &token(&good)).replace(&bao.address(), "https://127.0.0.1:9");
    write("away-nobody", nobody);
}

/// A token of a service account with another signature.
fn forged(token: &str) -> String {
    let (signed, signature) = token.trim().rsplit_once('.').unwrap();
    let other = if signature.starts_with('A') { 'B' } else { 'A' };
    format!("{signed}.{other}{}", &signature[1..])
}

fn aws(moto: &Moto, write: &dyn Fn(&str, String)) {
    let endpoint = moto.endpoint();
    let at = format!("region = 'eu-central-1'\nendpoint = '{endpoint}'\n");
    let make = ("kms.create_key", json!({"Description": "KEK"}));
    let keys = moto.call(&[make.clone(), make]);
    let alias = |number: u8| {
        let id = &keys[usize::from(number) - 1]["KeyMetadata"]["KeyId"];
        let name = format!("alias/countersign-{number}");
        (
            "kms.create_alias",
            json!({"AliasName": name, "TargetKeyId": id}),
        )
    };
    let secret = |name: &str, text: &str| {
        (
            "secretsmanager.create_secret",
            json!({"Name": name, "SecretString": text}),
        )
    };
    let line = |number: u8| format!("countersign-kek-v1:{}", base64_of(number));
    moto.call(&[
        alias(1),
        alias(2),
        secret("countersign/kek-1", &line(1)),
        secret("countersign/kek-2", &line(2)),
        secret("other", "hunter2"),
    ]);
    let kms = |key: &str| format!("[kek.aws_kms]\nkey = '{key}'\n{at}");
    let manager = |secret: &str| format!("[kek.aws_secrets_manager]\nsecret = '{secret}'\n{at}");
    for number in 1..=2 {
        write(
            &format!("aws-kms.{number}"),
            kms(&format!("alias/countersign-{number}")),
        );
        let secret = manager(&format!("countersign/kek-{number}"));
        write(&format!("aws-secrets-manager.{number}"), secret);
    }
    write("refused-no-key", kms("alias/nothing"));
    write("refused-no-secret", manager("nothing"));
    write("malformed", manager("other"));
    let nobody = "region = 'eu-central-1'\nendpoint = 'http://127.0.0.1:9'";
    write(
        "away-aws",
        format!("[kek.aws_kms]\nkey = 'alias/x'\n{nobody}"),
    );
}

fn base64_of(number: u8) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.encode([number; 32])
}

/// A KEK as a control plane with this configuration opens it.
async fn open(folder: &str, name: &str) -> Result<Arc<dyn KekProvider>, KekError> {
    let toml = fs::read_to_string(format!("{folder}/{name}.toml")).unwrap();
    let data_dir = vec![("data_dir", Value::String(folder.to_owned()))];
    let config = Config::read(name, &toml, data_dir).unwrap();
    Ok(kek::open(&config.kek, None, None).await?.kek)
}

async fn suite(folder: &str) {
    for provider in PROVIDERS {
        let of = |number: u8| format!("{provider}.{number}");
        let one = open(folder, &of(1))
            .await
            .unwrap_or_else(|error| panic!("{provider}: {error}"));
        let again = open(folder, &of(1)).await.unwrap();
        let other = open(folder, &of(2)).await.unwrap();
        assert_eq!(one.id(), again.id(), "{provider}");
        assert_ne!(one.id(), other.id(), "{provider}");
        promises(provider, one.as_ref(), again.as_ref(), other.as_ref()).await;
    }
    // The same key by three ways to log in is one key: what one wrapped the others unwrap.
    let (token, approle) = (
        open(folder, "vault-token.1").await.unwrap(),
        open(folder, "vault-approle.1").await.unwrap(),
    );
    let key = SecretBytes::from(vec![9; 32]);
    let wrapped = token.wrap(&key, "accounts/a").await.unwrap();
    assert_eq!(token.id(), approle.id());
    assert_eq!(approle.unwrap(&wrapped, "accounts/a").await.unwrap(), key);
    refusals(folder).await;
}

async fn promises(
    provider: &str,
    one: &dyn KekProvider,
    again: &dyn KekProvider,
    other: &dyn KekProvider,
) {
    one.check().await.unwrap();
    let key = SecretBytes::from((1..=32).collect::<Vec<u8>>());
    let wrapped = one.wrap(&key, "accounts/a").await.unwrap();
    assert_eq!(
        again.unwrap(&wrapped, "accounts/a").await.unwrap(),
        key,
        "{provider}"
    );
    assert!(
        !wrapped
            .windows(4)
            .any(|some| key.expose().windows(4).any(|part| part == some))
    );
    assert_ne!(
        wrapped,
        one.wrap(&key, "accounts/a").await.unwrap(),
        "{provider}: nonces differ"
    );

    // What does not open is the blob's fault, which a caller must be able to tell from an outage.
    let refused = |result: Result<SecretBytes, KekError>, what: &str| match result {
        Ok(_) => panic!("{provider} opens {what}"),
        Err(error) => assert!(!error.is_outage(), "{provider}, {what}: {error}"),
    };
    refused(
        one.unwrap(&wrapped, "accounts/b").await,
        "another account's key",
    );
    refused(one.unwrap(&wrapped, "").await, "a key without a purpose");
    refused(
        other.unwrap(&wrapped, "accounts/a").await,
        "another KEK's blob",
    );
    refused(one.unwrap(&[], "accounts/a").await, "nothing");
    for length in (1..wrapped.len()).step_by(wrapped.len() / 12) {
        let cut = one.unwrap(&wrapped[..length], "accounts/a").await;
        refused(cut, &format!("{length} bytes of {}", wrapped.len()));
    }
    for at in (0..wrapped.len()).step_by(wrapped.len() / 12) {
        let mut flipped = wrapped.clone();
        flipped[at] ^= 1;
        match one.unwrap(&flipped, "accounts/a").await {
            // Of a text some bits say nothing: `vault:v0:` is `vault:v1:`, and the end of Base64 has spare ones.
            Ok(opened) => assert_eq!(opened, key, "{provider}: a change at {at}"),
            refusal => refused(refusal, &format!("a change at {at}")),
        }
    }
    let many = (0..16_u8).map(async |number| {
        let (key, context) = (
            SecretBytes::from(vec![number; 32]),
            format!("accounts/{number}"),
        );
        let wrapped = one.wrap(&key, &context).await.unwrap();
        assert_eq!(again.unwrap(&wrapped, &context).await.unwrap(), key);
    });
    for each in many.collect::<Vec<_>>() {
        each.await;
    }
}

/// Each says what is the matter, and whether it passes by itself.
async fn refusals(folder: &str) {
    let fails = async |name: &str| match open(folder, name).await {
        Ok(_) => panic!("{name} opens"),
        Err(error) => error,
    };
    for (name, said) in [
        (
            "refused-policy",
            "the policy must allow 'update' on keys/transit/encrypt/countersign-1",
        ),
        ("refused-missing", "there is no such key"),
        ("refused-exportable", "it is exportable"),
        ("refused-login", "the login at approle is not accepted"),
        ("refused-role", "the login at cluster is not accepted"),
        ("refused-token", "the login at cluster is not accepted"),
        ("refused-no-key", "NotFoundException"),
        ("refused-no-secret", "look at name, region and account"),
    ] {
        let error = fails(name).await;
        assert!(
            matches!(error, KekError::Refused { .. }),
            "{name}: {error:?}"
        );
        assert!(error.to_string().contains(said), "{name}: {error}");
    }
    for name in ["away-nobody", "away-aws"] {
        let error = fails(name).await;
        assert!(matches!(error, KekError::Away { .. }), "{name}: {error:?}");
        assert!(error.to_string().contains("refused"), "{name}: {error}");
    }
    let malformed = fails("malformed").await.to_string();
    assert!(
        malformed.contains("is not a key-encryption key"),
        "{malformed}"
    );
    assert!(!malformed.contains("hunter2"), "{malformed}");
}

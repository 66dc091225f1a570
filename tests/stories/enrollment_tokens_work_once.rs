//! A join token enrolls one agent: no other may use it, the same may repeat the call, a revoked one
//! is useless, and one of another control plane is recognised before anything is said to it.

use countersign_tests::{
    agent::enroll,
    process::Finished,
    setting::Setting,
    wait::{PATIENCE, wait_until},
};
use serde_json::{Value, json};

/// Enrolls `name` with its own data directory.
fn enroll_as(setting: &Setting, name: &str, token: &str) -> Finished {
    let url = setting.control_plane.agents_url();
    enroll(&setting.agent_data_dir(name), &url, token, name)
}

fn assert_refused(finished: &Finished, says: &str) {
    assert!(!finished.status.success(), "{finished:?}");
    assert!(
        finished.status.code().is_some(),
        "ended by a signal: {finished:?}"
    );
    let output = finished.all();
    assert!(
        output.to_lowercase().contains(says),
        "does not say '{says}': {output}"
    );
    assert!(!output.contains("panicked"), "{output}");
}

fn agents(setting: &Setting) -> Vec<Value> {
    let answer = setting
        .api()
        .ok("AgentAdministrationService/ListAgents", &json!({}));
    let agents = answer["agents"].as_array().unwrap();
    agents.iter().map(|agent| agent["name"].clone()).collect()
}

fn token(setting: &Setting, id: &str) -> Value {
    let answer = setting
        .api()
        .ok("AgentAdministrationService/ListJoinTokens", &json!({}));
    let tokens = answer["join_tokens"].as_array().unwrap();
    let name = format!("joinTokens/{id}");
    tokens
        .iter()
        .find(|token| token["name"] == name)
        .unwrap()
        .clone()
}

#[test]
fn one_token_enrolls_one_agent() {
    let setting = Setting::new("token-once");
    let text = setting.join_token("one");
    assert_eq!(token(&setting, "one")["state"], "JOIN_TOKEN_STATE_UNUSED");
    assert!(
        !token(&setting, "one")
            .to_string()
            .contains(text.split('.').nth(1).unwrap())
    );
    let first = enroll_as(&setting, "edge-1", &text);
    assert!(first.status.success(), "{first:?}");
    let used = token(&setting, "one");
    assert_eq!(used["state"], "JOIN_TOKEN_STATE_USED");
    assert_eq!(used["agent"], "agents/edge-1");

    assert_refused(&enroll_as(&setting, "edge-2", &text), "token");
    assert_eq!(agents(&setting), ["agents/edge-1"]);
    // The same agent may say it again.
    let again = enroll_as(&setting, "edge-1", &text);
    assert!(again.status.success(), "{again:?}");
    assert_eq!(agents(&setting), ["agents/edge-1"]);
    // And it is one: it connects.
    let data_dir = setting.agent_data_dir("edge-1");
    let _agent = countersign_tests::agent::Agent::start(&setting.folder, &data_dir, &[]);
    wait_until("the agent to be connected", PATIENCE, || {
        let request = json!({"name": "agents/edge-1"});
        let answer = setting
            .api()
            .ok("AgentAdministrationService/GetAgent", &request);
        (answer["agent"]["connected"] == true).then_some(())
    });
}

#[test]
fn a_revoked_token_is_useless() {
    let setting = Setting::new("token-revoked");
    let text = setting.join_token("one");
    let revoke = json!({"name": "joinTokens/one"});
    let answer = setting
        .api()
        .ok("AgentAdministrationService/RevokeJoinToken", &revoke);
    assert_eq!(answer["join_token"]["state"], "JOIN_TOKEN_STATE_REVOKED");
    assert_refused(&enroll_as(&setting, "edge-1", &text), "token");
    assert!(agents(&setting).is_empty());
}

#[test]
fn a_token_for_one_name_enrolls_no_other() {
    let setting = Setting::new("token-name");
    let request = json!({"join_token_id": "one", "join_token": {"agent_id": "edge-1"}});
    let method = "AgentAdministrationService/CreateJoinToken";
    let answer = setting.api().ok(method, &request);
    let text = answer["token"].as_str().unwrap();
    assert_refused(&enroll_as(&setting, "edge-2", text), "edge-1");
    assert!(agents(&setting).is_empty());
}

#[test]
fn a_name_belongs_to_the_agent_that_has_it() {
    let setting = Setting::new("token-taken");
    let first = enroll_as(&setting, "edge-1", &setting.join_token("one"));
    assert!(first.status.success(), "{first:?}");
    let url = setting.control_plane.agents_url();
    let elsewhere = setting.agent_data_dir("another-host");
    let second = enroll(&elsewhere, &url, &setting.join_token("two"), "edge-1");
    assert_refused(&second, "edge-1");
    assert_eq!(agents(&setting), ["agents/edge-1"]);
}

#[test]
fn what_is_no_token_is_said_to_be_none() {
    let setting = Setting::new("token-garbage");
    let good = setting.join_token("one");
    for garbage in [
        "",
        "hunter2",
        "csj_",
        &good[..good.len() - 1],
        &format!("{good}.x"),
    ] {
        let finished = enroll_as(&setting, "edge-1", garbage);
        assert_refused(&finished, "not a join token");
        let repeats = garbage.len() > 4 && finished.all().contains(garbage);
        assert!(!repeats, "repeats the text: {finished:?}");
    }
    // Of the right form, and unknown.
    let mut parts: Vec<&str> = good.split('.').collect();
    let made_up = "A".repeat(parts[1].len());
    parts[1] = &made_up;
    assert_refused(&enroll_as(&setting, "edge-1", &parts.join(".")), "token");
    assert!(agents(&setting).is_empty());
}

#[test]
fn who_tries_tokens_is_soon_no_longer_listened_to() {
    let toml = "[access]\nfailed_attempts_per_minute = 2\n";
    let setting = Setting::with("token-tries", toml, "info");
    let good = setting.join_token("one");
    let (start, secret) = good.split_once('.').unwrap();
    let (secret, end) = secret.split_once('.').unwrap_or((secret, ""));
    let made_up = [start, &"A".repeat(secret.len()), end].join(".");
    let made_up = made_up.trim_end_matches('.');
    for says in ["token", "token", "too many"] {
        assert_refused(&enroll_as(&setting, "edge-1", made_up), says);
    }
    assert_refused(&enroll_as(&setting, "edge-1", &good), "too many");
    assert!(agents(&setting).is_empty());
}

#[test]
fn a_token_of_another_control_plane_is_recognised() {
    let setting = Setting::new("token-ours");
    let other = Setting::new("token-theirs");
    let theirs = other.join_token("one");
    let finished = enroll_as(&setting, "edge-1", &theirs);
    assert_refused(&finished, "not the control plane");
    // It said nothing, so the token is as good as new.
    assert_eq!(token(&other, "one")["state"], "JOIN_TOKEN_STATE_UNUSED");
    assert!(agents(&setting).is_empty());
}

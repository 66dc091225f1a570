//! Every method of the API, with each kind of credentials there is: none, wrong ones, ones that have expired or
//! were revoked, each role, and an agent's. Each gets exactly what the table of rules says. What is asked for
//! comes from the table, and that the table is whole from reflection, so a new method can't be forgotten.

use std::{net::SocketAddr, time::Duration};

use countersign_control_plane::{
    auth::TABLE,
    model::Role::{self, Administrator},
};
use countersign_proto::v1::{EnrollRequest, enrollment_service_client::EnrollmentServiceClient};
use countersign_shared::time::{Clock as _, SystemClock};
use countersign_tests::{
    client::{ClientIdentity, call_empty, channel},
    setting::Setting,
    wait::{PATIENCE, wait_until},
};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;

/// Failures would otherwise end the story after ten.
const TOML: &str = "[access]\nfailed_attempts_per_minute = 1000000\n";

/// What a caller must find.
enum Expected {
    /// Who calls is not known.
    Unknown,
    /// The table decides.
    Role(Role),
}

/// Makes a key; gives its text.
fn key(setting: &Setting, id: &str, key: &Value) -> String {
    let request = json!({"api_key_id": id, "api_key": key});
    let made = setting.api().ok("AccessService/CreateApiKey", &request);
    made["key"].as_str().unwrap().to_owned()
}

fn of_role(role: Role) -> Value {
    let role = format!("ROLE_{}", role.as_str().to_uppercase());
    json!({"roles": [role], "all_accounts": true})
}

/// Code and reason; those of OK are empty.
fn answer(result: Result<(), Status>) -> (Code, String) {
    match result {
        Ok(()) => (Code::Ok, String::new()),
        Err(status) => {
            let info = status.get_details_error_info();
            (
                status.code(),
                info.map_or_else(String::new, |info| info.reason),
            )
        }
    }
}

/// A key that has expired; waits until it has.
fn expired_key(setting: &Setting, runtime: &Runtime, api: &Channel) -> String {
    let soon = SystemClock.now().plus(Duration::from_secs(2)).to_string();
    let mut wanted = of_role(Administrator);
    wanted["expire_time"] = json!(soon);
    let text = key(setting, "brief", &wanted);
    wait_until("the key to expire", PATIENCE, || {
        let call = call_empty(api, "AccountService/ListAccounts", Some(&text));
        runtime.block_on(call).is_err().then_some(())
    });
    text
}

#[test]
fn each_caller_gets_exactly_what_the_table_says() {
    let setting = Setting::with("matrix", TOML, "info");
    let runtime = Runtime::new().unwrap();
    let plane = &setting.control_plane;
    let (address, ca_file) = (plane.listeners().api, plane.ca_file());
    let api = runtime.block_on(channel(address, &ca_file, None)).unwrap();

    let good = key(&setting, "good", &of_role(Administrator));
    let revoked = key(&setting, "revoked", &of_role(Administrator));
    let name = json!({"name": "apiKeys/revoked"});
    setting.api().ok("AccessService/RevokeApiKey", &name);
    // The id of one that may everything, and not its secret.
    let mut altered = good.clone().into_bytes();
    *altered.last_mut().unwrap() ^= 1;
    let mut callers = vec![
        ("nobody".to_owned(), None, Expected::Unknown),
        (
            "a stranger".to_owned(),
            Some("csk_nobody.AAAA".to_owned()),
            Expected::Unknown,
        ),
        (
            "no key at all".to_owned(),
            Some("hello".to_owned()),
            Expected::Unknown,
        ),
        (
            "a forger".to_owned(),
            String::from_utf8(altered).ok(),
            Expected::Unknown,
        ),
        ("a revoked key".to_owned(), Some(revoked), Expected::Unknown),
        (
            "an expired key".to_owned(),
            Some(expired_key(&setting, &runtime, &api)),
            Expected::Unknown,
        ),
    ];
    for role in Role::ALL {
        let text = key(&setting, role.as_str(), &of_role(role));
        callers.push((role.as_str().to_owned(), Some(text), Expected::Role(role)));
    }
    for (caller, text, expected) in &callers {
        for rule in TABLE {
            let call = call_empty(&api, rule.method, text.as_deref());
            let (code, reason) = answer(runtime.block_on(call));
            let what = format!("{caller} calls {}: {code:?} {reason}", rule.method);
            let allowed = |role: &Role| *role == Administrator || rule.roles.contains(role);
            match expected {
                Expected::Unknown => {
                    assert_eq!(
                        (code, reason.as_str()),
                        (Code::Unauthenticated, "API_KEY_REFUSED"),
                        "{what}"
                    );
                }
                Expected::Role(role) if allowed(role) => {
                    // An empty message is good for some and bad for others; none of it is about who asks.
                    let about_the_caller = [Code::Unauthenticated, Code::PermissionDenied];
                    assert!(!about_the_caller.contains(&code), "{what}");
                    assert!(
                        ![Code::Internal, Code::Unknown, Code::Unimplemented].contains(&code),
                        "{what}"
                    );
                }
                Expected::Role(_) => {
                    assert_eq!(
                        (code, reason.as_str()),
                        (Code::PermissionDenied, "ROLE_REFUSED"),
                        "{what}"
                    );
                }
            }
        }
    }
    agents_do_what_agents_do(&setting, &runtime);
}

/// An agent's identity opens nothing at the API, and at the agents' listener there is nothing of the API.
fn agents_do_what_agents_do(setting: &Setting, runtime: &Runtime) {
    let plane = &setting.control_plane;
    let (listeners, ca_file) = (plane.listeners(), plane.ca_file());
    let token = setting.join_token("one");
    let identity = runtime.block_on(enroll(listeners.agents, &ca_file, token));
    let (chain, private) = &identity;
    let connect = |address| {
        let identity: ClientIdentity = (chain.clone(), private.clone_key());
        runtime
            .block_on(channel(address, &ca_file, Some(identity)))
            .unwrap()
    };
    let (api, agents) = (connect(listeners.api), connect(listeners.agents));
    for rule in TABLE {
        let at_api = answer(runtime.block_on(call_empty(&api, rule.method, None)));
        let at_agents = answer(runtime.block_on(call_empty(&agents, rule.method, None)));
        let what = rule.method;
        assert_eq!(
            at_api,
            (Code::Unauthenticated, "API_KEY_REFUSED".to_owned()),
            "{what}"
        );
        assert_eq!(at_agents.0, Code::Unimplemented, "{what}");
    }
    // Its own calls reach their methods there, and not at the API.
    let own = "EnrollmentService/RenewIdentity";
    let (code, reason) = answer(runtime.block_on(call_empty(&agents, own, None)));
    assert_eq!(
        (code, reason.as_str()),
        (Code::InvalidArgument, "SIGNING_REQUEST_INVALID")
    );
    assert_eq!(
        answer(runtime.block_on(call_empty(&api, own, None))).0,
        Code::Unimplemented
    );
}

/// Enrolls an agent whose key this test holds.
async fn enroll(address: SocketAddr, ca_file: &std::path::Path, token: String) -> ClientIdentity {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let channel = channel(address, ca_file, None).await.unwrap();
    let mut client = EnrollmentServiceClient::new(channel);
    let enrolled = client.enroll(EnrollRequest {
        token,
        agent_id: "edge-1".to_owned(),
        certificate_signing_request: request.der().to_vec().into(),
    });
    let chain = enrolled.await.unwrap().into_inner().certificate_chain;
    let chain = chain
        .into_iter()
        .map(|der| CertificateDer::from(der.to_vec()));
    let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    (chain.collect(), private)
}

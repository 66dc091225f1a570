//! The guard around a service that answers with what it was sent.

use std::{net::IpAddr, time::Duration};

use countersign_proto::v1;
use countersign_shared::{
    secret::SecretText,
    tasks::{Failures, Tasks},
    time::{ManualClock, Timestamp},
};
use tempfile::TempDir;
use tonic_types::StatusExt as _;
use tower::ServiceExt as _;

use super::*;
use crate::{
    auth::KeyRequest,
    model::{Role, Scope},
    store::sqlite::SqliteStore,
};

struct World {
    guard: Guard,
    _alive: (TempDir, Tasks, Failures),
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (tasks, failures) = Tasks::new();
        let store = SqliteStore::open(&folder.path().join("store.sqlite"), &tasks).unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(1_700_000_000)));
        let keys = ApiKeys::load(Arc::new(store), clock.clone(), 1000, 2)
            .await
            .unwrap();
        Self {
            guard: Guard {
                rules: Arc::new(Rules::new().unwrap()),
                keys: Arc::new(keys),
                metrics: Metrics::default(),
                max_message: 100_000,
                refusals: Arc::default(),
                clock,
            },
            _alive: (folder, tasks, failures),
        }
    }

    async fn key(&self, roles: &[Role], accounts: &[&str], calls: Option<u32>) -> SecretText {
        let accounts = accounts.iter().map(|name| name.parse().unwrap()).collect();
        let request = KeyRequest {
            roles: roles.to_vec(),
            scope: Scope::Accounts(accounts),
            calls_per_second: calls,
            ..KeyRequest::administrator()
        };
        self.guard.keys.create(request).await.unwrap().1
    }

    /// What comes out: the body that the service was sent, or the guard's refusal.
    async fn call(&self, path: &str, key: Option<&str>, body: Vec<u8>) -> Result<Bytes, Status> {
        let echo = tower::service_fn(|request: Request<Body>| async move {
            Ok::<_, Infallible>(Response::new(request.into_body()))
        });
        let mut request = Request::new(Body::new(Full::from(body)));
        *request.uri_mut() = path.parse().unwrap();
        request.extensions_mut().insert(Peer {
            agent: None,
            agent_key: None,
            agent_certificate: None,
            client: None,
            address: Some(IpAddr::from([192, 0, 2, 1])),
        });
        if let Some(key) = key {
            let value = format!("Bearer {key}").parse().unwrap();
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let answered = self.guard.layer(echo).oneshot(request).await.unwrap();
        if let Some(refused) = Status::from_header_map(answered.headers()) {
            return Err(refused);
        }
        Ok(answered.into_body().collect().await.unwrap().to_bytes())
    }
}

fn framed(message: &impl prost::Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], length.as_slice(), &message].concat()
}

const SUBMIT: &str = "/countersign.v1.DeliveryService/SubmitDelivery";

fn submit(account: &str, payload: usize) -> Vec<u8> {
    framed(&v1::SubmitDeliveryRequest {
        destination: format!("accounts/{account}/destinations/orders"),
        payload: vec![7; payload].into(),
        ..Default::default()
    })
}

fn reason(status: &Status) -> String {
    super::status::reason(status)
}

#[tokio::test]
async fn what_is_let_in_comes_through_unchanged() {
    let world = World::new().await;
    let key = world.key(&[Role::Sender], &["accounts/acme"], None).await;
    for payload in [0, 10, 90_000] {
        let sent = submit("acme", payload);
        let came = world.call(SUBMIT, Some(key.expose()), sent.clone()).await;
        assert_eq!(came.unwrap(), sent);
    }
    let health = world
        .call("/grpc.health.v1.Health/Check", None, vec![1])
        .await;
    assert_eq!(health.unwrap().as_ref(), [1], "health needs no key");
}

#[tokio::test]
async fn another_account_is_refused_with_words_that_tell_nothing_of_it() {
    let world = World::new().await;
    let key = world.key(&[Role::Sender], &["accounts/acme"], None).await;
    let mut texts = Vec::new();
    for account in ["globex", "nobody-has-this"] {
        let refused = world
            .call(SUBMIT, Some(key.expose()), submit(account, 1))
            .await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert_eq!(reason(&refused), "ACCOUNT_REFUSED");
        texts.push(refused.message().to_owned());
    }
    assert_eq!(texts[0], texts[1]);
    assert_eq!(world.guard.metrics.denied_calls.get(), 2);
}

#[tokio::test]
async fn what_can_not_be_judged_is_not_let_in() {
    let world = World::new().await;
    let key = world.key(&[Role::Sender], &["accounts/acme"], None).await;
    let good = submit("acme", 10);
    let mut compressed = good.clone();
    compressed[0] = 1;
    let cut = good[..good.len() - 1].to_vec();
    let two = [good.clone(), good].concat();
    for body in [vec![], vec![0], compressed, cut, two] {
        let refused = world.call(SUBMIT, Some(key.expose()), body).await;
        assert_eq!(reason(&refused.unwrap_err()), "REQUEST_UNREADABLE");
    }
    let large = world
        .call(SUBMIT, Some(key.expose()), submit("acme", 100_000))
        .await;
    assert_eq!(large.unwrap_err().code(), Code::OutOfRange);
    for path in [
        "/countersign.v1.AccountService/Unknown",
        "/countersign.v1.AgentSessionService/Connect",
        "/other/Thing",
        "/",
    ] {
        let refused = world.call(path, Some(key.expose()), vec![]).await;
        assert_eq!(refused.unwrap_err().code(), Code::Unimplemented, "{path}");
    }
}

#[tokio::test]
async fn the_role_is_asked_for_before_the_message_is_read() {
    let world = World::new().await;
    let key = world.key(&[Role::Auditor], &["accounts/acme"], None).await;
    let refused = world
        .call(SUBMIT, Some(key.expose()), vec![])
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), "ROLE_REFUSED");
    assert!(
        refused.message().contains("administrator or sender"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn too_many_calls_and_too_many_wrong_keys_are_told_when_to_come_again() {
    let world = World::new().await;
    let key = world
        .key(&[Role::Sender], &["accounts/acme"], Some(2))
        .await;
    let call = async |key: &str| world.call(SUBMIT, Some(key), submit("acme", 1)).await;
    for _ in 0..2 {
        call(key.expose()).await.unwrap();
    }
    let limited = call(key.expose()).await.unwrap_err();
    assert_eq!(
        (limited.code(), reason(&limited)),
        (Code::ResourceExhausted, "TOO_MANY_CALLS".to_owned())
    );
    let retry = limited.get_error_details().retry_info().cloned().unwrap();
    assert_eq!(retry.retry_delay, Some(Duration::from_millis(500)));

    for expected in [
        "API_KEY_REFUSED",
        "API_KEY_REFUSED",
        "TOO_MANY_FAILED_ATTEMPTS",
    ] {
        let refused = call("csk_x.y").await.unwrap_err();
        assert_eq!(reason(&refused), expected);
        assert!(!refused.message().contains("csk_x"), "{refused:?}");
    }
    assert_eq!(world.guard.metrics.authentication_failures.get(), 3);
}

#[tokio::test]
async fn refusals_are_gathered_and_calls_that_may_change_something_have_a_scope() {
    let world = World::new().await;
    let key = world.key(&[Role::Sender], &["accounts/acme"], None).await;
    let refused = world
        .call(SUBMIT, Some(key.expose()), submit("globex", 1))
        .await;
    assert!(refused.is_err());
    assert!(world.call(SUBMIT, None, submit("acme", 1)).await.is_err());
    let nowhere = world
        .call("/countersign.v1.Nothing/Nothing", None, vec![])
        .await;
    assert!(nowhere.is_err());
    let mut taken = world.guard.refusals.take();
    taken.sort_by(|one, other| one.reason.cmp(&other.reason));
    let reasons: Vec<_> = taken.iter().map(|it| it.reason.as_str()).collect();
    assert_eq!(reasons, ["ACCOUNT_REFUSED", "API_KEY_REFUSED"]);
    assert!(taken[0].principal.starts_with("apiKeys/"));
    assert_eq!(taken[1].principal, "");
    assert!(taken.iter().all(|it| it.address == "192.0.2.1"));

    let peek = |path: &str| {
        let mut request =
            http::Request::new(Body::new(Full::from(framed(&v1::DeleteAccountRequest {
                name: "accounts/acme".to_owned(),
                ..Default::default()
            }))));
        *request.uri_mut() = path.parse().unwrap();
        request
    };
    let caller = Caller::of(&peek("/countersign.v1.AccountService/DeleteAccount"));
    let delete = peek("/countersign.v1.AccountService/DeleteAccount");
    let (_, call) = world
        .guard
        .judge_message(&caller, false, delete)
        .await
        .unwrap();
    let record = call.unwrap().record(crate::model::AuditKind::Change, 1);
    assert_eq!(record.method, "AccountService/DeleteAccount");
    assert_eq!(record.resources, ["accounts/acme"]);
}

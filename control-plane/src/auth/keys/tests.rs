use std::net::IpAddr;

use countersign_shared::{
    tasks::{Failures, Tasks},
    time::ManualClock,
};
use tempfile::TempDir;

use super::*;
use crate::{
    model::{Role, Scope},
    store::sqlite::SqliteStore,
};

const NOW: Timestamp = Timestamp::from_unix_seconds(1_700_000_000);

struct World {
    keys: ApiKeys,
    store: Arc<dyn Store>,
    clock: Arc<ManualClock>,
    _alive: (TempDir, Tasks, Failures),
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (tasks, failures) = Tasks::new();
        let store = SqliteStore::open(&folder.path().join("store.sqlite"), &tasks).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let clock = Arc::new(ManualClock::at(NOW));
        Self {
            keys: load(&store, &clock).await,
            store,
            clock,
            _alive: (folder, tasks, failures),
        }
    }

    /// Makes a key; answers with its name and the header's value.
    async fn key(&self, request: KeyRequest) -> (ApiKeyName, String) {
        let (key, text) = self.keys.create(request).await.unwrap();
        (key.id.into(), format!("Bearer {}", text.expose()))
    }

    fn enter(&self, header: &str) -> Result<String, Refused> {
        self.enter_from(header, None)
    }

    fn enter_from(&self, header: &str, address: Option<&str>) -> Result<String, Refused> {
        let source = address.map(|text| text.parse::<IpAddr>().unwrap().into());
        let principal = self.keys.authenticate(Some(header), source)?;
        Ok(principal.name.clone())
    }
}

async fn load(store: &Arc<dyn Store>, clock: &Arc<ManualClock>) -> ApiKeys {
    let (store, clock) = (Arc::clone(store), Arc::clone(clock));
    ApiKeys::load(store, clock, 5, 3).await.unwrap()
}

#[tokio::test]
async fn only_the_whole_key_is_let_in() {
    let world = World::new().await;
    let (name, header) = world.key(KeyRequest::administrator()).await;
    let (_, foreign) = super::generate(KeyRequest::administrator(), NOW);
    let expected = Ok(name.to_string());
    assert_eq!(world.enter(&header), expected);
    assert_eq!(world.enter(&header.replace("Bearer", "bearer")), expected);
    for length in 0..header.len() {
        assert_eq!(
            world.enter(&header[..length]),
            Err(Refused::Key),
            "{length}"
        );
    }
    let text = header.strip_prefix("Bearer ").unwrap();
    let refused = [
        format!("Bearer {}", foreign.expose()),
        format!("Basic {text}"),
        text.to_owned(),
        format!("{header}x"),
    ];
    for header in refused {
        assert_eq!(world.enter(&header), Err(Refused::Key));
    }
    assert!(world.keys.authenticate(None, None).is_err());
}

#[tokio::test]
async fn a_key_ends_when_it_expires_and_at_once_when_it_is_revoked() {
    let world = World::new().await;
    let end = NOW.plus(Duration::from_secs(10));
    let (_, expiring) = world
        .key(KeyRequest {
            expires_at: Some(end),
            ..KeyRequest::administrator()
        })
        .await;
    let (name, revoked) = world.key(KeyRequest::administrator()).await;
    let stream = world.keys.authenticate(Some(&expiring), None).unwrap();
    world.clock.advance(Duration::from_secs(9));
    assert!(world.enter(&expiring).is_ok() && stream.is_valid(world.keys.now()));
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.enter(&expiring), Err(Refused::Key));
    assert!(!stream.is_valid(world.keys.now()), "a stream that it began");

    let stream = world.keys.authenticate(Some(&revoked), None).unwrap();
    world.keys.revoke(&name).await.unwrap();
    assert_eq!(world.enter(&revoked), Err(Refused::Key));
    assert!(!stream.is_valid(world.keys.now()));
    let again = load(&world.store, &world.clock).await;
    assert!(
        again.authenticate(Some(&revoked), None).is_err(),
        "after a restart"
    );
    let missing = world.keys.revoke(&"apiKeys/nobody".parse().unwrap()).await;
    assert!(matches!(missing, Err(StoreError::NotFound(_))));
}

#[tokio::test]
async fn what_a_key_may_comes_with_it_after_a_restart_too() {
    let world = World::new().await;
    let scope = Scope::Accounts(vec!["accounts/acme".parse().unwrap()]);
    let (_, header) = world
        .key(KeyRequest {
            roles: vec![Role::Sender],
            scope: scope.clone(),
            calls_per_second: Some(2),
            ..KeyRequest::administrator()
        })
        .await;
    let again = load(&world.store, &world.clock).await;
    for keys in [&world.keys, &again] {
        let principal = keys.authenticate(Some(&header), None).unwrap();
        assert_eq!(
            (&principal.roles, &principal.scope),
            (&vec![Role::Sender], &scope)
        );
        let counted = (0..5).filter(|_| principal.count(NOW).is_ok());
        assert_eq!(counted.count(), 2);
    }
}

#[tokio::test]
async fn the_last_use_is_noted_now_and_then_and_survives() {
    let world = World::new().await;
    let (name, header) = world.key(KeyRequest::administrator()).await;
    let last_use = async || world.keys.get(&name).await.unwrap().last_used_at;
    let stored = async || world.store.api_key(&name).await.unwrap().last_used_at;
    assert_eq!(last_use().await, None);
    world.enter(&header).unwrap();
    assert_eq!((last_use().await, stored().await), (Some(NOW), None));
    world.keys.write_new_uses().await.unwrap();
    assert_eq!(stored().await, Some(NOW));
    world.clock.advance(COARSE / 2);
    world.enter(&header).unwrap();
    assert_eq!(last_use().await, Some(NOW), "too soon to note");
    world.clock.advance(COARSE / 2);
    world.enter(&header).unwrap();
    let later = NOW.plus(COARSE);
    assert_eq!((last_use().await, stored().await), (Some(later), Some(NOW)));
    let listed = world.keys.list("", 10).await.unwrap();
    assert_eq!(listed.items[0].last_used_at, Some(later));
}

#[tokio::test]
async fn wrong_keys_shut_an_address_out_but_no_key_that_worked_there() {
    let world = World::new().await;
    let (_, familiar) = world.key(KeyRequest::administrator()).await;
    let (_, newcomer) = world.key(KeyRequest::administrator()).await;
    let (bad, good) = (Some("192.0.2.1"), Some("192.0.2.2"));
    world.enter_from(&familiar, bad).unwrap();
    for _ in 0..10 {
        let nothing = world.enter_from("Bearer something-else", bad);
        assert_eq!(nothing, Err(Refused::Key), "no attempt at a key");
    }
    let wrong = format!("{newcomer}x");
    for _ in 0..3 {
        assert_eq!(world.enter_from(&wrong, bad), Err(Refused::Key));
    }
    for header in [&wrong, &newcomer] {
        let refused = world.enter_from(header, bad);
        assert!(
            matches!(refused, Err(Refused::TooManyFailures(_))),
            "{refused:?}"
        );
    }
    assert!(world.enter_from(&familiar, bad).is_ok());
    assert!(world.enter_from(&newcomer, good).is_ok());
    world.clock.advance(Duration::from_secs(60));
    assert!(world.enter_from(&newcomer, bad).is_ok());
}

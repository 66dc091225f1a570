//! Days in virtual time, over the real store.

use countersign_shared::{name::DestinationName, tasks::Tasks, time::ManualClock};

use super::*;
use crate::{
    model::Shown,
    signals::Observations,
    store::{
        conformance::{new_account, new_destination},
        sqlite::SqliteStore,
    },
};

const HOUR: Duration = Duration::from_secs(3600);
const START: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

struct Scene {
    watchman: Watchman,
    clock: Arc<ManualClock>,
    name: DestinationName,
    _folder: tempfile::TempDir,
    _tasks: Tasks,
}

async fn scene() -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let (tasks, _failures) = Tasks::new();
    let store = SqliteStore::open(&folder.path().join("store"), &tasks).unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    store
        .create_account(new_account("acme", None))
        .await
        .unwrap();
    let name: DestinationName = "accounts/acme/destinations/orders".parse().unwrap();
    let new = new_destination(&name, None);
    store.create_destination(new).await.unwrap();
    let clock = Arc::new(ManualClock::at(START));
    let watchman = Watchman {
        alerts: Alerts::new(store, Arc::clone(&clock) as _, Metrics::default(), None),
        observer: Observations::default().observe(),
        dead_letters: Arc::default(),
    };
    Scene {
        watchman,
        clock,
        name,
        _folder: folder,
        _tasks: tasks,
    }
}

impl Scene {
    async fn destination(&self) -> Destination {
        let store = &self.watchman.alerts.store;
        store.destination(&self.name).await.unwrap()
    }

    async fn attempt(&self, class: FailureClass) {
        let shown = Shown {
            class,
            certificate_requested: None,
            server_not_after: None,
            presented: None,
            kept_back: false,
            refused: None,
        };
        let evidence = Evidence {
            destination: self.destination().await.key,
            shown,
            in_a_row: 1,
        };
        self.watchman.take(evidence).await;
    }

    /// What is open after so many hours since the start.
    async fn after(&self, hours: u32) -> Option<AlertSeverity> {
        let then = START.plus(hours * HOUR);
        self.clock.advance(then.since(self.clock.now()));
        self.watchman.look_at_destinations().await;
        let store = &self.watchman.alerts.store;
        let open = store.open_alerts_of(AlertCause::DestinationFailing).await;
        let open = open.unwrap();
        assert!(open.len() <= 1);
        open.first().map(|alert| alert.finding.severity)
    }
}

#[tokio::test]
async fn a_destination_that_only_fails_is_disabled_after_two_warnings() {
    let scene = scene().await;
    scene.attempt(FailureClass::ConnectionRefused).await;
    assert_eq!(scene.destination().await.failing_since, Some(START));
    assert_eq!(scene.after(23).await, None);
    scene.attempt(FailureClass::HttpServerError).await;
    assert_eq!(scene.after(24).await, Some(AlertSeverity::Warning));
    assert_eq!(scene.after(72).await, Some(AlertSeverity::Critical));
    assert_eq!(scene.destination().await.state, DestinationState::Enabled);
    assert_eq!(scene.after(120).await, Some(AlertSeverity::Critical));
    assert_eq!(scene.destination().await.state, DestinationState::Disabled);
    assert_eq!(
        scene.after(300).await,
        Some(AlertSeverity::Critical),
        "it stays"
    );

    // Enabled again, it has five days from then on.
    let store = &scene.watchman.alerts.store;
    let (name, now) = (&scene.name, scene.clock.now());
    let enabled = store.set_destination_state(name, DestinationState::Enabled, now);
    assert_eq!(enabled.await.unwrap().failing_since, Some(now));
    assert_eq!(scene.after(301).await, None);
    assert_eq!(scene.after(419).await, Some(AlertSeverity::Critical));
    assert_eq!(scene.destination().await.state, DestinationState::Enabled);
    scene.after(420).await;
    assert_eq!(scene.destination().await.state, DestinationState::Disabled);
}

#[tokio::test]
async fn one_delivery_ends_it_and_what_holds_does_not_count() {
    let scene = scene().await;
    scene.attempt(FailureClass::ClientCaNotTrusted).await;
    assert_eq!(
        scene.destination().await.failing_since,
        None,
        "an alert of its own"
    );
    scene.attempt(FailureClass::HttpClientError).await;
    assert_eq!(scene.after(100).await, Some(AlertSeverity::Critical));
    scene.attempt(FailureClass::Delivered).await;
    assert_eq!(scene.destination().await.failing_since, None);
    assert_eq!(scene.after(101).await, None);
    assert_eq!(scene.after(1000).await, None);
    assert_eq!(scene.destination().await.state, DestinationState::Enabled);
}

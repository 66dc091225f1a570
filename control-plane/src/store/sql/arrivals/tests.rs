//! With a real database: what is taken back is as it was, in memory as on disk, and who opens it finds the same.

use std::path::Path;

use countersign_shared::{random, tasks::Tasks, time::Timestamp};

use super::*;
use crate::{
    model::NewDelivery,
    store::{
        DeliveryStore as _, TenantStore as _,
        conformance::{at, destination_name, new_account, new_destination},
        sql::{Database as _, rows::one, writer::Lane},
        sqlite::SqliteStore,
    },
};

fn new(second: i64) -> NewDelivery {
    let accepted_at = at(second);
    NewDelivery {
        id: random::uuid_v7(accepted_at).into(),
        destination: destination_name("acme", "orders"),
        sealed_payload: vec![1, 2],
        payload_size: 2,
        content_type: String::new(),
        event_type: String::new(),
        accepted_at,
        ordering_key: None,
        request: None,
    }
}

/// A store with three deliveries that arrived together, and one alone.
async fn filled(path: &Path, tasks: &Tasks) -> (SqliteStore, DestinationKey, Vec<Place>) {
    let store = SqliteStore::open(path, tasks).unwrap();
    let name = destination_name("acme", "orders");
    let account = store.create_account(new_account("acme", None)).await;
    account.unwrap();
    let made = store.create_destination(new_destination(&name, None)).await;
    let mut places = Vec::new();
    for together in [vec![new(1), new(2), new(3)], vec![new(4)]] {
        places.extend(together.iter().map(|it| (it.accepted_at, it.id)));
        for answer in store.submit_all(together).await.unwrap() {
            answer.unwrap();
        }
    }
    (store, made.unwrap().key, places)
}

/// What waits in memory, and how many lists there are on disk, and rows in `due`.
async fn seen(store: &SqliteStore, key: DestinationKey) -> (Vec<Place>, i64, i64) {
    let look = move |connection: &Connection| {
        let count = |table| {
            let query = format!("SELECT count(*) FROM {table}");
            one(connection, &query, [], |row| row.get::<_, i64>(0))
        };
        let places = first(connection, key, 99)?;
        Ok((places, count("arrivals")?.unwrap(), count("due")?.unwrap()))
    };
    store.read_waiting(look).await.unwrap()
}

#[tokio::test]
async fn what_is_taken_back_waits_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let (tasks, _failures) = Tasks::new();
    let (store, key, places) = filled(&folder.path().join("store"), &tasks).await;
    let before = (places.clone(), 2, 0);
    assert_eq!(seen(&store, key).await, before);

    let [first, last] = [places[0], places[3]];
    for (lane, error) in [
        (Lane::Savepoint, StoreError::Precondition("no".to_owned())),
        (Lane::Urgent(1), StoreError::Unavailable("full".to_owned())),
    ] {
        let given = error.clone();
        let work = move |connection: &Connection| -> Result<()> {
            assert_eq!(take(connection, key, last)?.len(), 4);
            let again = Arrived {
                destination: key,
                due_at: first.0,
                id: first.1,
                payload_size: 2,
            };
            accept(connection, &[again])?;
            Err(given)
        };
        assert_eq!(store.run(lane, work).await, Err(error));
        assert_eq!(seen(&store, key).await, before);
    }
}

#[tokio::test]
async fn a_list_goes_with_the_last_that_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let (tasks, _failures) = Tasks::new();
    let (store, key, places) = filled(&path, &tasks).await;

    let (second, first_two) = (places[1], places[1]);
    let account = "accounts/acme".parse().unwrap();
    store.cancel(&account, second.1, at(5)).await.unwrap();
    let work = move |connection: &Connection| take(connection, key, first_two);
    // What is taken and not leased would be found again; so it is leased, as far as the table says.
    let leased = move |connection: &Connection| {
        let ids = work(connection)?;
        for id in &ids {
            let lease = "INSERT INTO leases VALUES (?, 1, 1, 1, 1)";
            execute(connection, lease, [Column(*id)])?;
        }
        Ok(ids)
    };
    let taken = store.run(Lane::Urgent(1), leased).await.unwrap();
    assert_eq!(taken, [places[0].1]);
    let left = (vec![places[2], places[3]], 2, 0);
    assert_eq!(seen(&store, key).await, left);
    drop(store);

    // The list still names all three.
    let store = SqliteStore::open(&path, &tasks).unwrap();
    assert_eq!(seen(&store, key).await, left);
    let clear = move |connection: &Connection| clear(connection, key);
    store.run(Lane::Savepoint, clear).await.unwrap();
    assert_eq!(seen(&store, key).await, (vec![], 0, 0));
}

#[tokio::test]
async fn what_there_is_no_room_for_has_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let (tasks, _failures) = Tasks::new();
    let (store, key, places) = filled(&path, &tasks).await;
    drop(store);
    let store = SqliteStore::open_with(Arrivals::bounded(5), &path, &tasks).unwrap();
    for together in [vec![new(5), new(6)], vec![new(7)]] {
        store.submit_all(together).await.unwrap();
    }
    let (waiting, lists, rows) = seen(&store, key).await;
    assert_eq!((waiting.len(), lists, rows), (5, 3, 2));
    assert_eq!(waiting[..4], places);
    assert_eq!(store.backlog(key).await.unwrap().deliveries, 7);
    assert_eq!(
        store.due_of(key).await.unwrap(),
        Some(Timestamp::from_unix_seconds(1))
    );
}

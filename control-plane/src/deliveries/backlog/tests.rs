use super::*;

const KEY: DestinationKey = DestinationKey(1);

fn name(text: &str) -> DestinationName {
    text.parse().unwrap()
}

fn one() -> DestinationName {
    name("accounts/a/destinations/one")
}

fn bound(deliveries: u64, bytes: u64) -> Bound {
    Bound { deliveries, bytes }
}

fn backlog(destination: Bound, account: Bound, installation: Bound) -> Arc<Backlog> {
    let bounds = BacklogBounds {
        destination,
        account,
        installation,
    };
    Arc::new(Backlog::new(bounds, Metrics::default()))
}

/// Bounds of 2, 3 and 4 deliveries.
fn small() -> Arc<Backlog> {
    backlog(bound(2, 1000), bound(3, 1000), bound(4, 1000))
}

fn load(deliveries: i64, bytes: i64) -> Load {
    Load { deliveries, bytes }
}

fn scope(entered: Result<Place, Full>) -> Option<Scope> {
    entered.err().map(|full| full.scope)
}

#[test]
fn each_bound_is_the_last_room_that_is_given() {
    let backlog = small();
    let (two, three) = (
        name("accounts/a/destinations/two"),
        name("accounts/b/destinations/three"),
    );
    let _kept = [backlog.enter(&one(), 10), backlog.enter(&one(), 10)];
    assert_eq!(scope(backlog.enter(&one(), 10)), Some(Scope::Destination));
    let _third = backlog.enter(&two, 10).unwrap();
    assert_eq!(scope(backlog.enter(&two, 10)), Some(Scope::Account));
    let fourth = backlog.enter(&three, 10).unwrap();
    assert_eq!(scope(backlog.enter(&three, 10)), Some(Scope::Installation));
    drop(fourth);
    assert_eq!(scope(backlog.enter(&three, 10)), None, "given back");
}

#[test]
fn bytes_are_bounded_too_but_a_lone_payload_always_fits() {
    let backlog = backlog(bound(9, 100), bound(9, 1000), bound(9, 1000));
    let first = backlog.enter(&one(), 200).unwrap();
    let full = backlog.enter(&one(), 1).unwrap_err();
    assert_eq!((full.scope, full.load), (Scope::Destination, load(1, 200)));
    drop(first);
    let _small = backlog.enter(&one(), 99).unwrap();
    assert!(backlog.enter(&one(), 2).is_err());
    assert!(backlog.enter(&one(), 1).is_ok());
}

#[test]
fn what_is_settled_makes_room_and_what_comes_back_takes_it_unasked() {
    let backlog = small();
    for _ in 0..2 {
        backlog.enter(&one(), 10).unwrap().taken(KEY);
    }
    for _ in 0..3 {
        backlog.returned(&one(), KEY, 10);
    }
    assert_eq!(backlog.of(&one()), load(5, 50));
    backlog.left([(KEY, 10); 3]);
    assert!(backlog.enter(&one(), 10).is_err(), "2 are allowed");
    backlog.left([(KEY, 10), (DestinationKey(77), 10)]);
    assert!(backlog.enter(&one(), 10).is_ok());
    backlog.forget(&one());
    assert_eq!(backlog.of(&one()), Load::default());
    assert_eq!(backlog.lock().all, Load::default());
    assert!(backlog.lock().accounts.is_empty());
}

#[test]
fn a_caller_that_goes_away_gives_room_back_only_before_its_delivery_is_on_its_way() {
    let backlog = small();
    drop(backlog.enter(&one(), 10).unwrap());
    assert_eq!(backlog.of(&one()), Load::default());
    assert!(
        backlog.lock().destinations.is_empty(),
        "nothing is left behind"
    );
    let mut place = backlog.enter(&one(), 10).unwrap();
    place.on_its_way();
    drop(place);
    assert_eq!(backlog.of(&one()), load(1, 10));
    let mut place = backlog.enter(&one(), 10).unwrap();
    place.on_its_way();
    place.refused();
    assert_eq!(backlog.of(&one()), load(1, 10));
    backlog.forget_unknown();
    assert!(
        backlog.lock().destinations.is_empty(),
        "it was never stored"
    );
}

#[test]
fn a_calm_recount_is_exact_and_a_busy_one_only_repairs_what_nothing_explains() {
    let backlog = small();
    let began = backlog.begin(KEY, &one());
    backlog.end(KEY, began, load(7, 70));
    assert_eq!(backlog.of(&one()), load(7, 70), "as after a start");

    let began = backlog.begin(KEY, &one());
    backlog.left([(KEY, 10)]);
    backlog.end(KEY, began, load(7, 70));
    assert_eq!(
        backlog.of(&one()),
        load(6, 60),
        "one moved, which explains it"
    );

    let began = backlog.begin(KEY, &one());
    backlog.left([(KEY, 10)]);
    backlog.end(KEY, began, load(2, 20));
    assert_eq!(
        backlog.of(&one()),
        load(2, 20),
        "one does not explain three"
    );

    let settling = backlog.settling(1);
    let began = backlog.begin(KEY, &one());
    drop(settling);
    backlog.end(KEY, began, load(1, 10));
    assert_eq!(
        backlog.of(&one()),
        load(2, 20),
        "perhaps it is about to be counted"
    );

    let began = backlog.begin(KEY, &one());
    backlog.end(KEY, began, Load::default());
    assert!(
        backlog.counted().is_empty(),
        "an empty one is no longer kept"
    );
}

#[test]
fn a_name_that_is_given_anew_begins_empty() {
    let backlog = small();
    backlog.returned(&one(), KEY, 10);
    backlog.returned(&one(), DestinationKey(2), 10);
    assert_eq!(backlog.of(&one()), load(1, 10));
    backlog.left([(KEY, 10)]);
    assert_eq!(
        backlog.of(&one()),
        load(1, 10),
        "the old one is not counted"
    );
    backlog.forget_account(&"accounts/a".parse().unwrap());
    assert_eq!(backlog.lock().all, Load::default());
}

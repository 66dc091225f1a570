use countersign_shared::{
    name::DeliveryId,
    random,
    tasks::Tasks,
    time::{Clock as _, SystemClock, Timestamp},
};

use super::{testing::Server, *};
use crate::store::{TenantStore as _, conformance};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_conforms() {
    let server = Server::start().await;
    conformance::run(async || {
        let (tasks, failures) = Tasks::new();
        let store = PostgresStore::open(server.options(), &tasks).await.unwrap();
        (store, (tasks, failures))
    })
    .await;
}

/// Runs `check` where a test may block, with a connection to a server with tables.
async fn with_session(check: impl FnOnce(&Session, &Arc<Options>) -> Result<()> + Send + 'static) {
    let server = Server::start().await;
    let options = server.options();
    let checked = blocking(move || {
        let session = Session::new(Arc::clone(&options));
        schema::migrate(&session)?;
        check(&session, &options)
    });
    checked.await.unwrap();
}

const CHANGE: &str = "INSERT INTO installation VALUES ('one', 'kek', 1)";

/// Cut off at the worst moment: nobody knows what became of the commit, until it is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_got_lost_is_asked_for() {
    with_session(|session, options| {
        let lost = StoreError::Unavailable("the answer got lost".to_owned());
        for (kept, end) in [(true, "COMMIT"), (false, "ROLLBACK"), (true, "COMMIT")] {
            session.begin()?;
            session.batch(CHANGE)?;
            let turn = session.turn();
            // Under way: it is waited for.
            let asked = std::thread::scope(|scope| {
                let asked = scope.spawn(|| unknown::resolve(options, turn, &lost));
                session.batch(end)?;
                Ok::<_, StoreError>(asked.join().unwrap())
            })?;
            assert_eq!(asked.is_ok(), kept, "{asked:?}");
        }
        // Another's, or one that never came there, as after a fail-over.
        for foreign in [
            unknown::Turn {
                writer: [7; 16],
                ..session.turn()
            },
            unknown::Turn {
                turn: 99,
                ..session.turn()
            },
        ] {
            assert_eq!(unknown::resolve(options, foreign, &lost), Err(lost.clone()));
        }
        Ok(())
    })
    .await;
}

/// What failed within a transaction is never called a success, unless it was taken back alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_with_a_failed_statement_is_no_success() {
    with_session(|session, _| {
        session.begin()?;
        assert!(session.batch("INSERT INTO nothing VALUES (1)").is_err());
        assert!(session.commit().is_err());
        session.roll_back();
        session.begin()?;
        session.batch(CHANGE)?;
        session.commit()
    })
    .await;
}

/// PostgreSQL's texts hold no zero byte, and SQLite's do: who sends one fails alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_does_not_take_harms_nobody_else() {
    let server = Server::start().await;
    let (tasks, _failures) = Tasks::new();
    let store = server.empty_store(&tasks).await;
    let account = |name: &str, display_name: &str| {
        let mut new = conformance::new_account(name, None);
        new.account.display_name = display_name.to_owned();
        new
    };
    for _ in 0..20 {
        let bad = store.create_account(account("bad", "\0"));
        let id =
            countersign_shared::random::uuid_v7(countersign_shared::time::Timestamp::default());
        let good = store.create_account(account(&format!("a{}", id.simple()), ""));
        let (bad, good) = tokio::join!(bad, good);
        assert!(bad.is_err());
        good.unwrap();
    }
}

/// A newer version beside this one adds a column: one answer may fail, and no second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_changes_is_prepared_for_anew() {
    with_session(|session, options| {
        let read = || session.query(&session.prepare("SELECT * FROM installation")?, &[]);
        read()?;
        let newer = Session::new(Arc::clone(options));
        newer.ready()?;
        newer.batch("ALTER TABLE installation ADD COLUMN colour TEXT")?;
        let _ = read();
        read().map(|_| ())
    })
    .await;
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A delivery that was accepted then, with a payload and an attempt.
fn delivery(session: &Session, at: Timestamp) -> Result<DeliveryId> {
    let id = DeliveryId::from(random::uuid_v7(at));
    let bytes = id.as_bytes().as_slice();
    for insert in [
        "INSERT INTO deliveries (id, account, destination, state, payload_size, content_type, event_type,
                                 accepted_at) VALUES ($1, 1, 1, 3, 1, '', '', 1)",
        "INSERT INTO payloads VALUES ($1, '')",
        "INSERT INTO attempts VALUES ($1, 1, '', '')",
    ] {
        session.execute_with(&session.prepare(insert)?, &[&bytes])?;
    }
    Ok(id)
}

fn count(session: &Session, table: &str) -> Result<i64> {
    let query = format!("SELECT count(*) FROM {table}");
    let rows = session.query_with(&session.prepare(&query)?, &[])?;
    session::column(&rows[0], 0)
}

/// Of each day and kind, in a year's time and a little later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_old_goes_in_one_piece_unless_something_waits() {
    with_session(|session, _| {
        let keep = [80 * DAY, 8 * DAY];
        let start = SystemClock.now();
        let turn = |days: u32| {
            let now = start.plus(days * DAY);
            let before = keep.map(|keep| now.minus(keep));
            session.begin()?;
            let by_row = partitions::turn(session, keep, before, now)?;
            session.commit()?;
            Ok::<_, StoreError>((before, by_row))
        };
        // Nothing is old; what was there before pieces were made is removed row by row.
        let (before, by_row) = turn(0)?;
        assert_eq!(by_row, before);
        let mut waiting = None;
        for day in 0..100 {
            turn(day)?;
            let id = delivery(session, start.plus(day * DAY))?;
            if day == 10 {
                let waits = "INSERT INTO due VALUES (1, 1, $1)";
                let id = id.as_bytes().as_slice();
                session.execute_with(&session.prepare(waits)?, &[&id])?;
                waiting = Some(id.to_vec());
            }
        }
        assert_eq!(count(session, "deliveries_rest")?, 0);
        // Payloads of the last eight days, up to one more day, and the one that waits with its day's.
        let payloads = count(session, "payloads")?;
        assert!((9..=11).contains(&payloads), "{payloads} payloads");
        // None of the deliveries: eighty days are kept, and a tenth more, and the first piece waits for the payload.
        let deliveries = count(session, "deliveries")?;
        assert!((80..=100).contains(&deliveries), "{deliveries} deliveries");
        assert_eq!(count(session, "attempts")?, deliveries);
        let (before, by_row) = turn(99)?;
        assert!(by_row[1] <= before[1] && by_row[1] >= before[1].minus(DAY));
        assert!(by_row[0] <= before[0] && by_row[0] >= before[0].minus(10 * DAY));

        // It is delivered, and its piece goes.
        let settle = "DELETE FROM due WHERE id = $1";
        session.execute_with(&session.prepare(settle)?, &[&waiting])?;
        turn(99)?;
        assert_eq!(count(session, "payloads")?, payloads - 1);
        turn(300)?;
        assert_eq!(count(session, "payloads")?, 0);
        turn(300)?;
        assert_eq!(count(session, "deliveries")?, 0);
        assert_eq!(count(session, "attempts")?, 0);
        // A pause, in which everything went to the rest, ends.
        delivery(session, start.plus(400 * DAY))?;
        assert_eq!(count(session, "payloads_rest")?, 1);
        turn(400)?;
        delivery(session, start.plus(401 * DAY))?;
        assert_eq!(count(session, "payloads_rest")?, 1);
        assert_eq!(count(session, "payloads")?, 2);
        Ok(())
    })
    .await;
}

/// Every statement that finds a delivery by its id looks into one piece, not into all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_is_looked_for_in_its_own_piece() {
    with_session(|session, _| {
        let now = SystemClock.now();
        session.begin()?;
        partitions::turn(session, [80 * DAY, 8 * DAY], [now, now], now)?;
        session.commit()?;
        let ids: Vec<_> = (0..3)
            .map(|day| delivery(session, now.plus(day * DAY)))
            .collect::<Result<_>>()?;
        let ids: Vec<&[u8]> = ids.iter().map(|id| id.as_bytes().as_slice()).collect();
        let update = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF)
            UPDATE deliveries v SET state = n.state
            FROM unnest($1::bytea[], $2::bigint[]) n (id, state) WHERE v.id = n.id";
        let states = vec![3_i64; 3];
        let rows = session.query_with(&session.prepare(update)?, &[&ids, &states])?;
        let plan: Vec<&str> = rows
            .iter()
            .map(|row| session::column(row, 0))
            .collect::<Result<_>>()?;
        let plan = plan.join("\n");
        assert!(plan.contains("Nested Loop"), "{plan}");
        assert!(plan.contains("never executed"), "{plan}");
        assert!(!plan.contains("Seq Scan"), "{plan}");
        Ok(())
    })
    .await;
}

use countersign_shared::tasks::Tasks;

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

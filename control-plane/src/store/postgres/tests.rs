use countersign_shared::tasks::Tasks;

use super::{testing::Server, *};
use crate::store::conformance;

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

/// Cut off by the server at the worst moment: nobody knows what became of the commit, until it is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_got_lost_is_asked_for() {
    let server = Server::start().await;
    let options = server.options();
    let checked = blocking(move || {
        let connection = session(Arc::clone(&options));
        schema::migrate(&connection)?;
        let lost = StoreError::Unavailable("the answer got lost".to_owned());
        for (kept, statement) in [(true, "COMMIT"), (false, "ROLLBACK")] {
            connection.begin()?;
            connection.batch("INSERT INTO installation VALUES ('one', 'kek', 1)")?;
            let Connection::Postgres(session) = &connection else {
                unreachable!()
            };
            let transaction = session.transaction().unwrap();
            // Under way: it is waited for.
            let asking = Arc::clone(&options);
            let error = lost.clone();
            let asked = std::thread::scope(|scope| {
                let asked = scope.spawn(move || unknown::resolve(&asking, transaction, &error));
                connection.batch(statement)?;
                Ok::<_, StoreError>(asked.join().unwrap())
            })?;
            assert_eq!(asked.is_ok(), kept, "{asked:?}");
            connection.roll_back();
        }
        Ok(())
    });
    checked.await.unwrap();
}

/// What failed within a transaction is never called a success.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_with_a_failed_statement_is_no_success() {
    let server = Server::start().await;
    let options = server.options();
    let checked = blocking(move || {
        let connection = session(options);
        schema::migrate(&connection)?;
        connection.begin()?;
        assert!(connection.batch("INSERT INTO nothing VALUES (1)").is_err());
        assert!(connection.commit().is_err());
        connection.roll_back();
        connection.begin()?;
        connection.batch("INSERT INTO installation VALUES ('one', 'kek', 1)")?;
        connection.commit()
    });
    checked.await.unwrap();
}

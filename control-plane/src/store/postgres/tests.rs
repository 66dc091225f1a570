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

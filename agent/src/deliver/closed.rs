//! Requests whose connection has closed and that nobody tells so.
//!
//! A request that gets to a connection's task in the very moment in which that ends can be left
//! behind without an answer, and would wait for all of the attempt's timeout. (A receiver that
//! refuses our certificate in TLS 1.3 ends the connection just when requests are handed over to it.)

use std::{future::pending, time::Duration};

use tokio::time::sleep;

use super::{handshake::Handshake, progress::Progress};

/// How long after the connection's end the HTTP library may take to say so.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// Waits until the connection is closed and the HTTP library has had its time (`grace`) to say so.
/// Never ends once the head of an answer is here: what follows is read from memory, or ends with an
/// error of its own.
pub(super) async fn left_behind(handshake: &Handshake, progress: &Progress, grace: Duration) {
    handshake.closed().await;
    sleep(grace).await;
    if progress.head().is_some() {
        pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::deliver::response::Head;

    async fn goes_on(waiting: impl Future<Output = ()>) {
        let turns = async {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = waiting => panic!("it is not left behind"),
            () = turns => {}
        }
    }

    #[tokio::test]
    async fn a_request_is_left_behind_when_its_connection_closed_without_an_answer() {
        let (progress, handshake) = (Progress::default(), Handshake::default());
        let waiting = || left_behind(&handshake, &progress, Duration::ZERO);
        goes_on(waiting()).await;
        handshake.close();
        waiting().await;
        progress.answered(Head {
            status: StatusCode::OK,
            retry_after: None,
        });
        goes_on(waiting()).await;
    }
}

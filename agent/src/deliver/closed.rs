//! Requests whose connection has closed and that nobody tells so.
//!
//! A receiver that refuses our certificate in TLS 1.3 ends the connection just when the request is
//! handed over to it. A request that gets there in the very moment in which the connection's task
//! ends can be left behind without an answer, and would wait for all of the attempt's timeout.

use std::{future::pending, sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{handshake::Handshake, progress::Progress};

/// How long after the connection's end the HTTP client may take to say so, or to open another.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// Waits until the connection of the attempt is closed and the HTTP client has had its time (`grace`)
/// to say so. `first` ends when the request has a connection; `used` gives the connection that the request has at the moment. Never ends once the head of an
/// answer is here: what follows is read from memory, or ends with an error of its own.
pub(super) async fn left_behind(
    progress: &Progress,
    used: impl Fn() -> Option<Arc<Handshake>>,
    first: impl Future<Output = ()>,
    grace: Duration,
) {
    first.await;
    while let Some(handshake) = used() {
        handshake.closed().await;
        sleep(grace).await;
        if progress.head().is_some() {
            break;
        }
        let same = used().is_some_and(|now| Arc::ptr_eq(&now, &handshake));
        if same && !progress.is_connecting() {
            return;
        }
    }
    pending().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::progress::Step;

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
    async fn a_request_is_left_behind_when_its_connection_closed_and_no_other_is_opened() {
        let (progress, handshake) = (Progress::default(), Arc::new(Handshake::default()));
        progress.reached(Step::Ready, &handshake);
        let used = || Some(Arc::clone(&handshake));
        let waiting = || left_behind(&progress, used, async {}, Duration::ZERO);
        goes_on(waiting()).await;
        handshake.close();
        waiting().await;
        // The client tries again over another connection.
        progress.reached(Step::ShakingHands, &Arc::default());
        goes_on(waiting()).await;
    }
}

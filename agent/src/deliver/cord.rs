//! The cord by which a connection is pulled down from outside, whatever it is doing: whoever drives
//! the connection looks at it before every read and write, and is woken when it is pulled.
//!
//! One connection has one driver at a time (first the connector, then whoever sends a request over
//! it or, with HTTP/2, its task), so one waker is enough. One that waits for a request has none: it
//! goes with its pool.

use std::{
    future::poll_fn,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

/// Pulled once, and pulled for good.
#[derive(Debug, Default)]
pub(super) struct Cord {
    pulled: AtomicBool,
    driver: Mutex<Option<Waker>>,
}

impl Cord {
    /// Ends the connection.
    pub(super) fn pull(&self) {
        self.pulled.store(true, Ordering::SeqCst);
        let driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        let waker = driver.clone();
        // A waker may run what it wakes.
        drop(driver);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether it was pulled.
    pub(super) fn is_pulled(&self) -> bool {
        self.pulled.load(Ordering::SeqCst)
    }

    /// Whether it was pulled; if not, the driver is woken when it is.
    pub(super) fn watch(&self, cx: &Context<'_>) -> bool {
        let mut driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        if !driver.as_ref().is_some_and(|it| it.will_wake(cx.waker())) {
            *driver = Some(cx.waker().clone());
        }
        drop(driver);
        // After the waker is in its place: who pulls in between finds one of the two.
        self.is_pulled()
    }

    /// Waits until it is pulled.
    pub(super) async fn pulled(&self) {
        poll_fn(|cx| {
            if self.watch(cx) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn whoever_drives_the_connection_is_woken() {
        let cord = Arc::new(Cord::default());
        let (watching, pulling) = (Arc::clone(&cord), Arc::clone(&cord));
        let watch = async move { watching.pulled().await };
        let pull = async move {
            tokio::task::yield_now().await;
            assert!(!pulling.is_pulled());
            pulling.pull();
        };
        tokio::join!(watch, pull);
        // For good.
        cord.pulled().await;
    }
}

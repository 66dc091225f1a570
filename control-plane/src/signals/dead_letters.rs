//! Where deliveries were given up, or were sent again.

use std::{collections::HashSet, sync::Mutex};

use tokio::sync::Notify;

use super::locked;
use crate::model::DestinationKey;

/// Which destinations may have got dead letters, or have none any more.
#[derive(Debug, Default)]
pub struct DeadLetters {
    changed: Mutex<HashSet<DestinationKey>>,
    notify: Notify,
}

impl DeadLetters {
    /// Those of `destination` have changed.
    pub fn changed(&self, destination: DestinationKey) {
        locked(&self.changed).insert(destination);
        self.notify.notify_one();
    }

    /// Waits for destinations whose dead letters have changed, and takes them.
    pub async fn next(&self) -> HashSet<DestinationKey> {
        loop {
            let taken = std::mem::take(&mut *locked(&self.changed));
            if !taken.is_empty() {
                return taken;
            }
            self.notify.notified().await;
        }
    }
}

//! How deliveries flow, for those who are asked.

use std::{collections::HashMap, sync::Mutex};

use countersign_shared::time::Timestamp;

use super::locked;
use crate::model::DestinationKey;

/// How deliveries to a destination flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    /// What is in the way.
    pub state: FlowState,
    /// How many attempts in a row found the receiver unreachable, silent or in trouble.
    pub failures_in_a_row: u32,
}

/// What is in the way of a destination's deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FlowState {
    /// Nothing.
    #[default]
    Open,
    /// The receiver asked for a pause until then.
    Paused(Timestamp),
    /// Most attempts fail: one goes out then.
    Probing(Timestamp),
}

/// How deliveries flow, as the dispatcher says: one entry for each destination where something is in the
/// way, or was lately.
#[derive(Debug, Default)]
pub struct Flows(Mutex<HashMap<DestinationKey, Flow>>);

impl Flows {
    /// Deliveries to `destination` flow so.
    pub fn say(&self, destination: DestinationKey, flow: Flow) {
        let mut flows = locked(&self.0);
        if flow == Flow::default() {
            flows.remove(&destination);
        } else {
            flows.insert(destination, flow);
        }
    }

    /// How deliveries to `destination` flow.
    pub fn of(&self, destination: DestinationKey) -> Flow {
        let flows = locked(&self.0);
        flows.get(&destination).copied().unwrap_or_default()
    }
}

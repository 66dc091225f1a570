//! The demonstration in words: what the timeline says.

mod delivery;
mod setup;

pub(crate) use delivery::{accepted, another, attempt, received, refused};
pub(crate) use setup::{
    account, agent, control_plane_up, destination, failed, flowing, not_removed, ready,
    receiver_up, starting, stopped, stopping,
};

//! After the first delivery: tells of what happens at the receiver, until something ends.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::dev::{failure::Failure, receiver::record::Event, story, system::System};

/// How often the children are looked at.
const CHECK: Duration = Duration::from_millis(500);

/// Tells what happens at the receiver.
///
/// # Errors
/// It ends only with one: a child or the receiver ended.
pub(crate) async fn stay(system: &mut System, events: &mut mpsc::Receiver<Event>) -> Failure {
    loop {
        match tokio::time::timeout(CHECK, events.recv()).await {
            Ok(Some(event)) => tell(system, &event),
            Ok(None) => return Failure::ReceiverEnded,
            Err(_) => {}
        }
        if let Err(error) = system.check_children() {
            return error.into();
        }
    }
}

/// Tells of one event.
pub(crate) fn tell(system: &System, event: &Event) {
    system.tell(&match event {
        Event::Received(reception) => story::another(reception),
        Event::Refused(why) => story::refused(why),
    });
}

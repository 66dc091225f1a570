//! Dispatch: which delivery goes to which agent, and when. One loop decides; sessions carry what it
//! decided to the agents.

mod attach;
mod dispatcher;
mod due_queue;
mod elsewhere;
mod fairness;
mod fleet;
mod pace;
mod probes;
mod send;
mod sessions;
mod window;

pub use attach::{Attach, AttachError, Greeting, HeldBundle};
pub use dispatcher::Dispatcher;
pub use elsewhere::{Elsewhere, SAY_EVERY};
pub use fleet::Fleet;
pub use probes::Probes;
pub use sessions::{Control, Lanes, Session, Sessions, Work};

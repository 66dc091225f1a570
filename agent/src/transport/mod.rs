//! How the agent reaches the control plane: TLS 1.3 over TCP, HTTP/2 inside, dialled by us so that
//! what goes wrong is a typed error. Who is trusted and what is presented is the caller's TLS
//! configuration.

mod code;
mod dial;
mod places;
mod url;

pub use self::{
    code::code_name,
    dial::{DialError, channel, dial, tls_builder},
    places::Places,
    url::{ControlPlaneUrl, ControlPlaneUrlError},
};

/// Largest message that is taken from the control plane: a payload of 16 MiB and room around it.
pub const MAX_MESSAGE: usize = 32 << 20;

//! Stand-ins: certificate authorities, receivers, a control plane, and an agent's lanes without one.

pub(crate) mod bench;
pub(crate) mod control_plane;
pub(crate) mod pki;
pub(crate) mod proxy;
pub(crate) mod receiver;

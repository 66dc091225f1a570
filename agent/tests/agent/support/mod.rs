//! Stand-ins: certificate authorities, receivers, a control plane, and an agent's lanes without one.

pub(crate) mod bench;
pub(crate) mod control_plane;
pub(crate) mod parties;
pub(crate) mod pki;
pub(crate) mod proxy;
pub(crate) mod receiver;
pub(crate) mod world;

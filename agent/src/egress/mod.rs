//! Where the agent may go: public addresses, and what its operator allows. The operator has the last
//! word; a destination can only narrow.
//!
//! Here are the decision and the configuration that it is made from; `deliver` asks for every
//! address before it connects to that very address.

mod policy;
mod proxy;
mod special;

pub use self::{
    policy::{Denied, Policy},
    proxy::{
        CredentialsError, Proxy, ProxyAddress, ProxyAddressError, ProxyCredentials, ProxyKind,
    },
};

/// Which addresses the agent connects to, and by which way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Egress {
    /// Which addresses.
    pub policy: Policy,
    /// Through whom; directly without.
    pub proxy: Option<Proxy>,
}

//! Who takes part in a delivery: the receiver's own authority, the account's, and a stranger's.

use countersign_shared::{
    bundle::{Bundle, Credential},
    secret::SecretBytes,
};

use super::{
    bench::bundle,
    pki::{Authority, Leaf},
    receiver::{Clients, Setup},
};

pub(crate) struct Pki {
    pub(crate) receiver: Authority,
    pub(crate) account: Authority,
    pub(crate) stranger: Authority,
}

impl Pki {
    pub(crate) fn new() -> Self {
        Self {
            receiver: Authority::new("Receiver CA"),
            account: Authority::new("Countersign Delivery CA — acme G1"),
            stranger: Authority::new("Stranger CA"),
        }
    }

    /// A receiver's TLS that takes the account's certificates only.
    pub(crate) fn strict(&self) -> Setup<'_> {
        Setup::new(self.receiver.server(), Clients::Of(&self.account))
    }

    /// The account's bundle for `url`.
    pub(crate) fn bundle(&self, url: &str) -> Bundle {
        bundle(url, &self.account.client(), vec![self.receiver.der()])
    }
}

/// `leaf` as version `version`, with nothing else in its chain.
pub(crate) fn credential(version: u32, leaf: &Leaf) -> Credential {
    Credential {
        version,
        chain: vec![leaf.certificate.clone()],
        private_key: SecretBytes::from(leaf.key.clone()),
    }
}

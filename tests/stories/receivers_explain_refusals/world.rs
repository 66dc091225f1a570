//! Everybody's keys and names, and the certificates that are tried.

use countersign_control_plane::{
    ca::ClientNames,
    destinations::{ServerKind, receiver_configuration},
};
use countersign_shared::name::DestinationName;
use countersign_tests::{
    authority::{Authority, Leaf, NOW},
    receivers::Kind,
};

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    Good,
    /// Of the next generation, with the cross certificate; the receiver knows the older one only.
    LaterGeneration,
    /// The receiver's clock says so; the agent's does not.
    ExpiredThere,
    /// The agent's clock says so.
    ExpiredHere,
    /// The receiver's clock says so; the agent's does not.
    NotYetThere,
    /// Both clocks say so.
    NotYetHere,
    OtherAccount,
    /// Of the right account's authority, in another's name.
    OtherName,
    GoodWithList,
    /// Of the next generation, and the receiver has the lists of both.
    LaterGenerationWithLists,
    /// Of the next generation, and the receiver has the older one's list only.
    LaterGenerationOneList,
    Revoked,
    /// A good certificate, and a revocation list whose next update is overdue.
    StaleList,
    NotAsked,
    NotAskedRefused,
    ServerExpired,
    ServerUnknown,
    ServerOtherName,
    /// The destination wants TLS 1.3 and the receiver speaks TLS 1.2.
    TlsTooOld,
}

/// Everybody's keys and names.
pub(super) struct World {
    pub(super) destination: DestinationName,
    names: ClientNames,
    pub(super) account: Authority,
    pub(super) newer: Authority,
    pub(super) other_account: Authority,
    pub(super) receiver: Authority,
    pub(super) other_receiver: Authority,
    pub(super) revoked: Leaf,
}

impl World {
    pub(super) fn new() -> Self {
        let destination: DestinationName = "accounts/acme/destinations/orders".parse().unwrap();
        let names = ClientNames::dedicated("countersign.internal", &destination);
        let account = Authority::new("Countersign Delivery CA — acme G1");
        Self {
            revoked: account.client(&names.common_name, &names.uri, NOW),
            account,
            newer: Authority::new("Countersign Delivery CA — acme G2"),
            other_account: Authority::new("Countersign Delivery CA — globex G1"),
            receiver: Authority::new("Receiver CA"),
            other_receiver: Authority::new("Another receiver's CA"),
            destination,
            names,
        }
    }

    pub(super) fn text(&self, kind: Kind) -> String {
        let kind = match kind {
            Kind::Nginx => ServerKind::Nginx,
            Kind::HaProxy => ServerKind::HaProxy,
            Kind::Apache => ServerKind::Apache,
            Kind::Caddy => ServerKind::Caddy,
            Kind::Envoy => ServerKind::Envoy,
            Kind::OpenSsl => return String::new(),
        };
        let anchor = [self.account.der().to_vec()];
        let made = receiver_configuration(kind, &self.destination, &self.names, &anchor);
        made.unwrap().text
    }

    pub(super) fn client(&self, case: Case) -> Leaf {
        let (name, uri) = (&self.names.common_name, &self.names.uri);
        match case {
            Case::LaterGeneration
            | Case::LaterGenerationWithLists
            | Case::LaterGenerationOneList => {
                let mut leaf = self.newer.client(name, uri, NOW);
                leaf.chain.push(self.newer.cross_signed_by(&self.account));
                leaf
            }
            Case::ExpiredThere | Case::ExpiredHere => self.account.client(name, uri, (2022, 2022)),
            Case::NotYetThere | Case::NotYetHere => self.account.client(name, uri, (2100, 2190)),
            Case::OtherAccount => self.other_account.client(name, uri, NOW),
            Case::OtherName => self.account.client(
                "countersign-delivery.globex",
                "spiffe://countersign.internal/account/globex/destination/orders",
                NOW,
            ),
            Case::Revoked => self.revoked.clone(),
            _ => self.account.client(name, uri, NOW),
        }
    }
}

//! The names in certificates, and who is read from them.

use countersign_shared::{
    digest::{hex, sha256},
    name::{AgentName, DestinationName, Id},
};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::model::TrustModel;

/// The names in a destination's client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientNames {
    /// Subject common name: `countersign-delivery.<account>`, or the DNS name where there is one.
    pub common_name: String,
    /// `<destination>.<account>.delivery.<delivery domain>`, for those that a shared authority signs:
    /// many receivers trust it, and tell destinations apart by this name.
    pub dns: Option<String>,
    /// `spiffe://<trust domain>/account/<account>/destination/<destination>`.
    pub uri: String,
}

impl ClientNames {
    /// Of a destination under a trust model. `CUSTOMER`'s are a proposal: what the receiver's own CA
    /// signs is its decision.
    pub fn of(
        trust_model: TrustModel,
        trust_domain: &str,
        delivery_domain: &str,
        destination: &DestinationName,
    ) -> Self {
        match trust_model {
            TrustModel::Dedicated | TrustModel::Customer => {
                Self::dedicated(trust_domain, destination)
            }
            TrustModel::Shared => Self::shared(trust_domain, delivery_domain, destination),
        }
    }

    /// Of a destination with a dedicated authority.
    pub fn dedicated(trust_domain: &str, destination: &DestinationName) -> Self {
        Self {
            common_name: common_name("countersign-delivery.", destination.account(), ""),
            dns: None,
            uri: destination_uri(trust_domain, destination),
        }
    }

    /// Of a destination under the shared authority. The account is in the name: two accounts may have
    /// the same destination id, and one must not pass for the other at its receiver.
    fn shared(trust_domain: &str, delivery_domain: &str, destination: &DestinationName) -> Self {
        let (account, id) = (destination.account(), destination.destination());
        let dns = format!("{id}.{account}.delivery.{delivery_domain}");
        Self {
            common_name: common_name("", &dns, ""),
            dns: Some(dns),
            uri: destination_uri(trust_domain, destination),
        }
    }
}

fn destination_uri(trust_domain: &str, destination: &DestinationName) -> String {
    let (account, id) = (destination.account(), destination.destination());
    format!("spiffe://{trust_domain}/account/{account}/destination/{id}")
}

/// Longest common name, in characters (RFC 5280 appendix A.1, ub-common-name).
pub(super) const MAX_COMMON_NAME: usize = 64;

/// A common name with an account's id or a DNS name in it. One that does not fit is cut and gets a
/// hash, after a dot: no id contains one and no domain of ours ends like that, so two accounts never
/// have the same name.
pub(super) fn common_name(before: &str, name: &str, after: &str) -> String {
    let around = before.chars().count() + after.chars().count();
    let room = MAX_COMMON_NAME.saturating_sub(around);
    if name.len() <= room {
        return format!("{before}{name}{after}");
    }
    let hash = hex(&sha256(name.as_bytes())[..4]);
    // Ids and DNS names are ASCII, so every cut is between characters.
    let kept = &name[..room.saturating_sub(hash.len() + 1)];
    format!("{before}{kept}.{hash}{after}")
}

/// The URI in an agent's identity: `spiffe://<trust domain>/agent/<name>`.
pub(super) fn agent_uri(trust_domain: &str, agent: &AgentName) -> String {
    format!("spiffe://{trust_domain}/agent/{}", agent.id())
}

/// Which agent an identity certificate names; `None` when it is not one of this trust domain's.
/// Whether it is valid is for the TLS handshake to decide.
pub fn identity_of(trust_domain: &str, certificate: &[u8]) -> Option<AgentName> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let prefix = format!("spiffe://{trust_domain}/agent/");
    let mut agents = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix(&prefix),
            _ => None,
        });
    let id = Id::existing(agents.next()?).ok()?;
    agents.next().is_none().then(|| AgentName::from(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_ids_are_shortened_to_what_a_common_name_may_have_and_stay_apart() {
        let short = common_name("countersign-delivery.", "acme", "");
        assert_eq!(short, "countersign-delivery.acme");
        let fits = "a".repeat(43);
        let whole = common_name("countersign-delivery.", &fits, "");
        assert_eq!(whole, format!("countersign-delivery.{fits}"));
        let (one, other) = (
            format!("{}b", "a".repeat(62)),
            format!("{}c", "a".repeat(62)),
        );
        let names = [one, other].map(|id| common_name("Countersign Delivery CA — ", &id, " G12"));
        assert_ne!(names[0], names[1]);
        for name in &names {
            assert_eq!(name.chars().count(), MAX_COMMON_NAME, "{name}");
            assert!(name.ends_with(" G12"), "{name}");
        }
    }

    #[test]
    fn under_the_shared_authority_two_accounts_never_have_the_same_name() {
        let names = |name: &str| {
            let name: DestinationName = name.parse().unwrap();
            ClientNames::of(TrustModel::Shared, "bank.internal", "bank.example", &name)
        };
        let acme = names("accounts/acme/destinations/orders");
        let dns = "orders.acme.delivery.bank.example";
        assert_eq!(acme.dns.as_deref(), Some(dns));
        assert_eq!(acme.common_name, dns);
        assert_ne!(names("accounts/globex/destinations/orders").dns, acme.dns);
        // An id has no dot, so where one ends is clear.
        let (long, longer) = ("a".repeat(62), "a".repeat(63));
        let one = names(&format!("accounts/{long}/destinations/{longer}"));
        let other = names(&format!("accounts/{longer}/destinations/{long}"));
        assert_ne!(one.dns, other.dns);
        assert_ne!(one.common_name, other.common_name);
        assert_eq!(one.common_name.len(), MAX_COMMON_NAME);
    }
}

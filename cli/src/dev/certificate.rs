//! What the timeline shows of a certificate.

use countersign_shared::{
    digest::{hex, sha256},
    time::Timestamp,
    tls::certificate_facts,
};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate, X509Name};

/// A certificate, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// Subject, as openssl shows it.
    pub(crate) subject: String,
    /// The subject's common name; empty when it has none.
    pub(crate) common_name: String,
    /// The issuer's common name; empty when it has none.
    pub(crate) issuer_common_name: String,
    /// Serial number in lower-case hexadecimal.
    pub(crate) serial: String,
    /// Start of validity.
    pub(crate) not_before: Timestamp,
    /// End of validity.
    pub(crate) not_after: Timestamp,
    /// The first URI among its names (RFC 5280 section 4.2.1.6): the SPIFFE ID.
    pub(crate) uri: Option<String>,
    /// SHA-256 of its DER, in lower-case hexadecimal.
    pub(crate) sha256: String,
}

impl Certificate {
    /// Reads DER; `None` when it is not X.509.
    pub(crate) fn read(der: &[u8]) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        let facts = certificate_facts(der)?;
        Some(Self {
            common_name: common_name(parsed.subject()),
            issuer_common_name: common_name(parsed.issuer()),
            subject: facts.subject,
            serial: facts.serial,
            not_before: facts.not_before,
            not_after: facts.not_after,
            uri: first_uri(&parsed),
            sha256: hex(&sha256(der)),
        })
    }

    /// `2026-01-01 to 2026-04-01`: dates say enough to people.
    pub(crate) fn validity(&self) -> String {
        format!("{} to {}", date(self.not_before), date(self.not_after))
    }
}

fn common_name(name: &X509Name<'_>) -> String {
    let first = name.iter_common_name().next();
    let text = first.and_then(|attribute| attribute.as_str().ok());
    text.unwrap_or_default().to_owned()
}

fn first_uri(certificate: &X509Certificate<'_>) -> Option<String> {
    let names = certificate.subject_alternative_name().ok()??;
    names
        .value
        .general_names
        .iter()
        .find_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        })
}

fn date(at: Timestamp) -> String {
    at.to_string().chars().take(10).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo_pki::testing;

    #[test]
    fn it_reads_names_and_validity() {
        let now = Timestamp::from_unix_seconds(1_700_000_000);
        let client = testing::client("countersign-delivery.demo", "spiffe://x/account/demo", now);
        let read = Certificate::read(&client.chain[0]).unwrap();
        assert_eq!(read.common_name, "countersign-delivery.demo");
        assert_eq!(read.issuer_common_name, "Demonstration Client CA");
        assert_eq!(read.uri.as_deref(), Some("spiffe://x/account/demo"));
        assert_eq!(read.validity(), "2023-11-14 to 2023-12-14");
        assert_eq!(Certificate::read(b"no"), None);
    }
}

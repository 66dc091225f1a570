//! Distinguished names as they come over the wire, as text.

use x509_parser::prelude::{FromDer as _, X509Certificate, X509Name};

/// Longest name that is kept, in characters.
const LONGEST: usize = 256;

/// A DER-encoded name as text, as openssl shows it; `None` when it is not one.
pub(super) fn text(der: &[u8]) -> Option<String> {
    let (_, name) = X509Name::from_der(der).ok()?;
    Some(name.to_string().chars().take(LONGEST).collect())
}

/// The name of a certificate's issuer, in DER; `None` when it is not X.509.
pub(super) fn issuer(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.issuer().as_raw().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::testing;

    #[test]
    fn names_read_as_certificates_show_them() {
        let ca = testing::ca("Some CA");
        let (_, parsed) = x509_parser::parse_x509_certificate(ca.der()).unwrap();
        let shown = text(parsed.subject().as_raw()).unwrap();
        assert!(shown.contains("CN=Some CA"), "{shown}");
        assert_eq!(text(b"nonsense"), None);
        let issuer_of_self_signed = issuer(ca.der()).unwrap();
        assert_eq!(issuer_of_self_signed, parsed.subject().as_raw());
        assert_eq!(issuer(b"nonsense"), None);
    }
}

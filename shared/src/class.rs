//! Failure classes: every attempt ends in exactly one, and each tells the user what to do in words
//! from this fixed list, never in a library's.

use std::fmt;

/// Defines the classes once: name, text of the API and of logs, resolution.
macro_rules! classes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $resolution:literal;)*) => {
        /// How an attempt ended.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FailureClass {
            $($(#[$doc])* $name,)*
        }

        impl FailureClass {
            /// Every class.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The class as API, logs and metrics write it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What it means and what to do about it; empty for [`FailureClass::Delivered`].
            pub const fn resolution(self) -> &'static str {
                match self { $(Self::$name => $resolution,)* }
            }
        }
    };
}

classes! {
    /// The receiver answered 2xx.
    Delivered = "DELIVERED", "";
    /// The receiver did not ask for the client certificate, and the destination refuses that.
    MtlsNotEnforced = "MTLS_NOT_ENFORCED",
        "mTLS is configured but the destination does not ask for a certificate: make the receiver \
         require a client certificate, or set mtls_enforcement to DELIVER.";
    /// The client certificate has expired.
    ClientCertificateExpired = "CLIENT_CERTIFICATE_EXPIRED",
        "The receiver says that the client certificate has expired: rotate it. If it has not, the \
         receiver's clock or its revocation list is stale.";
    /// The receiver does not trust the certificate's authority.
    ClientCaNotTrusted = "CLIENT_CA_NOT_TRUSTED",
        "The receiver does not trust the authority of the client certificate: install the \
         account's trust anchor (GetTrustBundle) at the receiver as the CA for client \
         certificates.";
    /// The receiver holds the client certificate to be revoked.
    ClientCertificateRevoked = "CLIENT_CERTIFICATE_REVOKED",
        "The receiver holds the client certificate to be revoked: issue and deploy a new one.";
    /// The receiver says that no certificate was presented.
    ClientCertificateRequired = "CLIENT_CERTIFICATE_REQUIRED",
        "The receiver requires a client certificate and says that it was not presented or not \
         accepted.";
    /// The receiver refused after the certificate was presented, without saying why.
    ClientCertificateRejected = "CLIENT_CERTIFICATE_REJECTED",
        "The receiver refused the connection after the client certificate was presented. Look into \
         its TLS log for the reason.";
    /// The handshake went well and the application answered 403.
    ClientIdentityForbidden = "CLIENT_IDENTITY_FORBIDDEN",
        "The receiver accepted the certificate and then refused the identity (403): compare its CN \
         or SAN check with the names in this certificate.";
    /// The receiver's certificate is outside its validity.
    ServerCertificateExpired = "SERVER_CERTIFICATE_EXPIRED",
        "The receiver's server certificate has expired or is not yet valid: renew it at the \
         receiver. Nothing was sent.";
    /// The receiver's certificate is of an unknown authority.
    ServerCaNotTrusted = "SERVER_CA_NOT_TRUSTED",
        "The receiver's server certificate is of an authority that this destination does not \
         trust: fix the receiver's certificate chain, or set server_ca_pem of the destination. \
         Nothing was sent.";
    /// The receiver's certificate is for other names.
    ServerNameMismatch = "SERVER_NAME_MISMATCH",
        "The receiver's server certificate is not for the host name in the URL: fix the \
         certificate or the URL. Nothing was sent.";
    /// The receiver's certificate is revoked.
    ServerCertificateRevoked = "SERVER_CERTIFICATE_REVOKED",
        "The receiver's server certificate is revoked: replace it at the receiver. Nothing was \
         sent.";
    /// No common TLS version.
    TlsVersionUnsupported = "TLS_VERSION_UNSUPPORTED",
        "The receiver speaks no TLS version that the destination allows: enable TLS 1.3 at the \
         receiver, or set minimum_tls_version to TLS 1.2.";
    /// Another handshake failure.
    TlsHandshakeFailed = "TLS_HANDSHAKE_FAILED",
        "The TLS handshake failed: check that the port speaks TLS and which protocol versions and \
         cipher suites it allows.";
    /// No address.
    DnsFailure = "DNS_FAILURE",
        "The host name in the URL has no address at the agent: check the name and the agent's \
         resolver.";
    /// Nothing listens.
    ConnectionRefused = "CONNECTION_REFUSED",
        "Nothing listens at the address and port: check that the receiver runs, and the URL.";
    /// No connection in time.
    ConnectionTimeout = "CONNECTION_TIMEOUT",
        "No connection in time: check routes and firewalls between the agent and the receiver.";
    /// The connection broke.
    ConnectionLost = "CONNECTION_LOST",
        "The connection broke before the answer was complete. The delivery may have been received; \
         it will be repeated with the same webhook-id.";
    /// No answer in time.
    RequestTimeout = "REQUEST_TIMEOUT",
        "No complete answer in time: answer sooner and work later, or raise attempt_timeout.";
    /// The agent may not connect there.
    EgressDenied = "EGRESS_DENIED",
        "The agent may not connect to any address of the host: let the agent's operator allow the \
         range (egress.allow), widen allowed_ranges of the destination, or fix the URL. Nothing \
         was sent.";
    /// 3xx.
    HttpRedirect = "HTTP_REDIRECT",
        "Redirects are not followed: change the destination's URL to where the receiver is.";
    /// 410.
    HttpGone = "HTTP_GONE",
        "The receiver answered 410: it no longer wants these deliveries.";
    /// 429.
    HttpRateLimited = "HTTP_RATE_LIMITED",
        "The receiver asks for fewer requests: the next attempt waits as Retry-After says.";
    /// Another 4xx.
    HttpClientError = "HTTP_CLIENT_ERROR",
        "The receiver refused the request: look at the HTTP status and at the receiver's log.";
    /// 5xx, or no HTTP.
    HttpServerError = "HTTP_SERVER_ERROR",
        "The receiver failed, or its answer is not HTTP: look at the receiver's log.";
    /// Given back.
    NotAttempted = "NOT_ATTEMPTED",
        "The agent gave the delivery back without trying; another attempt follows.";
}

impl FailureClass {
    /// The receiver does not accept the client certificate itself. (A 403 is about the identity in
    /// it, and is not one of these.)
    pub const fn refuses_client_certificate(self) -> bool {
        matches!(
            self,
            Self::ClientCertificateExpired
                | Self::ClientCaNotTrusted
                | Self::ClientCertificateRevoked
                | Self::ClientCertificateRequired
                | Self::ClientCertificateRejected
        )
    }

    /// We do not accept the receiver's certificate; nothing was sent.
    pub const fn refuses_server_certificate(self) -> bool {
        matches!(
            self,
            Self::ServerCertificateExpired
                | Self::ServerCaNotTrusted
                | Self::ServerNameMismatch
                | Self::ServerCertificateRevoked
        )
    }

    /// A delivery that ends so is held: nothing but a change at the receiver, at the destination or at
    /// the agent lets another attempt end otherwise. It waits until that is done, and loses no attempt
    /// of its schedule.
    pub const fn holds(self) -> bool {
        self.refuses_client_certificate()
            || self.refuses_server_certificate()
            || matches!(self, Self::MtlsNotEnforced | Self::EgressDenied)
    }

    /// The receiver took the client certificate, if it asked for one: an HTTP answer came that can't
    /// be a server's own page about the certificate, as another 4xx can.
    pub const fn accepts_client_certificate(self) -> bool {
        matches!(
            self,
            Self::Delivered
                | Self::ClientIdentityForbidden
                | Self::HttpRedirect
                | Self::HttpGone
                | Self::HttpRateLimited
                | Self::HttpServerError
        )
    }

    /// An attempt was made, and it failed for a reason that holds nothing: it counts in the schedule.
    pub const fn costs_an_attempt(self) -> bool {
        !self.holds() && !matches!(self, Self::Delivered | Self::NotAttempted)
    }

    /// An HTTP answer came that says nothing of certificates: reason enough to try what
    /// [`FailureClass::holds`] again.
    pub const fn is_answer(self) -> bool {
        self.accepts_client_certificate() || matches!(self, Self::HttpClientError)
    }

    /// The class with this text.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|class| class.as_str() == text)
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_deliveries_is_about_certificates_or_egress_and_no_answer() {
        for &class in FailureClass::ALL {
            let text = class.as_str();
            let about_certificates = text.contains("CERTIFICATE")
                || text.contains("_CA_")
                || text.starts_with("SERVER_")
                || text == "MTLS_NOT_ENFORCED";
            let expected = about_certificates || text == "EGRESS_DENIED";
            assert_eq!(class.holds(), expected, "{class}");
            assert!(!(class.holds() && class.is_answer()), "{class}");
        }
        assert!(!FailureClass::ClientIdentityForbidden.holds());
        assert!(!FailureClass::ConnectionRefused.is_answer(), "says nothing");
        assert!(FailureClass::HttpClientError.is_answer());
        assert!(!FailureClass::HttpClientError.accepts_client_certificate());
    }

    #[test]
    fn the_documents_say_the_same_of_every_class() {
        let page = include_str!("../../docs/failures.md");
        for &class in FailureClass::ALL {
            let start = format!("| `{class}` |");
            let mut rows = page.lines().filter(|line| line.starts_with(&start));
            let row = rows.next().unwrap();
            assert!(row.contains(class.resolution()), "{class}");
            assert_eq!(row.ends_with(" held |"), class.holds(), "{class}");
            assert_eq!(rows.next(), None);
        }
    }

    #[test]
    fn every_failure_says_what_to_do_and_parses_back() {
        for &class in FailureClass::ALL {
            assert_eq!(FailureClass::parse(class.as_str()), Some(class));
            assert_eq!(
                class.resolution().is_empty(),
                class == FailureClass::Delivered,
                "{class}"
            );
            assert!(!class.resolution().contains("  "), "{class}");
        }
    }
}

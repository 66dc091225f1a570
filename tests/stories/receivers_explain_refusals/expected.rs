//! What each trial has to come to.

use countersign_shared::class::FailureClass as Class;
use countersign_tests::receivers::Kind;

use super::{trials::Cell, world::Case};

impl Cell {
    /// What differs from what is expected, if anything does.
    pub(super) fn wrong(&self) -> Option<String> {
        let Self { outcome, .. } = self;
        let (class, part) = expected(self.kind, self.case);
        let flagged = self.case == Case::NotAsked && class == Class::Delivered;
        let right = outcome.class == class
            && outcome.mtls_not_enforced == flagged
            && outcome.detail.contains(part)
            && (part.is_empty() == outcome.detail.is_empty());
        let Self {
            kind, case, size, ..
        } = self;
        let version = self.version();
        let tried = format!("{kind:?}, {version}, {case:?}, {size} bytes");
        (!right).then(|| format!("{tried}: expected {class} '{part}', got {outcome:#?}"))
    }

    pub(super) fn version(&self) -> &'static str {
        if self.tls12 { "TLS 1.2" } else { "TLS 1.3" }
    }
}

/// The class that a trial ends in, and a part of what is said beside it.
fn expected(kind: Kind, case: Case) -> (Class, &'static str) {
    let by_page = kind == Kind::Nginx;
    let rejected = (
        Class::ClientCertificateRejected,
        "named this certificate's authority",
    );
    match case {
        Case::OtherName if kind != Kind::OpenSsl => (Class::ClientIdentityForbidden, ""),
        Case::Revoked if kind == Kind::Caddy => (Class::Delivered, ""),
        Case::Good
        | Case::LaterGeneration
        | Case::GoodWithList
        | Case::LaterGenerationWithLists
        | Case::OtherName
        | Case::NotAsked => match kind {
            Kind::OpenSsl => (Class::HttpServerError, "not HTTP"),
            _ => (Class::Delivered, ""),
        },
        Case::ExpiredHere => (Class::ClientCertificateExpired, "nothing was sent"),
        Case::NotYetHere => (
            Class::ClientCertificateRejected,
            "not yet valid by the agent's clock",
        ),
        // OpenSSL's word for it is bad_certificate; Go and BoringSSL say certificate_expired.
        Case::NotYetThere if !matches!(kind, Kind::Caddy | Kind::Envoy) => rejected,
        Case::ExpiredThere if by_page => rejected,
        // Apache says certificate_unknown.
        Case::StaleList if by_page || kind == Kind::Apache => rejected,
        Case::NotYetThere | Case::ExpiredThere | Case::StaleList => (
            Class::ClientCertificateExpired,
            "within its validity by the agent's clock",
        ),
        Case::OtherAccount => (Class::ClientCaNotTrusted, "does not have the trust anchor"),
        Case::LaterGenerationOneList | Case::Revoked if by_page => rejected,
        Case::LaterGenerationOneList => (
            Class::ClientCaNotTrusted,
            "no revocation list of the authority",
        ),
        Case::Revoked => (Class::ClientCertificateRevoked, ""),
        Case::NotAskedRefused => (Class::MtlsNotEnforced, "no CertificateRequest"),
        Case::ServerExpired => (Class::ServerCertificateExpired, ""),
        Case::ServerUnknown => (Class::ServerCaNotTrusted, ""),
        Case::ServerOtherName => (Class::ServerNameMismatch, ""),
        Case::TlsTooOld => (Class::TlsVersionUnsupported, ""),
    }
}

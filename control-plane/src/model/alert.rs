//! Alerts, and what they are judged from.

use countersign_shared::{class::FailureClass, name::AlertName, outcome::Outcome, time::Timestamp};

use super::DestinationKey;

/// What an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AlertCause {
    /// A client certificate ends soon.
    ClientCertificateExpires,
    /// An authority ends soon.
    CertificateAuthorityExpires,
    /// The receiver's server certificate ends soon.
    ServerCertificateExpires,
    /// The receiver does not ask for the client certificate.
    MtlsNotEnforced,
    /// The receiver does not accept the client certificate.
    ClientCertificateRefused,
    /// The receiver refuses the identity in the certificate.
    ClientIdentityForbidden,
    /// The receiver's server certificate is not accepted.
    ServerCertificateRefused,
    /// The receiver answered 410, and the destination was disabled.
    DestinationDisabled,
    /// The client certificate can't be replaced.
    RotationHeldUp,
    /// A receiver's CA has to sign a request.
    ClientCertificateNeeded,
    /// Attempts at a destination fail for days.
    DestinationFailing,
    /// Deliveries were given up.
    DeliveriesDeadLettered,
    /// Dead letters hold ordering keys.
    OrderingKeysBlocked,
    /// Two agents have one identity.
    AgentIdentityCloned,
    /// The KEK's provider does not serve.
    KeyProviderAway,
}

impl AlertCause {
    /// Every cause.
    pub const ALL: &'static [Self] = &[
        Self::ClientCertificateExpires,
        Self::CertificateAuthorityExpires,
        Self::ServerCertificateExpires,
        Self::MtlsNotEnforced,
        Self::ClientCertificateRefused,
        Self::ClientIdentityForbidden,
        Self::ServerCertificateRefused,
        Self::DestinationDisabled,
        Self::RotationHeldUp,
        Self::ClientCertificateNeeded,
        Self::DestinationFailing,
        Self::DeliveriesDeadLettered,
        Self::OrderingKeysBlocked,
        Self::AgentIdentityCloned,
        Self::KeyProviderAway,
    ];

    /// The cause as API, logs, metrics and the store write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientCertificateExpires => "CLIENT_CERTIFICATE_EXPIRES",
            Self::CertificateAuthorityExpires => "CERTIFICATE_AUTHORITY_EXPIRES",
            Self::ServerCertificateExpires => "SERVER_CERTIFICATE_EXPIRES",
            Self::MtlsNotEnforced => "MTLS_NOT_ENFORCED",
            Self::ClientCertificateRefused => "CLIENT_CERTIFICATE_REFUSED",
            Self::ClientIdentityForbidden => "CLIENT_IDENTITY_FORBIDDEN",
            Self::ServerCertificateRefused => "SERVER_CERTIFICATE_REFUSED",
            Self::DestinationDisabled => "DESTINATION_DISABLED",
            Self::RotationHeldUp => "ROTATION_HELD_UP",
            Self::ClientCertificateNeeded => "CLIENT_CERTIFICATE_NEEDED",
            Self::DestinationFailing => "DESTINATION_FAILING",
            Self::DeliveriesDeadLettered => "DELIVERIES_DEAD_LETTERED",
            Self::OrderingKeysBlocked => "ORDERING_KEYS_BLOCKED",
            Self::AgentIdentityCloned => "AGENT_IDENTITY_CLONED",
            Self::KeyProviderAway => "KEY_PROVIDER_AWAY",
        }
    }

    /// The cause with this text.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|cause| cause.as_str() == text)
    }
}

/// How soon somebody has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertSeverity {
    /// In the next days.
    Warning,
    /// Now.
    Critical,
}

/// What is wrong now: opens an alert, or keeps one open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub cause: AlertCause,
    /// The resource that it is about.
    pub resource: String,
    /// How soon somebody has to act.
    pub severity: AlertSeverity,
    /// What is the matter and what to do.
    pub message: String,
}

/// Something that needs a person's attention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Resource name.
    pub name: AlertName,
    /// What is wrong.
    pub finding: Finding,
    /// When it was opened.
    pub created_at: Timestamp,
    /// When its severity, message or state last changed.
    pub updated_at: Timestamp,
    /// When somebody acknowledged it.
    pub acknowledged_at: Option<Timestamp>,
    /// When its cause was gone.
    pub resolved_at: Option<Timestamp>,
}

/// A certificate that ends soon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiring {
    /// Which kind it is.
    pub cause: AlertCause,
    /// Its resource name.
    pub resource: String,
    /// When it began; `None` when that is not known.
    pub not_before: Option<Timestamp>,
    /// When it ends.
    pub not_after: Timestamp,
}

/// What one attempt showed of its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// How it ended.
    pub class: FailureClass,
    /// Whether the receiver asked for the client certificate; unknown without a whole handshake.
    pub certificate_requested: Option<bool>,
    /// When its server certificate ends, if it was seen.
    pub server_not_after: Option<Timestamp>,
    /// Version of the client certificate that the receiver took: it was presented in a whole handshake
    /// and an HTTP answer came that can't be about the certificate.
    pub presented: Option<u32>,
    /// The client certificate was kept back by ourselves, because it has ended or was revoked: the
    /// receiver was not asked.
    pub kept_back: bool,
    /// Version of the active certificate and how it was refused, when the attempt then went on with
    /// the one before it.
    pub refused: Option<(u32, FailureClass)>,
}

impl Shown {
    /// By this outcome.
    pub fn by(outcome: &Outcome) -> Self {
        let record = outcome.handshake.as_ref();
        let completed = record.filter(|record| record.completed);
        let server = record.and_then(|record| record.server.as_ref());
        let taken = completed.filter(|_| outcome.class.accepts_client_certificate());
        let presented = taken.and_then(|record| record.presented.as_ref());
        let refused = outcome.refused.as_deref();
        Self {
            class: outcome.class,
            certificate_requested: completed.map(|record| record.client_certificate_requested),
            server_not_after: server.map(|server| server.not_after),
            presented: presented.map(|certificate| certificate.version),
            kept_back: record.is_none() && outcome.class.refuses_client_certificate(),
            refused: refused.map(|refusal| (refusal.version, refusal.class)),
        }
    }
}

/// What attempts have shown of a destination's receiver; only a change of it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// Which destination.
    pub destination: DestinationKey,
    /// What the last attempt showed.
    pub shown: Shown,
    /// How many attempts in a row ended with this class, up to [`Evidence::COUNTED`].
    pub in_a_row: u8,
}

impl Evidence {
    /// Beyond this, one more of the same class is nothing new.
    pub const COUNTED: u8 = 3;

    /// After one more attempt.
    pub fn after(destination: DestinationKey, shown: Shown, before: Option<&Self>) -> Self {
        let same = before.filter(|before| before.shown.class == shown.class);
        let in_a_row = same.map_or(1, |same| same.in_a_row.saturating_add(1).min(Self::COUNTED));
        Self {
            destination,
            shown,
            in_a_row,
        }
    }
}

#[cfg(test)]
mod tests {
    use countersign_shared::{
        outcome::{AttemptTimings, CertificateRefusal, HandshakeRecord, PresentedCertificate},
        random,
    };

    use super::*;

    fn outcome(class: FailureClass) -> Outcome {
        let presented = PresentedCertificate {
            version: 2,
            serial: "01".to_owned(),
        };
        Outcome {
            delivery: random::uuid_v7(Timestamp::default()).into(),
            epoch: 1,
            class,
            mtls_not_enforced: false,
            http_status: None,
            handshake: Some(
                HandshakeRecord {
                    completed: true,
                    client_certificate_requested: true,
                    presented: Some(presented),
                    ..HandshakeRecord::default()
                }
                .into(),
            ),
            timings: AttemptTimings::default(),
            started_at: Timestamp::default(),
            retry_after: None,
            detail: "".into(),
            refused: None,
            receipt: None,
            unrecorded_attempts: 0,
        }
    }

    #[test]
    fn only_an_answer_shows_that_a_certificate_was_taken() {
        let taken = |class| Shown::by(&outcome(class)).presented;
        assert_eq!(taken(FailureClass::Delivered), Some(2));
        assert_eq!(taken(FailureClass::HttpServerError), Some(2));
        // In TLS 1.3 the handshake is whole on our side before the receiver judges.
        assert_eq!(taken(FailureClass::ClientCaNotTrusted), None);
        assert_eq!(taken(FailureClass::ConnectionLost), None);
        // The server's own page about the certificate, maybe.
        assert_eq!(taken(FailureClass::HttpClientError), None);
    }

    #[test]
    fn a_refusal_that_the_certificate_before_covered_is_shown_beside_the_success() {
        let class = FailureClass::ClientCaNotTrusted;
        let refusal = CertificateRefusal {
            version: 3,
            class,
            handshake: None,
            detail: "".into(),
        };
        let shown = Shown::by(&Outcome {
            refused: Some(Box::new(refusal)),
            ..outcome(FailureClass::Delivered)
        });
        assert_eq!(shown.class, FailureClass::Delivered);
        assert_eq!(
            (shown.presented, shown.refused),
            (Some(2), Some((3, class)))
        );
    }
}

//! What an agent tells of one attempt: its class, what was seen in the handshake, and how long each
//! part took.

use std::{
    borrow::Cow,
    fmt,
    ops::Deref,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;

use crate::{class::FailureClass, name::DeliveryId, time::Timestamp};

/// Most names of acceptable authorities that a handshake record keeps.
pub const MAX_ACCEPTABLE_CA_NAMES: usize = 32;

/// What was seen in the TLS handshake of the connection that an attempt used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HandshakeRecord {
    /// It finished on our side. In TLS 1.3 (RFC 8446 section 4.4) the server judges our certificate
    /// only after that.
    pub completed: bool,
    /// The server sent a CertificateRequest (RFC 8446 section 4.3.2). False: no mutual TLS.
    pub client_certificate_requested: bool,
    /// The client certificate that was presented.
    pub presented: Option<PresentedCertificate>,
    /// `TLSv1.2` or `TLSv1.3`.
    pub tls_version: Option<String>,
    /// IANA name.
    pub cipher_suite: Option<String>,
    /// IANA name.
    pub key_exchange_group: Option<String>,
    /// The session was resumed.
    pub resumed: bool,
    /// The server's own certificate.
    pub server: Option<ServerCertificate>,
    /// The authorities that the server said it accepts, at most [`MAX_ACCEPTABLE_CA_NAMES`].
    pub acceptable_ca_names: Vec<String>,
    /// The alert that the server sent.
    pub alert: Option<Alert>,
    /// Address and port that the connection went to.
    pub peer_address: Option<String>,
    /// The connection was open already; the record is of its handshake.
    pub connection_reused: bool,
    /// What ALPN (RFC 7301) chose.
    pub alpn_protocol: Option<String>,
}

/// A handshake's record that the outcomes of many attempts share, with its encoded form.
#[derive(Clone)]
pub struct SharedRecord(Arc<Kept>);

struct Kept {
    record: HandshakeRecord,
    encoded: OnceLock<Bytes>,
}

impl SharedRecord {
    /// Its encoded form, which `encode` makes if nobody has yet.
    pub fn encoded_by(&self, encode: impl FnOnce(&HandshakeRecord) -> Bytes) -> Bytes {
        let Kept { record, encoded } = &*self.0;
        encoded.get_or_init(|| encode(record)).clone()
    }
}

impl From<HandshakeRecord> for SharedRecord {
    fn from(record: HandshakeRecord) -> Self {
        Self(Arc::new(Kept {
            record,
            encoded: OnceLock::new(),
        }))
    }
}

impl Deref for SharedRecord {
    type Target = HandshakeRecord;

    fn deref(&self) -> &HandshakeRecord {
        &self.0.record
    }
}

impl PartialEq for SharedRecord {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || **self == **other
    }
}

impl Eq for SharedRecord {}

impl fmt::Debug for SharedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Which client certificate was presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentedCertificate {
    /// Its version at the destination.
    pub version: u32,
    /// Its serial number in lower-case hexadecimal.
    pub serial: String,
}

/// What a server's certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerCertificate {
    /// Subject, as openssl shows it.
    pub subject: String,
    /// Issuer, as openssl shows it.
    pub issuer: String,
    /// End of validity.
    pub not_after: Timestamp,
}

/// A TLS alert (RFC 8446 section 6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Its number.
    pub number: u8,
    /// Its name, in snake case as in the RFC.
    pub name: String,
}

/// How long each part of an attempt took. A part that did not happen is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AttemptTimings {
    /// From the agent taking the job to the attempt's start.
    pub queued: Option<Duration>,
    /// Name resolution.
    pub resolve: Option<Duration>,
    /// TCP connection.
    pub connect: Option<Duration>,
    /// TLS handshake.
    pub handshake: Option<Duration>,
    /// From the first request byte to the response's head.
    pub response: Option<Duration>,
    /// All of it.
    pub total: Option<Duration>,
}

/// How one attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Which delivery.
    pub delivery: DeliveryId,
    /// The lease's fencing token.
    pub epoch: u64,
    /// How it ended.
    pub class: FailureClass,
    /// The server did not ask for the client certificate and got the payload all the same.
    pub mtls_not_enforced: bool,
    /// HTTP status, when there was an answer.
    pub http_status: Option<u16>,
    /// What was seen in the handshake, when there was one.
    pub handshake: Option<SharedRecord>,
    /// How long each part took.
    pub timings: AttemptTimings,
    /// When it started, by the agent's clock.
    pub started_at: Timestamp,
    /// How long the receiver asked to wait.
    pub retry_after: Option<Duration>,
    /// What else is known: a text from the agent's fixed list, never a library's; empty when nothing is.
    pub detail: Cow<'static, str>,
    /// The receiver refused the active certificate, and the attempt went on with the one before.
    pub refused: Option<Box<CertificateRefusal>>,
    /// The agent's signed word on it, where the destination asks for that (`receipt`).
    pub receipt: Option<Box<str>>,
    /// How many attempts under the same lease failed before, while the agent was cut off.
    pub unrecorded_attempts: u32,
}

/// A client certificate that a receiver refused within an attempt that went on with another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRefusal {
    /// Version of the certificate.
    pub version: u32,
    /// How it was refused.
    pub class: FailureClass,
    /// What was seen in that handshake.
    pub handshake: Option<HandshakeRecord>,
    /// What else is known.
    pub detail: Cow<'static, str>,
}

//! What the receiver records: of connections that it took, of requests on them, and of connections
//! that it refused.

use std::{sync::Arc, time::Duration};

use countersign_shared::time::Timestamp;
use http::StatusCode;

use crate::dev::certificate::Certificate;

/// Something that happened at the receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A webhook came, over a connection with a client certificate that it trusts.
    Received(Reception),
    /// A connection was refused in the handshake: why, from a fixed list.
    Refused(&'static str),
}

/// What the receiver saw of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connection {
    /// The client's certificate.
    pub(crate) peer: Certificate,
    /// What it presented after that.
    pub(crate) chain: Vec<Certificate>,
    /// `TLSv1.2` or `TLSv1.3`.
    pub(crate) tls_version: &'static str,
    /// IANA name.
    pub(crate) cipher_suite: String,
    /// IANA name; empty in a session that was resumed without a key exchange.
    pub(crate) key_exchange_group: String,
    /// HTTP/2 was chosen by ALPN (RFC 7301).
    pub(crate) http2: bool,
    /// The session was resumed.
    pub(crate) resumed: bool,
}

/// A webhook that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reception {
    /// When its last byte was there.
    pub(crate) at: Timestamp,
    /// The `webhook-id` header: the delivery's id.
    pub(crate) id: String,
    /// Size of the body in bytes.
    pub(crate) body_bytes: usize,
    /// The `content-type` header.
    pub(crate) content_type: String,
    /// The `user-agent` header.
    pub(crate) user_agent: String,
    /// Whether the signature holds.
    pub(crate) verdict: Verdict,
    /// What it came over.
    pub(crate) connection: Arc<Connection>,
}

/// Whether a webhook is what it claims to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Signed with the secret, in time.
    Verified,
    /// A header of Standard Webhooks is missing or not text.
    Header(&'static str),
    /// The timestamp is not a number of seconds.
    Timestamp,
    /// Signed too long ago, or in the future: how far off.
    Stale(Duration),
    /// No signature holds.
    Signature,
}

impl Verdict {
    /// What the sender is answered.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Verified => StatusCode::NO_CONTENT,
            Self::Header(_) | Self::Timestamp => StatusCode::BAD_REQUEST,
            Self::Stale(_) | Self::Signature => StatusCode::UNAUTHORIZED,
        }
    }

    /// For people.
    pub(crate) fn text(self) -> String {
        match self {
            Self::Verified => "verified (v1, HMAC-SHA256; the timestamp is signed too)".to_owned(),
            Self::Header(name) => format!("not verified: no {name} header"),
            Self::Timestamp => "not verified: webhook-timestamp is not a number".to_owned(),
            Self::Stale(by) => format!("not verified: {} s off, it may be a replay", by.as_secs()),
            Self::Signature => "not verified: no signature holds".to_owned(),
        }
    }
}

//! A probe: a handshake without a payload that shows what a receiver thinks of a client certificate,
//! or of none.

use std::borrow::Cow;

use rustls_pki_types::CertificateDer;

use crate::{
    class::FailureClass,
    name::DestinationName,
    outcome::{AttemptTimings, HandshakeRecord},
    time::Timestamp,
};

/// Most certificates of a server's chain that a report keeps.
pub const MAX_SERVER_CHAIN: usize = 8;

/// Identifies a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProbeId(pub [u8; 16]);

/// What a probe presents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProbePresentation {
    /// The certificate with its chain, as in deliveries.
    Chain,
    /// The certificate alone: whether the receiver trusts its authority without a cross-signed
    /// certificate's help.
    LeafOnly,
    /// No certificate: whether the receiver insists on one.
    Nothing,
}

/// A handshake to try, over a new connection and without resumption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Identifies it.
    pub id: ProbeId,
    /// Where.
    pub destination: DestinationName,
    /// Version of the client certificate.
    pub version: u32,
    /// What to present of it.
    pub presentation: ProbePresentation,
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReport {
    /// Which probe.
    pub id: ProbeId,
    /// How it ended.
    pub class: FailureClass,
    /// The receiver took what was presented.
    pub accepted: bool,
    /// HTTP status, when there was an answer.
    pub http_status: Option<u16>,
    /// What was seen in the handshake.
    pub handshake: Option<HandshakeRecord>,
    /// How long each part took.
    pub timings: AttemptTimings,
    /// When it started, by the agent's clock.
    pub started_at: Timestamp,
    /// What else is known: a text from the agent's fixed list.
    pub detail: Cow<'static, str>,
    /// What the server presented, leaf first, at most [`MAX_SERVER_CHAIN`].
    pub server_chain: Vec<CertificateDer<'static>>,
}

//! What is known of how client certificates and authorities are being replaced.

use countersign_shared::{
    class::FailureClass, name::DestinationName, probe::ProbePresentation, time::Timestamp,
};

use super::{AuthorityState, ClientCertificate, Destination, KeyAlgorithm, Sealed, TrustModel};

/// How a receiver stands towards the authority generation that issues now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TrustState {
    /// Nothing is known.
    #[default]
    Unknown,
    /// It accepted a certificate of the new generation without a cross certificate: it trusts the
    /// new generation by itself.
    ProbedOk,
    /// It refused one: it still needs the new trust anchor.
    ProbedRefused,
    /// Its operator says that it has the new trust anchor.
    Acknowledged,
    /// It is not waited for.
    Exempt,
}

impl TrustState {
    /// Whether the older generation is no longer needed for this receiver.
    pub fn settles(self) -> bool {
        matches!(self, Self::ProbedOk | Self::Acknowledged | Self::Exempt)
    }
}

/// What the last probe of one version and presentation found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeNote {
    /// Version of the client certificate.
    pub version: u32,
    /// What of it was presented.
    pub presentation: ProbePresentation,
    /// When the answer came.
    pub at: Timestamp,
    /// How it ended.
    pub class: FailureClass,
    /// The receiver took it.
    pub accepted: bool,
    /// How many such probes in a row were not accepted.
    pub failures: u32,
}

/// Why a rotation does not go on; each tells what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeldUp {
    /// No agent that serves the destination is connected.
    NoAgent,
    /// An agent has not said that it holds the certificate on disk.
    NotDurable,
    /// The receiver refused the new certificate, in this class.
    Refused(FailureClass),
    /// No probe got through to the receiver.
    Unreachable(FailureClass),
    /// The receiver's CA has not signed the request yet.
    UploadNeeded,
    /// No certificate could be issued.
    NotIssued,
    /// The receiver was not yet seen to accept the new certificate since it is presented.
    NotConfirmed,
}

/// What is known of a destination's rotation, besides its certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// Grows with every change: fences steps that were decided on an older view.
    pub epoch: u64,
    /// When it is looked at next.
    pub next_look_at: Timestamp,
    /// Somebody asked for a new certificate.
    pub asked: bool,
    /// The active certificate was refused within an attempt that the one before then made.
    pub refused: Option<Refusal>,
    /// How often a certificate was put back because the receiver refused it.
    pub refusals: u32,
    /// Why it does not go on, and since when.
    pub held_up: Option<(HeldUp, Timestamp)>,
    /// How the receiver stands towards a generation.
    pub trust: Option<(u32, TrustState, Timestamp)>,
    /// What probes found.
    pub probes: Vec<ProbeNote>,
}

/// A receiver's refusal of a certificate in a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Which version.
    pub version: u32,
    /// How.
    pub class: FailureClass,
    /// When it was heard of.
    pub at: Timestamp,
}

/// A key of ours and a request that waits for a receiver's CA to sign it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRequest {
    /// The version that the certificate will have.
    pub version: u32,
    /// PKCS#10 (RFC 2986) in DER.
    pub request: Vec<u8>,
    /// The kind of key.
    pub key_algorithm: KeyAlgorithm,
    /// The private key (PKCS#8 in DER), sealed.
    pub sealed_key: Sealed,
    /// When it was made.
    pub created_at: Timestamp,
}

/// All that a rotation's next step is decided from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotationView {
    /// The destination.
    pub destination: Destination,
    /// Its certificates that are not retired, revoked or expired, newest first.
    pub certificates: Vec<ClientCertificate>,
    /// The request that waits for a receiver's CA.
    pub request: Option<CertificateRequest>,
    /// The rest.
    pub rotation: Rotation,
    /// Highest version of any certificate or request so far.
    pub highest_version: u32,
    /// Generations of the authority that the trust model asks for, oldest first, with their states.
    pub generations: Vec<(u32, AuthorityState)>,
}

impl RotationView {
    /// The generation that issues for the destination now; `None` when there is none, or a receiver's
    /// own CA does.
    pub fn issuing(&self) -> Option<u32> {
        let mut active = self.generations.iter().rev();
        let found = active.find(|(_, state)| *state == AuthorityState::Active);
        found.map(|(generation, _)| *generation)
    }

    /// Who is to sign.
    pub fn wanted(&self) -> (TrustModel, KeyAlgorithm) {
        let config = &self.destination.config;
        (config.trust_model, config.key_algorithm)
    }
}

/// One step of a destination's rotation, to be written if the view is still the newest.
#[derive(Debug, Clone)]
pub struct RotationChange {
    /// Which destination.
    pub destination: DestinationName,
    /// Epoch of the view that it was decided on.
    pub epoch: u64,
    /// When.
    pub now: Timestamp,
    /// What changes.
    pub step: RotationStep,
}

/// What a step changes.
#[derive(Debug, Clone)]
pub enum RotationStep {
    /// A new certificate, pending; agents get it in the next bundle.
    Add(Box<ClientCertificate>),
    /// A new request for a receiver's CA; an older one is forgotten.
    Ask(Box<CertificateRequest>),
    /// The certificate is durable at the agents.
    Distributed(u32),
    /// The certificate is presented from now on; the one before is retiring. If it is a candidate,
    /// that is what somebody asked for.
    Activate(u32),
    /// The active certificate becomes a candidate again, and the one before is presented again.
    PutBack {
        /// The active one.
        from: u32,
        /// The one before.
        to: u32,
    },
    /// The certificate is no longer used; revoked if it is one of ours and was presented.
    Retire(u32),
    /// The certificate has ended.
    Expire(u32),
    /// A probe was answered. If it was of a candidate, that is what somebody asked for.
    Probed(ProbeNote),
    /// How the receiver stands towards a generation.
    Trust(u32, TrustState),
    /// Nothing now: when to look again, and why it does not go on.
    Look {
        /// When.
        at: Timestamp,
        /// Why, and since when.
        held_up: Option<(HeldUp, Timestamp)>,
    },
}

/// How many certificates of a generation are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GenerationUse {
    /// Presented now.
    pub active: u64,
    /// Held as the next or the one before.
    pub standby: u64,
}

/// How one destination stands towards the generation that issues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationTrust {
    /// Which destination.
    pub destination: DestinationName,
    /// How it stands.
    pub state: TrustState,
    /// Since when; `None` when nothing is known.
    pub at: Option<Timestamp>,
    /// Generation of the certificate that is presented; `None` without one.
    pub presented: Option<u32>,
    /// Why its rotation does not go on.
    pub held_up: Option<HeldUp>,
}

/// That an agent was told to stop using a certificate, and that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// Which agent.
    pub agent: countersign_shared::name::AgentName,
    /// Which destination's certificate.
    pub destination: DestinationName,
    /// Its serial number.
    pub serial: String,
    /// Since when it has to stop.
    pub asked_at: Timestamp,
    /// When it said that it has.
    pub acknowledged_at: Option<Timestamp>,
}

//! Who is at the other end: an agent, by its identity certificate, at the agents' listener; at the
//! API's, the principal that the guard has found.

use std::{net::IpAddr, sync::Arc};

use countersign_shared::name::AgentName;
use tonic::{Code, Request, Status};

use super::status::{self, status};
use crate::auth::Principal;

/// The other end of a connection.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// Which agent it is, if it has presented an identity certificate of ours.
    pub agent: Option<AgentName>,
    /// SHA-256 of the public key in that certificate.
    pub agent_key: Option<[u8; 32]>,
    /// That certificate in DER.
    pub agent_certificate: Option<Arc<[u8]>>,
    /// Which principal it is, by its client certificate.
    pub client: Option<Arc<Principal>>,
    /// Its address.
    pub address: Option<IpAddr>,
}

/// The agent that makes a call.
///
/// # Errors
/// UNAUTHENTICATED when it presented no identity certificate of ours.
pub(super) fn agent<T>(request: &Request<T>) -> Result<AgentName, Status> {
    let peer = request.extensions().get::<Peer>();
    peer.and_then(|peer| peer.agent.clone()).ok_or_else(|| {
        status(
            Code::Unauthenticated,
            "AGENT_IDENTITY_REQUIRED",
            "this needs an agent's identity certificate: enroll first",
        )
    })
}

/// SHA-256 of the public key that the agent has proved to hold.
///
/// # Errors
/// As [`agent`].
pub(super) fn agent_key<T>(request: &Request<T>) -> Result<[u8; 32], Status> {
    agent(request)?;
    let peer = request.extensions().get::<Peer>();
    peer.and_then(|peer| peer.agent_key)
        .ok_or_else(status::no_key)
}

/// The certificate that the agent has presented, in DER.
///
/// # Errors
/// As [`agent`].
pub(super) fn agent_certificate<T>(request: &Request<T>) -> Result<Arc<[u8]>, Status> {
    agent(request)?;
    let peer = request.extensions().get::<Peer>();
    let certificate = peer.and_then(|peer| peer.agent_certificate.clone());
    certificate.ok_or_else(status::no_key)
}

/// Who makes a call.
///
/// # Errors
/// UNAUTHENTICATED when it did not come through the guard.
pub(super) fn principal<T>(request: &Request<T>) -> Result<Arc<Principal>, Status> {
    let principal = request.extensions().get::<Arc<Principal>>();
    principal.cloned().ok_or_else(status::no_key)
}

//! Who calls: an API key at the API's listener, an identity certificate at the agents'.

use std::sync::Arc;

use countersign_shared::name::AgentName;
use tonic::{Code, Request, Status, service::Interceptor};

use super::status::status;
use crate::{
    auth::{ApiKeys, Principal},
    metrics::Metrics,
};

/// Lets in calls with a valid API key.
#[derive(Clone)]
pub struct Authenticate {
    /// The keys that are valid.
    pub keys: Arc<ApiKeys>,
    /// Counts refusals.
    pub metrics: Metrics,
}

impl Interceptor for Authenticate {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let header = request.metadata().get("authorization");
        let principal = header
            .and_then(|value| value.to_str().ok())
            .and_then(|value| self.keys.authenticate(value));
        match principal {
            Some(principal) => {
                request.extensions_mut().insert::<Principal>(principal);
                Ok(request)
            }
            None => {
                self.metrics.authentication_failures.inc();
                Err(status(
                    Code::Unauthenticated,
                    "API_KEY_REFUSED",
                    "no valid API key: send the header 'authorization: Bearer <API key>'",
                ))
            }
        }
    }
}

/// Which agent is at the other end of a connection, by its identity certificate.
#[derive(Debug, Clone, Default)]
pub struct PeerIdentity(pub Option<AgentName>);

/// The agent that makes a call.
///
/// # Errors
/// UNAUTHENTICATED when it presented no identity certificate of ours.
pub(super) fn agent<T>(request: &Request<T>) -> Result<AgentName, Status> {
    let identity = request.extensions().get::<PeerIdentity>();
    identity
        .and_then(|identity| identity.0.clone())
        .ok_or_else(|| {
            status(
                Code::Unauthenticated,
                "AGENT_IDENTITY_REQUIRED",
                "this needs an agent's identity certificate: enroll first",
            )
        })
}

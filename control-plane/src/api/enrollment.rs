//! EnrollmentService, for agents.

use std::sync::Arc;

use countersign_proto::v1::{self, enrollment_service_server::EnrollmentService};
use tonic::{Request, Response, Status};

use super::{
    authenticate::{self, Peer},
    status,
    violations::Violations,
};
use crate::{
    agents::{Agents, EnrollError},
    auth::{Attempts, Source},
};

/// EnrollmentService over [`Agents`].
#[derive(Clone)]
pub struct EnrollmentApi {
    /// Enrolls and renews.
    pub agents: Agents,
    /// Failed attempts at join tokens.
    pub attempts: Arc<Attempts>,
}

#[tonic::async_trait]
impl EnrollmentService for EnrollmentApi {
    async fn enroll(
        &self,
        request: Request<v1::EnrollRequest>,
    ) -> Result<Response<v1::EnrollResponse>, Status> {
        let peer = request.extensions().get::<Peer>();
        let source: Option<Source> = peer.and_then(|peer| peer.address).map(Into::into);
        if let Some(source) = source {
            let checked = self.attempts.check(source, self.agents.clock.now());
            checked.map_err(status::too_many_failures)?;
        }
        let request = request.into_inner();
        let mut violations = Violations::default();
        if request.agent_id.is_empty() {
            violations.add("agent_id", "is required");
        }
        let id = violations.optional_id("agent_id", &request.agent_id);
        let id = violations.finish(id)?;
        let csr = &request.certificate_signing_request;
        let enrolled = self.agents.enroll(&request.token, id.into(), csr).await;
        if let (Err(EnrollError::Token(_)), Some(source)) = (&enrolled, source) {
            self.attempts.failed(source, self.agents.clock.now());
        }
        let enrolled = enrolled.map_err(status::enroll)?;
        let region = enrolled.agent.region.as_ref();
        Ok(Response::new(v1::EnrollResponse {
            agent: enrolled.agent.name.to_string(),
            region: region.map_or_else(String::new, ToString::to_string),
            certificate_chain: enrolled.chain.into_iter().map(Into::into).collect(),
        }))
    }

    async fn renew_identity(
        &self,
        request: Request<v1::RenewIdentityRequest>,
    ) -> Result<Response<v1::RenewIdentityResponse>, Status> {
        let agent = authenticate::agent(&request)?;
        let request = request.into_inner().certificate_signing_request;
        let renewed = self
            .agents
            .renew(&agent, &request)
            .await
            .map_err(status::enroll)?;
        Ok(Response::new(v1::RenewIdentityResponse {
            certificate_chain: renewed.chain.into_iter().map(Into::into).collect(),
        }))
    }
}

//! EnrollmentService, for agents.

use std::{net::IpAddr, sync::Arc};

use countersign_proto::v1::{self, enrollment_service_server::EnrollmentService};
use countersign_shared::name::AgentName;
use tonic::{Request, Response, Status};

use super::{
    authenticate::{self, Peer},
    status,
    violations::Violations,
};
use crate::{
    agents::{Agents, EnrollError},
    audit::{self, Call, Refusal, Refusals},
    auth::{Attempts, Source},
};

/// EnrollmentService over [`Agents`].
#[derive(Clone)]
pub struct EnrollmentApi {
    /// Enrolls and renews.
    pub agents: Agents,
    /// Failed attempts at join tokens.
    pub attempts: Arc<Attempts>,
    /// Gathers refusals for the audit log.
    pub refusals: Arc<Refusals>,
}

#[tonic::async_trait]
impl EnrollmentService for EnrollmentApi {
    async fn enroll(
        &self,
        request: Request<v1::EnrollRequest>,
    ) -> Result<Response<v1::EnrollResponse>, Status> {
        let address = address(&request);
        let source: Option<Source> = address.map(Into::into);
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
        let agent = AgentName::from(id);
        let clock = Arc::clone(&self.agents.clock);
        let (name, method) = (agent.to_string(), "EnrollmentService/Enroll");
        // The request holds the token, so its hash is left out: what is short can be guessed.
        let call = Call::new(&name, address, method, csr, vec![name.clone()], clock);
        let enrolling = self.agents.enroll(&request.token, agent, csr);
        let enrolled = audit::scope(call, enrolling).await;
        if let (Err(EnrollError::Token(_)), Some(source)) = (&enrolled, source) {
            self.attempts.failed(source, self.agents.clock.now());
        }
        let enrolled = enrolled.map_err(status::enroll);
        let enrolled = enrolled.inspect_err(|refused| {
            let refusal = Refusal {
                principal: String::new(),
                address,
                method: method.to_owned(),
                reason: status::reason(refused),
            };
            self.refusals.note(refusal, self.agents.clock.now());
        })?;
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
        let address = address(&request);
        let request = request.into_inner().certificate_signing_request;
        let clock = Arc::clone(&self.agents.clock);
        let (name, method) = (agent.to_string(), "EnrollmentService/RenewIdentity");
        let call = Call::new(&name, address, method, &request, vec![name.clone()], clock);
        let renewed = audit::scope(call, self.agents.renew(&agent, &request)).await;
        let renewed = renewed.map_err(status::enroll)?;
        Ok(Response::new(v1::RenewIdentityResponse {
            certificate_chain: renewed.chain.into_iter().map(Into::into).collect(),
        }))
    }
}

fn address<T>(request: &Request<T>) -> Option<IpAddr> {
    request
        .extensions()
        .get::<Peer>()
        .and_then(|peer| peer.address)
}

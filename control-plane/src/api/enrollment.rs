//! EnrollmentService, for agents.

use std::{net::IpAddr, sync::Arc};

use countersign_proto::v1::{self, enrollment_service_server::EnrollmentService};
use countersign_shared::{
    hpke::{self, HpkeError},
    name::AgentName,
};
use tonic::{Code, Request, Response, Status};

use super::{
    authenticate::{self, Peer},
    status,
    violations::Violations,
};
use crate::{
    agents::{Agents, EnrollError},
    alerts::{Alerts, Verdict},
    audit::{self, Call, Refusal, Refusals},
    auditing::AuditLog,
    auth::{Attempts, Source},
    ca,
    dispatch::Attach,
    model::{AlertCause, AlertSeverity, Finding, PresentedIdentity},
};

/// EnrollmentService over [`Agents`].
#[derive(Clone)]
pub struct EnrollmentApi {
    /// Enrolls and renews.
    pub agents: Agents,
    /// Failed attempts at join tokens.
    pub attempts: Arc<Attempts>,
    /// Ends sessions of agents that are let in no more.
    pub attach: Attach,
    /// Told of identities that are in use twice.
    pub alerts: Alerts,
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
        let enrolling = self.agents.enroll(&request.token, agent, address, csr);
        let enrolled = audit::scope(call, enrolling).await;
        if let (Err(EnrollError::Token(_)), Some(source)) = (&enrolled, source) {
            self.attempts.failed(source, self.agents.clock.now());
        }
        let enrolled = enrolled.map_err(status::enroll);
        // Whoever joins has not proved yet who it is.
        let enrolled = enrolled.inspect_err(|refused| self.note("", address, method, refused))?;
        // One that was recovered has its session under its old identity.
        self.attach.end_session(&enrolled.agent.name);
        // And whoever had copies of that identity has them no more.
        let clear = Verdict::Clear(AlertCause::AgentIdentityCloned, name);
        self.alerts.apply_all(vec![clear]).await;
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
        let certificate = authenticate::agent_certificate(&request)?;
        let presented = PresentedIdentity {
            public_key_sha256: authenticate::agent_key(&request)?,
            // It was let in with it, so it parses.
            issued_at: ca::identity_issued_at(&certificate).ok_or_else(status::no_key)?,
        };
        let address = address(&request);
        let request = request.into_inner().certificate_signing_request;
        let clock = Arc::clone(&self.agents.clock);
        let (name, method) = (agent.to_string(), "EnrollmentService/RenewIdentity");
        let call = Call::new(&name, address, method, &request, vec![name.clone()], clock);
        let renewed = audit::scope(call, self.agents.renew(&agent, presented, &request)).await;
        if let Err(EnrollError::Cloned(agent, ended)) = &renewed {
            self.attach.is_out(agent, ended.clone());
            self.alerts.apply_all(vec![cloned(agent)]).await;
        }
        let renewed = renewed.map_err(status::enroll);
        let renewed = renewed.inspect_err(|refused| self.note(&name, address, method, refused))?;
        Ok(Response::new(v1::RenewIdentityResponse {
            certificate_chain: renewed.chain.into_iter().map(Into::into).collect(),
        }))
    }

    async fn release_journal_key(
        &self,
        request: Request<v1::ReleaseJournalKeyRequest>,
    ) -> Result<Response<v1::ReleaseJournalKeyResponse>, Status> {
        let agent = authenticate::agent(&request)?;
        let certificate = authenticate::agent_certificate(&request)?;
        let address = address(&request);
        let request = request.into_inner();
        let refused = |error: HpkeError| {
            let text = format!("sealing_key {error}");
            status::status(Code::InvalidArgument, "SEALING_KEY_REFUSED", text)
        };
        let (key, signature) = (&request.sealing_key, &request.sealing_key_signature);
        let public = hpke::check_vouched(&agent, key, signature, &certificate).map_err(refused)?;
        let (name, method) = (agent.to_string(), "EnrollmentService/ReleaseJournalKey");
        let clock = Arc::clone(&self.agents.clock);
        let call = Call::new(&name, address, method, key, vec![name.clone()], clock);
        let released = audit::scope(call, async {
            let key = self
                .agents
                .journal_key(&agent)
                .await
                .map_err(status::enroll)?;
            // Before it goes out.
            let recorded = AuditLog::discloses(self.agents.store.as_ref()).await;
            recorded.map_err(status::store)?;
            Ok::<_, Status>(key)
        });
        let released = released
            .await
            .inspect_err(|refused| self.note(&name, address, method, refused))?;
        let aad = hpke::journal_key_of(&agent);
        let sealed = hpke::seal(&public, &aad, &released).map_err(refused)?;
        Ok(Response::new(v1::ReleaseJournalKeyResponse {
            encapsulated_key: sealed.encapsulated_key.into(),
            ciphertext: sealed.ciphertext.into(),
        }))
    }
}

impl EnrollmentApi {
    /// An agent was not given what it asked for.
    fn note(&self, principal: &str, address: Option<IpAddr>, method: &str, refused: &Status) {
        let refusal = Refusal {
            principal: principal.to_owned(),
            address,
            method: method.to_owned(),
            reason: status::reason(refused),
        };
        self.refusals.note(refusal, self.agents.clock.now());
    }
}

fn address<T>(request: &Request<T>) -> Option<IpAddr> {
    request
        .extensions()
        .get::<Peer>()
        .and_then(|peer| peer.address)
}

fn cloned(agent: &AgentName) -> Verdict {
    Verdict::Raise(Finding {
        cause: AlertCause::AgentIdentityCloned,
        resource: agent.to_string(),
        severity: AlertSeverity::Critical,
        message: format!(
            "two agents have the identity of {agent}: its data directory was copied. Both are suspended. Find \
             out which one is yours; if it is certain that the other is gone, give yours a new identity with \
             a join token that recovers it; otherwise evict it, rotate the certificates and secrets that it \
             held, and enroll anew"
        ),
    })
}

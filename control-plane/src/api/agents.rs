//! AgentAdministrationService.

use countersign_proto::v1::{
    self, agent_administration_service_server::AgentAdministrationService,
};
use countersign_shared::{
    address_range::AddressRange,
    name::{AgentName, Id, JoinTokenName},
    time::Timestamp,
    wire::{duration_from_wire, timestamp_to_wire},
};
use tonic::{Request, Response, Status};

use super::{
    page, status,
    violations::{Violations, name},
};
use crate::{
    agents::{Agents, TOKEN_LIFE, TokenRequest},
    alerts::{Alerts, Verdict},
    dispatch::Attach,
    model::{Agent, AlertCause, JoinToken},
};

/// Most ranges of a join token.
const MAX_SOURCE_RANGES: usize = 32;

/// AgentAdministrationService over [`Agents`] and the live sessions.
#[derive(Clone)]
pub struct AgentAdministrationApi {
    /// Tokens and agents.
    pub agents: Agents,
    /// Who is connected, and drains whom.
    pub attach: Attach,
    /// Told when an operator has decided.
    pub alerts: Alerts,
}

#[tonic::async_trait]
impl AgentAdministrationService for AgentAdministrationApi {
    async fn create_join_token(
        &self,
        request: Request<v1::CreateJoinTokenRequest>,
    ) -> Result<Response<v1::CreateJoinTokenResponse>, Status> {
        let request = request.into_inner();
        let wanted = request.join_token.unwrap_or_default();
        let mut violations = Violations::default();
        let (shortest, longest, default) = TOKEN_LIFE;
        let ttl = wanted.ttl.map_or(Some(default), duration_from_wire);
        let ttl = ttl.filter(|ttl| (shortest..=longest).contains(ttl));
        if ttl.is_none() {
            violations.add("join_token.ttl", "must be from 1 minute to 7 days");
        }
        let source_ranges = ranges(&mut violations, &wanted.source_ranges);
        if wanted.recovers && wanted.agent_id.is_empty() {
            let problem = "is required for a token that recovers: name the agent";
            violations.add("join_token.agent_id", problem);
        }
        let asked = TokenRequest {
            source_ranges,
            recovers: wanted.recovers,
            id: violations.optional_id("join_token_id", &request.join_token_id),
            region: violations.optional_id("join_token.region", &wanted.region),
            agent_id: violations.optional_id("join_token.agent_id", &wanted.agent_id),
            ttl: violations.finish(ttl)?,
        };
        let (token, text) = self
            .agents
            .create_token(asked)
            .await
            .map_err(status::store)?;
        Ok(Response::new(v1::CreateJoinTokenResponse {
            join_token: Some(token_to_wire(&token, self.agents.clock.now())),
            token: text.expose().to_owned(),
        }))
    }

    async fn list_join_tokens(
        &self,
        request: Request<v1::ListJoinTokensRequest>,
    ) -> Result<Response<v1::ListJoinTokensResponse>, Status> {
        let request = request.into_inner();
        let mut violations = Violations::default();
        let size = page::size(&mut violations, request.page_size);
        let after = page::after(&mut violations, "joinTokens", &request.page_token);
        violations.check()?;
        let found = self.agents.store.join_tokens(&after, size).await;
        let found = found.map_err(status::store)?;
        let now = self.agents.clock.now();
        Ok(Response::new(v1::ListJoinTokensResponse {
            next_page_token: page::token(&found, "joinTokens", |item| item.name.id().to_string()),
            join_tokens: found
                .items
                .iter()
                .map(|item| token_to_wire(item, now))
                .collect(),
        }))
    }

    async fn revoke_join_token(
        &self,
        request: Request<v1::RevokeJoinTokenRequest>,
    ) -> Result<Response<v1::RevokeJoinTokenResponse>, Status> {
        let name: JoinTokenName = name("name", &request.into_inner().name)?;
        let now = self.agents.clock.now();
        let revoked = self.agents.store.revoke_join_token(&name, now).await;
        Ok(Response::new(v1::RevokeJoinTokenResponse {
            join_token: Some(token_to_wire(&revoked.map_err(status::store)?, now)),
        }))
    }

    async fn get_agent(
        &self,
        request: Request<v1::GetAgentRequest>,
    ) -> Result<Response<v1::GetAgentResponse>, Status> {
        let name: AgentName = name("name", &request.into_inner().name)?;
        let found = self
            .agents
            .store
            .agent(&name)
            .await
            .map_err(status::store)?;
        Ok(Response::new(v1::GetAgentResponse {
            agent: Some(self.agent_to_wire(&found).await?),
        }))
    }

    async fn list_agents(
        &self,
        request: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsResponse>, Status> {
        let request = request.into_inner();
        let mut violations = Violations::default();
        let size = page::size(&mut violations, request.page_size);
        let after = page::after(&mut violations, "agents", &request.page_token);
        violations.check()?;
        let found = self
            .agents
            .store
            .agents(&after, size)
            .await
            .map_err(status::store)?;
        let mut agents = Vec::with_capacity(found.items.len());
        for item in &found.items {
            agents.push(self.agent_to_wire(item).await?);
        }
        Ok(Response::new(v1::ListAgentsResponse {
            next_page_token: page::token(&found, "agents", |item| item.name.id().to_string()),
            agents,
        }))
    }

    async fn drain_agent(
        &self,
        request: Request<v1::DrainAgentRequest>,
    ) -> Result<Response<v1::DrainAgentResponse>, Status> {
        let agent = self.set_draining(&request.into_inner().name, true).await?;
        let agent = Some(agent);
        Ok(Response::new(v1::DrainAgentResponse { agent }))
    }

    async fn resume_agent(
        &self,
        request: Request<v1::ResumeAgentRequest>,
    ) -> Result<Response<v1::ResumeAgentResponse>, Status> {
        let text = request.into_inner().name;
        let agent = self.set_draining(&text, false).await?;
        self.no_longer_cloned(&name("name", &text)?).await;
        let agent = Some(agent);
        Ok(Response::new(v1::ResumeAgentResponse { agent }))
    }

    async fn suspend_agent(
        &self,
        request: Request<v1::SuspendAgentRequest>,
    ) -> Result<Response<v1::SuspendAgentResponse>, Status> {
        let name: AgentName = name("name", &request.into_inner().name)?;
        let suspended = self.attach.suspend(&name).await.map_err(status::store)?;
        let agent = Some(self.agent_to_wire(&suspended).await?);
        Ok(Response::new(v1::SuspendAgentResponse { agent }))
    }

    async fn evict_agent(
        &self,
        request: Request<v1::EvictAgentRequest>,
    ) -> Result<Response<v1::EvictAgentResponse>, Status> {
        let name: AgentName = name("name", &request.into_inner().name)?;
        let evicted = self.attach.evict(&name).await.map_err(status::store)?;
        self.no_longer_cloned(&name).await;
        let agent = Some(self.agent_to_wire(&evicted).await?);
        Ok(Response::new(v1::EvictAgentResponse { agent }))
    }
}

impl AgentAdministrationApi {
    /// An operator has decided what becomes of an agent.
    async fn no_longer_cloned(&self, agent: &AgentName) {
        let clear = Verdict::Clear(AlertCause::AgentIdentityCloned, agent.to_string());
        self.alerts.apply_all(vec![clear]).await;
    }

    async fn set_draining(&self, text: &str, draining: bool) -> Result<v1::Agent, Status> {
        let name: AgentName = name("name", text)?;
        let changed = self.attach.set_draining(&name, draining).await;
        self.agent_to_wire(&changed.map_err(status::store)?).await
    }

    async fn agent_to_wire(&self, agent: &Agent) -> Result<v1::Agent, Status> {
        let session = self.attach.sessions.get(&agent.name);
        let leaving = session
            .as_ref()
            .map_or(agent.draining, |session| session.is_leaving());
        let now = self.attach.clock.now();
        let elsewhere = self.attach.sessions.elsewhere.has(&agent.name, now);
        let leased = match &session {
            Some(session) => session.leased(),
            // It is gone, but may hold leases until these end, or it is connected to another.
            None if leaving || elsewhere => {
                let counted = self.agents.store.leases_of(&agent.name).await;
                counted.map_err(status::store)?
            }
            None => 0,
        };
        let state = match (leaving, leased) {
            _ if agent.evicted_at.is_some() => v1::AgentState::Evicted,
            _ if agent.suspended_at.is_some() => v1::AgentState::Suspended,
            (false, _) => v1::AgentState::Active,
            (true, 0) => v1::AgentState::Drained,
            (true, _) => v1::AgentState::Draining,
        };
        let skew = session
            .as_ref()
            .and_then(|session| session.clock_skew_micros());
        Ok(v1::Agent {
            name: agent.name.to_string(),
            region: text(agent.region.as_ref()),
            connected: session.is_some() || elsewhere,
            version: agent.version.clone(),
            create_time: Some(timestamp_to_wire(agent.created_at)),
            last_seen_time: Some(timestamp_to_wire(agent.last_seen_at)),
            identity_not_after_time: Some(timestamp_to_wire(agent.identity_not_after)),
            leased_deliveries: i32::try_from(leased).unwrap_or(i32::MAX),
            clock_skew: skew.map(signed_duration),
            state: state.into(),
        })
    }
}

/// Ranges in CIDR notation.
fn ranges(violations: &mut Violations, texts: &[String]) -> Vec<AddressRange> {
    const FIELD: &str = "join_token.source_ranges";
    if texts.len() > MAX_SOURCE_RANGES {
        violations.add(FIELD, format!("must be at most {MAX_SOURCE_RANGES}"));
    }
    let mut ranges = Vec::with_capacity(texts.len());
    for text in texts {
        match text.parse() {
            Ok(range) => ranges.push(range),
            Err(error) => violations.add(FIELD, format!("'{text}': {error}")),
        }
    }
    ranges
}

/// A duration that may be negative.
fn signed_duration(micros: i64) -> prost_types::Duration {
    prost_types::Duration {
        seconds: micros / 1_000_000,
        nanos: i32::try_from(micros % 1_000_000).unwrap_or_default() * 1000,
    }
}

fn text(id: Option<&Id>) -> String {
    id.map_or_else(String::new, ToString::to_string)
}

fn token_to_wire(token: &JoinToken, now: Timestamp) -> v1::JoinToken {
    let state = if token.revoked_at.is_some() {
        v1::JoinTokenState::Revoked
    } else if token.used.is_some() {
        v1::JoinTokenState::Used
    } else if now >= token.expires_at {
        v1::JoinTokenState::Expired
    } else {
        v1::JoinTokenState::Unused
    };
    v1::JoinToken {
        name: token.name.to_string(),
        region: text(token.region.as_ref()),
        agent_id: text(token.agent_id.as_ref()),
        source_ranges: token
            .source_ranges
            .iter()
            .map(ToString::to_string)
            .collect(),
        recovers: token.recovers,
        ttl: None,
        expire_time: Some(timestamp_to_wire(token.expires_at)),
        create_time: Some(timestamp_to_wire(token.created_at)),
        state: state.into(),
        agent: token
            .used
            .as_ref()
            .map_or_else(String::new, |used| used.agent.to_string()),
    }
}

//! Agents' identities: join tokens, enrollment, renewal.

use std::{net::IpAddr, sync::Arc, time::Duration};

use countersign_shared::{
    address_range::AddressRange,
    join_token,
    name::{AgentName, Id, JoinTokenName},
    random,
    secret::{self, SecretBytes, SecretText},
    time::{Clock, Timestamp},
};
use thiserror::Error;

use crate::{
    ca::{self, CaError, SigningAuthority},
    model::{
        Agent, DestinationKey, Enrollment, JoinToken, JoinTokenUse, PresentedIdentity, Renewal,
    },
    store::{Store, StoreError},
    vault::{INSTALLATION, Vault},
};

/// Shortest and longest life of a join token, and the default.
pub const TOKEN_LIFE: (Duration, Duration, Duration) = (
    Duration::from_secs(60),
    Duration::from_secs(7 * 24 * 3600),
    Duration::from_secs(3600),
);

/// Why an agent got no identity.
#[derive(Debug, Error)]
pub enum EnrollError {
    /// The token is not usable. What exactly is wrong is told only where it can't help a guesser.
    #[error("{0}")]
    Token(&'static str),
    /// The token is for another agent.
    #[error("the join token is for agent '{0}' only")]
    Name(Id),
    /// Another agent has this name.
    #[error("{0} exists already: choose another name (--name), or make a token for a new agent")]
    NameTaken(AgentName),
    /// The token is for other addresses.
    #[error("the join token can't be used from this address: see its source_ranges")]
    Source,
    /// A token that recovers, and no such agent.
    #[error("{0} is not enrolled here: a token that recovers is for an agent that is")]
    NothingToRecover(AgentName),
    /// An operator has suspended it.
    #[error("{0} is suspended: an operator resumes or evicts it")]
    Suspended(AgentName),
    /// A newer identity has taken its place.
    #[error("this identity of {0} was replaced by another: use that one")]
    Replaced(AgentName),
    /// Two agents have this identity.
    #[error(
        "the identity of {0} is in use by two agents: both are suspended, until an operator resumes or \
         evicts it"
    )]
    Cloned(AgentName, Vec<DestinationKey>),
    /// The agent was taken out for good.
    #[error("{0} was evicted: enroll under another name with a new join token")]
    Evicted(AgentName),
    /// The certificate authority or the store did not do their part.
    #[error(transparent)]
    Ca(#[from] CaError),
}

impl From<StoreError> for EnrollError {
    fn from(error: StoreError) -> Self {
        Self::Ca(error.into())
    }
}

/// An identity for an agent.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The agent.
    pub agent: Agent,
    /// The certificate in DER, and what is between it and its authority: nothing for now.
    pub chain: Vec<Vec<u8>>,
}

/// Gives agents their identities.
#[derive(Clone)]
pub struct Agents {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// What journal keys follow from.
    pub vault: Arc<Vault>,
    /// Signs identities.
    pub authority: Arc<SigningAuthority>,
    /// SHA-256 of the public key of the CA of the control plane's server certificate.
    pub server_pin: [u8; 32],
    /// Host part of `spiffe://` URIs.
    pub trust_domain: Arc<str>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

/// What an administrator says of a new token.
#[derive(Debug, Clone, Default)]
pub struct TokenRequest {
    /// Its id.
    pub id: Option<Id>,
    /// The region that the agent will serve.
    pub region: Option<Id>,
    /// The only agent name that may use it.
    pub agent_id: Option<Id>,
    /// The only addresses that it may be used from; none: all.
    pub source_ranges: Vec<AddressRange>,
    /// It gives the agent, which is enrolled already, a new identity.
    pub recovers: bool,
    /// How long it can be used.
    pub ttl: Duration,
}

impl Agents {
    /// Makes a join token. The text is shown once.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] when the id is taken.
    pub async fn create_token(
        &self,
        request: TokenRequest,
    ) -> Result<(JoinToken, SecretText), StoreError> {
        let now = self.clock.now();
        let id = request.id.unwrap_or_else(|| random::uuid_v7(now).into());
        let token = join_token::JoinToken::generate(id.clone(), self.server_pin);
        let stored = JoinToken {
            name: JoinTokenName::from(id),
            secret_sha256: token.secret_hash(),
            region: request.region,
            agent_id: request.agent_id,
            source_ranges: request.source_ranges,
            recovers: request.recovers,
            created_at: now,
            expires_at: now.plus(request.ttl),
            revoked_at: None,
            used: None,
        };
        Ok((self.store.create_join_token(stored).await?, token.to_text()))
    }

    /// Exchanges a join token and a signing request for an identity. The token is bound to the
    /// request's key at first use; the same key may repeat the call.
    ///
    /// # Errors
    /// [`EnrollError`].
    pub async fn enroll(
        &self,
        token: &str,
        agent: AgentName,
        source: Option<IpAddr>,
        request: &[u8],
    ) -> Result<Identity, EnrollError> {
        let now = self.clock.now();
        let stored = self.verified_token(token, &agent, source, now).await?;
        let request = ca::parse_request(request)?;
        let used = JoinTokenUse {
            agent: agent.clone(),
            public_key_sha256: request.public_key_sha256,
        };
        let enrollment = Enrollment {
            token: stored.name,
            used,
            region: stored.region,
            identity_not_after: now.plus(ca::IDENTITY_LIFE),
            now,
        };
        let enrolled = match self.store.enroll(enrollment).await {
            Err(StoreError::AlreadyExists(_)) => return Err(EnrollError::NameTaken(agent)),
            Err(StoreError::Precondition(_)) => return Err(EnrollError::Token(USED)),
            Err(StoreError::NotFound(_)) => return Err(EnrollError::NothingToRecover(agent)),
            enrolled => enrolled?,
        };
        let_in(&enrolled)?;
        tracing::info!(agent = %enrolled.name, "agent enrolled");
        self.issue(enrolled, &request, now).await
    }

    /// Exchanges a signing request for a new identity of an agent that has proved its current one, whose
    /// public key has the SHA-256 `presented`.
    ///
    /// # Errors
    /// [`EnrollError`].
    pub async fn renew(
        &self,
        agent: &AgentName,
        presented: PresentedIdentity,
        request: &[u8],
    ) -> Result<Identity, EnrollError> {
        let agent = self.store.agent(agent).await?;
        let_in(&agent)?;
        let request = ca::parse_request(request)?;
        let now = self.clock.now();
        let requested = request.public_key_sha256;
        let renewed = self
            .store
            .renew_agent(&agent.name, presented, requested, now);
        let (agent, renewal, ended) = renewed.await?;
        if renewal == Renewal::Cloned {
            tracing::error!(agent = %agent.name, "two agents have one identity: both are suspended");
            return Err(EnrollError::Cloned(agent.name, ended));
        }
        if renewal == Renewal::Replaced {
            return Err(EnrollError::Replaced(agent.name));
        }
        // It may have been taken out since it was looked at.
        let_in(&agent)?;
        let identity = self.issue(agent, &request, now).await?;
        let name = &identity.agent.name;
        let not_after = Some(identity.agent.identity_not_after);
        self.store.agent_seen(name, None, not_after, now).await?;
        Ok(identity)
    }

    /// The key of an agent's journal.
    ///
    /// # Errors
    /// [`EnrollError`] when it is not let in, or the key can't be had.
    pub async fn journal_key(&self, agent: &AgentName) -> Result<SecretBytes, EnrollError> {
        let agent = self.store.agent(agent).await?;
        let_in(&agent)?;
        let scope = self.vault.scope(self.store.as_ref(), INSTALLATION).await;
        let scope = scope.map_err(CaError::from)?;
        Ok(scope.journal_key(&agent.name, agent.created_at))
    }

    async fn issue(
        &self,
        agent: Agent,
        request: &ca::SigningRequest,
        now: Timestamp,
    ) -> Result<Identity, EnrollError> {
        let store = self.store.as_ref();
        let (certificate, not_after) = ca::issue_agent_identity(
            &agent.name,
            &self.trust_domain,
            request,
            &self.authority,
            store,
            now,
        )
        .await?;
        Ok(Identity {
            agent: Agent {
                identity_not_after: not_after,
                ..agent
            },
            chain: vec![certificate],
        })
    }

    async fn verified_token(
        &self,
        text: &str,
        agent: &AgentName,
        source: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<JoinToken, EnrollError> {
        let unknown = EnrollError::Token(UNKNOWN);
        let Ok(token) = join_token::JoinToken::parse(text) else {
            return Err(unknown);
        };
        let stored = match self.store.join_token(&token.id.clone().into()).await {
            Err(StoreError::NotFound(_)) => return Err(unknown),
            stored => stored?,
        };
        if !secret::equal(&stored.secret_sha256, &token.secret_hash()) {
            return Err(unknown);
        }
        // From here on the caller has shown the secret and may know the reason.
        token_usable(&stored, now).map_err(EnrollError::Token)?;
        if !comes_from(&stored.source_ranges, source) {
            return Err(EnrollError::Source);
        }
        match &stored.agent_id {
            Some(only) if only != agent.id() => Err(EnrollError::Name(only.clone())),
            _ => Ok(stored),
        }
    }
}

const UNKNOWN: &str = "the join token is not known here: check that it was copied whole and is for \
                       this control plane";
const REVOKED: &str = "the join token was revoked: make a new one";
const EXPIRED: &str = "the join token has expired: make a new one";
const USED: &str = "the join token was used by another agent: make a new one";

/// An agent that was taken out gets no identity.
fn let_in(agent: &Agent) -> Result<(), EnrollError> {
    let name = || agent.name.clone();
    match (agent.evicted_at, agent.suspended_at) {
        (Some(_), _) => Err(EnrollError::Evicted(name())),
        (None, Some(_)) => Err(EnrollError::Suspended(name())),
        (None, None) => Ok(()),
    }
}

/// Whether `source` is in one of `ranges`, if there are any.
fn comes_from(ranges: &[AddressRange], source: Option<IpAddr>) -> bool {
    ranges.is_empty()
        || source.is_some_and(|source| ranges.iter().any(|range| range.contains(source)))
}

/// Whether a token can still be used. A token that an agent has used stays good for that agent's
/// repeated calls until it expires.
fn token_usable(token: &JoinToken, now: Timestamp) -> Result<(), &'static str> {
    if token.revoked_at.is_some() {
        return Err(REVOKED);
    }
    if now >= token.expires_at {
        return Err(EXPIRED);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use countersign_shared::{
        tasks::{Failures, Tasks},
        time::ManualClock,
    };
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::{
        kek::FileKek,
        model::{KeyAlgorithm, Serial},
        store::sqlite::SqliteStore,
        vault::{INSTALLATION, Vault},
    };

    /// Agents over a store in `folder`; what comes besides keeps the store's threads alive.
    async fn agents(
        folder: &std::path::Path,
        clock: Arc<ManualClock>,
    ) -> (Agents, (Tasks, Failures)) {
        let (tasks, failures) = Tasks::new();
        let store = SqliteStore::open(&folder.join("store.sqlite"), &tasks).unwrap();
        let vault = Vault::new(Arc::new(FileKek::create(&folder.join("kek")).unwrap()));
        let (_, scope) = vault.new_scope(INSTALLATION).await.unwrap();
        let serials: [Serial; 3] = std::array::from_fn(|_| Serial::from_random(random::bytes()));
        let now = clock.now();
        let root = ca::new_root(
            "test",
            ca::RootKey::Stored(KeyAlgorithm::EcdsaP256),
            &scope,
            serials[0],
            now,
        )
        .unwrap();
        let serials = [serials[1], serials[2]];
        let authority = ca::new_agents_authority("test", &root, &scope, serials, now).unwrap();
        let agents = Agents {
            store: Arc::new(store),
            vault: Arc::new(vault),
            authority: Arc::new(authority),
            server_pin: [0; 32],
            trust_domain: "test.internal".into(),
            clock,
        };
        (agents, (tasks, failures))
    }

    /// An identity with this key, made now.
    fn shown_at(public_key_sha256: [u8; 32], clock: &ManualClock) -> PresentedIdentity {
        PresentedIdentity {
            public_key_sha256,
            issued_at: clock.now(),
        }
    }

    #[tokio::test]
    async fn an_agent_enrolls_until_its_token_expires_and_not_after() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(1_000_000)));
        let (agents, _alive) = agents(folder.path(), Arc::clone(&clock)).await;
        let request = TokenRequest {
            ttl: TOKEN_LIFE.0,
            ..TokenRequest::default()
        };
        let (_, token) = agents.create_token(request).await.unwrap();
        let key = KeyPair::generate().unwrap();
        let signed = CertificateParams::default().serialize_request(&key);
        let signed = signed.unwrap().der().to_vec();
        let name = |text: &str| AgentName::from(Id::chosen(text).unwrap());
        let enroll = |agent: &str| agents.enroll(token.expose(), name(agent), None, &signed);

        clock.advance(TOKEN_LIFE.0 - Duration::from_micros(1));
        let enrolled = enroll("edge-1").await.unwrap();
        assert_eq!(enrolled.agent.name, name("edge-1"));
        clock.advance(Duration::from_micros(1));
        // Not even for the agent that has used it in time.
        for agent in ["edge-1", "edge-2"] {
            let refused = enroll(agent).await.unwrap_err();
            assert!(
                matches!(refused, EnrollError::Token(EXPIRED)),
                "{refused:?}"
            );
        }
        let unknown = agents.store.agent(&name("edge-2")).await;
        assert!(matches!(unknown, Err(StoreError::NotFound(_))));
    }

    #[tokio::test]
    async fn an_evicted_agent_gets_no_identity_and_its_name_is_not_given_anew() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(1_000_000)));
        let (agents, _alive) = agents(folder.path(), Arc::clone(&clock)).await;
        let request = || TokenRequest {
            ttl: TOKEN_LIFE.0,
            ..TokenRequest::default()
        };
        let (_, token) = agents.create_token(request()).await.unwrap();
        let signed = || {
            let key = KeyPair::generate().unwrap();
            let signed = CertificateParams::default().serialize_request(&key);
            signed.unwrap().der().to_vec()
        };
        let shown = |key| shown_at(key, &clock);
        let (edge, first) = (AgentName::from(Id::chosen("edge-1").unwrap()), signed());
        let enroll = async |token: &SecretText, signed: &[u8]| {
            agents
                .enroll(token.expose(), edge.clone(), None, signed)
                .await
        };
        enroll(&token, &first).await.unwrap();
        let key = |signed: &[u8]| ca::parse_request(signed).unwrap().public_key_sha256;
        agents
            .renew(&edge, shown(key(&first)), &signed())
            .await
            .unwrap();
        agents.store.evict_agent(&edge, clock.now()).await.unwrap();
        let refused = agents.renew(&edge, shown(key(&first)), &signed()).await;
        assert!(matches!(refused, Err(EnrollError::Evicted(_))));
        // Nor with the token that it has used, within its time.
        let again = enroll(&token, &first).await;
        assert!(matches!(again, Err(EnrollError::Evicted(_))));
        let (_, new) = agents.create_token(request()).await.unwrap();
        let taken = enroll(&new, &signed()).await;
        assert!(matches!(taken, Err(EnrollError::NameTaken(_))));
    }

    #[test]
    fn a_token_ends_at_its_time_or_when_it_is_revoked() {
        let at = Timestamp::from_unix_seconds;
        let mut token = JoinToken {
            name: JoinTokenName::from(Id::chosen("t").unwrap()),
            secret_sha256: [0; 32],
            region: None,
            agent_id: None,
            source_ranges: Vec::new(),
            recovers: false,
            created_at: at(0),
            expires_at: at(60),
            revoked_at: None,
            used: None,
        };
        assert_eq!(token_usable(&token, at(59)), Ok(()));
        assert_eq!(token_usable(&token, at(60)), Err(EXPIRED));
        token.revoked_at = Some(at(1));
        assert_eq!(token_usable(&token, at(2)), Err(REVOKED));
    }

    #[tokio::test]
    async fn a_renewal_is_repeated_with_its_key_and_a_clone_is_found_out() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(1_000_000)));
        let (agents, _alive) = agents(folder.path(), Arc::clone(&clock)).await;
        let edge = AgentName::from(Id::chosen("edge-1").unwrap());
        let shown = |key| shown_at(key, &clock);
        let signed = || {
            let key = KeyPair::generate().unwrap();
            let signed = CertificateParams::default().serialize_request(&key);
            let signed = signed.unwrap().der().to_vec();
            let key = ca::parse_request(&signed).unwrap().public_key_sha256;
            (signed, key)
        };
        let token = async |request: TokenRequest| {
            let ttl = TOKEN_LIFE.0;
            let made = agents.create_token(TokenRequest { ttl, ..request }).await;
            made.unwrap().1
        };
        let enroll = async |token: &SecretText, source: &str, signed: &[u8]| {
            let source = source.parse().ok();
            agents
                .enroll(token.expose(), edge.clone(), source, signed)
                .await
        };
        // Where a token may be used from; a refused try does not spend it.
        let bound = token(TokenRequest {
            source_ranges: vec!["192.0.2.0/24".parse().unwrap()],
            ..TokenRequest::default()
        })
        .await;
        let (first, second, third) = (signed(), signed(), signed());
        for elsewhere in ["198.51.100.1", "unknown"] {
            let refused = enroll(&bound, elsewhere, &first.0).await;
            assert!(matches!(refused, Err(EnrollError::Source)));
        }
        enroll(&bound, "192.0.2.7", &first.0).await.unwrap();

        agents
            .renew(&edge, shown(first.1), &second.0)
            .await
            .unwrap();
        // The answer was lost.
        agents
            .renew(&edge, shown(first.1), &second.0)
            .await
            .unwrap();
        agents
            .renew(&edge, shown(second.1), &third.0)
            .await
            .unwrap();
        let cloned = agents.renew(&edge, shown(second.1), &signed().0).await;
        assert!(matches!(cloned, Err(EnrollError::Cloned(..))));
        // Neither of the two gets one now.
        let mine = agents.renew(&edge, shown(third.1), &signed().0).await;
        assert!(matches!(mine, Err(EnrollError::Suspended(_))));
        let again = enroll(&bound, "192.0.2.7", &first.0).await;
        assert!(matches!(again, Err(EnrollError::Suspended(_))));

        // A token that recovers gives it a new identity; the old ones are of no use then.
        let recovering = || TokenRequest {
            agent_id: Some(edge.id().clone()),
            recovers: true,
            ..TokenRequest::default()
        };
        let fresh = signed();
        let recovered = enroll(&token(recovering()).await, "192.0.2.7", &fresh.0).await;
        assert_eq!(recovered.unwrap().agent.suspended_at, None);
        let thief = PresentedIdentity {
            issued_at: clock.now().minus(Duration::from_secs(1)),
            ..shown(third.1)
        };
        let thief = agents.renew(&edge, thief, &signed().0).await;
        assert!(matches!(thief, Err(EnrollError::Replaced(_))));
        agents
            .renew(&edge, shown(fresh.1), &signed().0)
            .await
            .unwrap();
        let other = AgentName::from(Id::chosen("edge-2").unwrap());
        let nobody = token(TokenRequest {
            agent_id: Some(other.id().clone()),
            ..recovering()
        });
        let nobody = nobody.await;
        let nobody = agents
            .enroll(nobody.expose(), other, None, &signed().0)
            .await;
        assert!(matches!(nobody, Err(EnrollError::NothingToRecover(_))));
    }
}

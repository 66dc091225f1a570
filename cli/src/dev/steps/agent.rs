//! Step 4: an agent, enrolled with a join token unless an earlier run's can go on.

use std::{fs, time::Duration};

use countersign_proto::v1;
use countersign_shared::{
    digest::hex,
    name::{AgentName, Id},
    random,
    time::Timestamp,
    wire,
};

use super::control_plane::ControlPlane;
use crate::{
    dev::{failure::Failure, story, system::System},
    local::{
        children::{self, Child},
        commands,
        directory::Remembered,
        provision::Origin,
    },
};

const LOG: &str = "agent";
/// An identity that ends sooner is not worth starting with.
const SHORTEST_IDENTITY: Duration = Duration::from_secs(60);

/// Starts it and waits until it is connected.
///
/// # Errors
/// [`Failure`].
pub(crate) async fn start(system: &mut System, plane: &ControlPlane) -> Result<(), Failure> {
    let (name, origin) = match earlier(system, plane).await? {
        Some(name) => (name, Origin::Earlier),
        None => (enroll(system, plane).await?, Origin::New),
    };
    let arguments = commands::agent(&system.directory, name.id());
    let log = system.directory.log(LOG);
    system.agent = Some(Child::start("agent", arguments, &log)?);
    system.wait_for("the agent to connect");
    let resource = name.to_string();
    while !connected(plane.administrator.agent(&resource).await?) {
        system.pause().await?;
    }
    system.tell(&story::agent(&resource, origin));
    Ok(())
}

fn connected(agent: Option<v1::Agent>) -> bool {
    agent.is_some_and(|agent| agent.connected)
}

/// An earlier run's agent, when it can still connect.
async fn earlier(system: &System, plane: &ControlPlane) -> Result<Option<AgentName>, Failure> {
    let Some(name) = plane.remembered.as_ref().and_then(Remembered::agent) else {
        return Ok(None);
    };
    let known = plane.administrator.agent(&name.to_string()).await?;
    let usable = system.directory.agent(name.id()).is_dir()
        && known.is_some_and(|agent| identity_lasts(&agent, system.clock.now()));
    Ok(usable.then_some(name))
}

fn identity_lasts(agent: &v1::Agent, now: Timestamp) -> bool {
    let end = agent.identity_not_after_time.map(wire::timestamp_from_wire);
    end.is_some_and(|end| end > now.plus(SHORTEST_IDENTITY))
}

/// A new agent under a new name: names of agents are not used twice.
async fn enroll(system: &mut System, plane: &ControlPlane) -> Result<AgentName, Failure> {
    system.wait_for("the agent to enroll");
    let id = format!("dev-{}", hex(&random::bytes::<3>()));
    let id = Id::chosen(&id).map_err(|_| Failure::Unreadable("an agent's id"))?;
    let token = plane.administrator.join_token(&id).await?;
    let arguments = commands::enroll(&system.directory, &id, plane.addresses.agents);
    let log = system.directory.log(LOG);
    children::run_to_end("agent's enrollment", arguments, &token, &log).await?;
    let before = system.directory.remembered();
    system
        .directory
        .remember(&Remembered::new(plane.addresses, &id))
        .map_err(Failure::io("can't write to the data directory"))?;
    if let Some(superseded) = before.and_then(|before| before.agent()) {
        // Nothing can use its identity again; when it can't be removed, it does no harm.
        let _ = fs::remove_dir_all(system.directory.agent(superseded.id()));
    }
    Ok(AgentName::from(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_that_ends_soon_is_not_taken_over() {
        let now = Timestamp::from_unix_seconds(1_700_000_000);
        let until = |seconds| v1::Agent {
            identity_not_after_time: Some(wire::timestamp_to_wire(
                now.plus(Duration::from_secs(seconds)),
            )),
            ..v1::Agent::default()
        };
        assert!(identity_lasts(&until(61), now));
        assert!(!identity_lasts(&until(60), now));
        assert!(!identity_lasts(&v1::Agent::default(), now));
    }
}

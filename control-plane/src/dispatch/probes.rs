//! Probes that are on their way: whoever asked waits here for the agent's answer.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use countersign_shared::{
    name::AgentName,
    probe::{ProbeId, ProbeReport},
};
use tokio::sync::oneshot;

/// Probes without an answer yet.
#[derive(Debug, Default)]
pub struct Probes(Mutex<HashMap<ProbeId, Waiting>>);

/// Who was asked, and where the answer goes.
type Waiting = (AgentName, oneshot::Sender<ProbeReport>);

/// Waits for one answer; gives its place up when it is dropped.
pub(super) struct Awaited<'a> {
    probes: &'a Probes,
    id: ProbeId,
    answer: oneshot::Receiver<ProbeReport>,
}

impl Probes {
    /// Before the probe is sent to `agent`.
    pub(super) fn expect(&self, id: ProbeId, agent: &AgentName) -> Awaited<'_> {
        let (sender, answer) = oneshot::channel();
        self.lock().insert(id, (agent.clone(), sender));
        Awaited {
            probes: self,
            id,
            answer,
        }
    }

    /// `agent` has answered. An answer that nobody waits for is dropped, and one of an agent that was
    /// not asked.
    pub fn answered(&self, agent: &AgentName, report: ProbeReport) {
        let mut probes = self.lock();
        let asked = probes
            .get(&report.id)
            .is_some_and(|(asked, _)| asked == agent);
        let waiting = asked.then(|| probes.remove(&report.id)).flatten();
        drop(probes);
        if let Some((_, waiting)) = waiting {
            // Whoever asked may have given up meanwhile.
            let _ = waiting.send(report);
        }
    }

    /// Entries are each complete.
    fn lock(&self) -> MutexGuard<'_, HashMap<ProbeId, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Awaited<'_> {
    /// The answer; `None` when there will be none.
    pub(super) async fn answer(&mut self) -> Option<ProbeReport> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.probes.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use countersign_shared::{
        class::FailureClass, name::Id, outcome::AttemptTimings, time::Timestamp,
    };

    use super::*;

    fn agent(name: &str) -> AgentName {
        Id::chosen(name).unwrap().into()
    }

    fn report(id: u8, http_status: u16) -> ProbeReport {
        ProbeReport {
            id: ProbeId([id; 16]),
            class: FailureClass::Delivered,
            accepted: true,
            http_status: Some(http_status),
            handshake: None,
            timings: AttemptTimings::default(),
            started_at: Timestamp::default(),
            detail: "".into(),
            server_chain: Vec::new(),
        }
    }

    #[tokio::test]
    async fn only_the_agent_that_was_asked_answers() {
        let probes = Probes::default();
        let (edge, rogue) = (agent("edge"), agent("rogue"));
        let mut awaited = probes.expect(ProbeId([1; 16]), &edge);
        probes.answered(&rogue, report(1, 201));
        probes.answered(&edge, report(2, 202));
        probes.answered(&edge, report(1, 203));
        probes.answered(&edge, report(1, 204));
        assert_eq!(awaited.answer().await, Some(report(1, 203)));
    }
}

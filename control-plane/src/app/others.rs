//! The other control planes of the same store: what they say is done here too, and what happens here is
//! said to them.

use std::{collections::HashSet, convert::Infallible, sync::Arc, time::Duration};

use countersign_shared::time::{Clock as _, SteeredClock};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::ApiKeys,
    dispatch::{Attach, Fleet, SAY_EVERY, Session},
    signals::{Changes, News, Poke, Relay},
    store::postgres::{Ahead, Channel, Heard},
};

/// How far the clocks may differ before that is put right.
const NOISE_MICROS: i64 = 50_000;
/// How often everything is looked at, whether or not anybody said anything.
const LOOK: Duration = Duration::from_secs(30);

/// Speaks with the other control planes.
pub(super) struct Others {
    pub(super) channel: Channel,
    pub(super) clock: Arc<SteeredClock>,
    pub(super) relay: Arc<Relay>,
    pub(super) attach: Attach,
    pub(super) fleet: Fleet,
    pub(super) changes: Arc<Changes>,
    pub(super) rotations: Arc<Poke>,
    pub(super) lists: Arc<Poke>,
    pub(super) keys: Arc<ApiKeys>,
}

impl Others {
    /// Runs until `shutdown`.
    pub(super) async fn run(mut self, shutdown: CancellationToken) -> Result<(), Infallible> {
        self.relay.turn_on();
        let mut say = tokio::time::interval(SAY_EVERY);
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                news = self.relay.next() => {
                    self.channel.say(news.iter().map(News::to_line).collect());
                }
                _ = say.tick() => {
                    self.say_who_is_here();
                    // A revoked key must not go on because a hint was lost.
                    self.reload_keys().await;
                }
                _ = look.tick() => self.look_at_everything().await,
                heard = self.channel.hear() => match heard {
                    Some(Heard::Line(line)) => match News::from_line(&line) {
                        Some(news) => self.heard(news).await,
                        None => tracing::debug!(line, "another control plane says what is not known here"),
                    },
                    Some(Heard::Clock(ahead)) => self.steer(ahead),
                    Some(Heard::Missed) => self.look_at_everything().await,
                    None => return Ok(()),
                },
            }
        }
    }

    /// What is within the noise of measuring is left as it is.
    fn steer(&self, ahead: Ahead) {
        let moved = ahead.micros - self.clock.offset_micros();
        if moved.abs() > NOISE_MICROS.max(ahead.within) {
            tracing::info!(
                ahead_ms = ahead.micros / 1000,
                "the store's server has another time than this host: it is what counts here"
            );
            self.clock.steer(ahead.micros);
        }
    }

    fn say_who_is_here(&self) {
        let all = self.attach.sessions.all();
        let here = all.iter().map(|session| {
            let (agent, region) = (session.agent.clone(), session.region.clone());
            News::Here(agent, region).to_line()
        });
        self.channel.say(here.collect());
    }

    async fn heard(&self, news: News) {
        let now = self.attach.clock.now();
        match news {
            News::Due(destination) => self.attach.wake.due(destination, now),
            News::Changed(name) => self.changes.heard(name),
            News::Revoked(name) => self.fleet.remind_all(&name, &HashSet::new()).await,
            News::Agent(agent) => self.attach.look_again(&agent).await,
            News::Attached(agent) => self.attach.end_session(&agent),
            News::Here(agent, region) => {
                if self.attach.sessions.get(&agent).is_none() {
                    self.attach.sessions.elsewhere.heard(agent, region, now);
                }
            }
            News::Keys => self.reload_keys().await,
            News::Rotations => self.rotations.heard(),
            News::Lists => self.lists.heard(),
        }
    }

    /// Whatever was said in between, or got lost, is found in the store.
    async fn look_at_everything(&self) {
        self.reload_keys().await;
        for session in self.attach.sessions.all() {
            self.attach.look_again(&session.agent).await;
            self.remind(&session).await;
        }
        self.attach.wake.rescan();
        self.rotations.heard();
        self.lists.heard();
    }

    /// Tells an agent what it still has to stop using.
    async fn remind(&self, session: &Session) {
        if let Err(error) = self.fleet.remind(session).await {
            tracing::warn!(agent = %session.agent, %error, "not told what to stop using");
        }
    }

    async fn reload_keys(&self) {
        if let Err(error) = self.keys.reload().await {
            tracing::warn!(%error, "API keys were not read again; those in memory count");
        }
    }
}

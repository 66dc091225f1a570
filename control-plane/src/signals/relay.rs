//! What one control plane tells the others that share its store. As all signals, it may be lost or
//! repeated; whoever misses it finds out at the next look at the store.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use countersign_shared::name::{AgentName, DestinationName, Id};
use tokio::sync::Notify;

use super::locked;
use crate::model::DestinationKey;

/// Something that others should look at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum News {
    /// Deliveries of a destination are due.
    Due(DestinationKey),
    /// A destination changed or is gone.
    Changed(DestinationName),
    /// Certificates of a destination must not be used any more.
    Revoked(DestinationName),
    /// An agent was drained, suspended, evicted or resumed.
    Agent(AgentName),
    /// An agent has connected to the one that says so: sessions elsewhere are over.
    Attached(AgentName),
    /// An agent, of this region, is connected to the one that says so.
    Here(AgentName, Option<Id>),
    /// API keys were made or revoked.
    Keys,
    /// Rotations are to be looked at.
    Rotations,
    /// Revocation lists are to be signed.
    Lists,
}

impl News {
    /// As one line of text.
    pub fn to_line(&self) -> String {
        match self {
            Self::Due(key) => format!("due {}", key.0),
            Self::Changed(name) => format!("changed {name}"),
            Self::Revoked(name) => format!("revoked {name}"),
            Self::Agent(name) => format!("agent {name}"),
            Self::Attached(name) => format!("attached {name}"),
            Self::Here(name, None) => format!("here {name}"),
            Self::Here(name, Some(region)) => format!("here {name} {region}"),
            Self::Keys => "keys".to_owned(),
            Self::Rotations => "rotations".to_owned(),
            Self::Lists => "lists".to_owned(),
        }
    }

    /// From a line of text; `None` for what a newer version says.
    pub fn from_line(line: &str) -> Option<Self> {
        let (what, whose) = line.split_once(' ').unwrap_or((line, ""));
        Some(match what {
            "due" => Self::Due(DestinationKey(whose.parse().ok()?)),
            "changed" => Self::Changed(whose.parse().ok()?),
            "revoked" => Self::Revoked(whose.parse().ok()?),
            "agent" => Self::Agent(whose.parse().ok()?),
            "attached" => Self::Attached(whose.parse().ok()?),
            "here" => match whose.split_once(' ') {
                Some((name, region)) => {
                    Self::Here(name.parse().ok()?, Some(Id::existing(region).ok()?))
                }
                None => Self::Here(whose.parse().ok()?, None),
            },
            "keys" => Self::Keys,
            "rotations" => Self::Rotations,
            "lists" => Self::Lists,
            _ => return None,
        })
    }
}

/// Collects news until they are passed on; each once. Off until somebody passes them on.
#[derive(Debug, Default)]
pub struct Relay {
    on: AtomicBool,
    waiting: Mutex<BTreeSet<News>>,
    notify: Notify,
}

impl Relay {
    /// There are others: news are kept for them from now on.
    pub fn turn_on(&self) {
        self.on.store(true, Ordering::Relaxed);
    }

    /// Others should look at this.
    pub fn tell(&self, news: News) {
        if self.on.load(Ordering::Relaxed) && locked(&self.waiting).insert(news) {
            self.notify.notify_one();
        }
    }

    /// Waits for news, and takes them.
    pub async fn next(&self) -> BTreeSet<News> {
        loop {
            let taken = std::mem::take(&mut *locked(&self.waiting));
            if !taken.is_empty() {
                return taken;
            }
            self.notify.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_lines_of_text_and_what_is_unknown_is_left_out() {
        for news in [
            News::Due(DestinationKey(7)),
            News::Changed("accounts/a/destinations/b".parse().unwrap()),
            News::Revoked("accounts/a/destinations/b".parse().unwrap()),
            News::Agent("agents/x".parse().unwrap()),
            News::Attached("agents/x".parse().unwrap()),
            News::Here("agents/x".parse().unwrap(), None),
            News::Here("agents/x".parse().unwrap(), Some(Id::chosen("eu").unwrap())),
            News::Keys,
            News::Rotations,
            News::Lists,
        ] {
            assert_eq!(News::from_line(&news.to_line()), Some(news));
        }
        for unknown in ["", "due", "due x", "changed nothing", "later 1"] {
            assert_eq!(News::from_line(unknown), None, "{unknown}");
        }
    }

    #[tokio::test]
    async fn each_is_passed_on_once_and_nothing_is_kept_for_nobody() {
        let relay = Relay::default();
        relay.tell(News::Keys);
        relay.turn_on();
        for _ in 0..2 {
            relay.tell(News::Due(DestinationKey(1)));
        }
        assert_eq!(
            relay.next().await,
            BTreeSet::from([News::Due(DestinationKey(1))])
        );
    }
}

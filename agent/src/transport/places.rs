//! The control planes that an agent can be served by: all of one installation. It stays with one until
//! that fails it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use countersign_shared::random;

use super::ControlPlaneUrl;

/// Where control planes are, and which is in use.
#[derive(Debug)]
pub struct Places {
    all: Vec<ControlPlaneUrl>,
    turn: AtomicUsize,
}

impl Places {
    /// Those that are configured, or where the agent was enrolled. Each agent begins with a random one,
    /// so that many spread.
    pub fn new(configured: &[ControlPlaneUrl], enrolled: &ControlPlaneUrl) -> Arc<Self> {
        let all = match configured {
            [] => vec![enrolled.clone()],
            configured => configured.to_vec(),
        };
        // Rounded down on purpose: a place in the list.
        let turn = (random::fraction() * all.len() as f64) as usize;
        Arc::new(Self {
            all,
            turn: AtomicUsize::new(turn),
        })
    }

    /// The one in use.
    pub fn current(&self) -> &ControlPlaneUrl {
        &self.all[self.turn.load(Ordering::Relaxed) % self.all.len()]
    }

    /// The one in use has failed: the next is.
    pub fn failed(&self) {
        self.turn.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.all.iter().map(ToString::to_string).collect();
        f.write_str(&all.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> ControlPlaneUrl {
        text.parse().unwrap()
    }

    #[test]
    fn without_a_list_it_is_where_the_agent_was_enrolled() {
        let places = Places::new(&[], &url("https://one:1"));
        places.failed();
        assert_eq!(*places.current(), url("https://one:1"));
    }

    #[test]
    fn one_after_the_other_is_tried() {
        let all = [
            url("https://one:1"),
            url("https://two:2"),
            url("https://three:3"),
        ];
        let places = Places::new(&all, &url("https://elsewhere:9"));
        let mut tried: Vec<String> = (0..3)
            .map(|_| {
                let current = places.current().to_string();
                places.failed();
                current
            })
            .collect();
        assert_eq!(
            places.current().to_string(),
            tried[0],
            "and then the first again"
        );
        tried.sort();
        let mut expected = all.map(|it| it.to_string());
        expected.sort();
        assert_eq!(tried, expected);
    }
}

//! The control planes that an agent can be served by: all of one installation. It stays with one until
//! that fails it, or for long.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use countersign_shared::random;

use super::ControlPlaneUrl;

/// Where control planes are, and which is in use.
#[derive(Debug)]
pub struct Places {
    all: Vec<ControlPlaneUrl>,
    turn: AtomicUsize,
    stay: Duration,
}

impl Places {
    /// Those that are configured, or where the agent was enrolled. Each agent begins with a random one,
    /// so that many spread.
    pub fn new(
        configured: &[ControlPlaneUrl],
        enrolled: &ControlPlaneUrl,
        stay: Duration,
    ) -> Arc<Self> {
        let all = match configured {
            [] => vec![enrolled.clone()],
            configured => configured.to_vec(),
        };
        // Rounded down on purpose: a place in the list.
        let turn = (random::fraction() * all.len() as f64) as usize;
        Arc::new(Self {
            all,
            turn: AtomicUsize::new(turn),
            stay,
        })
    }

    /// The one in use.
    pub fn current(&self) -> &ControlPlaneUrl {
        &self.all[self.turn.load(Ordering::Relaxed) % self.all.len()]
    }

    /// How long to stay with the one in use, if there are others: so that load spreads again after one
    /// was away. Random, so that not all go at once.
    pub fn stay(&self) -> Option<Duration> {
        let stay = self.stay.mul_f64(0.5 + random::fraction());
        (self.all.len() > 1).then_some(stay)
    }

    /// The one in use has failed, or was stayed with for long: the next is.
    pub fn next(&self) {
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

    const STAY: Duration = Duration::from_secs(60);

    fn url(text: &str) -> ControlPlaneUrl {
        text.parse().unwrap()
    }

    #[test]
    fn without_a_list_it_is_where_the_agent_was_enrolled() {
        let places = Places::new(&[], &url("https://one:1"), STAY);
        places.next();
        assert_eq!(places.stay(), None);
        assert_eq!(*places.current(), url("https://one:1"));
    }

    #[test]
    fn one_after_the_other_is_tried() {
        let all = [
            url("https://one:1"),
            url("https://two:2"),
            url("https://three:3"),
        ];
        let places = Places::new(&all, &url("https://elsewhere:9"), STAY);
        assert!(places.stay().unwrap() >= STAY / 2 && places.stay().unwrap() <= 2 * STAY);
        let mut tried: Vec<String> = (0..3)
            .map(|_| {
                let current = places.current().to_string();
                places.next();
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

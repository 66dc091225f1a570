//! What came in at the receiver: which certificate carried how much, and what was refused.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Weak},
    time::Duration,
};

use countersign_shared::time::Timestamp;

use crate::dev::{
    receiver::record::{Connection, Event, Reception, Verdict},
    timeline::Entry,
};

/// Refusals for the same reason are told of once in so long.
const REFUSALS: Duration = Duration::from_secs(2);

/// What one certificate carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Carried {
    /// Its serial number.
    pub(crate) serial: String,
    /// The common name of who signed it.
    pub(crate) issuer: String,
    /// When the first webhook came over a connection that presented it.
    pub(crate) first: Timestamp,
    /// When the last did.
    pub(crate) last: Timestamp,
    /// How many there were.
    pub(crate) webhooks: u64,
    /// Over how many connections.
    pub(crate) connections: u64,
}

/// Everything that came in.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// What each certificate carried, in the order of their first use.
    pub(crate) carried: Vec<Carried>,
    /// Webhooks whose signature did not hold.
    pub(crate) unverified: u64,
    /// Handshakes that the receiver refused.
    pub(crate) refused: u64,
    ids: HashMap<String, u32>,
    connections: Vec<Weak<Connection>>,
    told: Vec<String>,
    refusals: BTreeMap<&'static str, (Timestamp, u64)>,
}

impl Tally {
    /// How many different webhooks came.
    pub(crate) fn received(&self) -> u64 {
        self.ids.len() as u64
    }

    /// How many came again.
    pub(crate) fn repeated(&self) -> u64 {
        let times: u64 = self.ids.values().map(|times| u64::from(*times)).sum();
        times - self.received()
    }

    /// What the certificate with this serial number carried.
    pub(crate) fn of(&self, serial: &str) -> Option<&Carried> {
        self.carried.iter().find(|it| it.serial == serial)
    }

    /// How many webhooks it carried.
    pub(crate) fn webhooks(&self, serial: &str) -> u64 {
        self.of(serial).map_or(0, |it| it.webhooks)
    }

    /// The next new connection is worth telling of, whatever it presents.
    pub(crate) fn tell_again(&mut self) {
        self.told.clear();
    }

    /// Counts an event. What is to be told of it, when it is something new.
    pub(crate) fn take(&mut self, event: &Event, now: Timestamp) -> Option<Entry> {
        match event {
            Event::Received(reception) => self.count(reception),
            Event::Refused(why) => self.refusal(why, now),
        }
    }

    fn count(&mut self, reception: &Reception) -> Option<Entry> {
        *self.ids.entry(reception.id.clone()).or_default() += 1;
        if reception.verdict != Verdict::Verified {
            self.unverified += 1;
        }
        let peer = &reception.connection.peer;
        let new = self.is_new(&reception.connection);
        let mut carried = self.carried.iter_mut();
        match carried.find(|it| it.serial == peer.serial) {
            Some(carried) => {
                carried.webhooks += 1;
                carried.connections += u64::from(new);
                carried.last = carried.last.max(reception.at);
            }
            None => self.carried.push(Carried {
                serial: peer.serial.clone(),
                issuer: peer.issuer_common_name.clone(),
                first: reception.at,
                last: reception.at,
                webhooks: 1,
                connections: 1,
            }),
        }
        if !new || self.told.contains(&peer.serial) {
            return None;
        }
        self.told.push(peer.serial.clone());
        Some(presented(&reception.connection))
    }

    fn is_new(&mut self, connection: &Arc<Connection>) -> bool {
        self.connections.retain(|known| known.strong_count() > 0);
        let known = Arc::as_ptr(connection);
        if self.connections.iter().any(|it| it.as_ptr() == known) {
            return false;
        }
        self.connections.push(Arc::downgrade(connection));
        true
    }

    fn refusal(&mut self, why: &'static str, now: Timestamp) -> Option<Entry> {
        self.refused += 1;
        let known = self.refusals.get_mut(why);
        let since = match known {
            Some((told, since)) if now.since(*told) < REFUSALS => {
                *since += 1;
                return None;
            }
            Some((_, since)) => *since,
            None => 0,
        };
        self.refusals.insert(why, (now, 0));
        let headline = format!("Receiver refuses a connection: {why}");
        let before = (since > 0).then(|| format!("{since} more since it was last told"));
        Some(Entry::new(headline).fact("refused", before.unwrap_or_default()))
    }
}

/// The start of a serial number: enough to tell certificates apart.
pub(crate) fn short(serial: &str) -> String {
    let start: String = serial.chars().take(8).collect();
    format!("{start}…")
}

/// What a connection presented that is worth telling of.
fn presented(connection: &Connection) -> Entry {
    let peer = &connection.peer;
    let chain = connection.chain.iter();
    let chain = chain.map(|it| format!("{}, signed by {}", it.common_name, it.issuer_common_name));
    let chain: Vec<_> = chain.collect();
    let resumed = if connection.resumed {
        ", resumed session"
    } else {
        ""
    };
    Entry::new(format!(
        "Receiver accepts a connection with certificate {}",
        short(&peer.serial)
    ))
    .fact("signed by", &peer.issuer_common_name)
    .fact("sent along with it", chain.join("; "))
    .fact("connection", format!("{}{resumed}", connection.tls_version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{demo_pki::testing, dev::certificate::Certificate};

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_700_000_000);

    fn connection() -> Arc<Connection> {
        let client = testing::client("cn", "spiffe://x", NOW);
        Arc::new(Connection {
            peer: Certificate::read(&client.chain[0]).unwrap(),
            chain: Vec::new(),
            tls_version: "TLSv1.3",
            cipher_suite: String::new(),
            key_exchange_group: String::new(),
            http2: true,
            resumed: false,
        })
    }

    fn webhook(id: &str, connection: &Arc<Connection>, verdict: Verdict) -> Event {
        Event::Received(Reception {
            at: NOW,
            id: id.to_owned(),
            body_bytes: 2,
            content_type: String::new(),
            user_agent: String::new(),
            verdict,
            connection: Arc::clone(connection),
        })
    }

    #[test]
    fn each_certificate_and_each_repetition_counts() {
        let (mut tally, first, second) = (Tally::default(), connection(), connection());
        let events = [
            (webhook("1", &first, Verdict::Verified), true),
            (webhook("2", &first, Verdict::Verified), false),
            (webhook("2", &second, Verdict::Verified), true),
            (webhook("3", &second, Verdict::Signature), false),
        ];
        for (event, told) in &events {
            assert_eq!(tally.take(event, NOW).is_some(), *told, "{event:?}");
        }
        assert_eq!((tally.received(), tally.repeated()), (3, 1));
        assert_eq!(tally.unverified, 1);
        assert_eq!(tally.webhooks(&first.peer.serial), 2);
        assert_eq!(tally.of(&second.peer.serial).unwrap().connections, 1);
        assert_eq!(tally.webhooks("none"), 0);
    }

    #[test]
    fn only_new_connections_are_told_of_again() {
        let (mut tally, open) = (Tally::default(), connection());
        let event = webhook("1", &open, Verdict::Verified);
        assert!(tally.take(&event, NOW).is_some());
        tally.tell_again();
        assert_eq!(tally.take(&event, NOW), None, "it was open before");
        let again = Arc::new(Connection::clone(&open));
        let event = webhook("2", &again, Verdict::Verified);
        assert!(tally.take(&event, NOW).is_some());
        assert_eq!(tally.of(&open.peer.serial).unwrap().connections, 2);
    }

    #[test]
    fn refusals_for_one_reason_do_not_flood_the_timeline() {
        let mut tally = Tally::default();
        let refused = Event::Refused("it is Monday");
        assert!(tally.take(&refused, NOW).is_some());
        assert_eq!(tally.take(&refused, NOW), None);
        assert!(tally.take(&Event::Refused("another"), NOW).is_some());
        let told = tally.take(&refused, NOW.plus(REFUSALS)).unwrap();
        let text = told.render(Duration::ZERO, false);
        assert!(text.contains("1 more"), "{text}");
        assert_eq!(tally.refused, 4);
    }
}

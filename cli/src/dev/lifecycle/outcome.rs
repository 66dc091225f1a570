//! What a story showed: numbers of both ends, and whether the promise was kept. Pure.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use super::tally::short;

/// What became of the deliveries, by the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Deliveries {
    /// Accepted.
    pub(crate) accepted: u64,
    /// Not accepted.
    pub(crate) refused: u64,
    /// Delivered.
    pub(crate) delivered: u64,
    /// Attempts that ended.
    pub(crate) attempts: u64,
    /// Attempts that ended otherwise than DELIVERED, by class.
    pub(crate) failed_attempts: BTreeMap<String, u64>,
    /// Attempts in which the receiver refused a certificate and took the one before.
    pub(crate) fallbacks: u64,
}

/// What came in, by the receiver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Received {
    /// Different webhooks.
    pub(crate) webhooks: u64,
    /// Webhooks that came again.
    pub(crate) repeated: u64,
    /// Webhooks whose signature did not hold.
    pub(crate) unverified: u64,
    /// Connections that it refused.
    pub(crate) refused_connections: u64,
}

/// What a certificate carried.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Certificate {
    /// Its version.
    pub(crate) version: i32,
    /// Its serial number.
    pub(crate) serial: String,
    /// Who signed it.
    pub(crate) issuer: String,
    /// How many webhooks it carried.
    pub(crate) webhooks: u64,
    /// Over how many connections.
    pub(crate) connections: u64,
    /// When it was first and last used, in seconds after the start; 0 when it never was.
    pub(crate) used: (f64, f64),
}

/// A part of the story.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Phase {
    /// What.
    pub(crate) what: String,
    /// How long it took, in seconds.
    pub(crate) seconds: f64,
}

/// The end of a story.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Outcome {
    /// Which story.
    pub(crate) story: String,
    /// The promise was kept: `broken` is empty.
    pub(crate) kept: bool,
    /// What was not as promised.
    pub(crate) broken: Vec<String>,
    /// How long deliveries flowed, in seconds.
    pub(crate) seconds: f64,
    /// The store's view.
    pub(crate) deliveries: Deliveries,
    /// The receiver's view.
    pub(crate) received: Received,
    /// The certificates that were used, oldest first.
    pub(crate) certificates: Vec<Certificate>,
    /// How long each part took.
    pub(crate) phases: Vec<Phase>,
}

impl Outcome {
    /// Of a story that broke off.
    pub(crate) fn broken_off(story: &str, why: &str) -> Self {
        Self {
            story: story.to_owned(),
            broken: vec![why.to_owned()],
            ..Self::default()
        }
    }

    /// Judges: whatever was accepted is delivered and verified, both ends counted the same, and no
    /// attempt failed but in a class of `allowed`.
    pub(crate) fn judge(&mut self, allowed: &[&str]) {
        let (deliveries, received) = (&self.deliveries, &self.received);
        let mut broken = Vec::new();
        let mut promise = |kept: bool, text: String| {
            if !kept {
                broken.push(text);
            }
        };
        let Deliveries {
            accepted,
            refused,
            delivered,
            ..
        } = deliveries;
        promise(*accepted > 0, "nothing was accepted".to_owned());
        promise(
            *refused == 0,
            format!("{refused} deliveries were not accepted"),
        );
        promise(
            delivered == accepted,
            format!("of {accepted} accepted deliveries {delivered} were delivered"),
        );
        promise(
            received.webhooks == *accepted,
            format!(
                "the receiver got {} different webhooks of {accepted}",
                received.webhooks
            ),
        );
        promise(
            received.unverified == 0,
            format!("{} signatures did not hold", received.unverified),
        );
        for (class, count) in &deliveries.failed_attempts {
            promise(
                allowed.contains(&class.as_str()),
                format!("{count} attempts ended in {class}"),
            );
        }
        self.broken.append(&mut broken);
        self.kept = self.broken.is_empty();
    }

    /// One line of JSON.
    pub(crate) fn to_json(&self) -> String {
        #[allow(clippy::expect_used)] // no map with keys that are not texts, no failing Serialize
        serde_json::to_string(self).expect("plain fields")
    }

    /// For people.
    pub(crate) fn to_text(&self) -> String {
        let (deliveries, received) = (&self.deliveries, &self.received);
        let failed: u64 = deliveries.failed_attempts.values().sum();
        let classes = deliveries.failed_attempts.iter();
        let classes: Vec<_> = classes
            .map(|(class, count)| format!("{count} {class}"))
            .collect();
        let classes = match classes.as_slice() {
            [] => String::new(),
            classes if deliveries.delivered == deliveries.accepted => {
                format!(" ({}; all delivered afterwards)", classes.join(", "))
            }
            classes => format!(" ({})", classes.join(", ")),
        };
        let mut text = format!("Summary of {:.0} seconds\n\n", self.seconds);
        let mut line = |label: &str, value: String| {
            // Writing to a String can't fail.
            let _ = writeln!(text, "  {label:<36}{value}");
        };
        line("deliveries accepted", deliveries.accepted.to_string());
        line("delivered", deliveries.delivered.to_string());
        line("failed attempts", format!("{failed}{classes}"));
        if deliveries.fallbacks > 0 {
            line(
                "certificate refused, last one used",
                format!("{}, within the same attempt", deliveries.fallbacks),
            );
        }
        line(
            "webhooks at the receiver",
            format!(
                "{}, every signature verified: {}; {} came twice",
                received.webhooks,
                if received.unverified == 0 {
                    "yes"
                } else {
                    "NO"
                },
                received.repeated
            ),
        );
        line(
            "connections that it refused",
            received.refused_connections.to_string(),
        );
        let issuers = self
            .certificates
            .iter()
            .map(|used| used.issuer.chars().count());
        let width = issuers.max().unwrap_or_default();
        let _ = writeln!(
            text,
            "\n  {:<17} {:<width$} {:>9} {:>12}  first and last use",
            "certificate", "signed by", "webhooks", "connections"
        );
        for used in &self.certificates {
            let name = format!("v{} {}", used.version, short(&used.serial));
            let (first, last) = used.used;
            let _ = writeln!(
                text,
                "  {name:<17} {:<width$} {:>9} {:>12}  {first:.1} s to {last:.1} s",
                used.issuer, used.webhooks, used.connections,
            );
        }
        if !self.phases.is_empty() {
            text.push('\n');
        }
        for phase in &self.phases {
            let _ = writeln!(text, "  {:<68}{:>8.3} s", phase.what, phase.seconds);
        }
        text.push('\n');
        match self.broken.as_slice() {
            [] => text.push_str("The promise was kept.\n"),
            broken => {
                text.push_str("THE PROMISE WAS BROKEN:\n");
                for what in broken {
                    let _ = writeln!(text, "  - {what}");
                }
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Outcome {
        Outcome {
            deliveries: Deliveries {
                accepted: 10,
                delivered: 10,
                attempts: 10,
                ..Deliveries::default()
            },
            received: Received {
                webhooks: 10,
                repeated: 1,
                ..Received::default()
            },
            ..Outcome::default()
        }
    }

    fn broken(change: impl FnOnce(&mut Outcome), allowed: &[&str]) -> Vec<String> {
        let mut outcome = good();
        change(&mut outcome);
        outcome.judge(allowed);
        assert_eq!(outcome.kept, outcome.broken.is_empty());
        assert_eq!(outcome.to_text().contains("BROKEN"), !outcome.kept);
        outcome.broken
    }

    #[test]
    fn a_promise_is_kept_when_both_ends_agree_and_nothing_failed() {
        assert!(broken(|_| {}, &[]).is_empty());
        let failed = |outcome: &mut Outcome| {
            let failed = &mut outcome.deliveries.failed_attempts;
            failed.insert("CONNECTION_LOST".to_owned(), 2);
        };
        assert_eq!(broken(failed, &[]), ["2 attempts ended in CONNECTION_LOST"]);
        assert!(broken(failed, &["CONNECTION_LOST"]).is_empty());
        let changes: [fn(&mut Outcome); 5] = [
            |outcome| outcome.deliveries.accepted = 11,
            |outcome| outcome.deliveries.refused = 1,
            |outcome| outcome.deliveries.delivered = 9,
            |outcome| outcome.received.webhooks = 9,
            |outcome| outcome.received.unverified = 1,
        ];
        for change in changes {
            assert!(!broken(change, &["CONNECTION_LOST"]).is_empty());
        }
        assert!(!broken(|outcome| *outcome = Outcome::default(), &[]).is_empty());
    }

    #[test]
    fn the_summary_names_what_carried_what() {
        let mut outcome = good();
        outcome.certificates.push(Certificate {
            version: 2,
            serial: "0a1b2c3d4e5f".to_owned(),
            issuer: "Countersign Delivery CA — demo G1".to_owned(),
            webhooks: 7,
            connections: 1,
            used: (1.0, 2.5),
        });
        outcome.phases.push(Phase {
            what: "v1 to v2".to_owned(),
            seconds: 0.25,
        });
        outcome.judge(&[]);
        let text = outcome.to_text();
        for expected in ["v2 0a1b2c3d…", "1.0 s to 2.5 s", "0.250 s", "kept"] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        let json: serde_json::Value = serde_json::from_str(&outcome.to_json()).unwrap();
        assert_eq!(json["kept"], true);
        assert_eq!(json["certificates"][0]["webhooks"], 7);
    }
}

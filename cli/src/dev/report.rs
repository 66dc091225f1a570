//! What `--json` prints: one object with everything that a script asks, filled in as it becomes
//! known. Every member is always there; what is not known is `null`.

use std::{net::SocketAddr, path::PathBuf};

use countersign_proto::v1;
use countersign_shared::{time::Timestamp, wire};
use serde::Serialize;

use super::receiver::record::{Reception, Verdict};

/// The report.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub(crate) struct Report {
    /// The receiver got the delivery and the store says so.
    pub(crate) delivered: bool,
    /// How the last attempt ended, as `FailureClass` without its prefix.
    pub(crate) class: Option<String>,
    /// Why it was not delivered, and what to do.
    pub(crate) reason: Option<String>,
    /// The delivery's resource name.
    pub(crate) delivery: Option<String>,
    /// Number of the attempt that all this is about: 1, 2, …
    pub(crate) attempt_number: Option<i32>,
    /// What the receiver answered.
    pub(crate) http_status: Option<i32>,
    /// The receiver asked for the client certificate.
    pub(crate) client_certificate_requested: Option<bool>,
    /// Serial number of the certificate that was presented, in lower-case hexadecimal.
    pub(crate) client_certificate_serial: Option<String>,
    /// `TLSv1.2` or `TLSv1.3`.
    pub(crate) tls_version: Option<String>,
    /// IANA name.
    pub(crate) cipher_suite: Option<String>,
    /// IANA name.
    pub(crate) key_exchange_group: Option<String>,
    /// The receiver verified signature and timestamp.
    pub(crate) signature_verified_by_receiver: Option<bool>,
    /// From durable acceptance to the last byte at the receiver, in milliseconds.
    pub(crate) accepted_to_received_ms: Option<f64>,
    /// From durable acceptance to the recorded outcome, in milliseconds.
    pub(crate) accepted_to_settled_ms: Option<f64>,
    /// Address of the API.
    pub(crate) api: Option<SocketAddr>,
    /// Address for agents.
    pub(crate) agents: Option<SocketAddr>,
    /// Address of metrics, health and trust anchors.
    pub(crate) http: Option<SocketAddr>,
    /// Where deliveries go.
    pub(crate) receiver_url: Option<String>,
    /// The data directory.
    pub(crate) data_dir: Option<PathBuf>,
    /// The CA file for clients of the API.
    pub(crate) ca_file: Option<PathBuf>,
    /// The file with the administrator's API key.
    pub(crate) key_file: Option<PathBuf>,
}

impl Report {
    /// What the receiver saw of the delivery.
    pub(crate) fn received(&mut self, reception: &Reception, accepted: Option<Timestamp>) {
        let verified = reception.verdict == Verdict::Verified;
        self.signature_verified_by_receiver = Some(verified);
        self.accepted_to_received_ms = accepted.map(|at| milliseconds(at, reception.at));
    }

    /// What the store has of an attempt.
    pub(crate) fn attempted(&mut self, attempt: &v1::Attempt) {
        let known = |text: &String| (!text.is_empty()).then(|| text.clone());
        self.attempt_number = Some(attempt.number);
        self.class = class_text(attempt.class);
        self.http_status = (attempt.http_status > 0).then_some(attempt.http_status);
        let handshake = attempt.handshake.as_ref();
        self.client_certificate_requested =
            handshake.map(|record| record.client_certificate_requested);
        self.client_certificate_serial =
            handshake.and_then(|record| known(&record.client_certificate_serial));
        self.tls_version = handshake.and_then(|record| known(&record.tls_version));
        self.cipher_suite = handshake.and_then(|record| known(&record.cipher_suite));
        self.key_exchange_group = handshake.and_then(|record| known(&record.key_exchange_group));
    }

    /// What the store has of the delivery.
    pub(crate) fn settled(&mut self, delivery: &v1::Delivery) {
        let accepted = delivery.create_time.map(wire::timestamp_from_wire);
        let settled = delivery.settle_time.map(wire::timestamp_from_wire);
        self.accepted_to_settled_ms = accepted
            .zip(settled)
            .map(|(from, to)| milliseconds(from, to));
    }

    /// It failed.
    pub(crate) fn failed(&mut self, reason: String) {
        self.delivered = false;
        self.reason = Some(reason);
    }

    /// One line of JSON.
    pub(crate) fn to_json(&self) -> String {
        #[allow(clippy::expect_used)] // no map with keys that are not texts, no failing Serialize
        serde_json::to_string(self).expect("plain fields")
    }
}

/// A failure class without its prefix; `None` for an unknown one.
pub(crate) fn class_text(class: i32) -> Option<String> {
    wire::class_from_wire(class).map(|class| class.to_string())
}

/// Between two times, with microseconds as the fraction.
pub(crate) fn milliseconds(from: Timestamp, to: Timestamp) -> f64 {
    to.since(from).as_micros() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBERS: [&str; 21] = [
        "delivered",
        "class",
        "reason",
        "delivery",
        "attempt_number",
        "http_status",
        "client_certificate_requested",
        "client_certificate_serial",
        "tls_version",
        "cipher_suite",
        "key_exchange_group",
        "signature_verified_by_receiver",
        "accepted_to_received_ms",
        "accepted_to_settled_ms",
        "api",
        "agents",
        "http",
        "receiver_url",
        "data_dir",
        "ca_file",
        "key_file",
    ];

    fn parsed(report: &Report) -> serde_json::Value {
        let text = report.to_json();
        assert_eq!(text.lines().count(), 1);
        serde_json::from_str(&text).unwrap()
    }

    fn attempt() -> v1::Attempt {
        v1::Attempt {
            number: 2,
            class: v1::FailureClass::Delivered.into(),
            http_status: 204,
            handshake: Some(v1::HandshakeRecord {
                client_certificate_requested: true,
                client_certificate_serial: "0a1b".to_owned(),
                tls_version: "TLSv1.3".to_owned(),
                cipher_suite: "TLS_AES_256_GCM_SHA384".to_owned(),
                ..v1::HandshakeRecord::default()
            }),
            ..v1::Attempt::default()
        }
    }

    #[test]
    fn every_member_is_there_from_the_start() {
        let object = parsed(&Report::default());
        let members: Vec<_> = object.as_object().unwrap().keys().cloned().collect();
        let mut expected = MEMBERS.map(str::to_owned).to_vec();
        expected.sort();
        let mut found = members;
        found.sort();
        assert_eq!(found, expected);
        assert_eq!(object["delivered"], false);
        assert_eq!(object["class"], serde_json::Value::Null);
    }

    #[test]
    fn an_attempt_fills_in_the_handshake() {
        let mut report = Report::default();
        report.attempted(&attempt());
        report.settled(&v1::Delivery {
            create_time: Some(prost_types::Timestamp {
                seconds: 5,
                nanos: 0,
            }),
            settle_time: Some(prost_types::Timestamp {
                seconds: 5,
                nanos: 41_250_000,
            }),
            ..v1::Delivery::default()
        });
        let object = parsed(&report);
        assert_eq!(object["class"], "DELIVERED");
        assert_eq!(object["client_certificate_requested"], true);
        assert_eq!(object["client_certificate_serial"], "0a1b");
        assert_eq!(object["http_status"], 204);
        assert_eq!(object["accepted_to_settled_ms"], 41.25);
        assert_eq!(object["key_exchange_group"], serde_json::Value::Null);
    }

    #[test]
    fn a_failure_says_why() {
        let mut report = Report {
            delivered: true,
            ..Report::default()
        };
        report.failed("the agent ended".to_owned());
        let object = parsed(&report);
        assert_eq!(object["delivered"], false);
        assert_eq!(object["reason"], "the agent ended");
    }
}

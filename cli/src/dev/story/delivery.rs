//! How a delivery goes, in words: one timeline entry for what each side saw of it.

use countersign_proto::v1;
use countersign_shared::{time::Timestamp, wire};

use crate::dev::{
    receiver::record::{Connection, Reception},
    report::{class_text, milliseconds},
    timeline::Entry,
};

/// A delivery is accepted.
pub(crate) fn accepted(delivery: &v1::Delivery) -> Entry {
    Entry::new("Delivery accepted: it is durable, and nothing can lose it now")
        .fact("name", &delivery.name)
        .fact(
            "payload",
            format!(
                "{} bytes of {}",
                delivery.payload_size, delivery.content_type
            ),
        )
}

/// The receiver got the delivery that the store accepted at `accepted`.
pub(crate) fn received(reception: &Reception, accepted: Option<Timestamp>) -> Entry {
    let peer = &reception.connection.peer;
    let after = accepted.map(|at| format!("{:.1} ms", milliseconds(at, reception.at)));
    Entry::new("Receiver got it, over mutual TLS")
        .fact("presented certificate", &peer.common_name)
        .fact("its serial", &peer.serial)
        .fact("its SPIFFE URI", peer.uri.as_deref().unwrap_or_default())
        .fact("connection", connection(&reception.connection))
        .fact(
            "body",
            format!(
                "{} bytes of {}",
                reception.body_bytes, reception.content_type
            ),
        )
        .fact("signature", reception.verdict.text())
        .fact("accepted → received", after.unwrap_or_default())
}

fn connection(seen: &Connection) -> String {
    let http = if seen.http2 { "HTTP/2" } else { "HTTP/1.1" };
    let mut parts = vec![seen.tls_version, http];
    if seen.resumed {
        parts.push("resumed session");
    }
    parts.join(", ")
}

/// The store has the outcome of an attempt.
pub(crate) fn attempt(attempt: &v1::Attempt, settled_ms: Option<f64>) -> Entry {
    let class = class_text(attempt.class).unwrap_or_default();
    let status = (attempt.http_status > 0).then(|| format!(", HTTP {}", attempt.http_status));
    let headline = format!(
        "Attempt {}: {class}{}",
        attempt.number,
        status.unwrap_or_default()
    );
    let entry = Entry::new(headline)
        .fact("what to do", &attempt.resolution)
        .fact("detail", &attempt.detail)
        .fact("by", &attempt.agent);
    let entry = match &attempt.handshake {
        Some(record) => handshake(entry, record),
        None => entry,
    };
    let entry = match attempt.timings {
        Some(times) => entry.fact("timings", timings(&times)),
        None => entry,
    };
    let settled = settled_ms.map(|ms| format!("{ms:.1} ms"));
    entry.fact("accepted → settled", settled.unwrap_or_default())
}

fn handshake(entry: Entry, record: &v1::HandshakeRecord) -> Entry {
    let presented = match record.client_certificate_version {
        0 => String::new(),
        version => format!("v{version}, serial {}", record.client_certificate_serial),
    };
    entry
        .fact(
            "the receiver asked for our certificate",
            yes(record.client_certificate_requested),
        )
        .fact(
            "authorities it named",
            record.acceptable_ca_names.join("; "),
        )
        .fact("we presented", presented)
        .fact("server certificate", &record.server_certificate_subject)
        .fact("TLS version", &record.tls_version)
        .fact("cipher suite", &record.cipher_suite)
        .fact("key exchange group", &record.key_exchange_group)
        .fact("alert", &record.alert_name)
}

fn timings(times: &v1::AttemptTimings) -> String {
    let parts = [
        ("resolve", times.resolve),
        ("connect", times.connect),
        ("handshake", times.handshake),
        ("response", times.response),
        ("in all", times.total),
    ];
    let shown = parts.into_iter().filter_map(|(name, duration)| {
        let duration = wire::duration_from_wire(duration?)?;
        Some(format!("{name} {:.1} ms", duration.as_secs_f64() * 1000.0))
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// A delivery of the user's own, in one line.
pub(crate) fn another(reception: &Reception) -> Entry {
    Entry::new(format!(
        "Receiver got {}: {} bytes of {}, certificate serial {}, {}; signature {}",
        reception.id,
        reception.body_bytes,
        reception.content_type,
        reception.connection.peer.serial,
        connection(&reception.connection),
        reception.verdict.text(),
    ))
}

/// The receiver refused a connection, for one reason of its fixed list.
pub(crate) fn refused(why: &str) -> Entry {
    Entry::new(format!("Receiver refused a connection: {why}"))
}

fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "NO" }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::dev::{certificate::Certificate, receiver::record::Verdict};

    fn text(entry: &Entry) -> String {
        entry.render(Duration::ZERO, false)
    }

    #[test]
    fn an_attempt_tells_its_handshake_and_its_times() {
        let delivered = v1::Attempt {
            number: 1,
            class: v1::FailureClass::Delivered.into(),
            http_status: 204,
            handshake: Some(v1::HandshakeRecord {
                client_certificate_requested: true,
                client_certificate_version: 3,
                client_certificate_serial: "0a".to_owned(),
                key_exchange_group: "X25519MLKEM768".to_owned(),
                ..v1::HandshakeRecord::default()
            }),
            timings: Some(v1::AttemptTimings {
                handshake: Some(prost_types::Duration {
                    seconds: 0,
                    nanos: 1_500_000,
                }),
                ..v1::AttemptTimings::default()
            }),
            ..v1::Attempt::default()
        };
        let text = text(&attempt(&delivered, Some(41.25)));
        assert!(text.contains("Attempt 1: DELIVERED, HTTP 204"), "{text}");
        assert!(text.contains("asked for our certificate  yes"), "{text}");
        assert!(text.contains("v3, serial 0a"), "{text}");
        assert!(text.contains("X25519MLKEM768"), "{text}");
        assert!(text.contains("handshake 1.5 ms"), "{text}");
        assert!(!text.contains("what to do"), "{text}");
    }

    #[test]
    fn a_failed_attempt_says_what_to_do() {
        let failed = v1::Attempt {
            number: 2,
            class: v1::FailureClass::ServerCaNotTrusted.into(),
            resolution: "fix the chain".to_owned(),
            handshake: Some(v1::HandshakeRecord::default()),
            ..v1::Attempt::default()
        };
        let text = text(&attempt(&failed, None));
        assert!(
            text.contains("Attempt 2: SERVER_CA_NOT_TRUSTED\n"),
            "{text}"
        );
        assert!(
            text.contains("what to do") && text.contains("fix the chain"),
            "{text}"
        );
        assert!(text.contains("asked for our certificate  NO"), "{text}");
    }

    #[test]
    fn further_deliveries_take_one_line() {
        let now = Timestamp::from_unix_seconds(1_700_000_000);
        let client = crate::demo_pki::testing::client("cn", "spiffe://x", now);
        let reception = Reception {
            at: now,
            id: "0192".to_owned(),
            body_bytes: 17,
            content_type: "application/json".to_owned(),
            user_agent: String::new(),
            verdict: Verdict::Signature,
            connection: Arc::new(Connection {
                peer: Certificate::read(&client.chain[0]).unwrap(),
                chain: Vec::new(),
                tls_version: "TLSv1.3",
                cipher_suite: String::new(),
                key_exchange_group: String::new(),
                http2: true,
                resumed: true,
            }),
        };
        let line = text(&another(&reception));
        assert_eq!(line.lines().count(), 1);
        assert!(line.contains("0192: 17 bytes"), "{line}");
        assert!(line.contains("TLSv1.3, HTTP/2, resumed session"), "{line}");
        assert!(line.contains("not verified"), "{line}");
        let full = text(&received(
            &reception,
            Some(now.minus(Duration::from_micros(1500))),
        ));
        assert!(full.contains("1.5 ms"), "{full}");
    }
}

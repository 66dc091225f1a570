//! Step 5: one delivery, confirmed from both ends: the receiver got it, and the store says so.

use std::time::Duration;

use countersign_proto::v1;
use countersign_shared::wire;
use tokio::sync::mpsc;

use super::{control_plane::ControlPlane, stay};
use crate::{
    dev::{
        failure::Failure,
        receiver::record::{Event, Reception},
        report::class_text,
        story,
        system::System,
    },
    local::provision::{self, Administrator},
};

const EVENT: provision::Event = provision::Event {
    kind: "order.created",
    payload:
        br#"{"type":"order.created","data":{"order":"1001","amount":"42.00","currency":"EUR"}}"#,
};
/// How long to wait for the receiver before asking the store what happened.
const RECEIVING: Duration = Duration::from_millis(50);
/// The same, once the receiver has it and only the record is missing.
const SETTLING: Duration = Duration::from_millis(5);

/// A delivery under way.
struct Watch<'a> {
    administrator: &'a Administrator,
    accepted: v1::Delivery,
    reception: Option<Reception>,
    attempts: Vec<v1::Attempt>,
}

/// Submits a delivery and waits until it is confirmed. Its resource name.
///
/// # Errors
/// [`Failure`].
pub(crate) async fn make(
    system: &mut System,
    plane: &ControlPlane,
    destination: &str,
    events: &mut mpsc::Receiver<Event>,
) -> Result<String, Failure> {
    let accepted = plane.administrator.submit(destination, EVENT).await?;
    system.report.delivery = Some(accepted.name.clone());
    system.tell(&story::accepted(&accepted));
    system.wait_for("the delivery to be received and recorded");
    let mut watch = Watch {
        administrator: &plane.administrator,
        accepted,
        reception: None,
        attempts: Vec::new(),
    };
    loop {
        watch.listen(system, events).await?;
        system.check_children()?;
        if let Some(attempt) = watch.ask(system).await? {
            system.tell(&story::attempt(
                &attempt,
                system.report.accepted_to_settled_ms,
            ));
            return Ok(watch.accepted.name);
        }
    }
}

impl Watch<'_> {
    /// Waits a while for what happens at the receiver.
    async fn listen(
        &mut self,
        system: &mut System,
        events: &mut mpsc::Receiver<Event>,
    ) -> Result<(), Failure> {
        let patience = match self.reception {
            Some(_) => SETTLING,
            None => RECEIVING,
        };
        match tokio::time::timeout(patience, events.recv()).await {
            Ok(Some(Event::Received(reception))) if self.is_ours(&reception) => {
                let accepted = self.accepted.create_time.map(wire::timestamp_from_wire);
                system.report.received(&reception, accepted);
                system.tell(&story::received(&reception, accepted));
                self.reception = Some(reception);
            }
            Ok(Some(other)) => stay::tell(system, &other),
            Ok(None) => return Err(Failure::ReceiverEnded),
            Err(_) => {}
        }
        Ok(())
    }

    fn is_ours(&self, reception: &Reception) -> bool {
        let id = self.accepted.name.rsplit('/').next();
        id == Some(reception.id.as_str())
    }

    /// Asks the store. The attempt that delivered, once both sides are done.
    async fn ask(&mut self, system: &mut System) -> Result<Option<v1::Attempt>, Failure> {
        let delivery = self.administrator.delivery(&self.accepted.name).await?;
        let known = i32::try_from(self.attempts.len()).unwrap_or(i32::MAX);
        if delivery.attempt_count > known {
            self.take_attempts(system).await?;
        }
        match v1::DeliveryState::try_from(delivery.state) {
            Ok(v1::DeliveryState::DeadLetter) => Err(Failure::GivenUp {
                attempts: delivery.attempt_count,
                last: system.last_failure_text(),
            }),
            Ok(v1::DeliveryState::Delivered) => {
                let (Some(attempt), Some(reception)) = (self.attempts.last(), &self.reception)
                else {
                    return Ok(None);
                };
                system.report.settled(&delivery);
                agree(attempt, reception).map_err(Failure::Disagreement)?;
                Ok(Some(attempt.clone()))
            }
            _ => Ok(None),
        }
    }

    async fn take_attempts(&mut self, system: &mut System) -> Result<(), Failure> {
        let known = self.attempts.len();
        self.attempts = self.administrator.attempts(&self.accepted.name).await?;
        for attempt in self.attempts.iter().skip(known) {
            system.report.attempted(attempt);
            if attempt.class != i32::from(v1::FailureClass::Delivered) {
                system.last_failure = Some(failure_text(attempt));
                system.tell(&story::attempt(attempt, None));
            }
        }
        Ok(())
    }
}

/// Class, resolution and detail of an attempt.
fn failure_text(attempt: &v1::Attempt) -> String {
    let class = class_text(attempt.class).unwrap_or_else(|| "UNKNOWN".to_owned());
    let mut text = format!("{class}: {}", attempt.resolution);
    if !attempt.detail.is_empty() {
        text.push_str(&format!(" ({})", attempt.detail));
    }
    text
}

/// Whether the store's record of the attempt is what the receiver saw.
///
/// # Errors
/// Where they differ.
fn agree(attempt: &v1::Attempt, reception: &Reception) -> Result<(), String> {
    let Some(record) = &attempt.handshake else {
        return Err("the attempt has no handshake record".to_owned());
    };
    if !record.client_certificate_requested {
        return Err("the record says that no client certificate was asked for".to_owned());
    }
    let seen = &reception.connection;
    let same = [
        (
            "serial",
            &record.client_certificate_serial,
            seen.peer.serial.as_str(),
        ),
        ("TLS version", &record.tls_version, seen.tls_version),
        (
            "cipher suite",
            &record.cipher_suite,
            seen.cipher_suite.as_str(),
        ),
    ];
    for (what, recorded, seen) in same {
        if recorded != seen {
            return Err(format!(
                "{what} is recorded as '{recorded}' and was '{seen}'"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use countersign_shared::time::Timestamp;

    use super::*;
    use crate::{
        demo_pki::testing,
        dev::{
            certificate::Certificate,
            receiver::record::{Connection, Verdict},
        },
    };

    fn reception() -> Reception {
        let now = Timestamp::from_unix_seconds(1_700_000_000);
        let client = testing::client("cn", "spiffe://x", now);
        Reception {
            at: now,
            id: "1".to_owned(),
            body_bytes: 1,
            content_type: String::new(),
            user_agent: String::new(),
            verdict: Verdict::Verified,
            connection: Arc::new(Connection {
                peer: Certificate::read(&client.chain[0]).unwrap(),
                chain: Vec::new(),
                tls_version: "TLSv1.3",
                cipher_suite: "TLS_AES_256_GCM_SHA384".to_owned(),
                key_exchange_group: String::new(),
                http2: false,
                resumed: false,
            }),
        }
    }

    fn attempt(serial: &str) -> v1::Attempt {
        v1::Attempt {
            class: v1::FailureClass::HttpServerError.into(),
            resolution: "look".to_owned(),
            detail: "closed".to_owned(),
            handshake: Some(v1::HandshakeRecord {
                client_certificate_requested: true,
                client_certificate_serial: serial.to_owned(),
                tls_version: "TLSv1.3".to_owned(),
                cipher_suite: "TLS_AES_256_GCM_SHA384".to_owned(),
                ..v1::HandshakeRecord::default()
            }),
            ..v1::Attempt::default()
        }
    }

    #[test]
    fn both_ends_must_tell_the_same() {
        let seen = reception();
        let serial = seen.connection.peer.serial.clone();
        assert_eq!(agree(&attempt(&serial), &seen), Ok(()));
        let error = agree(&attempt("00"), &seen).unwrap_err();
        assert!(
            error.contains("serial") && error.contains(&serial),
            "{error}"
        );
        let mut unasked = attempt(&serial);
        if let Some(record) = &mut unasked.handshake {
            record.client_certificate_requested = false;
        }
        assert!(agree(&unasked, &seen).is_err());
        assert!(agree(&v1::Attempt::default(), &seen).is_err());
    }

    #[test]
    fn failures_are_told_with_what_to_do() {
        assert_eq!(
            failure_text(&attempt("00")),
            "HTTP_SERVER_ERROR: look (closed)"
        );
    }
}

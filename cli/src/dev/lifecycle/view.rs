//! What the API says of a destination's certificates and alerts, and what is new in it: pure.

use countersign_proto::v1::{self, AlertCause, AlertSeverity, ClientCertificateState as State};
use countersign_shared::{time::Timestamp, wire};

use super::tally::short;
use crate::dev::timeline::Entry;

/// What the API says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct View {
    /// Every version, newest first.
    pub(crate) certificates: Vec<v1::ClientCertificate>,
    /// What was ever alerted of the destination.
    pub(crate) alerts: Vec<v1::Alert>,
}

impl View {
    /// One version.
    pub(crate) fn version(&self, version: i32) -> Option<&v1::ClientCertificate> {
        self.certificates.iter().find(|it| it.version == version)
    }

    /// Its serial number; empty when there is no such version.
    pub(crate) fn serial(&self, version: i32) -> &str {
        self.version(version).map_or("", |it| &it.serial_number)
    }

    /// Whether a version is in a state.
    pub(crate) fn is(&self, version: i32, state: State) -> bool {
        self.version(version)
            .is_some_and(|it| it.state == i32::from(state))
    }

    /// Whether a version is out of use for good.
    pub(crate) fn is_gone(&self, version: i32) -> bool {
        [State::Retired, State::Revoked, State::Expired]
            .iter()
            .any(|state| self.is(version, *state))
    }

    /// The open alert about `cause`.
    pub(crate) fn alert(&self, cause: AlertCause) -> Option<&v1::Alert> {
        let mut open = self.alerts.iter().filter(|it| it.resolve_time.is_none());
        open.find(|it| it.cause == i32::from(cause))
    }
}

/// Something new, and when it happened, when that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct News {
    /// When.
    pub(crate) at: Option<Timestamp>,
    /// What.
    pub(crate) entry: Entry,
}

/// What is new in `after`, oldest certificate first.
pub(crate) fn news(before: &View, after: &View) -> Vec<News> {
    let mut news = Vec::new();
    for certificate in after.certificates.iter().rev() {
        let known = before.version(certificate.version);
        if known.map(|it| it.state) != Some(certificate.state) {
            news.extend(of_certificate(certificate, known));
        }
    }
    for alert in after.alerts.iter().rev() {
        let known = before.alerts.iter().find(|it| it.name == alert.name);
        if let Some(entry) = of_alert(known, alert) {
            let at = alert.update_time.map(wire::timestamp_from_wire);
            news.push(News { at, entry });
        }
    }
    news.sort_by_key(|news| {
        news.at
            .unwrap_or(Timestamp::from_unix_seconds(i64::MAX / 2_000_000))
    });
    news
}

fn of_certificate(
    certificate: &v1::ClientCertificate,
    known: Option<&v1::ClientCertificate>,
) -> Option<News> {
    let new = known.is_none();
    let put_back = known.is_some_and(|it| it.state == i32::from(State::Retiring));
    let name = format!(
        "v{} ({})",
        certificate.version,
        short(&certificate.serial_number)
    );
    let end = certificate.not_after_time.map(wire::timestamp_from_wire);
    let end = end.map_or_else(String::new, |end| end.to_string());
    let state = State::try_from(certificate.state).unwrap_or_default();
    let (at, text) = match state {
        State::Pending => (None, "issued; the agents get it before anybody sees it"),
        State::Distributed if known.is_some_and(|it| it.state == i32::from(State::Active)) => (
            None,
            "the receiver refused it: it waits, and is tried again",
        ),
        State::Distributed => (
            None,
            "on the agent's disk; next the receiver is asked in a probe",
        ),
        State::Active if certificate.version == 1 => (certificate.activate_time, "is presented"),
        State::Active if put_back => (None, "is presented again"),
        State::Active => (certificate.activate_time, "is presented from now on"),
        State::Retiring => (
            certificate.replace_time,
            "kept for the grace period, in case the receiver changes its mind",
        ),
        State::Retired => (None, "out of use, and on the revocation list"),
        State::Revoked => (certificate.revoke_time, "it must not be used any more"),
        State::Expired => (
            certificate.not_after_time,
            "has ended: it is presented no more",
        ),
        State::Unspecified => return None,
    };
    let state = state
        .as_str_name()
        .trim_start_matches("CLIENT_CERTIFICATE_STATE_");
    let mut entry = Entry::new(format!("Certificate {name} {state}: {text}"));
    if new {
        entry = entry.fact("ends at", end);
    }
    Some(News {
        at: at.map(wire::timestamp_from_wire),
        entry,
    })
}

fn of_alert(known: Option<&v1::Alert>, alert: &v1::Alert) -> Option<Entry> {
    let cause = AlertCause::try_from(alert.cause).unwrap_or_default();
    let cause = cause.as_str_name().trim_start_matches("ALERT_CAUSE_");
    let resolved = alert.resolve_time.is_some();
    if resolved {
        let told = known.is_some_and(|known| known.resolve_time.is_some());
        return (!told).then(|| Entry::new(format!("Alert {cause} is resolved, by itself")));
    }
    let same = |known: &v1::Alert| {
        known.severity == alert.severity
            && known.message == alert.message
            && known.resolve_time.is_none()
    };
    if known.is_some_and(same) {
        return None;
    }
    let severity = AlertSeverity::try_from(alert.severity).unwrap_or_default();
    let severity = severity.as_str_name().trim_start_matches("ALERT_SEVERITY_");
    let headline = format!("ALERT {cause}, {severity}");
    Some(Entry::new(headline).fact("it says", &alert.message))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn certificate(version: i32, state: State) -> v1::ClientCertificate {
        v1::ClientCertificate {
            version,
            state: state.into(),
            serial_number: format!("{version:032x}"),
            ..v1::ClientCertificate::default()
        }
    }

    fn alert(severity: AlertSeverity, resolved: bool) -> v1::Alert {
        v1::Alert {
            name: "alerts/1".to_owned(),
            cause: AlertCause::RotationHeldUp.into(),
            severity: severity.into(),
            message: "look".to_owned(),
            resolve_time: resolved.then(prost_types::Timestamp::default),
            ..v1::Alert::default()
        }
    }

    fn told(before: &View, after: &View) -> Vec<String> {
        let news = news(before, after).into_iter();
        news.map(|it| it.entry.render(Duration::ZERO, false))
            .collect()
    }

    #[test]
    fn each_change_is_told_of_once() {
        let before = View {
            certificates: vec![certificate(1, State::Active)],
            ..View::default()
        };
        let after = View {
            certificates: vec![
                certificate(2, State::Active),
                certificate(1, State::Retiring),
            ],
            ..View::default()
        };
        let lines = told(&before, &after);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("v1") && lines[0].contains("RETIRING"));
        assert!(lines[1].contains("v2") && lines[1].contains("ACTIVE"));
        assert!(told(&after, &after).is_empty());
        assert!(after.is(2, State::Active) && !after.is_gone(1));
        assert_eq!(after.serial(3), "");
    }

    #[test]
    fn alerts_open_change_and_resolve() {
        let with = |alert| View {
            alerts: vec![alert],
            ..View::default()
        };
        let none = View::default();
        let warning = with(alert(AlertSeverity::Warning, false));
        let critical = with(alert(AlertSeverity::Critical, false));
        let resolved = with(alert(AlertSeverity::Critical, true));
        let cases = [
            (&none, &warning, "ALERT ROTATION_HELD_UP, WARNING"),
            (&warning, &critical, "ALERT ROTATION_HELD_UP, CRITICAL"),
            (&critical, &resolved, "resolved"),
        ];
        for (before, after, expected) in cases {
            let lines = told(before, after);
            assert!(lines.len() == 1 && lines[0].contains(expected), "{lines:?}");
            assert!(told(after, after).is_empty());
        }
        assert!(warning.alert(AlertCause::RotationHeldUp).is_some());
        assert!(resolved.alert(AlertCause::RotationHeldUp).is_none());
    }
}

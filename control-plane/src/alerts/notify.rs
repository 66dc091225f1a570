//! Alerts as webhooks, through the product's own delivery, to a destination that the operator names.

use bytes::Bytes;
use countersign_shared::{headers::Headers, name::DestinationName};

use crate::{
    deliveries::{Submission, Submit},
    model::{Alert, AlertSeverity},
};

/// Submits a delivery for every alert that is opened, gets more severe or is resolved.
#[derive(Clone)]
pub struct Notifier {
    /// Accepts deliveries.
    pub submit: Submit,
    /// Where they go.
    pub destination: DestinationName,
}

impl Notifier {
    /// Tells of one alert. What goes wrong is logged: the alert itself is in the store already.
    pub(super) async fn tell(&self, alert: &Alert) {
        let event_type = match alert.resolved_at {
            None => "countersign.alert.opened",
            Some(_) => "countersign.alert.resolved",
        };
        let submission = Submission {
            ordering_key: String::new(),
            destination: self.destination.clone(),
            payload: Bytes::from(body(event_type, alert)),
            headers: Headers::default(),
            content_type: "application/json".to_owned(),
            event_type: event_type.to_owned(),
            // The same change told twice (after a crash in between) is delivered once.
            request_id: format!("{}@{}", alert.name, alert.updated_at.as_unix_micros()),
        };
        if let Err(error) = self.submit.submit(submission).await {
            let destination = &self.destination;
            tracing::warn!(alert = %alert.name, %destination, %error, "alert not submitted");
        }
    }
}

fn body(event_type: &str, alert: &Alert) -> String {
    let severity = match alert.finding.severity {
        AlertSeverity::Warning => "WARNING",
        AlertSeverity::Critical => "CRITICAL",
    };
    serde_json::json!({
        "type": event_type,
        "timestamp": alert.updated_at.to_string(),
        "data": {
            "alert": alert.name.to_string(),
            "cause": alert.finding.cause.as_str(),
            "severity": severity,
            "resource": alert.finding.resource,
            "message": alert.finding.message,
        },
    })
    .to_string()
}

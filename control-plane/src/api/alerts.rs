//! AlertService.

use std::{pin::Pin, sync::Arc};

use countersign_proto::v1::{self, alert_service_server::AlertService};
use countersign_shared::{
    name::AlertName,
    tasks::{OnFailure, Tasks},
    wire::timestamp_to_wire,
};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Code, Request, Response, Status};

use super::{
    authenticate, page,
    status::{self, status},
    violations::{Violations, name},
};
use crate::{
    alerts::Alerts,
    auth::Principal,
    model::{Alert, AlertCause, AlertSeverity},
};

/// How many changes may wait for a watcher.
const WATCH_QUEUE: usize = 64;
/// How many open alerts are read at once.
const PAGE: usize = 200;

/// AlertService over [`Alerts`].
#[derive(Clone)]
pub struct AlertApi {
    /// The alerts.
    pub alerts: Alerts,
    /// Runs watches.
    pub tasks: Tasks,
}

#[tonic::async_trait]
impl AlertService for AlertApi {
    async fn list_alerts(
        &self,
        request: Request<v1::ListAlertsRequest>,
    ) -> Result<Response<v1::ListAlertsResponse>, Status> {
        let caller = authenticate::principal(&request)?;
        let request = request.into_inner();
        let mut violations = Violations::default();
        let size = page::size(&mut violations, request.page_size);
        let before = page::after(&mut violations, "alerts", &request.page_token);
        violations.check()?;
        let before = before.parse::<AlertName>().ok();
        let found = self
            .alerts
            .store
            .alerts(before, request.include_resolved, size)
            .await;
        let found = found.map_err(status::store)?;
        Ok(Response::new(v1::ListAlertsResponse {
            next_page_token: page::token(&found, "alerts", |item| item.name.to_string()),
            alerts: found
                .items
                .iter()
                .filter(|alert| caller.scope.covers(&alert.finding.resource))
                .map(to_wire)
                .collect(),
        }))
    }

    type WatchAlertsStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchAlertsResponse, Status>> + Send>>;

    async fn watch_alerts(
        &self,
        request: Request<v1::WatchAlertsRequest>,
    ) -> Result<Response<Self::WatchAlertsStream>, Status> {
        let caller = authenticate::principal(&request)?;
        let (answers, receiver) = mpsc::channel(WATCH_QUEUE);
        let shutdown = self.tasks.shutdown().clone();
        let watch = watch(self.alerts.clone(), caller, answers, shutdown);
        self.tasks.spawn("alert watch", OnFailure::Log, watch);
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn acknowledge_alert(
        &self,
        request: Request<v1::AcknowledgeAlertRequest>,
    ) -> Result<Response<v1::AcknowledgeAlertResponse>, Status> {
        let name: AlertName = name("name", &request.into_inner().name)?;
        let alert = self
            .alerts
            .acknowledge(&name)
            .await
            .map_err(status::store)?;
        Ok(Response::new(v1::AcknowledgeAlertResponse {
            alert: Some(to_wire(&alert)),
        }))
    }
}

type Answers = mpsc::Sender<Result<v1::WatchAlertsResponse, Status>>;

async fn watch(
    alerts: Alerts,
    caller: Arc<Principal>,
    answers: Answers,
    shutdown: tokio_util::sync::CancellationToken,
) -> Result<(), Status> {
    // Listening begins before the look, so that nothing falls in between; it may come twice.
    let mut changes = alerts.subscribe();
    let mut before = None;
    loop {
        let open = alerts
            .store
            .alerts(before, false, PAGE)
            .await
            .map_err(status::store)?;
        let shown = |alert: &&Alert| caller.scope.covers(&alert.finding.resource);
        for alert in open.items.iter().filter(shown) {
            if answers.send(answer(alert)).await.is_err() {
                return Ok(());
            }
        }
        match open.items.last() {
            Some(last) if open.more => before = Some(last.name.clone()),
            _ => break,
        }
    }
    loop {
        let change = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = answers.closed() => return Ok(()),
            () = caller.ended.cancelled() => {
                // A watcher that went away needs no reason.
                let _ = answers.send(Err(status::no_key())).await;
                return Ok(());
            }
            change = changes.recv() => change,
        };
        let sent = match change {
            Ok(_) if !caller.is_valid(alerts.clock.now()) => {
                answers.send(Err(status::no_key())).await
            }
            Ok(alert) if !caller.scope.covers(&alert.finding.resource) => Ok(()),
            Ok(alert) => answers.send(answer(&alert)).await,
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
            Err(broadcast::error::RecvError::Lagged(_)) => {
                let text = "this watch was too slow and missed alerts: begin it again";
                // A watcher that went away needs no reason.
                let _ = answers
                    .send(Err(status(Code::Aborted, "WATCH_TOO_SLOW", text)))
                    .await;
                return Ok(());
            }
        };
        if sent.is_err() {
            return Ok(());
        }
    }
}

fn answer(alert: &Alert) -> Result<v1::WatchAlertsResponse, Status> {
    Ok(v1::WatchAlertsResponse {
        alert: Some(to_wire(alert)),
    })
}

fn to_wire(alert: &Alert) -> v1::Alert {
    let severity = match alert.finding.severity {
        AlertSeverity::Warning => v1::AlertSeverity::Warning,
        AlertSeverity::Critical => v1::AlertSeverity::Critical,
    };
    v1::Alert {
        name: alert.name.to_string(),
        cause: cause_to_wire(alert.finding.cause).into(),
        severity: severity.into(),
        resource: alert.finding.resource.clone(),
        message: alert.finding.message.clone(),
        create_time: Some(timestamp_to_wire(alert.created_at)),
        update_time: Some(timestamp_to_wire(alert.updated_at)),
        acknowledge_time: alert.acknowledged_at.map(timestamp_to_wire),
        resolve_time: alert.resolved_at.map(timestamp_to_wire),
    }
}

fn cause_to_wire(cause: AlertCause) -> v1::AlertCause {
    match cause {
        AlertCause::ClientCertificateExpires => v1::AlertCause::ClientCertificateExpires,
        AlertCause::CertificateAuthorityExpires => v1::AlertCause::CertificateAuthorityExpires,
        AlertCause::ServerCertificateExpires => v1::AlertCause::ServerCertificateExpires,
        AlertCause::MtlsNotEnforced => v1::AlertCause::MtlsNotEnforced,
        AlertCause::ClientCertificateRefused => v1::AlertCause::ClientCertificateRefused,
        AlertCause::ClientIdentityForbidden => v1::AlertCause::ClientIdentityForbidden,
        AlertCause::ServerCertificateRefused => v1::AlertCause::ServerCertificateRefused,
        AlertCause::DestinationDisabled => v1::AlertCause::DestinationDisabled,
        AlertCause::RotationHeldUp => v1::AlertCause::RotationHeldUp,
        AlertCause::ClientCertificateNeeded => v1::AlertCause::ClientCertificateNeeded,
        AlertCause::DestinationFailing => v1::AlertCause::DestinationFailing,
        AlertCause::DeliveriesDeadLettered => v1::AlertCause::DeliveriesDeadLettered,
        AlertCause::OrderingKeysBlocked => v1::AlertCause::OrderingKeysBlocked,
        AlertCause::AgentIdentityCloned => v1::AlertCause::AgentIdentityCloned,
        AlertCause::KeyProviderAway => v1::AlertCause::KeyProviderAway,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_keep_their_names_on_the_wire() {
        for &cause in AlertCause::ALL {
            let name = format!("ALERT_CAUSE_{}", cause.as_str());
            assert_eq!(cause_to_wire(cause).as_str_name(), name);
        }
    }
}

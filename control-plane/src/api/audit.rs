//! AuditService.

use std::pin::Pin;

use countersign_proto::v1::{self, audit_service_server::AuditService};
use countersign_shared::{
    tasks::{OnFailure, Tasks},
    wire::{timestamp_from_wire, timestamp_to_wire},
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use super::{page, status, violations::Violations};
use crate::{
    auditing::AuditLog,
    model::{AuditCheckpoint, AuditEntry, AuditFilter, AuditKind, AuditRecord, ResourceChange},
};

/// Longest text that is looked for.
const LONGEST: usize = 512;

/// Pages of an export that nobody has read yet.
const QUEUE: usize = 2;

/// AuditService over [`AuditLog`].
#[derive(Clone)]
pub struct AuditApi {
    /// The log.
    pub log: AuditLog,
    /// Where exports run.
    pub tasks: Tasks,
}

#[tonic::async_trait]
impl AuditService for AuditApi {
    async fn list_audit_events(
        &self,
        request: Request<v1::ListAuditEventsRequest>,
    ) -> Result<Response<v1::ListAuditEventsResponse>, Status> {
        let request = request.into_inner();
        let mut violations = Violations::default();
        let size = page::size(&mut violations, request.page_size);
        let after = after(&mut violations, "auditEvents", &request.page_token);
        violations.visible_ascii("principal", &request.principal, LONGEST);
        violations.visible_ascii("method", &request.method, LONGEST);
        violations.visible_ascii("resource", &request.resource, LONGEST);
        let kind = kind_from_wire(&mut violations, request.kind);
        violations.check()?;
        let filter = AuditFilter {
            principal: request.principal,
            method: request.method,
            resource: request.resource,
            kind,
            from: request.start_time.map(timestamp_from_wire),
            until: request.end_time.map(timestamp_from_wire),
        };
        let found = self.log.entries(filter, after, size).await;
        let found = found.map_err(status::store)?;
        Ok(Response::new(v1::ListAuditEventsResponse {
            next_page_token: page::token(&found, "auditEvents", |it| it.sequence.to_string()),
            events: found.items.iter().map(to_wire).collect(),
        }))
    }

    async fn list_audit_checkpoints(
        &self,
        request: Request<v1::ListAuditCheckpointsRequest>,
    ) -> Result<Response<v1::ListAuditCheckpointsResponse>, Status> {
        let request = request.into_inner();
        let mut violations = Violations::default();
        let size = page::size(&mut violations, request.page_size);
        let after = after(&mut violations, "auditCheckpoints", &request.page_token);
        violations.check()?;
        let found = self.log.checkpoints(after, size).await;
        let found = found.map_err(status::store)?;
        let token = page::token(&found, "auditCheckpoints", |it| it.sequence.to_string());
        Ok(Response::new(v1::ListAuditCheckpointsResponse {
            next_page_token: token,
            checkpoints: found.items.into_iter().map(checkpoint).collect(),
            public_key: self.log.public_key().to_vec().into(),
        }))
    }

    type ExportAuditLogStream =
        Pin<Box<dyn Stream<Item = Result<v1::ExportAuditLogResponse, Status>> + Send>>;

    async fn export_audit_log(
        &self,
        request: Request<v1::ExportAuditLogRequest>,
    ) -> Result<Response<Self::ExportAuditLogStream>, Status> {
        let request = request.into_inner();
        let mut violations = Violations::default();
        let last = match u64::try_from(request.after_sequence) {
            Ok(0) => None,
            Ok(after) => {
                let last = self.log.entry(after).await.map_err(status::store)?;
                if last.is_none() {
                    violations.add("after_sequence", "the log has no such record");
                }
                last
            }
            Err(_) => {
                violations.add("after_sequence", "is below zero");
                None
            }
        };
        violations.check()?;
        let (answers, receiver) = mpsc::channel(QUEUE);
        let (tell, mut told) = mpsc::channel(QUEUE);
        let (log, shutdown) = (self.log.clone(), self.tasks.shutdown().clone());
        let work = async move {
            let pass_on = async {
                while let Some(lines) = told.recv().await {
                    let answer = v1::ExportAuditLogResponse { lines };
                    if answers.send(Ok(answer)).await.is_err() {
                        break;
                    }
                }
            };
            let done = tokio::select! {
                () = shutdown.cancelled() => Err(status::stopping()),
                () = answers.closed() => Ok(()),
                (done, ()) = async { tokio::join!(log.export(last, request.follow, tell), pass_on) } => {
                    done.map_err(status::store)
                }
            };
            if let Err(status) = done {
                let _ = answers.send(Err(status)).await;
            }
            Ok::<_, Status>(())
        };
        self.tasks.spawn("audit export", OnFailure::Log, work);
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn verify_audit_log(
        &self,
        _request: Request<v1::VerifyAuditLogRequest>,
    ) -> Result<Response<v1::VerifyAuditLogResponse>, Status> {
        let found = self.log.verify().await.map_err(status::store)?;
        if let Some((sequence, problem)) = &found.broken {
            tracing::error!(sequence, problem, "the audit log is not as it was written");
        }
        let (broken_sequence, problem) = found.broken.clone().unwrap_or_default();
        Ok(Response::new(v1::VerifyAuditLogResponse {
            intact: found.broken.is_none(),
            events: number(found.chain.sequence),
            hash: found.chain.hash.to_vec().into(),
            checkpoints: number(found.checkpoints),
            broken_sequence: number(broken_sequence),
            problem,
        }))
    }
}

/// The number of the last record of the page before.
fn after(violations: &mut Violations, kind: &str, token: &str) -> u64 {
    page::after(violations, kind, token)
        .parse()
        .unwrap_or_default()
}

fn kind_from_wire(violations: &mut Violations, kind: i32) -> Option<AuditKind> {
    match v1::AuditKind::try_from(kind) {
        Ok(v1::AuditKind::Unspecified) => None,
        Ok(v1::AuditKind::Change) => Some(AuditKind::Change),
        Ok(v1::AuditKind::Disclosure) => Some(AuditKind::Disclosure),
        Ok(v1::AuditKind::Refusal) => Some(AuditKind::Refusal),
        Err(_) => {
            violations.add("kind", "is not one that this control plane knows");
            None
        }
    }
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn checkpoint(it: AuditCheckpoint) -> v1::AuditCheckpoint {
    v1::AuditCheckpoint {
        sequence: number(it.sequence),
        hash: it.hash.to_vec().into(),
        sign_time: Some(timestamp_to_wire(it.signed_at)),
        signature: it.signature.into(),
    }
}

fn change(it: ResourceChange) -> v1::ResourceChange {
    v1::ResourceChange {
        resource: it.resource,
        before_sha256: it.before_sha256,
        after_sha256: it.after_sha256,
    }
}

/// The record in fields; one that does not read has only its line.
fn to_wire(entry: &AuditEntry) -> v1::AuditEvent {
    let record: Option<AuditRecord> = serde_json::from_str(&entry.line).ok();
    let stored = v1::AuditEvent {
        sequence: number(entry.sequence),
        line: entry.line.clone(),
        hash: entry.hash.to_vec().into(),
        ..v1::AuditEvent::default()
    };
    let Some(record) = record else {
        return stored;
    };
    let kind = match record.kind {
        AuditKind::Change => v1::AuditKind::Change,
        AuditKind::Disclosure => v1::AuditKind::Disclosure,
        AuditKind::Refusal => v1::AuditKind::Refusal,
    };
    v1::AuditEvent {
        time: Some(timestamp_to_wire(record.at())),
        kind: kind.into(),
        principal: record.principal,
        address: record.address,
        method: record.method,
        resources: record.resources,
        call_id: record.call_id,
        request_sha256: record.request_sha256,
        changed_rows: number(record.rows),
        reason: record.reason,
        count: number(record.count),
        changes: record.changes.into_iter().map(change).collect(),
        ..stored
    }
}

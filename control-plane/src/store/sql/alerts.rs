//! Alerts.

use async_trait::async_trait;
use countersign_shared::{
    name::{AlertName, Id},
    time::Timestamp,
};
use rusqlite::params;

use super::{
    Database,
    connection::{Connection, Row},
    rows::{Column, all, execute, get, get_optional, limit, one, page},
};
use crate::{
    model::{Alert, AlertCause, Expiring, Finding, Page},
    store::{AlertStore, Result, StoreError},
};

#[async_trait]
impl<D: Database> AlertStore for D {
    async fn raise_alert(
        &self,
        name: AlertName,
        finding: Finding,
        now: Timestamp,
    ) -> Result<Option<Alert>> {
        // Most findings are known already: a look costs less than a commit.
        let known = finding.clone();
        let open = self.read(move |connection| open(connection, known.cause, &known.resource));
        if open.await?.is_some_and(|open| open.finding == finding) {
            return Ok(None);
        }
        self.write(move |connection| raise(connection, &name, &finding, now))
            .await
    }

    async fn resolve_alert(
        &self,
        cause: AlertCause,
        resource: &str,
        now: Timestamp,
    ) -> Result<Option<Alert>> {
        let resource = resource.to_owned();
        let looked_for = resource.clone();
        let open = self.read(move |connection| open(connection, cause, &looked_for));
        if open.await?.is_none() {
            return Ok(None);
        }
        self.write(move |connection| resolve(connection, cause, &resource, now))
            .await
    }

    async fn acknowledge_alert(&self, name: &AlertName, now: Timestamp) -> Result<Alert> {
        let name = name.clone();
        self.write(move |connection| {
            let update = "UPDATE alerts SET acknowledged_at = ?1, updated_at = ?1
                          WHERE id = ?2 AND acknowledged_at IS NULL";
            execute(connection, update, params![Column(now), name.id().as_str()])?;
            by_name(connection, &name)
        })
        .await
    }

    async fn alerts(
        &self,
        before: Option<AlertName>,
        include_resolved: bool,
        size: usize,
    ) -> Result<Page<Alert>> {
        self.read(move |connection| {
            // Ids are UUIDs of version 7 and sort by time; '~' sorts after all of them.
            let before = before.map_or_else(|| "~".to_owned(), |name| name.id().to_string());
            let query = "SELECT * FROM alerts WHERE id < ? AND (? OR resolved_at IS NULL)
                         ORDER BY id DESC LIMIT ?";
            let wanted = params![before, include_resolved, limit(size)];
            page(connection, query, wanted, size, alert)
        })
        .await
    }

    async fn open_alert_counts(&self) -> Result<Vec<(AlertCause, i64)>> {
        self.read(|connection| {
            let query = "SELECT cause, count(*) AS open FROM alerts WHERE resolved_at IS NULL
                         GROUP BY cause";
            all(connection, query, [], |row| {
                Ok((get(row, "cause")?, row.get("open")?))
            })
        })
        .await
    }

    async fn open_alerts_of(&self, cause: AlertCause) -> Result<Vec<Alert>> {
        self.read(move |connection| {
            let query = "SELECT * FROM alerts WHERE resolved_at IS NULL AND cause = ?";
            all(connection, query, [Column(cause)], alert)
        })
        .await
    }

    async fn open_expiry_alerts(&self) -> Result<Vec<Alert>> {
        self.read(|connection| {
            let query = "SELECT * FROM alerts WHERE resolved_at IS NULL AND cause IN (?, ?)";
            let causes = params![
                Column(AlertCause::ClientCertificateExpires),
                Column(AlertCause::CertificateAuthorityExpires)
            ];
            all(connection, query, causes, alert)
        })
        .await
    }

    async fn expiring(
        &self,
        until: Timestamp,
        after: Option<Expiring>,
        size: usize,
    ) -> Result<Page<Expiring>> {
        self.read(move |connection| {
            let (end, resource) = match &after {
                Some(after) => (Column(after.not_after), after.resource.as_str()),
                None => (Column(Timestamp::from_unix_micros(i64::MIN)), ""),
            };
            let query = format!(
                "SELECT * FROM ({CERTIFICATES}) AS found WHERE not_after <= ? AND (not_after, resource) > (?, ?)
                 ORDER BY not_after, resource LIMIT ?"
            );
            let wanted = params![Column(until), end, resource, limit(size)];
            page(connection, &query, wanted, size, expiring)
        })
        .await
    }

    async fn end_of(&self, cause: AlertCause, resource: &str) -> Result<Option<Expiring>> {
        let resource = resource.to_owned();
        self.read(move |connection| {
            let query =
                format!("SELECT * FROM ({CERTIFICATES}) AS found WHERE cause = ? AND resource = ?");
            one(
                connection,
                &query,
                params![Column(cause), resource],
                expiring,
            )
        })
        .await
    }
}

fn expiring(row: &Row<'_>) -> rusqlite::Result<Expiring> {
    Ok(Expiring {
        cause: get(row, "cause")?,
        resource: row.get("resource")?,
        not_before: Some(get(row, "not_before")?),
        not_after: get(row, "not_after")?,
    })
}

/// Our own certificates that are in use, with their resource names.
const CERTIFICATES: &str = "
    SELECT 'CLIENT_CERTIFICATE_EXPIRES' AS cause, c.not_before AS not_before,
           c.not_after AS not_after,
           'accounts/' || a.id || '/destinations/' || d.id || '/clientCertificates/' || c.version
           AS resource
    FROM client_certificates c JOIN destinations d ON d.key = c.destination
    JOIN accounts a ON a.key = d.account WHERE c.state = 'ACTIVE'
    UNION ALL
    SELECT 'CERTIFICATE_AUTHORITY_EXPIRES', not_before, not_after,
           CASE WHEN owner LIKE 'accounts/%' THEN owner || '/' ELSE '' END
           || 'certificateAuthorities/'
           || CASE WHEN owner LIKE 'accounts/%' OR owner = 'shared' THEN ''
                   ELSE owner || '-' END || generation
    FROM authorities WHERE state IN ('PREPARED', 'ACTIVE', 'SUPERSEDED', 'RETIRING')";

fn open(connection: &Connection, cause: AlertCause, resource: &str) -> Result<Option<Alert>> {
    let query = "SELECT * FROM alerts WHERE cause = ? AND resource = ? AND resolved_at IS NULL";
    one(connection, query, params![Column(cause), resource], alert)
}

fn raise(
    connection: &Connection,
    name: &AlertName,
    finding: &Finding,
    now: Timestamp,
) -> Result<Option<Alert>> {
    let name = match open(connection, finding.cause, &finding.resource)? {
        Some(same) if same.finding == *finding => return Ok(None),
        Some(other) => {
            // What has become worse is not what was acknowledged.
            let update = "UPDATE alerts SET acknowledged_at = CASE WHEN severity = ?1
                          THEN acknowledged_at END, severity = ?1, message = ?2, updated_at = ?3
                          WHERE id = ?4";
            let made = params![
                Column(finding.severity),
                finding.message,
                Column(now),
                other.name.id().as_str()
            ];
            execute(connection, update, made)?;
            other.name
        }
        None => {
            let insert = "INSERT INTO alerts
                          (id, cause, resource, severity, message, created_at, updated_at)
                          VALUES (?, ?, ?, ?, ?, ?, ?)";
            let made = params![
                name.id().as_str(),
                Column(finding.cause),
                finding.resource,
                Column(finding.severity),
                finding.message,
                Column(now),
                Column(now)
            ];
            execute(connection, insert, made)?;
            name.clone()
        }
    };
    by_name(connection, &name).map(Some)
}

fn resolve(
    connection: &Connection,
    cause: AlertCause,
    resource: &str,
    now: Timestamp,
) -> Result<Option<Alert>> {
    let Some(open) = open(connection, cause, resource)? else {
        return Ok(None);
    };
    let update = "UPDATE alerts SET resolved_at = ?1, updated_at = ?1 WHERE id = ?2";
    execute(
        connection,
        update,
        params![Column(now), open.name.id().as_str()],
    )?;
    by_name(connection, &open.name).map(Some)
}

fn by_name(connection: &Connection, name: &AlertName) -> Result<Alert> {
    let query = "SELECT * FROM alerts WHERE id = ?";
    one(connection, query, [name.id().as_str()], alert)?
        .ok_or_else(|| StoreError::NotFound(name.to_string()))
}

fn alert(row: &Row<'_>) -> rusqlite::Result<Alert> {
    Ok(Alert {
        name: get::<Id>(row, "id")?.into(),
        finding: Finding {
            cause: get(row, "cause")?,
            resource: row.get("resource")?,
            severity: get(row, "severity")?,
            message: row.get("message")?,
        },
        created_at: get(row, "created_at")?,
        updated_at: get(row, "updated_at")?,
        acknowledged_at: get_optional(row, "acknowledged_at")?,
        resolved_at: get_optional(row, "resolved_at")?,
    })
}

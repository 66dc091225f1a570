//! The plain HTTP listener: metrics, liveness and readiness, trust bundles. No secret is served here.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use countersign_shared::name::AccountName;
use prometheus_client::registry::Registry;

use crate::{
    ca::pem,
    metrics,
    model::AuthorityOwner,
    store::{Store, StoreError},
};

/// How long the store may take to show that it works.
const READY_WITHIN: Duration = Duration::from_secs(2);

/// What the pages are made of.
#[derive(Clone)]
pub struct Pages {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// Everything that is measured.
    pub registry: Arc<Registry>,
}

/// The pages.
pub fn router(pages: Pages) -> Router {
    Router::new()
        .route("/metrics", get(metrics_page))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/trust/accounts/{file}", get(trust_bundle))
        .with_state(pages)
}

async fn metrics_page(State(pages): State<Pages>) -> Response {
    let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, format)], metrics::page(&pages.registry)).into_response()
}

async fn ready(State(pages): State<Pages>) -> Response {
    match tokio::time::timeout(READY_WITHIN, pages.store.check()).await {
        Ok(Ok(())) => "ok\n".into_response(),
        _ => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the store does not answer\n",
        )
            .into_response(),
    }
}

async fn trust_bundle(State(pages): State<Pages>, Path(file): Path<String>) -> Response {
    let missing = || (StatusCode::NOT_FOUND, "no such trust bundle\n").into_response();
    let account = file
        .strip_suffix(".pem")
        .map(|id| format!("accounts/{id}").parse());
    let Some(Ok(account)) = account else {
        return missing();
    };
    match anchors(pages.store.as_ref(), account).await {
        Ok(text) if text.is_empty() => missing(),
        Ok(text) => ([(CONTENT_TYPE, "application/x-pem-file")], text).into_response(),
        Err(error) => {
            tracing::warn!(%error, "trust bundle not served");
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "the store does not answer\n",
            )
                .into_response()
        }
    }
}

async fn anchors(store: &dyn Store, account: AccountName) -> Result<String, StoreError> {
    let generations = store.authorities(&AuthorityOwner::Account(account)).await?;
    Ok(generations
        .iter()
        .map(|authority| pem(&authority.anchor))
        .collect())
}

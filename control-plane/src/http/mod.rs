//! The plain HTTP listener: metrics, liveness and readiness, and what receivers fetch. No
//! secret is served here.

mod published;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::registry::Registry;

use crate::{metrics, store::Store, vault::Vault};

/// Said to whoever asks while nothing can be read.
const STORE_SILENT: &str = "the store does not answer\n";

/// Said while nothing can be sealed or opened.
const KEK_SILENT: &str = "the provider of the key-encryption key does not serve\n";

/// How long the store may take to show that it works.
const READY_WITHIN: Duration = Duration::from_secs(2);

/// What the pages are made of.
#[derive(Clone)]
pub struct Pages {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// Holds the data keys.
    pub vault: Arc<Vault>,
    /// Everything that is measured.
    pub registry: Arc<Registry>,
}

/// The pages.
pub fn router(pages: Pages) -> Router {
    Router::new()
        .route("/metrics", get(metrics_page))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/trust/{*file}", get(published::trust))
        .route("/crl/{*file}", get(published::crl))
        .route("/signing-keys/{*destination}", get(published::signing_keys))
        .with_state(pages)
}

async fn metrics_page(State(pages): State<Pages>) -> Response {
    let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, format)], metrics::page(&pages.registry)).into_response()
}

async fn ready(State(pages): State<Pages>) -> Response {
    if pages.vault.is_open().is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, KEK_SILENT).into_response();
    }
    match tokio::time::timeout(READY_WITHIN, pages.store.check()).await {
        Ok(Ok(())) => "ok\n".into_response(),
        _ => (StatusCode::SERVICE_UNAVAILABLE, STORE_SILENT).into_response(),
    }
}

//! The agent's own HTTP listener, if one is configured: `/metrics`, `/livez`, `/readyz`. Nothing
//! secret is served, and nothing can be changed through it.

use std::{io, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// The media type of the page: OpenMetrics text, which Prometheus reads.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A bound listener that is not yet served.
#[derive(Debug)]
pub struct StatusListener(TcpListener);

impl StatusListener {
    /// Binds `address`; port 0 is any free one.
    ///
    /// # Errors
    /// When the address can't be bound.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        TcpListener::bind(address).await.map(Self)
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves until `shutdown`.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(self, metrics: Arc<Metrics>, shutdown: CancellationToken) -> io::Result<()> {
        let router = Router::new()
            .route("/metrics", get(page))
            .route("/livez", get(|| async { "alive\n" }))
            .route("/readyz", get(ready))
            .with_state(metrics);
        let serve = axum::serve(self.0, router);
        serve
            .with_graceful_shutdown(shutdown.cancelled_owned())
            .await
    }
}

async fn page(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.page() {
        Ok(page) => ([(CONTENT_TYPE, METRICS_TYPE)], page).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Ready means that jobs can come: a session with the control plane is up.
async fn ready(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.connected.get() {
        1 => "ready\n".into_response(),
        _ => {
            let body = "not connected to the control plane\n";
            (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    async fn fetch(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn readiness_follows_the_session_and_metrics_are_served() {
        let listener = StatusListener::bind("127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let address = listener.address().unwrap();
        let metrics = Arc::new(Metrics::default());
        let shutdown = CancellationToken::new();
        let client = async {
            assert!(fetch(address, "/livez").await.starts_with("HTTP/1.1 200"));
            assert!(fetch(address, "/readyz").await.starts_with("HTTP/1.1 503"));
            metrics.connected.set(1);
            assert!(fetch(address, "/readyz").await.starts_with("HTTP/1.1 200"));
            let page = fetch(address, "/metrics").await;
            assert!(page.contains("countersign_agent_connected 1"), "{page}");
            shutdown.cancel();
        };
        let serve = listener.serve(Arc::clone(&metrics), shutdown.clone());
        let (served, ()) = tokio::join!(serve, client);
        served.unwrap();
    }
}

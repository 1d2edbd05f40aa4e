//! HTTP for machines: `/metrics`, `/healthz` and `/readyz`.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::metrics::{CONTENT_TYPE, Counts};

/// Serves on each of the sockets, in tasks of the present runtime.
pub(super) fn start(
    listeners: Vec<TcpListener>,
    counts: &Arc<Counts>,
    draining: &Arc<AtomicBool>,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(show_metrics))
        .with_state(Arc::clone(counts))
        .route("/readyz", get(ready))
        .with_state(Arc::clone(draining))
        .route("/healthz", get(healthy));
    for listener in listeners {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let server = axum::serve(listener, router.clone());
        tokio::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!("HTTP is not served any more: {error}");
            }
        });
    }
    Ok(())
}

/// The process lives and its control thread answers. (It says nothing about brokers.)
async fn healthy() -> &'static str {
    "ok\n"
}

/// Clients are accepted. (The ports were open before HTTP was.) Load balancers look away when this fails.
async fn ready(State(draining): State<Arc<AtomicBool>>) -> (StatusCode, &'static str) {
    match draining.load(Ordering::Relaxed) {
        true => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        false => (StatusCode::OK, "ready\n"),
    }
}

async fn show_metrics(State(counts): State<Arc<Counts>>) -> Response {
    match counts.text().await {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

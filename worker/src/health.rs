//! `/healthz`, `/readyz` and `/metrics` of the worker.

use std::net::SocketAddr;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use ostiary_boot::health::{self, Check};
use ostiary_boot::metrics;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::App;

/// Serves until the process is to stop.
pub(crate) async fn serve(
    app: App,
    listen: SocketAddr,
    recorder: PrometheusHandle,
) -> anyhow::Result<JoinHandle<()>> {
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("[worker] listen = \"{listen}\""))?;
    let shutdown = app.shutdown.clone();
    let router = Router::new()
        .route("/healthz", get(async || health::alive()))
        .route("/readyz", get(ready))
        .route("/metrics", get(async move || metrics::render(&recorder)))
        .with_state(app);
    Ok(tokio::spawn(async move {
        let serving = axum::serve(listener, router)
            .with_graceful_shutdown(async move { shutdown.cancelled().await });
        if let Err(error) = serving.await {
            tracing::error!(%error, "health is no longer served");
        }
    }))
}

async fn ready(State(app): State<App>) -> Response {
    health::readiness(&[
        Check {
            name: "postgres",
            ok: app.db.ping().await.is_ok(),
            required: true,
        },
        Check {
            name: "redis",
            ok: app.queue.ping().await.is_ok(),
            required: false,
        },
    ])
}

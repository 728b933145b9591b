//! What operators and their tools ask: alive, ready, numbers. Open to whoever reaches the listener, so nothing of the fleet is told.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ostiary_boot::health::{self, Check};

use crate::state::App;

/// `GET /healthz`: the process runs.
pub(crate) async fn healthz() -> Response {
    health::alive()
}

/// `GET /readyz`: the process can do its work, that is, Postgres answers.
pub(crate) async fn readyz(State(app): State<App>) -> Response {
    let postgres = app.db.ping().await;
    if let Err(error) = &postgres {
        tracing::warn!(%error, "not ready");
    }
    health::readiness(&[Check {
        name: "postgres",
        ok: postgres.is_ok(),
        required: true,
    }])
}

/// `GET /metrics`, in the text format of Prometheus.
pub(crate) async fn metrics_text() -> Response {
    ostiary_boot::metrics::render(&ostiary_boot::metrics::start()).into_response()
}

/// Middleware: counts requests and their time, by route.
pub(crate) async fn measure(request: Request, next: Next) -> Response {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("none", |path| path.as_str())
        .to_owned();
    let method = request.method().to_string();
    let began = Instant::now();
    let response = next.run(request).await;
    let labels = [
        ("method", method),
        ("route", route),
        ("status", response.status().as_u16().to_string()),
    ];
    metrics::counter!("ostiary_manager_requests_total", &labels).increment(1);
    metrics::histogram!("ostiary_manager_request_seconds", &labels)
        .record(began.elapsed().as_secs_f64());
    response
}

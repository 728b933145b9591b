//! Metrics of a process in the text format of Prometheus.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Starts recording; later calls give the same handle, since a process has one recorder (in a test all servers share it).
///
/// # Panics
/// Somebody else installed a recorder first, which is a defect of ours.
pub fn start() -> PrometheusHandle {
    RECORDER
        .get_or_init(|| {
            PrometheusBuilder::new()
                .install_recorder()
                .expect("nobody else in this process installs a recorder")
        })
        .clone()
}

/// What was recorded, and the content type in which it is written.
#[must_use]
pub fn render(handle: &PrometheusHandle) -> ([(axum::http::HeaderName, &'static str); 1], String) {
    handle.run_upkeep();
    // Never empty, even before anything was counted.
    let text = format!("# TYPE ostiary_up gauge\nostiary_up 1\n{}", handle.render());
    (
        [(
            axum::http::header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
}

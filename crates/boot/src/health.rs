//! `/healthz` and `/readyz`: is the process alive, and can it do its work? What is asked is up to the process.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// One thing that the process leans on.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What was asked, e.g. `postgres`.
    pub name: &'static str,
    /// Did it answer?
    pub ok: bool,
    /// Without it the process is not ready. Redis is not required: it is a bell that may be lost.
    pub required: bool,
}

/// The answer of `/healthz`: whoever can say this is alive.
#[must_use]
pub fn alive() -> Response {
    Json(serde_json::json!({"status": "alive"})).into_response()
}

/// The answer of `/readyz`: 200 when everything required is there, else 503, with all checks in the body.
#[must_use]
pub fn readiness(checks: &[Check]) -> Response {
    let ready = checks.iter().all(|check| check.ok || !check.required);
    let body = if ready {
        serde_json::json!({"status": "ready", "checks": checks})
    } else {
        serde_json::json!({"error": "not ready", "status": "not ready", "checks": checks})
    };
    (
        if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        },
        Json(body),
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_required_makes_a_process_unready() {
        let check = |name, ok, required| Check { name, ok, required };
        assert_eq!(
            readiness(&[check("postgres", true, true), check("redis", false, false)]).status(),
            200
        );
        assert_eq!(
            readiness(&[check("postgres", false, true), check("redis", true, false)]).status(),
            503
        );
    }
}

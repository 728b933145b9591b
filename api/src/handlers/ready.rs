//! `GET /readyz`: Postgres must answer and what nodes are sent must be in memory; of Redis it is only said whether it answers.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use ostiary_boot::health::{self, Check};

use crate::App;

const LIMIT: Duration = Duration::from_secs(2);

pub(crate) async fn ready(State(app): State<App>) -> Response {
    let (postgres, redis) = tokio::join!(
        tokio::time::timeout(LIMIT, app.db.ping()),
        tokio::time::timeout(LIMIT, app.queue.ping())
    );
    health::readiness(&[
        Check {
            name: "postgres",
            ok: matches!(postgres, Ok(Ok(()))),
            required: true,
        },
        // For a moment after the start there is no config to be sent.
        Check {
            name: "configs",
            ok: app.configs.is_loaded(),
            required: true,
        },
        // It still serves; but soon nobody may connect.
        Check {
            name: "certificate",
            ok: app.accepted.lasts(app.clock.now()),
            required: false,
        },
        Check {
            name: "redis",
            ok: matches!(redis, Ok(Ok(_))),
            required: false,
        },
    ])
}

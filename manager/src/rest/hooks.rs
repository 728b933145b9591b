//! What others call: webhooks of vendors. They prove themselves by their signature; nobody is signed in here.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use ostiary_domain::ids::DestinationId;
use ostiary_outputs::destinations::pagerduty_hook;

use crate::actions::pager;
use crate::error::Result;
use crate::state::App;

/// Events of PagerDuty are some kilobytes.
pub(crate) const MOST_BYTES: usize = 256 * 1024;

/// `POST /hooks/pagerduty/{destination}`
pub(crate) async fn pagerduty(
    State(app): State<App>,
    Path(id): Path<DestinationId>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode> {
    let signatures = headers
        .get(pagerduty_hook::SIGNATURE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    pager::take_pagerduty(&app, id, signatures, &body).await?;
    Ok(StatusCode::NO_CONTENT)
}

//! `POST /distributed/read`: live queries that the node has not got yet. Nearly always there are none, which costs nothing.

use axum::Json;
use axum::extract::{Request, State};
use ostiary_domain::osquery::endpoint::Endpoint;
use ostiary_domain::osquery::{DistributedReadRequest, DistributedReadResponse, sanitise};

use super::request::Head;
use crate::App;
use crate::error::Result;
use crate::live_queries::HandedOut;

pub(crate) async fn distributed_read(
    State(app): State<App>,
    request: Request,
) -> Result<Json<DistributedReadResponse>> {
    let (head, body) = Head::admit(&app, request).await?;
    let read = head.read_small(&app, body).await?;
    let request = DistributedReadRequest::parse(&sanitise(&read.bytes).text, head.key())?;
    let (caller, node) = head.authenticate(&app, &request.node_key).await?;
    let now = app.clock.now();
    let taken = app
        .within_time(app.live_queries.take(&app.db, &node, now))
        .await?;
    app.checkins.note(&caller, Endpoint::DistributedRead, now);
    let mut response = DistributedReadResponse::default();
    // An empty name or statement would make osqueryd drop the rest of the document.
    let usable = |each: &HandedOut| !each.wire_id.is_empty() && !each.sql.trim().is_empty();
    for each in taken.into_iter().filter(usable) {
        if let Some(discovery) = each.discovery {
            response.discovery.insert(each.wire_id.clone(), discovery);
        }
        response.queries.insert(each.wire_id, each.sql);
    }
    if !response.queries.is_empty() && app.options.accelerate_seconds > 0 {
        response.accelerate = Some(app.options.accelerate_seconds);
    }
    Ok(Json(response))
}

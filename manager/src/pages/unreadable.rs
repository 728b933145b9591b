//! What nodes sent that could not be understood, kept with the reason.

use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use ostiary_domain::ids::NodeId;
use ostiary_store::{event_lists, node_lists};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::paging::{pager, request};
use super::shell::Page;
use crate::auth::{Permit, View, Visitor};
use crate::error::{Error, Result};
use crate::state::App;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    node: String,
    before: String,
}

/// `GET /unreadable`
pub(crate) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    let node: Option<NodeId> = asked.node.parse().ok();
    let mut conn = app.db.acquire().await?;
    let page = event_lists::list_unreadable(&mut conn, node, &request(Some(&asked.before))).await?;
    let node = match node {
        Some(id) => node_lists::names(&mut conn, &[id.0]).await?.pop(),
        None => None,
    };
    drop(conn);
    let shown: Vec<Value> = page
        .items
        .iter()
        .map(|each| {
            json!({"id": each.id, "node": {"id": each.node_id, "name": each.node_name}, "log_type": each.log_type,
                "received_at": each.received_at, "reason": each.reason, "size": each.size, "excerpt": excerpt(&each.start)})
        })
        .collect();
    let links = pager(
        "/unreadable",
        &[("node", &asked.node)],
        "before",
        page.next.as_deref(),
        asked.before.is_empty(),
    );
    let context = json!({"unreadable": shown, "node": node, "pager": links});
    Page {
        template: "pages/unreadable/list.html",
        title: "Unreadable data",
        nav: "unreadable",
    }
    .show(&app, &visitor, context)
    .await
}

/// The beginning as text: control characters, which a terminal might obey after copying, are replaced.
fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// `GET /unreadable/{id}/data`
pub(crate) async fn data(
    State(app): State<App>,
    _: Permit<View>,
    Path(id): Path<Uuid>,
) -> Result<Response> {
    let bytes = event_lists::find_unreadable_data(&mut *app.db.acquire().await?, id)
        .await?
        .ok_or(Error::NotFound)?;
    let disposition = format!("attachment; filename=\"unreadable-{id}.bin\"");
    Ok((
        [
            (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
            (header::CONTENT_DISPOSITION, disposition),
        ],
        bytes,
    )
        .into_response())
}

//! What nodes sent that could not be understood, kept with the reason.

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use ostiary_domain::ids::NodeId;
use ostiary_store::{node_lists, unreadable};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio_util::io::ReaderStream;
use uuid::Uuid;

use super::paging::{pager, request};
use super::shell::Page;
use crate::actions;
use crate::auth::{Permit, View, Visitor};
use crate::error::Result;
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
    let page = unreadable::list(&mut conn, node, &request(Some(&asked.before)), false).await?;
    let dropped = unreadable::dropped(&mut conn, node).await?;
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
                "received_at": each.received_at, "reason": each.reason, "size": each.stored_bytes, "excerpt": excerpt(&each.data)})
        })
        .collect();
    let links = pager(
        "/unreadable",
        &[("node", &asked.node)],
        "before",
        page.next.as_deref(),
        asked.before.is_empty(),
    );
    let context = json!({"unreadable": shown, "node": node, "dropped": dropped, "pager": links});
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

/// `GET /unreadable/{id}/data`, and the same under REST
pub(crate) async fn data(
    State(app): State<App>,
    permit: Permit<View>,
    Path(id): Path<Uuid>,
) -> Result<Response> {
    let bytes = actions::unreadable::take(&app, &permit, id).await?;
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

/// `GET /unreadable/export`, and the same under REST: JSON lines of one node or of all, written as they are read.
pub(crate) async fn export(
    State(app): State<App>,
    permit: Permit<View>,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    let node: Option<NodeId> = match asked.node.as_str() {
        "" => None,
        id => Some(id.parse().map_err(|_| crate::error::Error::NotFound)?),
    };
    let mut export = actions::unreadable::export(&app, &permit, node).await?;
    let (reader, mut writer) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        loop {
            match export.next(&app).await {
                Ok(Some(lines)) if writer.write_all(&lines).await.is_ok() => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "an export of unreadable data ended early");
                    let _ = writer
                        .write_all(b"{\"error\":\"the export ended early\"}\n")
                        .await;
                    break;
                }
            }
        }
    });
    let name = node.map_or_else(|| "all".to_owned(), |id| id.to_string());
    let disposition = format!("attachment; filename=\"unreadable-{name}.jsonl\"");
    Ok((
        [
            (header::CONTENT_TYPE, "application/jsonl".to_owned()),
            (header::CONTENT_DISPOSITION, disposition),
        ],
        Body::from_stream(ReaderStream::new(reader)),
    )
        .into_response())
}

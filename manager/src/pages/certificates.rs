//! By which certificates nodes know us, and who would be cut off by the next one.

use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use ostiary_store::certificates as store;
use ostiary_store::page::PageRequest;
use serde::Deserialize;
use serde_json::json;

use super::paging::{pager, request};
use super::shell::Page;
use super::table::csv_cell;
use crate::auth::{Permit, View, Visitor};
use crate::certificates::{find_alike, view};
use crate::error::{Error, Result};
use crate::state::App;

/// Nodes in a file: more than any fleet has.
const MOST_NODES: i64 = 10_000;

/// `GET /certificates`
pub(crate) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let certificates = view(&app, &mut conn).await?;
    let backup = ostiary_store::backups::find_latest(&mut conn).await?;
    drop(conn);
    let backup = backup.map(|backup| {
        json!({"made_at": backup.made_at, "file": backup.file, "bytes": backup.bytes, "encrypted": backup.encrypted})
    });
    Page {
        template: "pages/certificates/show.html",
        title: "Certificates",
        nav: "certificates",
    }
    .show(
        &app,
        &visitor,
        json!({"certificates": certificates, "backup": backup}),
    )
    .await
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    accepted: String,
    after: String,
}

impl Asked {
    fn accepted(&self) -> bool {
        self.accepted == "yes"
    }
}

/// `GET /certificates/{id}/nodes?accepted=`: who has accepted a chain, or (without) who has not.
pub(crate) async fn nodes(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let chains = find_alike(&mut conn, &id).await?.ok_or(Error::NotFound)?;
    let page = store::list_nodes(
        &mut conn,
        &chains,
        asked.accepted(),
        &request(Some(&asked.after)),
    )
    .await?;
    let view = view(&app, &mut conn).await?;
    drop(conn);
    let chain = view.chains.into_iter().find(|chain| chain.id == id);
    let path = format!("/certificates/{id}/nodes");
    let filters = [("accepted", asked.accepted.as_str())];
    let links = pager(
        &path,
        &filters,
        "after",
        page.next.as_deref(),
        asked.after.is_empty(),
    );
    let context =
        json!({"chain": chain, "accepted": asked.accepted(), "nodes": page.items, "pager": links});
    Page {
        template: "pages/certificates/nodes.html",
        title: "Nodes of a certificate",
        nav: "certificates",
    }
    .show(&app, &visitor, context)
    .await
}

/// `GET /certificates/{id}/nodes.csv?accepted=`
pub(crate) async fn csv(
    State(app): State<App>,
    _: Permit<View>,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let chains = find_alike(&mut conn, &id).await?.ok_or(Error::NotFound)?;
    let mut writer = csv::Writer::from_writer(Vec::new());
    let head = ["node_id", "node", "last_seen_at", "last_ip", "accepted_at"];
    writer.write_record(head).map_err(internal)?;
    let mut page = PageRequest {
        after: None,
        limit: Some(MOST_NODES),
    };
    loop {
        let found = store::list_nodes(&mut conn, &chains, asked.accepted(), &page).await?;
        for node in found.items {
            let time = |at: Option<chrono::DateTime<chrono::Utc>>| {
                at.map_or_else(String::new, |at| at.to_rfc3339())
            };
            let record = [
                node.id.to_string(),
                csv_cell(&node.name),
                time(node.last_seen_at),
                node.last_ip,
                time(node.accepted_at),
            ];
            writer.write_record(record).map_err(internal)?;
        }
        match found.next {
            Some(next) => page.after = Some(next),
            None => break,
        }
    }
    let bytes = writer.into_inner().map_err(internal)?;
    let name = if asked.accepted() {
        "accepted"
    } else {
        "missing"
    };
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"nodes-{name}.csv\""),
        ),
    ];
    Ok((headers, bytes).into_response())
}

fn internal(error: impl std::fmt::Display) -> Error {
    Error::Internal(anyhow::anyhow!("{error}"))
}

//! Files that were collected from nodes: listed, shown, downloaded.

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use futures::StreamExt as _;
use ostiary_domain::carve::{ArchiveFormat, shown_path};
use ostiary_domain::ids::{CarveId, NodeId};
use ostiary_store::carve_lists::{self, CarveFile, CarveFilter, CarveRecord};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Fields;
use super::nodes;
use super::paging::{pager, request};
use super::shell::Page;
use crate::actions::carves;
use crate::auth::{Permit, RunLiveQuery, TakeFiles, View, Visitor};
use crate::error::{Error, FieldErrors, Result};
use crate::state::App;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    before: String,
    after: String,
}

/// `GET /carves`
pub(crate) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let filter = CarveFilter::default();
    let page = carve_lists::list(&mut conn, filter, &request(Some(&asked.before))).await?;
    drop(conn);
    let links = pager(
        "/carves",
        &[],
        "before",
        page.next.as_deref(),
        asked.before.is_empty(),
    );
    let options = &app.settings.carves;
    let context = json!({
        "carves": page.items.iter().map(line).collect::<Vec<_>>(), "pager": links, "enabled": options.enabled,
        "keep_days": options.keep_days,
    });
    Page {
        template: "pages/carves/list.html",
        title: "Carves",
        nav: "carves",
    }
    .show(&app, &visitor, context)
    .await
}

/// What lists show of a carve. Paths are of nodes, and hostile.
pub(crate) fn line(carve: &CarveRecord) -> Value {
    let node = carve
        .node_id
        .map(|id| json!({"id": id, "name": carve.node_name}));
    json!({
        "id": carve.id, "carve_id": carve.carve_id, "node": node, "state": carve.state, "path": shown_path(&carve.path),
        "size": carve.carve_size, "percent": percent(carve), "live_query_id": carve.live_query_id, "asked_by": carve.asked_by,
        "started_at": carve.started_at, "ended_at": carve.ended_at, "problem": carve.problem,
    })
}

fn percent(carve: &CarveRecord) -> i64 {
    i64::from(carve.received_blocks) * 100 / i64::from(carve.block_count.max(1))
}

/// Everything about a carve.
pub(crate) fn whole(carve: &CarveRecord) -> Value {
    let agrees = carve
        .sha256
        .as_ref()
        .zip(carve.node_sha256.as_ref())
        .map(|(ours, nodes)| ours == nodes);
    let mut whole = line(carve);
    let more = json!({
        "request_id": carve.request_id, "block_count": carve.block_count, "received_blocks": carve.received_blocks,
        "last_block_at": carve.last_block_at, "sha256": carve.sha256, "node_sha256": carve.node_sha256, "format": carve.format,
        "file_count": carve.file_count, "sha256_agrees": agrees == Some(true), "sha256_differs": agrees == Some(false),
    });
    if let (Value::Object(whole), Value::Object(more)) = (&mut whole, more) {
        whole.extend(more);
    }
    whole
}

/// A file of a carve.
pub(crate) fn file(file: &CarveFile) -> Value {
    json!({
        "position": file.position, "path": shown_path(&file.path), "size": file.size, "modified_at": file.modified_at,
        "can_be_taken": file.data_at.is_some(),
    })
}

/// `GET /carves/{id}`
pub(crate) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Path(id): Path<CarveId>,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let carve = carve_lists::find(&mut conn, id)
        .await?
        .ok_or(Error::NotFound)?;
    let files = carve_lists::list_files(&mut conn, id, &request(Some(&asked.after))).await?;
    drop(conn);
    let links = pager(
        &format!("/carves/{id}"),
        &[],
        "after",
        files.next.as_deref(),
        asked.after.is_empty(),
    );
    let context = json!({
        "carve": whole(&carve), "files": files.items.iter().map(file).collect::<Vec<_>>(), "pager": links,
    });
    Page {
        template: "pages/carves/show.html",
        title: "Carve",
        nav: "carves",
    }
    .show(&app, &visitor, context)
    .await
}

/// `GET /carves/{id}/archive`, and the same under REST: the bytes as the node sent them.
pub(crate) async fn archive(
    State(app): State<App>,
    permit: Permit<TakeFiles>,
    Path(id): Path<CarveId>,
) -> Result<Response> {
    let (carve, blob) = carves::take(&app, &permit, id).await?;
    let extension = ArchiveFormat::extension(carve.format.as_deref().unwrap_or_default());
    let bytes = blob.bytes.map(move |chunk| {
        chunk.inspect_err(|error| tracing::warn!(carve.id = %id, %error, "a download ended early"))
    });
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, blob.size.to_string()),
        // Compressed already, mostly; and whoever compares SHA-256 wants these bytes.
        (header::CONTENT_ENCODING, "identity".to_owned()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"carve-{id}.{extension}\""),
        ),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((headers, Body::from_stream(bytes)).into_response())
}

/// `GET /carves/{id}/files/{position}`, and the same under REST: the bytes of one file.
pub(crate) async fn one_file(
    State(app): State<App>,
    permit: Permit<TakeFiles>,
    Path((id, position)): Path<(CarveId, i32)>,
) -> Result<Response> {
    let (file, mut bytes) = carves::take_file(&app, &permit, id, position).await?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, file.size.to_string()),
        (
            header::CONTENT_DISPOSITION,
            format!(
                "attachment; filename=\"carve-{id}-{position}-{}\"",
                tame_name(&file.path)
            ),
        ),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    let bytes = futures::stream::poll_fn(move |context| bytes.poll_recv(context));
    Ok((headers, Body::from_stream(bytes)).into_response())
}

/// The last part of a path, as far as it cannot mean anything to a header, a shell or a file system.
fn tame_name(path: &str) -> String {
    let name = path.rsplit(['/', '\\']).next().unwrap_or_default();
    name.chars()
        .map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_' => c,
            _ => '_',
        })
        .take(100)
        .collect()
}

/// `GET /nodes/{id}/carves`
pub(crate) async fn of_node(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Path(id): Path<NodeId>,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    let form = json!({"path": ""});
    node_page(&app, &visitor, id, &asked, form, FieldErrors::default()).await
}

async fn node_page(
    app: &App,
    visitor: &Visitor,
    id: NodeId,
    asked: &Asked,
    form: Value,
    errors: FieldErrors,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let node = nodes::load(&mut conn, id).await?;
    let filter = CarveFilter {
        node: Some(id),
        ..CarveFilter::default()
    };
    let page = carve_lists::list(&mut conn, filter, &request(Some(&asked.before))).await?;
    let why_not = carves::why_not_of(app, &mut conn, &node).await?;
    drop(conn);
    let links = pager(
        &format!("/nodes/{id}/carves"),
        &[],
        "before",
        page.next.as_deref(),
        asked.before.is_empty(),
    );
    let context = json!({
        "carves": page.items.iter().map(line).collect::<Vec<_>>(), "pager": links, "why_not": why_not, "form": form,
        "errors": errors.0,
    });
    nodes::render(app, visitor, &node, "carves", "carves", context).await
}

/// `POST /nodes/{id}/carves`: asks the node for the files of a path.
pub(crate) async fn collect(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<RunLiveQuery>,
    Path(id): Path<NodeId>,
    fields: Fields,
) -> Result<Response> {
    let path = fields.owned("path");
    match carves::collect(&app, &permit, id, &path).await {
        Ok(query) => {
            visitor
                .flash("success", "The node is asked when it next polls.")
                .await?;
            Ok(Redirect::to(&format!("/live-queries/{query}")).into_response())
        }
        Err(error) => {
            let errors = error.into_fields()?;
            let form = json!({"path": path});
            let page = node_page(&app, &visitor, id, &Asked::default(), form, errors).await?;
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
        }
    }
}

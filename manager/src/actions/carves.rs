//! Carves: asking a node for files, and taking what came out of the house.

use ostiary_blobs::Blob;
use ostiary_domain::carve::{sql_for_path, why_not};
use ostiary_domain::ids::{CarveId, LiveQueryId, NodeId};
use ostiary_domain::node::NodeFacts;
use ostiary_store::carve_lists::{self, CarveFile, CarveRecord};
use ostiary_store::node_records::NodeRecord;
use ostiary_store::{Conn, Db, node_records, table_denials};
use serde_json::{Value, json};

use super::audit::{Change, record};
use super::carve_file::{FileBytes, FilePlace, Turn};
use super::live_queries::{self, LiveQueryDraft};
use crate::auth::{Permit, RunLiveQuery, TakeFiles};
use crate::error::{Error, FieldErrors, Result};
use crate::state::App;

/// A node that is off for a night still hears of it.
const MINUTES: &str = "1440";

/// Why no files of this node are collected, for people; `None` if they may be.
///
/// # Errors
/// Postgres failed.
pub async fn why_not_of(app: &App, conn: &mut Conn, node: &NodeRecord) -> Result<Option<String>> {
    let denials = table_denials::list_values(conn).await?;
    let facts = NodeFacts {
        host_identifier: node.host_identifier.clone(),
        hostname: node.hostname.clone(),
        name: node.name.clone(),
        platform: node.platform.clone(),
        osquery_version: node.osquery_version.clone(),
        tags: node.tags.clone(),
    };
    Ok(why_not(&app.settings.carves, &denials, &facts))
}

/// Asks a node for the files of a path, by a live query.
///
/// # Errors
/// [`Error::Invalid`] with the field `path`, [`Error::NotFound`].
pub async fn collect(
    app: &App,
    permit: &Permit<RunLiveQuery>,
    node: NodeId,
    path: &str,
) -> Result<LiveQueryId> {
    let mut conn = app.db.acquire().await?;
    let found = node_records::find(&mut conn, node)
        .await?
        .ok_or(Error::NotFound)?;
    if let Some(reason) = why_not_of(app, &mut conn, &found).await? {
        return Err(Error::field("path", reason));
    }
    drop(conn);
    let sql = sql_for_path(path).ok_or_else(|| {
        Error::field(
            "path",
            "Say which file, by its full path without line breaks.",
        )
    })?;
    let draft = LiveQueryDraft {
        sql,
        description: format!("Collect {}", crate::views::short(path.trim(), 200)),
        node_ids: node.to_string(),
        expires_minutes: MINUTES.to_owned(),
        ..LiveQueryDraft::default()
    };
    live_queries::create(app, permit, &draft)
        .await
        .map_err(|error| match error {
            // Whatever is wrong stems from the one field that was typed.
            Error::Invalid(errors) => Error::Invalid(FieldErrors(
                errors
                    .0
                    .into_values()
                    .map(|sentence| ("path".to_owned(), sentence))
                    .collect(),
            )),
            other => other,
        })
}

/// A carve with its bytes. That it was taken is in the audit log before the first byte leaves.
///
/// # Errors
/// [`Error::NotFound`] when it is not stored (any more).
pub async fn take(
    app: &App,
    permit: &Permit<TakeFiles>,
    id: CarveId,
) -> Result<(CarveRecord, Blob)> {
    let mut conn = app.db.acquire().await?;
    let carve = stored(&mut conn, id).await?;
    drop(conn);
    let blob = open(app, id).await?;
    let taken = json!({"path": carve.path, "bytes": blob.size, "sha256": carve.sha256});
    note(app, permit, &carve, "carves.download", taken).await?;
    Ok((carve, blob))
}

/// One file of a carve with its bytes, audited alike.
///
/// # Errors
/// [`Error::NotFound`] when the carve is not stored (any more), or has no such file whose bytes can be taken by themselves;
/// [`Error::Busy`] when too many are taken at once.
pub async fn take_file(
    app: &App,
    permit: &Permit<TakeFiles>,
    id: CarveId,
    position: i32,
) -> Result<(CarveFile, FileBytes)> {
    let mut conn = app.db.acquire().await?;
    let carve = stored(&mut conn, id).await?;
    let file = carve_lists::find_file(&mut conn, id, position)
        .await?
        .ok_or(Error::NotFound)?;
    drop(conn);
    let format = carve.format.as_deref().unwrap_or_default();
    let place = FilePlace::of(format, &file).ok_or(Error::NotFound)?;
    let turn = Turn::take()?;
    let blob = open(app, id).await?;
    let taken = json!({"file": file.path, "bytes": file.size, "sha256_of_archive": carve.sha256});
    note(app, permit, &carve, "carves.download_file", taken).await?;
    Ok((file, place.read(blob, turn)))
}

async fn stored(conn: &mut Conn, id: CarveId) -> Result<CarveRecord> {
    carve_lists::find(conn, id)
        .await?
        .filter(|carve| carve.state == "stored")
        .ok_or(Error::NotFound)
}

/// Outside of any transaction: the storage may be far away.
async fn open(app: &App, id: CarveId) -> Result<Blob> {
    match app.blobs()?.read(id.0).await {
        Ok(blob) => Ok(blob),
        Err(ostiary_blobs::Error::NotFound) => Err(Error::NotFound),
        Err(error) => Err(anyhow::Error::from(error).into()),
    }
}

async fn note(
    app: &App,
    permit: &Permit<TakeFiles>,
    carve: &CarveRecord,
    action: &str,
    taken: Value,
) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let change = Change {
        action,
        kind: "carve",
        id: carve.id.to_string(),
        name: carve.node_name.as_deref().unwrap_or_default(),
        after: Some(taken),
        ..Change::default()
    };
    record(app, &mut tx, permit, change).await?;
    Ok(Db::commit(tx).await?)
}

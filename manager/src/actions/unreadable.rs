//! Taking unreadable data out of the house, for whoever wants to know what a node really sent. Each time is in the audit log: such
//! data never went through any rule of what may be shown.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ostiary_domain::ids::NodeId;
use ostiary_store::page::PageRequest;
use ostiary_store::unreadable::{self, UnreadableRecord};
use ostiary_store::{Db, node_lists};
use serde_json::json;
use uuid::Uuid;

use super::audit::{Change, record};
use crate::auth::{Permit, View};
use crate::error::{Error, Result};
use crate::state::App;

/// Items in memory at once: one, for opened it may be a thousand times as large as it is stored.
const AT_ONCE: i64 = 1;

/// The bytes of one item, as the node sent them.
///
/// # Errors
/// [`Error::NotFound`], or Postgres failed.
pub async fn take(app: &App, permit: &Permit<View>, id: Uuid) -> Result<Vec<u8>> {
    let mut tx = app.db.begin().await?;
    let bytes = unreadable::find_data(&mut tx, id)
        .await?
        .ok_or(Error::NotFound)?;
    let change = Change {
        action: "unreadable.download",
        kind: "unreadable",
        id: id.to_string(),
        after: Some(json!({"bytes": bytes.len()})),
        ..Change::default()
    };
    record(app, &mut tx, permit, change).await?;
    Db::commit(tx).await?;
    Ok(bytes)
}

/// An export under way.
#[derive(Debug)]
pub struct Export {
    node: Option<NodeId>,
    page: Option<PageRequest>,
}

/// Begins to export what is kept of a node, or of all.
///
/// # Errors
/// [`Error::NotFound`] when there is no such node, or Postgres failed.
pub async fn export(app: &App, permit: &Permit<View>, node: Option<NodeId>) -> Result<Export> {
    let mut tx = app.db.begin().await?;
    let name = match node {
        Some(id) => {
            node_lists::names(&mut tx, &[id.0])
                .await?
                .pop()
                .ok_or(Error::NotFound)?
                .name
        }
        None => "all nodes".to_owned(),
    };
    let change = Change {
        action: "unreadable.export",
        kind: "node",
        id: node.map(|id| id.to_string()).unwrap_or_default(),
        name: &name,
        ..Change::default()
    };
    record(app, &mut tx, permit, change).await?;
    Db::commit(tx).await?;
    let page = PageRequest {
        after: None,
        limit: Some(AT_ONCE),
    };
    Ok(Export {
        node,
        page: Some(page),
    })
}

impl Export {
    /// The next line, newest item first, a JSON object; `None` at the end. What is text is `data`, anything else `data_base64`; of what
    /// is very large only the beginning, and it says `"truncated": true`.
    ///
    /// # Errors
    /// Postgres failed.
    pub async fn next(&mut self, app: &App) -> Result<Option<Vec<u8>>> {
        let Some(page) = self.page.take() else {
            return Ok(None);
        };
        let found = unreadable::list(&mut *app.db.acquire().await?, self.node, &page, true).await?;
        self.page = found.next.map(|after| PageRequest {
            after: Some(after),
            limit: page.limit,
        });
        Ok(Some(found.items.iter().flat_map(line).collect()))
    }
}

fn line(item: &UnreadableRecord) -> Vec<u8> {
    let mut object = json!(item);
    match text_of(item) {
        Some(text) => object["data"] = text.into(),
        None => object["data_base64"] = BASE64_STANDARD.encode(&item.data).into(),
    }
    let mut line = object.to_string().into_bytes();
    line.push(b'\n');
    line
}

/// A text that was cut is one still, but for its last character.
fn text_of(item: &UnreadableRecord) -> Option<&str> {
    match std::str::from_utf8(&item.data) {
        Ok(text) => Some(text),
        Err(error) if item.truncated && error.error_len().is_none() => {
            std::str::from_utf8(&item.data[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    }
}

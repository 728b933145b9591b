//! What is done to nodes: their name, their tags, switching off, taking keys away.

use ostiary_domain::ids::{NodeId, TagId};
use ostiary_store::node_records::{self, NodeRecord};
use ostiary_store::{Conn, Db, node_lists, tags};
use serde_json::json;

use super::audit::{Change, record};
use super::config_change::{ConfigChange, Saving};
use super::tags::tag_name;
use super::validate::Check;
use crate::auth::{Admin, Edit, Permit, Right};
use crate::error::{Error, Result};
use crate::state::App;

async fn load(conn: &mut Conn, id: NodeId) -> Result<NodeRecord> {
    node_records::find(conn, id).await?.ok_or(Error::NotFound)
}

/// Gives a node a name for people; an empty one takes it back.
///
/// # Errors
/// [`Error::Invalid`] on `display_name`, [`Error::NotFound`].
pub async fn rename(app: &App, permit: &Permit<Edit>, id: NodeId, name: &str) -> Result<()> {
    let mut check = Check::default();
    let name = Some(check.line("display_name", name, 200)).filter(|name| !name.is_empty());
    check.done()?;
    let mut tx = app.db.begin().await?;
    let node = load(&mut tx, id).await?;
    node_records::set_display_name(&mut tx, id, name.as_deref()).await?;
    let (before, after) = (
        json!({"display_name": node.display_name}),
        json!({"display_name": name}),
    );
    let (before, after) = (Some(before), Some(after));
    record(
        app,
        &mut tx,
        permit,
        Change {
            action: "nodes.rename",
            kind: "node",
            id: id.to_string(),
            name: &node.name,
            before,
            after,
        },
    )
    .await?;
    Ok(Db::commit(tx).await?)
}

/// Gives a tag to nodes, making it if need be.
///
/// # Errors
/// [`Error::Invalid`] on `tag`, or when an option that comes with the tag could cut nodes off and that was not confirmed;
/// [`Error::Refused`] when a config would become too large.
pub async fn add_tag(
    app: &App,
    permit: &Permit<Edit>,
    ids: &[NodeId],
    tag: &str,
    saving: &Saving,
) -> Result<u64> {
    let mut check = Check::default();
    let tag = tag_name(&mut check, "tag", tag);
    check.done()?;
    let mut tx = ConfigChange::begin(app).await?;
    let id = TagId(ostiary_boot::clock::new_id());
    let tag_id = tags::ensure(&mut tx, id, &tag, app.now()).await?;
    let count = tags::attach(&mut tx, tag_id, ids).await?;
    note_tags(app, &mut tx, permit, "nodes.add_tag", ids, &tag).await?;
    tx.finish_recorded(app, saving).await?;
    Ok(count)
}

/// Takes a tag from nodes.
///
/// # Errors
/// As of [`add_tag`] (`not` in targets), and on `tag` if there is no such tag.
pub async fn remove_tag(
    app: &App,
    permit: &Permit<Edit>,
    ids: &[NodeId],
    tag: &str,
    saving: &Saving,
) -> Result<u64> {
    let mut tx = ConfigChange::begin(app).await?;
    let tag_id = tags::find_id(&mut tx, tag)
        .await?
        .ok_or_else(|| Error::field("tag", "There is no such tag."))?;
    let count = tags::detach(&mut tx, tag_id, ids).await?;
    note_tags(app, &mut tx, permit, "nodes.remove_tag", ids, tag).await?;
    tx.finish_recorded(app, saving).await?;
    Ok(count)
}

async fn note_tags(
    app: &App,
    conn: &mut Conn,
    permit: &Permit<Edit>,
    action: &str,
    ids: &[NodeId],
    tag: &str,
) -> Result<()> {
    let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
    for node in node_lists::names(conn, &ids).await? {
        let after = Some(json!({"tag": tag}));
        let change = Change {
            action,
            kind: "node",
            id: node.id.to_string(),
            name: &node.name,
            before: None,
            after,
        };
        record(app, conn, permit, change).await?;
    }
    Ok(())
}

/// Switches a node off or on: it keeps its key, but is told "disabled".
///
/// # Errors
/// [`Error::NotFound`], [`Error::Refused`] when it was never approved.
pub async fn set_disabled(
    app: &App,
    permit: &Permit<Edit>,
    id: NodeId,
    disabled: bool,
) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let node = load(&mut tx, id).await?;
    if node.approval.is_some() {
        return Err(Error::Refused(
            "This node waits for an approval, or was refused one: decide on the page Approvals."
                .to_owned(),
        ));
    }
    node_records::set_disabled(&mut tx, id, disabled.then(|| app.now())).await?;
    let action = if disabled {
        "nodes.disable"
    } else {
        "nodes.enable"
    };
    note(app, &mut tx, permit, action, &node).await?;
    Ok(Db::commit(tx).await?)
}

/// Takes all keys of a node away: it must enroll again.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn revoke_keys(app: &App, permit: &Permit<Admin>, id: NodeId) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let node = load(&mut tx, id).await?;
    node_records::revoke_keys(&mut tx, id, app.now()).await?;
    note(app, &mut tx, permit, "nodes.revoke_keys", &node).await?;
    Ok(Db::commit(tx).await?)
}

/// Deletes a node and what is kept of it beside events and findings.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`] on `confirm`.
pub async fn delete(app: &App, permit: &Permit<Admin>, id: NodeId, confirm: &str) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let node = load(&mut tx, id).await?;
    super::validate::confirmed(confirm, &node.name)?;
    node_records::delete(&mut tx, id).await?;
    note(app, &mut tx, permit, "nodes.delete", &node).await?;
    Ok(Db::commit(tx).await?)
}

async fn note<R: Right>(
    app: &App,
    conn: &mut Conn,
    permit: &Permit<R>,
    action: &str,
    node: &NodeRecord,
) -> Result<()> {
    let change = Change {
        action,
        kind: "node",
        id: node.id.to_string(),
        name: &node.name,
        ..Change::default()
    };
    Ok(record(app, conn, permit, change).await?)
}

//! Who is who: nodes that look like one machine, and machines that wait to be let in.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use ostiary_domain::enrollment::Joined;
use ostiary_domain::ids::NodeId;
use ostiary_domain::node::NodeDetails;
use ostiary_store::node_approvals::{self, ClaimantState};
use ostiary_store::node_merges::{self, Merge, Moved};
use ostiary_store::node_records::{self, NodeRecord};
use ostiary_store::{Conn, Db, node_conflicts, pending};
use serde_json::{Value, json};

use super::audit::{Change, record};
use super::config_change::ConfigChange;
use crate::auth::{Admin, Permit};
use crate::error::{Error, Result};
use crate::state::App;

async fn load(conn: &mut Conn, id: NodeId) -> Result<NodeRecord> {
    node_records::find(conn, id).await?.ok_or(Error::NotFound)
}

/// Merges one node into another, which keeps its id: keys and identifiers of both go on to hold, nothing that either reported is lost.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Refused`] for one and the same node, for nodes that wait for an approval, and when a config would
/// become too large, or an option could cut the node off, by the tags of both.
pub async fn merge(app: &App, permit: &Permit<Admin>, gone: NodeId, kept: NodeId) -> Result<()> {
    let mut tx = ConfigChange::begin(app).await?;
    if gone == kept {
        return Err(Error::Refused("These are one node already.".to_owned()));
    }
    for id in [gone, kept] {
        if state(&mut tx, id).await?.approval.is_some() {
            return Err(Error::Refused(
                "One of them waits for an approval, or was refused one: decide on the page Approvals."
                    .to_owned(),
            ));
        }
    }
    let into = Merge {
        gone,
        kept,
        reestablished: false,
        by: permit.actor().user_id,
        at: app.now(),
    };
    merge_in(app, &mut tx, permit, &into, "nodes.merge").await?;
    tx.finish_unasked(app).await
}

async fn merge_in(
    app: &App,
    conn: &mut Conn,
    permit: &Permit<Admin>,
    into: &Merge,
    action: &str,
) -> Result<Moved> {
    let (gone, kept) = (load(conn, into.gone).await?, load(conn, into.kept).await?);
    let moved = node_merges::merge(conn, into)
        .await?
        .ok_or(Error::NotFound)?;
    let change = Change {
        action,
        kind: "node",
        id: kept.id.to_string(),
        name: &kept.name,
        before: Some(json!({"merged": identity(&gone), "kept": identity(&kept)})),
        after: Some(json!({"moved": moved.iter().cloned().collect::<BTreeMap<String, i64>>()})),
    };
    record(app, conn, permit, change).await?;
    Ok(moved)
}

/// What of a node the audit log remembers when it ends.
fn identity(node: &NodeRecord) -> Value {
    json!({
        "id": node.id, "name": node.name, "host_identifier": node.host_identifier, "hostname": node.hostname,
        "hardware_uuid": node.hardware_uuid, "hardware_serial": node.hardware_serial, "instance_id": node.instance_id,
        "tags": node.tags, "first_enrolled_at": node.first_enrolled_at, "last_ip": node.last_ip,
    })
}

async fn state(conn: &mut Conn, id: NodeId) -> Result<ClaimantState> {
    node_approvals::find(conn, id).await?.ok_or(Error::NotFound)
}

/// Notes that two nodes are two machines; the pair is not flagged again.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn keep_apart(
    app: &App,
    permit: &Permit<Admin>,
    one: NodeId,
    other: NodeId,
) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let (first, second) = (load(&mut tx, one).await?, load(&mut tx, other).await?);
    if one == other {
        return Err(Error::Refused("These are one node.".to_owned()));
    }
    node_conflicts::keep_apart(&mut tx, one, other, permit.actor().user_id, app.now()).await?;
    let change = Change {
        action: "nodes.keep_apart",
        kind: "node",
        id: first.id.to_string(),
        name: &first.name,
        before: None,
        after: Some(json!({"other": {"id": second.id, "name": second.name}})),
    };
    record(app, &mut tx, permit, change).await?;
    Ok(Db::commit(tx).await?)
}

/// Lets a machine in that waits, or was refused: as the node whose identity it claims (`same`), or as a node of its own. Gives which
/// node it is from then on.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Refused`] when it does not wait, claims no node that exists, or one that has been heard of again: a
/// live node is never handed over. Who knows that they are one machine approves it as a new one, and merges. Also as of [`merge`].
pub async fn approve(app: &App, permit: &Permit<Admin>, id: NodeId, same: bool) -> Result<NodeId> {
    let mut tx = ConfigChange::begin(app).await?;
    let node = load(&mut tx, id).await?;
    let waiting = state(&mut tx, id).await?;
    if waiting.approval.is_none() {
        return Err(Error::Refused("It does not wait any more.".to_owned()));
    }
    let claimed = waiting.approval_of.or(waiting.conflict_with);
    node_approvals::approve(&mut tx, id).await?;
    let (now, by) = (app.now(), permit.actor().user_id);
    let mut known_as = id;
    if same {
        let kept = claimed.ok_or_else(|| {
            Error::Refused("It claims no node that is there: approve it as a new one.".to_owned())
        })?;
        let alive_for = TimeDelta::minutes(app.settings.api.alive_minutes.into());
        let seen_at = load(&mut tx, kept).await?.last_seen_at;
        if seen_at.is_some_and(|seen_at| now - seen_at < alive_for) {
            return Err(Error::Refused(format!(
                "The node that it claims to be lives: it was heard of within the last {} minutes. Approve this one as a new node.",
                app.settings.api.alive_minutes
            )));
        }
        let into = Merge {
            gone: id,
            kept,
            reestablished: true,
            by,
            at: now,
        };
        merge_in(app, &mut tx, permit, &into, "nodes.approve_as_same").await?;
        known_as = kept;
    } else {
        if let Some(other) = claimed {
            node_conflicts::keep_apart(&mut tx, id, other, by, now).await?;
        }
        note(app, &mut tx, permit, "nodes.approve", &node).await?;
    }
    // Only now it has joined, as far as rules are concerned.
    let details = details(&node);
    let fact = Joined {
        details: &details,
        ip: waiting.last_ip.unwrap_or_default(),
        secret: waiting.secret.as_deref().unwrap_or_default(),
        conflict_with: None,
        reestablished: same,
    };
    pending::insert_fact(&mut tx, known_as, &fact.to_fact(), now).await?;
    tx.finish_unasked(app).await?;
    Ok(known_as)
}

fn details(node: &NodeRecord) -> NodeDetails {
    NodeDetails {
        host_identifier: node.host_identifier.clone(),
        hostname: node.hostname.clone(),
        platform: node.platform.clone(),
        osquery_version: node.osquery_version.clone(),
        ..NodeDetails::default()
    }
}

/// Refuses a machine that waits. It is remembered: it keeps a key that unlocks nothing, and is not asked about again.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Refused`] when it does not wait.
pub async fn refuse(app: &App, permit: &Permit<Admin>, id: NodeId) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let node = load(&mut tx, id).await?;
    if state(&mut tx, id).await?.approval.as_deref() != Some("waiting") {
        return Err(Error::Refused("It does not wait any more.".to_owned()));
    }
    node_approvals::refuse(&mut tx, id).await?;
    note(app, &mut tx, permit, "nodes.refuse", &node).await?;
    Ok(Db::commit(tx).await?)
}

async fn note(
    app: &App,
    conn: &mut Conn,
    permit: &Permit<Admin>,
    action: &str,
    node: &NodeRecord,
) -> Result<()> {
    let change = Change {
        action,
        kind: "node",
        id: node.id.to_string(),
        name: &node.name,
        before: None,
        after: Some(identity(node)),
    };
    Ok(record(app, conn, permit, change).await?)
}

//! A staged roll-out: how far it is, what became of its nodes, and the buttons to steer it.

use axum::extract::{Path, State};
use axum::response::Response;
use ostiary_domain::ids::NodeId;
use ostiary_domain::node::NodeFacts;
use ostiary_domain::node_config::{Parts, is_run_by, to_bytes};
use ostiary_domain::rollout::{Move, changed_nodes, position};
use ostiary_store::rollout_nodes::{self, NodeProgress};
use ostiary_store::rollouts::{self as store, Rollout};
use ostiary_store::{Conn, config_parts, config_revisions, node_lists};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Fields;
use super::revisions::differences;
use super::shell::Page;
use crate::actions::rollouts;
use crate::auth::{Edit, Permit, View, Visitor};
use crate::error::{Error, FieldErrors, Result};
use crate::state::App;

/// Nodes that are shown.
const MOST: usize = 200;

/// Changes that are named before they are taken back.
const MOST_CHANGES: usize = 50;

async fn context(conn: &mut Conn, id: Uuid, errors: FieldErrors) -> Result<(String, Value)> {
    let rollout = store::find(conn, id).await?.ok_or(Error::NotFound)?;
    let nodes = rollout_nodes::list(conn, id).await?;
    let facts = node_lists::facts(conn).await?;
    let parts = config_parts::load_for_nodes(conn).await?;
    let is_active = rollout.ended_at.is_none();
    let split = if is_active {
        store::find_split(conn).await?
    } else {
        None
    };
    let undone = if is_active {
        undone(conn, &rollout).await?
    } else {
        Value::Null
    };
    let waiting = split.map(|split| {
        let all = facts.iter().map(|(id, facts)| (*id, facts));
        let concerned = changed_nodes(Move::all(&split.base, &parts, all));
        let outside = concerned
            .iter()
            .filter(|node| position(id, **node) > rollout.threshold)
            .count();
        (concerned.len(), outside)
    });
    let known: std::collections::HashMap<NodeId, &NodeFacts> =
        facts.iter().map(|(id, facts)| (*id, facts)).collect();
    let mut lines: Vec<Value> = nodes
        .iter()
        .map(|node| {
            line(
                node,
                known.get(&NodeId(node.node_id)).copied(),
                &parts,
                is_active,
            )
        })
        .collect();
    lines.sort_by_key(|line| line["trouble"] == "");
    let count = |state: &str| lines.iter().filter(|line| line["state"] == state).count();
    let title = format!("Roll-out of revision {}", rollout.revision);
    let context = json!({
        "shown": rollout,
        "reasons": rollout.reason.lines().collect::<Vec<_>>(),
        "stages": rollout.shares.iter().enumerate().map(|(stage, share)| json!({
            "share": share,
            "state": match i64::try_from(stage).unwrap_or(0) - i64::from(rollout.stage) {
                _ if rollout.state == "finished" => "done",
                ..0 => "done",
                0 => "now",
                1.. => "later",
            },
        })).collect::<Vec<_>>(),
        "concerned": waiting.map(|(concerned, _)| concerned),
        "outside": waiting.map(|(_, outside)| outside),
        "inside": lines.len(), "running": count("running"), "fetched": count("fetched"),
        "cut": lines.len() > MOST,
        "nodes": lines.into_iter().take(MOST).collect::<Vec<_>>(),
        "undone": undone,
        "errors": errors,
    });
    Ok((title, context))
}

/// What taking it back undoes: every change since its base, also those that joined it, and what would differ.
async fn undone(conn: &mut Conn, rollout: &Rollout) -> Result<Value> {
    let most = i64::try_from(MOST_CHANGES).unwrap_or(i64::MAX - 1) + 1;
    let mut revisions = config_revisions::list_after(conn, rollout.base_revision, most).await?;
    let more = revisions.len() > MOST_CHANGES;
    revisions.truncate(MOST_CHANGES);
    let now = config_revisions::objects(conn).await?;
    let base = config_revisions::find(conn, rollout.base_revision).await?;
    let changes = base.map(|(_, base)| differences(&now, &base));
    Ok(json!({"revisions": revisions, "more": more, "changes": changes.unwrap_or_default()}))
}

fn line(node: &NodeProgress, facts: Option<&NodeFacts>, parts: &Parts, is_active: bool) -> Value {
    let runs = facts
        .filter(|_| is_active)
        .is_some_and(|facts| is_run_by(&to_bytes(&parts.assemble(facts)), &node.config_hash));
    let state = match (runs, node.fetched_at) {
        (true, _) => "running",
        (false, Some(_)) => "fetched",
        (false, None) => "waiting",
    };
    json!({
        "id": node.node_id, "name": node.name, "stage": node.stage + 1, "counted": node.counted, "fetched_at": node.fetched_at,
        "last_seen_at": node.last_seen_at, "state": state, "trouble": node.trouble,
    })
}

fn page(title: &str) -> Page<'_> {
    Page {
        template: "pages/rollouts/show.html",
        title,
        nav: "revisions",
    }
}

/// `GET /rollouts/{id}`
pub(crate) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Path(id): Path<Uuid>,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let (title, context) = context(&mut conn, id, FieldErrors::default()).await?;
    drop(conn);
    page(&title).show(&app, &visitor, context).await
}

/// `POST /rollouts/{id}/halt`
pub(crate) async fn halt(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<Uuid>,
) -> Result<Response> {
    let here = format!("/rollouts/{id}");
    let result = rollouts::halt(&app, &permit, id).await;
    let done = "Halted: no further node gets the change.";
    visitor.answer(result, &here, done, &here).await
}

/// `POST /rollouts/{id}/resume`
pub(crate) async fn resume(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<Uuid>,
) -> Result<Response> {
    let here = format!("/rollouts/{id}");
    let result = rollouts::resume(&app, &permit, id).await;
    let done = "The roll-out goes on; its stage begins anew.";
    visitor.answer(result, &here, done, &here).await
}

/// `POST /rollouts/{id}/finish`
pub(crate) async fn finish(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<Uuid>,
) -> Result<Response> {
    let here = format!("/rollouts/{id}");
    let result = rollouts::finish(&app, &permit, id).await;
    let done = "All nodes get the change with their next config.";
    visitor.answer(result, &here, done, &here).await
}

/// `POST /rollouts/{id}/return`
pub(crate) async fn take_back(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<Uuid>,
    fields: Fields,
) -> Result<Response> {
    let saving = fields.saving();
    match rollouts::take_back(&app, &permit, id, &saving).await {
        Ok(revision) => {
            let done = "The change was taken back: all nodes get what they had before it.";
            visitor.done(&format!("/revisions/{revision}"), done).await
        }
        Err(error) => {
            let errors = error.into_fields()?;
            let mut conn = app.db.acquire().await?;
            let (title, context) = context(&mut conn, id, errors).await?;
            drop(conn);
            page(&title)
                .show_again(&app, &visitor, saving.kept_in(context))
                .await
        }
    }
}

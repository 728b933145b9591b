//! The config of a node, explained: the exact document, what contributed each part, what it last fetched and whether it runs it.

use axum::extract::{Path, State};
use axum::response::Response;
use chrono::{DateTime, TimeDelta, Utc};
use ostiary_domain::ids::NodeId;
use ostiary_domain::node::NodeFacts;
use ostiary_domain::node_config::{
    Contribution, Fate, Parts, config_hash, differences, is_run_by, to_bytes,
};
use ostiary_domain::rollout::position;
use ostiary_store::node_records::{self, FetchedConfig, NodeRecord};
use ostiary_store::rollouts::{self, Rollout, Split};
use ostiary_store::{Db, config_parts, node_lists};
use serde_json::{Value, json};

use super::show::{load, render};
use crate::actions::table_denials::kept_from;
use crate::auth::{Permit, View, Visitor};
use crate::error::{Error, Result};
use crate::state::App;

/// Differences that are shown one by one.
const MOST_DIFFERENCES: usize = 200;

/// The built-in pack asks for the hash of the config every 15 minutes; a node that has reported since twice as long and still another
/// one runs something else.
const HASH_WITHIN: TimeDelta = TimeDelta::minutes(30);

/// `GET /nodes/{id}/config`
pub(crate) async fn config(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Path(id): Path<NodeId>,
) -> Result<Response> {
    // At one moment: a change that is saved meanwhile would look like a difference of the node.
    let mut conn = app.db.begin_snapshot().await?;
    let node = load(&mut conn, id).await?;
    let facts = node_lists::facts_of(&mut conn, id)
        .await?
        .ok_or(Error::NotFound)?;
    let fetched = node_records::find_fetched_config(&mut conn, id).await?;
    let parts = config_parts::load_for_nodes(&mut conn).await?;
    let kept = kept_from(&mut conn, &facts).await?;
    let active = rollouts::find_active(&mut conn).await?;
    let split = rollouts::find_split(&mut conn).await?;
    Db::roll_back(conn).await?;
    let side = active
        .as_ref()
        .zip(split.as_ref())
        .map(|(rollout, split)| side(rollout, split, &parts, id, &facts));
    let given = match (&side, &split) {
        (Some(side), Some(split)) if !side.is_inside => &split.base,
        _ => &parts,
    };
    let document = to_bytes(&given.assemble(&facts));
    let (sent, left_out): (Vec<_>, Vec<_>) = given
        .explain(&facts)
        .into_iter()
        .partition(|part| !matches!(part.fate, Fate::LeftOut(_)));
    let text = String::from_utf8_lossy(&document).into_owned();
    let is_same = fetched.as_ref().is_some_and(|known| known.document == text);
    let changes = match &fetched {
        Some(known) if !is_same => compare(&known.document, &text),
        _ => Vec::new(),
    };
    let context = json!({
        "due": {"document": text, "hash": config_hash(&document), "size": document.len(), "is_same": is_same},
        "config": fetched.as_ref().map(|known| json!({"hash": config_hash(known.document.as_bytes()),
            "size": known.document.len(), "fetched_at": known.fetched_at, "document": known.document})),
        "kept": kept,
        "reported_hash": node.config_hash,
        "reported_at": node.results_at,
        "running": running(&node, fetched.as_ref()),
        "changes": changes,
        "sent": sent.iter().map(shown).collect::<Vec<_>>(),
        "left_out": left_out.iter().map(shown).collect::<Vec<_>>(),
        "side": side.map(|side| json!({"rollout": active, "inside": side.is_inside, "concerned": side.is_concerned,
            "percent": side.percent})),
    });
    render(&app, &visitor, &node, "config", "config", context).await
}

/// Where a node stands in the roll-out.
struct Side {
    is_inside: bool,
    is_concerned: bool,
    /// Its position, in percent of all.
    percent: i64,
}

fn side(rollout: &Rollout, split: &Split, parts: &Parts, id: NodeId, facts: &NodeFacts) -> Side {
    let position = position(split.rollout, id);
    Side {
        is_inside: position <= rollout.threshold,
        is_concerned: to_bytes(&split.base.assemble(facts)) != to_bytes(&parts.assemble(facts)),
        percent: position / ((1_i64 << 62) / 100),
    }
}

/// `running`, `fetched` (and has not said yet that it runs it), `other` or `unknown`.
fn running(node: &NodeRecord, fetched: Option<&FetchedConfig>) -> &'static str {
    let Some(fetched) = fetched.filter(|_| !node.config_hash.is_empty()) else {
        return "unknown";
    };
    if is_run_by(fetched.document.as_bytes(), &node.config_hash) {
        return "running";
    }
    let said_since = |results_at: DateTime<Utc>| results_at > fetched.fetched_at + HASH_WITHIN;
    if node.results_at.is_some_and(said_since) {
        "other"
    } else {
        "fetched"
    }
}

fn compare(before: &str, after: &str) -> Vec<Value> {
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    differences(&parse(before), &parse(after), MOST_DIFFERENCES)
        .into_iter()
        .map(|each| json!({"path": each.path, "before": each.before, "after": each.after}))
        .collect()
}

fn shown(part: &Contribution) -> Value {
    let url = part.id.map(|id| match part.kind {
        "pack" | "pack option" => format!("/packs/{id}"),
        "query" if part.name.contains('/') => format!("/packs/{id}"),
        "query" => format!("/queries/{id}/edit"),
        "file path" => format!("/file-paths/{id}/edit"),
        "decorator" => format!("/decorators/{id}/edit"),
        "option" => format!("/options/{id}/edit"),
        _ => format!("/sections/{id}/edit"),
    });
    let (fate, why) = match &part.fate {
        Fate::Sent => ("sent", ""),
        Fate::NotRun(why) => ("not run", why.as_str()),
        Fate::LeftOut(why) => ("left out", why.as_str()),
    };
    json!({"kind": part.kind, "name": part.name, "url": url, "target": part.target, "fate": fate, "why": why})
}

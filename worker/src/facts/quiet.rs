//! Nodes that say nothing, or nothing of use; and that they are back.

use chrono::{DateTime, Utc};
use ostiary_domain::fact::{self, FactKind};
use ostiary_store::facts::{self as store, Quiet};
use ostiary_store::{Conn, Result, pending};
use serde_json::{Map, Value};

use crate::App;

/// Nodes that are noted at a time: when their network was down, all of them are.
const AT_ONCE: i64 = 500;

/// Notes who is offline or silent, and who is so no longer.
pub(crate) async fn note_quiet(app: &App, conn: &mut Conn) -> Result<()> {
    let (now, options) = (app.now(), &app.settings.worker);
    let limits = options.health_limits();
    for (kind, why, back) in [
        (
            &fact::OFFLINE,
            "the node checks in again",
            store::clear_offline(conn, &limits, now, AT_ONCE).await?,
        ),
        (
            &fact::SILENT,
            "the node sends results again",
            store::clear_silent(conn, &limits, now, AT_ONCE).await?,
        ),
    ] {
        for node in back {
            tracing::info!(node.id = %node.node_id, fact = kind.name, "a node is quiet no longer");
            let over = kind.ended(why, columns(&node, now));
            pending::insert_fact(conn, node.node_id, &over, now).await?;
        }
    }
    let again_after = options.offline_again_after();
    let offline = store::note_offline(conn, (&limits, &again_after), now, AT_ONCE).await?;
    note(conn, &fact::OFFLINE, &offline, now).await?;
    let silent = store::note_silent(conn, &limits, now, AT_ONCE).await?;
    note(conn, &fact::SILENT, &silent, now).await
}

async fn note(conn: &mut Conn, kind: &FactKind, nodes: &[Quiet], now: DateTime<Utc>) -> Result<()> {
    for node in nodes {
        tracing::info!(node.id = %node.node_id, fact = kind.name, "a node is quiet");
        pending::insert_fact(conn, node.node_id, &kind.noted(columns(node, now)), now).await?;
    }
    Ok(())
}

fn columns(node: &Quiet, now: DateTime<Utc>) -> Value {
    let results_at = node.results_at.unwrap_or(node.enrolled_at);
    let mut columns = Map::new();
    columns.insert("last_seen_at".into(), node.last_seen_at.to_rfc3339().into());
    columns.insert(
        "results_at".into(),
        node.results_at.map(|at| at.to_rfc3339()).into(),
    );
    columns.insert("enrolled_at".into(), node.enrolled_at.to_rfc3339().into());
    for (span, length) in [
        ("since_last_checkin", now - node.last_seen_at),
        ("since_last_result", now - results_at),
        (
            "since_last_checkin_to_last_result",
            node.last_seen_at - results_at,
        ),
    ] {
        columns.insert(format!("{span}_seconds"), length.num_seconds().into());
        columns.insert(format!("{span}_days"), length.num_days().into());
    }
    Value::Object(columns)
}

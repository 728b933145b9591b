//! Facts that stand in the database until they end: who conflicts, what fails, who runs another config than it fetched.

use std::collections::HashMap;

use ostiary_domain::fact::{self, FactKind};
use ostiary_domain::node_config::is_run_by;
use ostiary_store::noted_facts::{self, Holding, Running, Settled};
use ostiary_store::{Conn, Result, configs, pending};
use serde_json::json;

use crate::App;

/// Every few seconds: what is cheap to look at.
pub(crate) async fn note_standing(app: &App, conn: &mut Conn) -> Result<()> {
    let conflicts = noted_facts::list_conflicts(conn).await?;
    settle(app, conn, &fact::CONFLICT, conflicts).await?;
    let destinations = noted_facts::list_failing_destinations(conn).await?;
    settle(app, conn, &fact::DESTINATION_FAILING, destinations).await?;
    let sinks = noted_facts::list_failing_sinks(conn).await?;
    settle(app, conn, &fact::SINK_FAILING, sinks).await
}

/// Every few minutes: who has sent results for long enough since it fetched a config, and still runs another one.
pub(crate) async fn note_untaken_configs(app: &App) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let after = app.settings.worker.config_after();
    let running = noted_facts::list_running(&mut tx, after).await?;
    let mut runs: HashMap<(Vec<u8>, String), bool> = HashMap::new();
    let mut untaken = Vec::new();
    for node in running {
        let key = (node.document_hash.clone(), node.config_hash.clone());
        let runs_it = match runs.get(&key) {
            Some(known) => *known,
            None => *runs.entry(key).or_insert(does_run(&mut tx, &node).await?),
        };
        if !runs_it {
            untaken.push(not_taken_up(&node));
        }
    }
    settle(app, &mut tx, &fact::CONFIG_NOT_TAKEN_UP, untaken).await?;
    ostiary_store::Db::commit(tx).await
}

/// A document that is gone meanwhile proves nothing.
async fn does_run(conn: &mut Conn, node: &Running) -> Result<bool> {
    let document = configs::find_document(conn, &node.document_hash).await?;
    Ok(document.is_none_or(|document| is_run_by(document.as_bytes(), &node.config_hash)))
}

fn not_taken_up(node: &Running) -> Holding {
    Holding {
        node_id: node.node_id,
        entity: String::new(),
        columns: json!({"reason": "it does not run the config that it fetched", "fetched_at": node.fetched_at,
            "config_hash": node.config_hash}),
    }
}

async fn settle(app: &App, conn: &mut Conn, kind: &FactKind, holding: Vec<Holding>) -> Result<()> {
    let now = app.now();
    let Settled { begun, ended } = noted_facts::settle(conn, kind.name, holding, now).await?;
    for one in begun {
        tracing::info!(node.id = %one.node_id, fact = kind.name, columns = %one.columns, "a fact is noted");
        pending::insert_fact(conn, one.node_id, &kind.noted(one.columns), now).await?;
    }
    note_ended(app, conn, kind, ended).await
}

/// Tells rules that facts are over.
pub(crate) async fn note_ended(
    app: &App,
    conn: &mut Conn,
    kind: &FactKind,
    ended: Vec<Holding>,
) -> Result<()> {
    for one in ended {
        tracing::info!(node.id = %one.node_id, fact = kind.name, columns = %one.columns, "a fact is over");
        let over = kind.ended(kind.until, one.columns);
        pending::insert_fact(conn, one.node_id, &over, app.now()).await?;
    }
    Ok(())
}

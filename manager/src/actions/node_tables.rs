//! Learning the tables of a node in one go: it is asked, and its answer is taken over as soon as it comes. The asking and the taking
//! over are live queries' matter.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ostiary_domain::ids::{LiveQueryId, NodeId};
use ostiary_store::{Conn, live_queries as store, node_lists, table_denials};
use serde::Serialize;

use super::live_queries::{ask_for_tables, learn_tables, reported_tables};
use crate::auth::{Permit, RunLiveQuery};
use crate::error::Result;
use crate::state::App;

/// How often it is looked whether the node has answered.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Asks a node which tables it has, and takes its answer over when it comes, in the name of who asked. Should this process end before,
/// the page of the live query offers to do it.
///
/// # Errors
/// [`Error::Invalid`](crate::error::Error::Invalid) when there is no such node.
pub async fn learn(app: &App, permit: &Permit<RunLiveQuery>, node: NodeId) -> Result<LiveQueryId> {
    let id = ask_for_tables(app, permit, node).await?;
    tokio::spawn(learn_when_answered(app.clone(), permit.clone(), id));
    Ok(id)
}

async fn learn_when_answered(app: App, permit: Permit<RunLiveQuery>, id: LiveQueryId) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        ticks.tick().await;
        let learned = match progress(&app, id).await {
            Ok(Progress::Waiting) => continue,
            Ok(Progress::Over) => return,
            Ok(Progress::Answered) => learn_tables(&app, &permit, id).await.map(drop),
            Err(error) => Err(error),
        };
        match learned {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(%error, live_query.id = %id, "the tables of a node cannot be learned yet");
            }
        }
    }
}

enum Progress {
    Waiting,
    Answered,
    /// Nothing will come any more.
    Over,
}

async fn progress(app: &App, id: LiveQueryId) -> Result<Progress> {
    let found = store::find(&mut *app.db.acquire().await?, id).await?;
    Ok(match found {
        Some(query) if query.done > 0 => Progress::Answered,
        Some(query)
            if query.failed == 0
                && query.stuck == 0
                && query.cancelled_at.is_none()
                && query.expires_at > app.now() =>
        {
            Progress::Waiting
        }
        _ => Progress::Over,
    })
}

/// The tables in the answers to such a live query that osquery does not ship.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct ReportedTables {
    /// Those that SQL may use.
    pub(crate) known: BTreeSet<String>,
    /// Those that were not taken over: not yet, or for want of room.
    pub(crate) unknown: BTreeSet<String>,
}

/// What became of the answers.
///
/// # Errors
/// Postgres failed.
pub(crate) async fn reported(conn: &mut Conn, id: LiveQueryId) -> Result<ReportedTables> {
    let mut by_platform: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for table in table_denials::list_known(conn).await? {
        let names = by_platform.entry(table.platform).or_default();
        names.insert(table.name);
    }
    let mut reported = ReportedTables::default();
    for answer in store::list_rows(conn, id, 1_000_000).await? {
        let facts = node_lists::facts_of(conn, NodeId(answer.node_id)).await?;
        let names = facts.and_then(|facts| by_platform.get(&facts.platform));
        for (name, _) in reported_tables(&answer.rows) {
            if names.is_some_and(|names| names.contains(&name)) {
                reported.known.insert(name);
            } else {
                reported.unknown.insert(name);
            }
        }
    }
    Ok(reported)
}

//! Live queries: asking nodes now.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use ostiary_domain::ids::{LiveQueryId, NodeId};
use ostiary_domain::live_query::{DISCOVERY_SINCE, Discovery, wire_id};
use ostiary_domain::target::Target;
use ostiary_sql_check::is_shipped;
use ostiary_store::live_queries::{self, NewLiveQuery};
use ostiary_store::table_denials::{self, KnownColumn, KnownTable};
use ostiary_store::{Conn, Db, node_lists};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::audit::{Change, record};
use super::sql_check::{Looked, SqlKind, look_at_all, look_for_nodes};
use super::validate::{Check, words};
use crate::auth::{Permit, RunLiveQuery};
use crate::error::{Error, Result};
use crate::state::App;

/// What is typed about a live query.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LiveQueryDraft {
    /// SQL.
    pub sql: String,
    /// SQL that must return a row on a node, else the query does not run there; may be empty.
    pub discovery: String,
    /// What it is for.
    pub description: String,
    /// Tag expression; `*` for every node, empty for the named nodes only.
    pub target: String,
    /// Ids with commas between.
    pub node_ids: String,
    /// Minutes until it is not handed out any more.
    pub expires_minutes: String,
}

/// Asks nodes, from their next poll on.
///
/// # Errors
/// [`Error::Invalid`].
pub async fn create(
    app: &App,
    permit: &Permit<RunLiveQuery>,
    draft: &LiveQueryDraft,
) -> Result<LiveQueryId> {
    ask(app, permit, draft, "").await
}

/// The tables and columns that a node has, those of extensions and automatic ones included. Names are text of the node.
pub const TABLES_OF_A_NODE: &str = "SELECT m.name AS table_name, p.name AS column_name, p.hidden FROM sqlite_temp_master m \
     JOIN pragma_table_xinfo(m.name) p";

/// Asks a node which tables it has; [`learn_tables`] takes its answer over.
///
/// # Errors
/// [`Error::Invalid`] when there is no such node.
pub async fn ask_for_tables(
    app: &App,
    permit: &Permit<RunLiveQuery>,
    node: NodeId,
) -> Result<LiveQueryId> {
    let draft = LiveQueryDraft {
        sql: TABLES_OF_A_NODE.to_owned(),
        description: "Which tables it has".to_owned(),
        node_ids: node.to_string(),
        expires_minutes: "60".to_owned(),
        ..LiveQueryDraft::default()
    };
    ask(app, permit, &draft, "tables").await
}

async fn ask(
    app: &App,
    permit: &Permit<RunLiveQuery>,
    draft: &LiveQueryDraft,
    purpose: &str,
) -> Result<LiveQueryId> {
    let mut check = Check::default();
    let sql = check.sql("sql", &draft.sql);
    let description = check.line("description", &draft.description, 500);
    let target = check.target("target", &draft.target);
    let named: Vec<Uuid> = words(&draft.node_ids)
        .iter()
        .filter_map(|id| id.parse().ok())
        .collect();
    let minutes = check.number("expires_minutes", &draft.expires_minutes, 1, 7 * 24 * 60);
    let mut tx = app.db.begin().await?;
    let nodes: Vec<Uuid> = node_lists::names(&mut tx, &named)
        .await?
        .into_iter()
        .map(|node| node.id)
        .collect();
    if target.is_empty() && nodes.is_empty() {
        check.wrong(
            "target",
            "Say which nodes: a tag expression, or * for every node.",
        );
    }
    let asked = Asked {
        target: &target,
        nodes: &nodes,
    };
    let looked = asked.look(&mut tx, app, &mut check, &sql).await;
    let discovery = asked
        .discovery(&mut tx, app, &mut check, &draft.discovery)
        .await;
    check.done()?;
    let (discovery, of_discovery) = discovery.unzip();
    let mut tables = looked.tables;
    tables.extend(of_discovery.unwrap_or_default());
    let id = LiveQueryId(ostiary_boot::clock::new_id());
    let (wire_id, now) = (wire_id(id), app.now());
    let new = NewLiveQuery {
        id,
        wire_id: &wire_id,
        sql: &sql,
        description: &description,
        target: &target,
        target_all: target == "*",
        node_ids: &nodes,
        created_by: permit.actor().user_id,
        expires_at: now + TimeDelta::minutes(minutes),
        discovery: discovery.as_ref(),
        tables: &tables,
        columns: &looked.columns,
        purpose,
    };
    live_queries::insert(&mut tx, &new, now).await?;
    let after = json!({"sql": sql, "discovery": draft.discovery, "target": target, "node_ids": nodes, "expires_at": new.expires_at});
    let after = Some(after);
    let name = &description;
    let change = Change {
        action: "live_queries.create",
        kind: "live_query",
        id: id.to_string(),
        name,
        after,
        ..Change::default()
    };
    record(app, &mut tx, permit, change).await?;
    Db::commit(tx).await?;
    Ok(id)
}

/// Whom a live query asks.
struct Asked<'a> {
    target: &'a str,
    nodes: &'a [Uuid],
}

impl Asked<'_> {
    async fn look(&self, conn: &mut Conn, app: &App, check: &mut Check, sql: &str) -> Looked {
        let reached = (self.reached(), self.nodes);
        match look_for_nodes(conn, app, SqlKind::LiveQuery, reached, sql).await {
            Ok(looked) => looked,
            Err(problem) => {
                check.wrong("sql", problem.to_string());
                Looked::default()
            }
        }
    }

    /// The discovery as it may be sent, and the tables that it reads.
    async fn discovery(
        &self,
        conn: &mut Conn,
        app: &App,
        check: &mut Check,
        typed: &str,
    ) -> Option<(Discovery, Vec<String>)> {
        if typed.trim().is_empty() {
            return None;
        }
        let sql = check.sql("discovery", typed);
        let reached = (self.reached(), self.nodes);
        match look_for_nodes(conn, app, SqlKind::Discovery, reached, &sql).await {
            Ok(looked) if looked.platforms.is_empty() => {
                check.wrong(
                    "discovery",
                    "It may only read tables that osquery itself has on one of the platforms: if it failed on a node, everything \
                     else that the node is asked at that moment would be lost.",
                );
                None
            }
            Ok(looked) => {
                let since = looked.since.parse().unwrap_or(DISCOVERY_SINCE);
                let discovery = Discovery {
                    sql,
                    platforms: looked.platforms,
                    since,
                };
                Some((discovery, looked.tables))
            }
            Err(problem) => {
                check.wrong("discovery", problem.to_string());
                None
            }
        }
    }

    fn reached(&self) -> Option<Target> {
        // A target that cannot be read is said at its own field.
        (!self.target.is_empty()).then(|| Target::parse(self.target).unwrap_or(Target::All))
    }
}

/// What came of learning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Learned {
    /// Tables that osquery does not ship, known from now on.
    pub tables: usize,
    /// Such tables that there was no room for.
    pub left_out: usize,
}

/// The most columns that a table of a node may have.
const MAX_COLUMNS: usize = 500;

/// Takes over which tables nodes answered to [`ask_for_tables`]: SQL may use them from then on.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Refused`] when nothing was answered or something else was asked.
pub async fn learn_tables(
    app: &App,
    permit: &Permit<RunLiveQuery>,
    id: LiveQueryId,
) -> Result<Learned> {
    let mut tx = app.db.begin().await?;
    let query = live_queries::find(&mut tx, id)
        .await?
        .ok_or(Error::NotFound)?;
    if query.purpose != "tables" {
        return Err(Error::Refused(
            "This live query did not ask for tables.".to_owned(),
        ));
    }
    let answers = live_queries::list_rows(&mut tx, id, 1_000_000).await?;
    if answers.is_empty() {
        return Err(Error::Refused("No node has answered yet.".to_owned()));
    }
    let mut learned = Learned::default();
    for answer in &answers {
        let facts = node_lists::facts_of(&mut tx, NodeId(answer.node_id)).await?;
        let platform = facts.map(|facts| facts.platform).unwrap_or_default();
        if !["linux", "darwin", "windows"].contains(&platform.as_str()) {
            continue;
        }
        for (name, columns) in reported_tables(&answer.rows) {
            let table = KnownTable {
                platform: platform.clone(),
                name,
                columns,
                last_reported_at: app.now(),
            };
            if table_denials::put_known(&mut tx, &table, answer.node_id).await? {
                learned.tables += 1;
            } else {
                learned.left_out += 1;
            }
        }
    }
    look_at_all(&app.sql_checkers, &mut tx, app.now()).await?;
    let change = Change {
        action: "live_queries.learn_tables",
        kind: "live_query",
        id: id.to_string(),
        name: &query.description,
        after: Some(json!(learned)),
        ..Change::default()
    };
    record(app, &mut tx, permit, change).await?;
    Db::commit(tx).await?;
    Ok(learned)
}

/// Tables with their columns that osquery does not ship, as a node reported them. What is no plain name is left out: it is typed by
/// nobody and would only disturb.
pub(super) fn reported_tables(rows: &str) -> BTreeMap<String, Vec<KnownColumn>> {
    #[derive(Deserialize)]
    struct Row {
        table_name: String,
        column_name: String,
        #[serde(default)]
        hidden: String,
    }
    let is_name = |name: &str| {
        (1..=100).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let rows: Vec<serde_json::Value> = serde_json::from_str(rows).unwrap_or_default();
    let mut tables: BTreeMap<String, Vec<KnownColumn>> = BTreeMap::new();
    for row in rows {
        let Ok(row) = serde_json::from_value::<Row>(row) else {
            continue;
        };
        let name = row.table_name.to_lowercase();
        let is_own = name.starts_with("sqlite_") || is_shipped(&name);
        if !is_name(&name) || !is_name(&row.column_name) || is_own {
            continue;
        }
        let columns = tables.entry(name).or_default();
        let is_known = |known: &KnownColumn| known.name.eq_ignore_ascii_case(&row.column_name);
        if columns.len() < MAX_COLUMNS && !columns.iter().any(is_known) {
            columns.push(KnownColumn {
                name: row.column_name,
                hidden: row.hidden != "0" && !row.hidden.is_empty(),
            });
        }
    }
    tables
}

/// Stops a live query; what was answered stays.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn cancel(app: &App, permit: &Permit<RunLiveQuery>, id: LiveQueryId) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let query = live_queries::find(&mut tx, id)
        .await?
        .ok_or(Error::NotFound)?;
    if live_queries::cancel(&mut tx, id, app.now()).await? {
        let name = &query.description;
        let change = Change {
            action: "live_queries.cancel",
            kind: "live_query",
            id: id.to_string(),
            name,
            ..Change::default()
        };
        record(app, &mut tx, permit, change).await?;
    }
    Ok(Db::commit(tx).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_a_node_reports_only_plain_new_tables_are_taken() {
        let rows = r#"[
            {"table_name":"processes","column_name":"pid","hidden":"0"},
            {"table_name":"Kolide_Thing","column_name":"a","hidden":"0"},
            {"table_name":"Kolide_Thing","column_name":"b","hidden":"1"},
            {"table_name":"Kolide_Thing","column_name":"B","hidden":"0"},
            {"table_name":"sqlite_own","column_name":"a","hidden":"0"},
            {"table_name":"x\"; DROP","column_name":"a","hidden":"0"},
            {"table_name":"y","column_name":"<b>","hidden":"0"},
            {"table_name":5}, 7
        ]"#;
        let tables = reported_tables(rows);
        let column = |name: &str, hidden| KnownColumn {
            name: name.to_owned(),
            hidden,
        };
        assert_eq!(
            tables.into_iter().collect::<Vec<_>>(),
            [(
                "kolide_thing".to_owned(),
                vec![column("a", false), column("b", true)]
            )]
        );
        assert!(reported_tables("no JSON").is_empty());
    }
}

//! Denials of tables: what nodes of a target are never asked.

use std::collections::BTreeMap;
use std::convert::Infallible;

use ostiary_domain::ids::TableDenialId;
use ostiary_domain::node::NodeFacts;
use ostiary_domain::node_config::{Kept, SqlPlace, TablesOfSql};
use ostiary_domain::table_denial::{AUTO_TABLES, TableDenial};
use ostiary_store::table_denials::{self, DenialRecord, SqlReads};
use ostiary_store::{Conn, Db, Tx, config_parts, config_revisions, node_lists};
use serde::Serialize;
use serde_json::json;

use super::audit::{Change, record};
use super::sql_check::look_at_all;
use super::validate::{Check, taken, words};
use crate::auth::{Admin, Permit};
use crate::error::{Error, Result};
use crate::state::App;

const TAKEN: &str = "There is already a denial for this target: change that one.";

/// What is typed about a denial.
#[derive(Debug, Clone, Default, Serialize)]
pub struct DenialDraft {
    /// Tag expression: the nodes.
    pub target: String,
    /// Names with blanks, commas or line breaks between.
    pub tables: String,
    /// Why.
    pub reason: String,
}

impl From<&DenialRecord> for DenialDraft {
    fn from(record: &DenialRecord) -> Self {
        Self {
            target: record.values.target.clone(),
            tables: record.values.tables.join("\n"),
            reason: record.values.reason.clone(),
        }
    }
}

async fn validate(conn: &mut Conn, draft: &DenialDraft) -> Result<TableDenial> {
    let mut check = Check::default();
    let target = check.target("target", &draft.target);
    let mut tables: Vec<String> = words(&check.text("tables", &draft.tables, 20_000))
        .iter()
        .map(|table| table.to_lowercase())
        .collect();
    tables.sort_unstable();
    tables.dedup();
    if tables.is_empty() {
        check.wrong("tables", "At least one table is needed.");
    }
    let reported = table_denials::list_known(conn).await?;
    let unknown: Vec<&str> = tables
        .iter()
        .filter(|table| {
            *table != AUTO_TABLES
                && !ostiary_sql_check::is_shipped(table)
                && !reported.iter().any(|known| known.name == **table)
        })
        .map(String::as_str)
        .collect();
    if !unknown.is_empty() {
        let message = format!("There are no such tables: {}.", unknown.join(", "));
        check.wrong("tables", message);
    }
    let reason = check.name("reason", &draft.reason, 500);
    check.done()?;
    Ok(TableDenial {
        target,
        tables,
        reason,
    })
}

/// Denies tables. What reads them is left out of the configs of these nodes from now on, and not handed to them.
///
/// # Errors
/// [`Error::Invalid`].
pub async fn create(
    app: &App,
    permit: &Permit<Admin>,
    draft: &DenialDraft,
) -> Result<TableDenialId> {
    let mut tx = begin(app).await?;
    let values = validate(&mut tx, draft).await?;
    let id = TableDenialId(ostiary_boot::clock::new_id());
    look_at_all(&app.sql_checkers, &mut tx, app.now()).await?;
    taken(
        table_denials::insert(&mut tx, id, &values, app.now()).await,
        "table_denials_target_key",
        "target",
        TAKEN,
    )?;
    let change = Change {
        action: "table_denials.create",
        kind: "table_denial",
        id: id.to_string(),
        name: &values.target,
        after: Some(json!(values)),
        ..Change::default()
    };
    record(app, &mut tx, permit, change).await?;
    Db::commit(tx).await?;
    Ok(id)
}

/// Says what a denial would keep from how many nodes, without saving it: always an error, on `preview` or on what is wrong.
///
/// # Errors
/// [`Error::Invalid`].
pub async fn preview(app: &App, _: &Permit<Admin>, draft: &DenialDraft) -> Result<Infallible> {
    // What is found out about SQL on the way is dropped with the transaction.
    let mut tx = begin(app).await?;
    let denial = validate(&mut tx, draft).await?;
    look_at_all(&app.sql_checkers, &mut tx, app.now()).await?;
    let parts = config_parts::load(&mut tx).await?;
    let reads = table_denials::reads_of(&mut tx, &parts.sql()).await?;
    let mut places = parts.sql_places();
    let known = known(&reads);
    places.retain(|place| place.enabled && place.kept_by(&denial, &known).is_some());
    let everybody = node_lists::facts(&mut tx).await?;
    let target = denial.nodes();
    let concerned: Vec<&NodeFacts> = (everybody.iter().map(|(_, facts)| facts))
        .filter(|facts| target.matches(facts))
        .collect();
    places.retain(|place| concerned.iter().any(|node| place.target.matches(node)));
    let losing = (concerned.iter())
        .filter(|node| places.iter().any(|place| place.target.matches(node)))
        .count();
    let mut names: Vec<&str> = places.iter().map(|place| place.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    Err(Error::field(
        "preview",
        effect(concerned.len(), losing, &names),
    ))
}

/// Names that a preview says.
const NAMED: usize = 8;

fn effect(concerned: usize, losing: usize, names: &[&str]) -> String {
    let nodes = |count: usize| match count {
        1 => "1 node".to_owned(),
        _ => format!("{count} nodes"),
    };
    if losing == 0 {
        return format!(
            "{} would be denied these tables; nothing in their configs reads them.",
            nodes(concerned)
        );
    }
    let more = if names.len() > NAMED { ", …" } else { "" };
    format!(
        "{} would be denied these tables; from {} would be kept: {}{more}.",
        nodes(concerned),
        nodes(losing),
        names[..names.len().min(NAMED)].join(", ")
    )
}

/// Changes a denial.
///
/// # Errors
/// [`Error::Invalid`], [`Error::NotFound`].
pub async fn update(
    app: &App,
    permit: &Permit<Admin>,
    id: TableDenialId,
    draft: &DenialDraft,
) -> Result<()> {
    let mut tx = begin(app).await?;
    let before = table_denials::find(&mut tx, id)
        .await?
        .ok_or(Error::NotFound)?;
    let values = validate(&mut tx, draft).await?;
    look_at_all(&app.sql_checkers, &mut tx, app.now()).await?;
    taken(
        table_denials::update(&mut tx, id, &values, app.now()).await,
        "table_denials_target_key",
        "target",
        TAKEN,
    )?;
    let change = Change {
        action: "table_denials.update",
        kind: "table_denial",
        id: id.to_string(),
        name: &values.target,
        before: Some(json!(before)),
        after: Some(json!(values)),
    };
    record(app, &mut tx, permit, change).await?;
    Ok(Db::commit(tx).await?)
}

/// Deletes a denial: its nodes may be asked everything again, and get what was kept from them.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`] on `confirm`.
pub async fn delete(
    app: &App,
    permit: &Permit<Admin>,
    id: TableDenialId,
    confirm: &str,
) -> Result<()> {
    let mut tx = begin(app).await?;
    let found = table_denials::find(&mut tx, id)
        .await?
        .ok_or(Error::NotFound)?;
    super::validate::confirmed(confirm, name_of(&found.values))?;
    table_denials::delete(&mut tx, id).await?;
    let change = Change {
        action: "table_denials.delete",
        kind: "table_denial",
        id: id.to_string(),
        name: &found.values.target,
        before: Some(json!(found)),
        ..Change::default()
    };
    record(app, &mut tx, permit, change).await?;
    Ok(Db::commit(tx).await?)
}

/// Waits for the turn of those who change what nodes are sent. The cut-off guard has nothing to ask: a denial changes no option.
async fn begin(app: &App) -> Result<Tx> {
    let mut tx = app.db.begin().await?;
    config_revisions::lock(&mut tx).await?;
    Ok(tx)
}

/// What people call a denial: its target.
#[must_use]
pub fn name_of(denial: &TableDenial) -> &str {
    if denial.target.is_empty() {
        "every node"
    } else {
        &denial.target
    }
}

/// What a denial keeps from nodes.
#[derive(Debug, Clone, Serialize)]
pub struct Withheld {
    /// The name of the query, pack and query, or decorator.
    pub name: String,
    /// The denied tables that it reads; empty when that cannot be found out.
    pub tables: Vec<String>,
    /// Why, as the end of a sentence or a whole one.
    pub reason: String,
}

/// What configs would give to nodes of a denial, and do not.
///
/// # Errors
/// Postgres failed.
pub async fn withheld(conn: &mut Conn, denial: &TableDenial) -> Result<Vec<Withheld>> {
    let parts = config_parts::load(conn).await?;
    let reads = table_denials::reads_of(conn, &parts.sql()).await?;
    Ok(kept_by(denial, &parts.sql_places(), &reads))
}

/// What a node's config would hold, and does not, since the node may not be asked it.
///
/// # Errors
/// Postgres failed.
pub async fn kept_from(conn: &mut Conn, node: &NodeFacts) -> Result<Vec<Withheld>> {
    let mut denials = table_denials::list_values(conn).await?;
    denials.retain(|denial| denial.nodes().matches(node));
    if denials.is_empty() {
        return Ok(Vec::new());
    }
    let parts = config_parts::load(conn).await?;
    let reads = table_denials::reads_of(conn, &parts.sql()).await?;
    let mut places = parts.sql_places();
    places.retain(|place| place.target.matches(node));
    Ok(denials
        .iter()
        .flat_map(|denial| kept_by(denial, &places, &reads))
        .collect())
}

fn kept_by(
    denial: &TableDenial,
    places: &[SqlPlace<'_>],
    reads: &BTreeMap<String, SqlReads>,
) -> Vec<Withheld> {
    let known = known(reads);
    let kept = places.iter().filter(|place| place.enabled);
    let kept = kept.filter_map(|place| {
        let (tables, reason) = match place.kept_by(denial, &known)? {
            Kept::Reads(tables) => (tables, denial.reason.clone()),
            Kept::Unknown => (Vec::new(), why_unknown(reads.get(&place.sql))),
        };
        Some(Withheld {
            name: place.name.clone(),
            tables,
            reason,
        })
    });
    kept.collect()
}

/// What is known of them.
fn known(reads: &BTreeMap<String, SqlReads>) -> TablesOfSql {
    let known = reads.iter().filter_map(|(sql, reads)| {
        let tables = reads.as_ref().ok()?;
        Some((sql.clone(), tables.clone()))
    });
    known.collect()
}

fn why_unknown(reads: Option<&SqlReads>) -> String {
    match reads {
        Some(Err(problem)) => format!("Nobody can say what it reads: {problem}"),
        _ => "Nobody can say what it reads: it was not looked at yet.".to_owned(),
    }
}

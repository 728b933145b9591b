//! Scheduled queries, of a pack or of the schedule itself.

use ostiary_domain::ids::{PackId, QueryId};
use ostiary_domain::node_config::conditions::oddity_of_query_name;
use ostiary_domain::osquery::OsqueryVersion;
use ostiary_store::Conn;
use ostiary_store::packs::{self, PackRecord};
use ostiary_store::queries::{self, QueryRecord, QueryValues};
use serde::Serialize;
use serde_json::{Value, json};

use super::audit::Change;
use super::config_change::{ConfigChange, Saving};
use super::sql_check::{SqlKind, SqlUse, StoredSql};
use super::validate::{Check, taken};
use crate::auth::{Edit, Permit};
use crate::error::{Error, Result};
use crate::state::App;

const NAME_TAKEN: &str = "There is already a query of this name here.";

/// What is typed about a query.
#[derive(Debug, Clone, Default, Serialize)]
pub struct QueryDraft {
    /// Unique in its pack, or in the schedule.
    pub name: String,
    /// SQL.
    pub sql: String,
    /// Seconds.
    pub interval_seconds: String,
    /// `differential`, `differential_added` or `snapshot`.
    pub kind: String,
    /// May the watchdog denylist it?
    pub denylist: bool,
    /// Run at once when osqueryd starts, in the order of these numbers; empty for no.
    pub startup_priority: String,
    /// osquery's own condition.
    pub platform: String,
    /// Lowest osquery version.
    pub version: String,
    /// Share of hosts in percent.
    pub shard: String,
    /// What it is for.
    pub description: String,
    /// What its rows are good for.
    pub value: String,
    /// Tag expression; only without a pack.
    pub target: String,
    /// Is it sent at all?
    pub enabled: bool,
}

impl From<&QueryRecord> for QueryDraft {
    fn from(query: &QueryRecord) -> Self {
        let kind = match (query.snapshot, query.removed) {
            (true, _) => "snapshot",
            (false, true) => "differential",
            (false, false) => "differential_added",
        };
        Self {
            name: query.name.clone(),
            sql: query.sql.clone(),
            interval_seconds: query.interval_seconds.to_string(),
            kind: kind.to_owned(),
            denylist: query.denylist,
            startup_priority: query
                .startup_priority
                .map(|priority| priority.to_string())
                .unwrap_or_default(),
            platform: query.platform.clone(),
            version: query.version.clone(),
            shard: query
                .shard
                .map(|shard| shard.to_string())
                .unwrap_or_default(),
            description: query.description.clone(),
            value: query.value.clone(),
            target: query.target.clone(),
            enabled: query.enabled,
        }
    }
}

/// What is odd about a query that was saved, or not understood by every osquery.
#[must_use]
pub fn notes(draft: &QueryDraft) -> Vec<String> {
    let mut notes: Vec<String> = oddity_of_query_name(draft.name.trim())
        .map(ToOwned::to_owned)
        .into_iter()
        .collect();
    let version = |text: &str| text.trim().parse::<OsqueryVersion>().ok();
    let reaches_older = version(&draft.version) < version("5.17.0");
    if !draft.startup_priority.trim().is_empty() && reaches_older {
        let text = "Nodes with osquery before 5.17 do not know the order at the start: they run the query by its interval alone.";
        notes.push(text.to_owned());
    }
    notes
}

async fn validate(
    app: &App,
    conn: &mut Conn,
    draft: &QueryDraft,
    pack: Option<&PackRecord>,
    extra: Value,
) -> Result<QueryValues> {
    let mut check = Check::default();
    check.choice(
        "kind",
        &draft.kind,
        &["differential", "differential_added", "snapshot"],
    );
    // Seven days: above that osquery would not run it at all.
    let interval = check.number("interval_seconds", &draft.interval_seconds, 1, 604_800);
    let values = QueryValues {
        name: check.query_name("name", &draft.name, pack.is_some()),
        sql: check.sql("sql", &draft.sql),
        interval_seconds: i32::try_from(interval).unwrap_or(3600),
        snapshot: draft.kind == "snapshot",
        removed: draft.kind != "differential_added",
        denylist: draft.denylist,
        startup_priority: check
            .optional_number("startup_priority", &draft.startup_priority, 0, 1_000_000)
            .and_then(|priority| i32::try_from(priority).ok()),
        platform: check.platform(&draft.platform),
        version: check.version(&draft.version),
        shard: check.shard(&draft.shard),
        description: check.text("description", &draft.description, 5000),
        value: check.text("value", &draft.value, 5000),
        target: if pack.is_some() {
            String::new()
        } else {
            check.target("target", &draft.target)
        },
        extra,
        enabled: draft.enabled,
    };
    let used = SqlUse {
        what: SqlKind::Query,
        platform: platform_within(pack, &values.platform),
        target: pack.map_or(&values.target, |pack| &pack.target),
    };
    check
        .checked_sql(conn, app, "sql", &used, &values.sql)
        .await;
    check.done()?;
    Ok(values)
}

/// The SQL of a query that is stored, for whom it goes to.
///
/// # Errors
/// [`Error::NotFound`], or Postgres failed.
pub(crate) async fn stored_sql(
    conn: &mut Conn,
    pack: Option<PackId>,
    query: &QueryDraft,
) -> Result<StoredSql> {
    let pack = match pack {
        Some(id) => Some(packs::find(conn, id).await?.ok_or(Error::NotFound)?),
        None => None,
    };
    let target = pack.as_ref().map_or(&query.target, |pack| &pack.target);
    Ok(StoredSql {
        what: SqlKind::Query,
        place: String::new(),
        sql: query.sql.clone(),
        platform: platform_within(pack.as_ref(), &query.platform).to_owned(),
        target: target.clone(),
    })
}

/// Makes a query in a pack, or (`None`) in the schedule.
///
/// # Errors
/// [`Error::Invalid`], [`Error::NotFound`], [`Error::Refused`].
pub async fn create(
    app: &App,
    permit: &Permit<Edit>,
    pack: Option<PackId>,
    draft: &QueryDraft,
    saving: &Saving,
) -> Result<QueryId> {
    let id = QueryId(ostiary_boot::clock::new_id());
    let mut tx = ConfigChange::begin(app).await?;
    let in_pack = may_change(&mut tx, pack).await?;
    let values = validate(app, &mut tx, draft, in_pack.as_ref(), json!({})).await?;
    taken(
        queries::insert(&mut tx, id, pack, &values, app.now()).await,
        "queries_pack_id_name_key",
        "name",
        NAME_TAKEN,
    )?;
    let after = Some(json!({"pack_id": pack, "values": values}));
    let change = Change {
        action: "queries.create",
        kind: "query",
        id: id.to_string(),
        name: &values.name,
        after,
        ..Change::default()
    };
    tx.finish(app, permit, saving, change).await?;
    Ok(id)
}

/// Changes a query of this pack, or (`None`) of the schedule.
///
/// # Errors
/// [`Error::Invalid`], [`Error::NotFound`], [`Error::Refused`].
pub async fn update(
    app: &App,
    permit: &Permit<Edit>,
    pack: Option<PackId>,
    id: QueryId,
    draft: &QueryDraft,
    saving: &Saving,
) -> Result<()> {
    let mut tx = ConfigChange::begin(app).await?;
    let before = load(&mut tx, pack, id).await?;
    let in_pack = may_change(&mut tx, pack).await?;
    let extra = before.extra.clone();
    let values = validate(app, &mut tx, draft, in_pack.as_ref(), extra).await?;
    taken(
        queries::update(&mut tx, id, &values, app.now()).await,
        "queries_pack_id_name_key",
        "name",
        NAME_TAKEN,
    )?;
    let (before, after) = (Some(json!(before)), Some(json!(values)));
    let change = Change {
        action: "queries.update",
        kind: "query",
        id: id.to_string(),
        name: &values.name,
        before,
        after,
    };
    tx.finish(app, permit, saving, change).await.map(drop)
}

/// Deletes a query of this pack, or (`None`) of the schedule.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`] on `confirm`, [`Error::Refused`].
pub async fn delete(
    app: &App,
    permit: &Permit<Edit>,
    pack: Option<PackId>,
    id: QueryId,
    confirm: &str,
    saving: &Saving,
) -> Result<()> {
    let mut tx = ConfigChange::begin(app).await?;
    let query = load(&mut tx, pack, id).await?;
    may_change(&mut tx, pack).await?;
    super::validate::confirmed(confirm, &query.name)?;
    queries::delete(&mut tx, id).await?;
    let before = Some(json!(query));
    let change = Change {
        action: "queries.delete",
        kind: "query",
        id: id.to_string(),
        name: &query.name,
        before,
        after: None,
    };
    tx.finish(app, permit, saving, change).await.map(drop)
}

async fn load(conn: &mut Conn, pack: Option<PackId>, id: QueryId) -> Result<QueryRecord> {
    let query = queries::find(conn, id)
        .await?
        .filter(|query| query.pack_id == pack.map(|id| id.0));
    query.ok_or(Error::NotFound)
}

async fn may_change(conn: &mut Conn, pack: Option<PackId>) -> Result<Option<PackRecord>> {
    match pack {
        Some(pack) => super::packs::load_own(conn, pack).await.map(Some),
        None => Ok(None),
    }
}

/// Where a query can run: its own condition, or else that of its pack.
fn platform_within<'a>(pack: Option<&'a PackRecord>, own: &'a str) -> &'a str {
    match pack {
        Some(pack) if own.is_empty() => &pack.platform,
        _ => own,
    }
}

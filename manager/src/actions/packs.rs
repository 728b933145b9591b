//! Packs.

use ostiary_domain::ids::PackId;
use ostiary_store::packs::{self, PackRecord, PackValues};
use ostiary_store::{Conn, queries};
use serde::Serialize;
use serde_json::{Value, json};

use super::audit::Change;
use super::config_change::{ConfigChange, Saving};
use super::sql_check::{SqlKind, SqlUse, check_sql};
use super::validate::{Check, lines, one_a_line, taken};
use crate::auth::{Edit, Permit};
use crate::error::{Error, Result};
use crate::state::App;

const NAME_TAKEN: &str = "There is already a pack of this name.";

/// What is typed about a pack.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PackDraft {
    /// Unique; part of the names of results.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Tag expression.
    pub target: String,
    /// osquery's own condition.
    pub platform: String,
    /// Lowest osquery version.
    pub version: String,
    /// Share of hosts in percent.
    pub shard: String,
    /// Discovery queries, one a line.
    pub discovery: String,
    /// Is it sent at all?
    pub enabled: bool,
}

impl From<&PackRecord> for PackDraft {
    fn from(pack: &PackRecord) -> Self {
        Self {
            name: pack.name.clone(),
            description: pack.description.clone(),
            target: pack.target.clone(),
            platform: pack.platform.clone(),
            version: pack.version.clone(),
            shard: pack
                .shard
                .map(|shard| shard.to_string())
                .unwrap_or_default(),
            discovery: one_a_line(&pack.discovery),
            enabled: pack.enabled,
        }
    }
}

async fn validate(
    app: &App,
    conn: &mut Conn,
    draft: &PackDraft,
    extra: Value,
) -> Result<PackValues> {
    let mut check = Check::default();
    let values = PackValues {
        name: check.result_name("name", &draft.name),
        description: check.text("description", &draft.description, 5000),
        target: check.target("target", &draft.target),
        platform: check.platform(&draft.platform),
        version: check.version(&draft.version),
        shard: check.shard(&draft.shard),
        discovery: lines(&check.text("discovery", &draft.discovery, 50_000)),
        extra,
        enabled: draft.enabled,
    };
    let used = SqlUse {
        what: SqlKind::Discovery,
        platform: &values.platform,
        target: &values.target,
    };
    for sql in &values.discovery {
        check.checked_sql(conn, app, "discovery", &used, sql).await;
    }
    if let Value::Object(extra) = &values.extra {
        check.pack_extra(app, conn, &values.target, extra).await;
    }
    check.done()?;
    Ok(values)
}

/// Makes a pack.
///
/// # Errors
/// [`Error::Invalid`], [`Error::Refused`] when a config would become too large.
pub async fn create(
    app: &App,
    permit: &Permit<Edit>,
    draft: &PackDraft,
    saving: &Saving,
) -> Result<PackId> {
    let id = PackId(ostiary_boot::clock::new_id());
    let mut tx = ConfigChange::begin(app).await?;
    let values = validate(app, &mut tx, draft, json!({})).await?;
    taken(
        packs::insert(&mut tx, id, &values, false, app.now()).await,
        "packs_name_key",
        "name",
        NAME_TAKEN,
    )?;
    let after = Some(json!(values));
    let change = Change {
        action: "packs.create",
        kind: "pack",
        id: id.to_string(),
        name: &values.name,
        after,
        ..Change::default()
    };
    tx.finish(app, permit, saving, change).await?;
    Ok(id)
}

/// Changes a pack, or switches it off or on.
///
/// # Errors
/// [`Error::Invalid`], [`Error::NotFound`], [`Error::Refused`] for a built-in pack or when a config would become too large.
pub async fn update(
    app: &App,
    permit: &Permit<Edit>,
    id: PackId,
    draft: &PackDraft,
    saving: &Saving,
) -> Result<()> {
    let mut tx = ConfigChange::begin(app).await?;
    let before = load_own(&mut tx, id).await?;
    let values = validate(app, &mut tx, draft, before.extra.clone()).await?;
    if values.target != before.target || values.platform != before.platform {
        check_queries(app, &mut tx, id, &values).await?;
    }
    taken(
        packs::update(&mut tx, id, &values, app.now()).await,
        "packs_name_key",
        "name",
        NAME_TAKEN,
    )?;
    let (before, after) = (Some(json!(before)), Some(json!(values)));
    let change = Change {
        action: "packs.update",
        kind: "pack",
        id: id.to_string(),
        name: &values.name,
        before,
        after,
    };
    tx.finish(app, permit, saving, change).await.map(drop)
}

/// With another target or platform the queries of a pack reach other nodes.
async fn check_queries(app: &App, conn: &mut Conn, id: PackId, values: &PackValues) -> Result<()> {
    let mut check = Check::default();
    for query in queries::list(conn, Some(id)).await? {
        let used = SqlUse {
            what: SqlKind::Query,
            platform: if query.platform.is_empty() {
                &values.platform
            } else {
                &query.platform
            },
            target: &values.target,
        };
        if let Err(problem) = check_sql(conn, app, &used, &query.sql).await {
            let field = if values.target.is_empty() {
                "form"
            } else {
                "target"
            };
            check.wrong(field, format!("The query {}: {problem}", query.name));
        }
    }
    check.done()
}

/// Deletes a pack with its queries.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`] on `confirm`, [`Error::Refused`] for a built-in pack.
pub async fn delete(
    app: &App,
    permit: &Permit<Edit>,
    id: PackId,
    confirm: &str,
    saving: &Saving,
) -> Result<()> {
    let mut tx = ConfigChange::begin(app).await?;
    let pack = load_own(&mut tx, id).await?;
    super::validate::confirmed(confirm, &pack.name)?;
    packs::delete(&mut tx, id).await?;
    let before = Some(json!(pack));
    let change = Change {
        action: "packs.delete",
        kind: "pack",
        id: id.to_string(),
        name: &pack.name,
        before,
        after: None,
    };
    tx.finish(app, permit, saving, change).await.map(drop)
}

/// A pack that is not built in.
pub(super) async fn load_own(conn: &mut Conn, id: PackId) -> Result<PackRecord> {
    let pack = packs::find(conn, id).await?.ok_or(Error::NotFound)?;
    if pack.built_in {
        return Err(Error::Refused(format!(
            "{} is built in: vitals and health rest on it. It cannot be changed.",
            pack.name
        )));
    }
    Ok(pack)
}

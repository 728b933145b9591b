//! Decorators: columns on every line of a node.

use ostiary_domain::ids::DecoratorId;
use ostiary_store::Conn;
use ostiary_store::decorators::{self, DecoratorRecord, DecoratorValues};
use serde::Serialize;
use serde_json::json;

use super::audit::Change;
use super::config_change::{ConfigChange, Saving};
use super::sql_check::{SqlKind, SqlUse};
use super::validate::{Check, taken};
use crate::auth::{Edit, Permit};
use crate::error::{Error, Result};
use crate::state::App;

const TAKEN: &str = "There is already a decorator of this name.";

/// What is typed about a decorator.
#[derive(Debug, Clone, Default, Serialize)]
pub struct DecoratorDraft {
    /// Unique.
    pub name: String,
    /// `load`, `always` or `interval`.
    pub moment: String,
    /// A multiple of 60; only with `interval`.
    pub interval_seconds: String,
    /// What is run.
    pub sql: String,
    /// Tag expression.
    pub target: String,
    /// Is it sent at all?
    pub enabled: bool,
}

impl From<&DecoratorRecord> for DecoratorDraft {
    fn from(record: &DecoratorRecord) -> Self {
        let values = &record.values;
        Self {
            name: values.name.clone(),
            moment: values.moment.clone(),
            interval_seconds: values
                .interval_seconds
                .map(|seconds| seconds.to_string())
                .unwrap_or_default(),
            sql: values.sql.clone(),
            target: values.target.clone(),
            enabled: values.enabled,
        }
    }
}

async fn validate(app: &App, conn: &mut Conn, draft: &DecoratorDraft) -> Result<DecoratorValues> {
    let mut check = Check::default();
    let moment = check.choice("moment", &draft.moment, &["load", "always", "interval"]);
    let mut interval_seconds = None;
    if moment == "interval" {
        let seconds = check.number("interval_seconds", &draft.interval_seconds, 60, 604_800);
        // osquery ignores any other (`osquery/config/parsers/decorators.cpp`).
        if seconds % 60 != 0 {
            check.wrong(
                "interval_seconds",
                "A multiple of 60 is needed: osquery ignores any other.",
            );
        }
        interval_seconds = i32::try_from(seconds).ok();
    }
    let values = DecoratorValues {
        name: check.name("name", &draft.name, 100),
        moment,
        interval_seconds,
        sql: check.sql("sql", &draft.sql),
        target: check.target("target", &draft.target),
        enabled: draft.enabled,
    };
    let used = SqlUse {
        what: SqlKind::Decorator,
        platform: "",
        target: &values.target,
    };
    check
        .checked_sql(conn, app, "sql", &used, &values.sql)
        .await;
    check.done()?;
    Ok(values)
}

/// Makes a decorator.
///
/// # Errors
/// [`Error::Invalid`], [`Error::Refused`] when a config would become too large.
pub async fn create(
    app: &App,
    permit: &Permit<Edit>,
    draft: &DecoratorDraft,
    saving: &Saving,
) -> Result<DecoratorId> {
    let id = DecoratorId(ostiary_boot::clock::new_id());
    let mut tx = ConfigChange::begin(app).await?;
    let values = validate(app, &mut tx, draft).await?;
    taken(
        decorators::insert(&mut tx, id, &values, app.now()).await,
        "decorators_name_key",
        "name",
        TAKEN,
    )?;
    let (name, after) = (&values.name, Some(json!(values)));
    let change = Change {
        action: "decorators.create",
        kind: "decorator",
        id: id.to_string(),
        name,
        after,
        ..Change::default()
    };
    tx.finish(app, permit, saving, change).await?;
    Ok(id)
}

/// Changes a decorator.
///
/// # Errors
/// [`Error::Invalid`], [`Error::NotFound`], [`Error::Refused`].
pub async fn update(
    app: &App,
    permit: &Permit<Edit>,
    id: DecoratorId,
    draft: &DecoratorDraft,
    saving: &Saving,
) -> Result<()> {
    let mut tx = ConfigChange::begin(app).await?;
    let values = validate(app, &mut tx, draft).await?;
    let before = decorators::find(&mut tx, id)
        .await?
        .ok_or(Error::NotFound)?;
    taken(
        decorators::update(&mut tx, id, &values, app.now()).await,
        "decorators_name_key",
        "name",
        TAKEN,
    )?;
    let (before, after) = (Some(json!(before)), Some(json!(values)));
    let name = &values.name;
    let change = Change {
        action: "decorators.update",
        kind: "decorator",
        id: id.to_string(),
        name,
        before,
        after,
    };
    tx.finish(app, permit, saving, change).await.map(drop)
}

/// Deletes a decorator.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`] on `confirm`.
pub async fn delete(
    app: &App,
    permit: &Permit<Edit>,
    id: DecoratorId,
    confirm: &str,
    saving: &Saving,
) -> Result<()> {
    let mut tx = ConfigChange::begin(app).await?;
    let found = decorators::find(&mut tx, id)
        .await?
        .ok_or(Error::NotFound)?;
    let name = &found.values.name;
    super::validate::confirmed(confirm, name)?;
    decorators::delete(&mut tx, id).await?;
    let before = Some(json!(found));
    let change = Change {
        action: "decorators.delete",
        kind: "decorator",
        id: id.to_string(),
        name,
        before,
        after: None,
    };
    tx.finish(app, permit, saving, change).await.map(drop)
}

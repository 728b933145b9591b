//! Rules.

use ostiary_domain::finding::Severity;
use ostiary_domain::ids::RuleId;
use ostiary_domain::rule::{COLUMN_PREFIX, Comparison, FIELDS, OPERATORS, parse};
use ostiary_store::Db;
use ostiary_store::rule_edits::{self, RuleDestination, RuleRecord, RuleValues};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::audit::{Change, record};
use super::validate::{Check, sentence, taken, words};
use crate::auth::{Edit, Permit};
use crate::error::{Error, Result};
use crate::state::App;

const NAME_TAKEN: &str = "There is already a rule of this name.";

/// What is typed about a rule.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RuleDraft {
    /// Unique.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// `info` … `critical`.
    pub severity: String,
    /// JSON of the query builder.
    pub conditions: String,
    /// Tag expression.
    pub scope: String,
    /// Columns that tell one matter from another; commas between.
    pub entity_columns: String,
    /// Does it see baseline rows?
    pub on_baseline: bool,
    /// Events older than this on arrival open nothing.
    pub max_age_seconds: String,
    /// What to do when it matches.
    pub runbook_url: String,
    /// Is it evaluated at all?
    pub enabled: bool,
    /// Ids.
    pub destinations: Vec<String>,
}

impl RuleDraft {
    /// An empty form with its defaults.
    #[must_use]
    pub fn new() -> Self {
        Self {
            severity: Severity::Medium.as_str().to_owned(),
            conditions: "{\n  \"condition\": \"AND\",\n  \"rules\": []\n}".to_owned(),
            max_age_seconds: "86400".to_owned(),
            enabled: true,
            ..Self::default()
        }
    }

    /// The form of a stored rule.
    #[must_use]
    pub fn of(rule: &RuleRecord, destinations: &[RuleDestination]) -> Self {
        Self {
            name: rule.name.clone(),
            description: rule.description.clone(),
            severity: rule.severity.clone(),
            conditions: serde_json::to_string_pretty(&rule.conditions).unwrap_or_default(),
            scope: rule.scope.clone(),
            entity_columns: rule.entity_columns.join(", "),
            on_baseline: rule.on_baseline,
            max_age_seconds: rule.max_age_seconds.to_string(),
            runbook_url: rule.runbook_url.clone(),
            enabled: rule.enabled,
            destinations: destinations
                .iter()
                .map(|destination| destination.id.to_string())
                .collect(),
        }
    }
}

/// The operators there are, for the form: each also on a column.
#[must_use]
pub fn operators() -> Vec<Value> {
    let wants = |comparison: &Comparison| match comparison {
        Comparison::Empty => "none",
        Comparison::Less
        | Comparison::LessOrEqual
        | Comparison::Greater
        | Comparison::GreaterOrEqual => "a number or a text",
        Comparison::Regex => "a pattern",
        _ => "a text",
    };
    let plain = OPERATORS.iter().map(|operator| {
        json!({"name": operator.name, "meaning": format!("the field {}", operator.label), "value": wants(&operator.comparison)})
    });
    let on_column = OPERATORS.iter().map(|operator| {
        let value = match operator.comparison {
            Comparison::Empty => "[\"column\"]".to_owned(),
            _ => format!("[\"column\", {}]", wants(&operator.comparison)),
        };
        let name = format!("{COLUMN_PREFIX}{}", operator.name);
        json!({"name": name, "meaning": format!("a column {}", operator.label), "value": value})
    });
    plain.chain(on_column).collect()
}

/// The fields there are, for the form.
#[must_use]
pub fn fields() -> Vec<Value> {
    FIELDS
        .iter()
        .map(|field| json!({"name": field.name, "meaning": field.label}))
        .collect()
}

fn validate(draft: &RuleDraft) -> Result<RuleValues> {
    let mut check = Check::default();
    let conditions = check.json("conditions", &draft.conditions);
    if !conditions.is_null()
        && let Err(error) = parse(&conditions)
    {
        check.wrong("conditions", sentence(&error));
    }
    let runbook_url = check.line("runbook_url", &draft.runbook_url, 2000);
    if !(runbook_url.is_empty()
        || runbook_url.starts_with("https://")
        || runbook_url.starts_with("http://"))
    {
        check.wrong("runbook_url", "A URL begins with https:// or http://.");
    }
    if Severity::parse(&draft.severity).is_none() {
        check.wrong("severity", "Choose a severity.");
    }
    let max_age = check.number("max_age_seconds", &draft.max_age_seconds, 1, 365 * 86_400);
    let destinations: Vec<Uuid> = draft
        .destinations
        .iter()
        .filter_map(|id| id.parse().ok())
        .collect();
    if destinations.len() != draft.destinations.len() {
        check.wrong("destinations", "One of these is no destination.");
    }
    let values = RuleValues {
        name: check.name("name", &draft.name, 200),
        description: check.text("description", &draft.description, 5000),
        conditions,
        severity: draft.severity.clone(),
        scope: check.target("scope", &draft.scope),
        entity_columns: words(&check.line("entity_columns", &draft.entity_columns, 2000)),
        on_baseline: draft.on_baseline,
        max_age_seconds: i32::try_from(max_age).unwrap_or(86_400),
        runbook_url,
        enabled: draft.enabled,
        destinations,
    };
    check.done()?;
    Ok(values)
}

fn explained<T>(result: ostiary_store::Result<T>) -> Result<T> {
    if result
        .as_ref()
        .is_err_and(|error| error.is_constraint("rule_destinations_destination_id_fkey"))
    {
        return Err(Error::field(
            "destinations",
            "One of these destinations was deleted meanwhile.",
        ));
    }
    taken(result, "rules_name_key", "name", NAME_TAKEN)
}

/// Makes a rule.
///
/// # Errors
/// [`Error::Invalid`].
pub async fn create(app: &App, permit: &Permit<Edit>, draft: &RuleDraft) -> Result<RuleId> {
    let values = validate(draft)?;
    let id = RuleId(ostiary_boot::clock::new_id());
    let mut tx = app.db.begin().await?;
    explained(rule_edits::insert(&mut tx, id, &values, app.now()).await)?;
    let (name, after) = (&values.name, Some(json!(values)));
    record(
        app,
        &mut tx,
        permit,
        Change {
            action: "rules.create",
            kind: "rule",
            id: id.to_string(),
            name,
            after,
            ..Change::default()
        },
    )
    .await?;
    Db::commit(tx).await?;
    Ok(id)
}

/// Changes a rule.
///
/// # Errors
/// [`Error::Invalid`], [`Error::NotFound`].
pub async fn update(app: &App, permit: &Permit<Edit>, id: RuleId, draft: &RuleDraft) -> Result<()> {
    let values = validate(draft)?;
    let mut tx = app.db.begin().await?;
    let before = rule_edits::find(&mut tx, id)
        .await?
        .ok_or(Error::NotFound)?;
    explained(rule_edits::update(&mut tx, id, &values, app.now()).await)?;
    let (name, before, after) = (&values.name, Some(json!(before)), Some(json!(values)));
    record(
        app,
        &mut tx,
        permit,
        Change {
            action: "rules.update",
            kind: "rule",
            id: id.to_string(),
            name,
            before,
            after,
        },
    )
    .await?;
    Ok(Db::commit(tx).await?)
}

/// Deletes a rule; its findings stay with its name.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`] on `confirm`.
pub async fn delete(app: &App, permit: &Permit<Edit>, id: RuleId, confirm: &str) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let rule = rule_edits::find(&mut tx, id)
        .await?
        .ok_or(Error::NotFound)?;
    super::validate::confirmed(confirm, &rule.name)?;
    rule_edits::delete(&mut tx, id).await?;
    let (name, before) = (&rule.name, Some(json!(rule)));
    record(
        app,
        &mut tx,
        permit,
        Change {
            action: "rules.delete",
            kind: "rule",
            id: id.to_string(),
            name,
            before,
            after: None,
        },
    )
    .await?;
    Ok(Db::commit(tx).await?)
}

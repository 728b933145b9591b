//! Rules.

use chrono::TimeDelta;
use ostiary_domain::fact::FACTS;
use ostiary_domain::finding::Severity;
use ostiary_domain::ids::RuleId;
use ostiary_domain::rule::{
    COLUMN_PREFIX, COUNTED_NODES, FIELDS, LONGEST_SPAN, OPERATORS, Rule, RuleDefinition, WATCHES,
    Wants, Watch, parse,
};
use ostiary_store::rule_edits::{self, RuleDestination, RuleRecord, RuleValues};
use ostiary_store::rules_revisions::{self, Made};
use ostiary_store::{Conn, Db};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::audit::{Change, record};
use super::validate::{Check, sentence, taken, words};
use crate::auth::{Edit, Permit, Right};
use crate::error::{Error, Result};
use crate::state::App;

const NAME_TAKEN: &str = "There is already a rule of this name.";

/// What is typed about a rule.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
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
    /// The people to ask about it.
    pub owner: String,
    /// What it waits for: a word of `domain::rule::WATCHES`.
    pub watch: String,
    /// How many, where the watch counts.
    pub watch_count: String,
    /// In which time, in seconds, where the watch has a span.
    pub watch_seconds: String,
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
            watch: Watch::default().as_str().to_owned(),
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
            owner: rule.owner.clone(),
            watch: rule.watch.clone(),
            watch_count: rule
                .watch_count
                .map_or_else(String::new, |count| count.to_string()),
            watch_seconds: (rule.watch_seconds)
                .map_or_else(String::new, |seconds| seconds.to_string()),
            destinations: destinations
                .iter()
                .map(|destination| destination.id.to_string())
                .collect(),
        }
    }
}

/// The language of conditions, for the form's builder and for those who write JSON: fields, operators, watches, and the facts of Ostiary.
#[must_use]
pub fn language() -> Value {
    let fields: Vec<Value> = FIELDS
        .iter()
        .map(|field| json!({"name": field.name, "label": field.label, "named": field.named}))
        .collect();
    let operators: Vec<Value> = OPERATORS
        .iter()
        .map(|operator| {
            let wants = operator.wants();
            let many = matches!(wants, Wants::List | Wants::Networks);
            json!({"name": operator.name, "label": operator.label, "wants": wants.as_str(),
                "takes_value": operator.takes_value(), "many": many, "of_target": wants == Wants::Target})
        })
        .collect();
    let watches: Vec<Value> = WATCHES
        .iter()
        .map(|watch| json!({"name": watch.name, "label": watch.label, "counts": watch.counts, "has_span": watch.has_span}))
        .collect();
    let facts: Vec<Value> = FACTS
        .iter()
        .map(|kind| json!({"query_name": kind.query_name(), "when": kind.when, "until": kind.until, "columns": kind.columns}))
        .collect();
    json!({"fields": fields, "operators": operators, "watches": watches, "facts": facts, "column_prefix": COLUMN_PREFIX})
}

/// What was typed, compiled as the worker compiles it.
pub(super) fn compile(id: RuleId, values: &RuleValues) -> Result<Rule> {
    let number = |number: Option<i32>| number.and_then(|number| u32::try_from(number).ok());
    let watch = Watch::of(
        &values.watch,
        number(values.watch_count),
        number(values.watch_seconds),
    )
    .map_err(|error| Error::field("watch", sentence(&error)))?;
    let definition = RuleDefinition {
        id,
        name: values.name.clone(),
        conditions: values.conditions.clone(),
        severity: Severity::parse(&values.severity).unwrap_or(Severity::Medium),
        scope: values.scope.clone(),
        entity_columns: values.entity_columns.clone(),
        watch,
        on_baseline: values.on_baseline,
        max_age: Some(TimeDelta::seconds(values.max_age_seconds.into())),
    };
    Rule::compile(definition).map_err(|error| Error::field("conditions", sentence(&error)))
}

/// The watch that was typed; what it does not have is passed over.
fn watch(check: &mut Check, draft: &RuleDraft) -> Watch {
    let Some(info) = WATCHES.iter().find(|info| info.name == draft.watch) else {
        check.wrong("watch", "Choose what the rule waits for.");
        return Watch::default();
    };
    let mut number = |field: &str, text: &str, wanted: bool, most: u32| {
        let number = wanted.then(|| check.number(field, text, 1, most.into()));
        number.and_then(|number| u32::try_from(number).ok())
    };
    let count = number(
        "watch_count",
        &draft.watch_count,
        info.counts,
        COUNTED_NODES / 2,
    );
    let seconds = number(
        "watch_seconds",
        &draft.watch_seconds,
        info.has_span,
        LONGEST_SPAN,
    );
    Watch::of(info.name, count, seconds).unwrap_or_else(|error| {
        if !check.is_wrong("watch_count") {
            check.wrong("watch_count", sentence(&error));
        }
        Watch::default()
    })
}

pub(super) fn validate(draft: &RuleDraft) -> Result<RuleValues> {
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
    let watch = watch(&mut check, draft);
    let positive = |number: Option<u32>| number.and_then(|number| i32::try_from(number).ok());
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
        owner: check.line("owner", &draft.owner, 200),
        watch: watch.as_str().to_owned(),
        watch_count: positive(watch.count()),
        watch_seconds: positive(watch.seconds()),
        destinations,
    };
    check.done()?;
    compile(RuleId(Uuid::nil()), &values)?;
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

/// Keeps the rule as it is now.
async fn keep<R: Right>(
    app: &App,
    conn: &mut Conn,
    permit: &Permit<R>,
    (id, values, what): (RuleId, &RuleValues, &str),
) -> Result<()> {
    let actor = permit.actor();
    let made = Made {
        user_id: actor.user_id.map(|user| user.0),
        user_name: &actor.name,
        what,
        at: app.now(),
    };
    rules_revisions::insert(conn, id, values, made).await?;
    Ok(())
}

/// Makes a rule.
///
/// # Errors
/// [`Error::Invalid`].
pub async fn create(app: &App, permit: &Permit<Edit>, draft: &RuleDraft) -> Result<RuleId> {
    let values = validate(draft)?;
    let mut tx = app.db.begin().await?;
    let id = make(app, &mut tx, permit, &values).await?;
    Db::commit(tx).await?;
    Ok(id)
}

/// Makes a rule in a transaction of the caller's.
pub(super) async fn make(
    app: &App,
    conn: &mut Conn,
    permit: &Permit<Edit>,
    values: &RuleValues,
) -> Result<RuleId> {
    let id = RuleId(ostiary_boot::clock::new_id());
    explained(rule_edits::insert(conn, id, values, app.now()).await)?;
    keep(app, conn, permit, (id, values, "Made the rule")).await?;
    let change = Change {
        action: "rules.create",
        kind: "rule",
        id: id.to_string(),
        name: &values.name,
        after: Some(json!(values)),
        ..Change::default()
    };
    record(app, conn, permit, change).await?;
    Ok(id)
}

/// Changes a rule.
///
/// # Errors
/// [`Error::Invalid`], [`Error::NotFound`].
pub async fn update(app: &App, permit: &Permit<Edit>, id: RuleId, draft: &RuleDraft) -> Result<()> {
    let values = validate(draft)?;
    change(app, permit, id, (&values, "Changed the rule")).await
}

/// Makes a rule what it was after a revision. What was off stays as it was then; destinations that are gone are left out.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`] when the name is taken by now.
pub async fn return_to(app: &App, permit: &Permit<Edit>, id: RuleId, number: i32) -> Result<()> {
    let mut conn = app.db.acquire().await?;
    let values = rules_revisions::find(&mut conn, id, number)
        .await?
        .ok_or(Error::NotFound)?;
    drop(conn);
    let what = format!("Returned to revision {number}");
    change(app, permit, id, (&values, &what)).await
}

async fn change(
    app: &App,
    permit: &Permit<Edit>,
    id: RuleId,
    (values, what): (&RuleValues, &str),
) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let before = rule_edits::find(&mut tx, id)
        .await?
        .ok_or(Error::NotFound)?;
    let anew = values.means_otherwise(&before) || (values.enabled && !before.enabled);
    explained(rule_edits::update(&mut tx, id, values, (anew, app.now())).await)?;
    keep(app, &mut tx, permit, (id, values, what)).await?;
    let change = Change {
        action: "rules.update",
        kind: "rule",
        id: id.to_string(),
        name: &values.name,
        before: Some(json!(before)),
        after: Some(json!(values)),
    };
    record(app, &mut tx, permit, change).await?;
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

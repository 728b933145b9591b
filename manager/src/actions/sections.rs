//! Pieces of top-level keys of configs that have no form of their own.

use ostiary_domain::ids::SectionId;
use ostiary_domain::node_config::section::{Statement, statements};
use ostiary_domain::node_config::section_check::{KNOWN_KEYS, check_key, check_value};
use ostiary_store::Conn;
use ostiary_store::sections::{self, SectionRecord, SectionValues};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::audit::Change;
use super::config_change::{ConfigChange, Saving};
use super::section_form::{SectionForm, field_name};
use super::sql_check::{Brought, SqlUse, check_sql_among};
use super::validate::{Check, taken};
use crate::auth::{Edit, Permit};
use crate::error::{Error, Result};
use crate::state::App;

const TAKEN: &str = "There is already a section of this key and name.";

/// What is typed about a piece.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SectionDraft {
    /// The top-level key.
    pub key: String,
    /// Unique among the pieces of the key.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// JSON, unless `fields` say it.
    pub value: String,
    /// The value field by field, of keys that have such a form.
    pub fields: Option<SectionForm>,
    /// Tag expression.
    pub target: String,
    /// Where two pieces contradict each other the higher one stays; empty for 0.
    pub priority: String,
    /// Is it sent at all?
    pub enabled: bool,
}

impl From<&SectionRecord> for SectionDraft {
    fn from(record: &SectionRecord) -> Self {
        let values = &record.values;
        Self {
            key: values.key.clone(),
            name: values.name.clone(),
            description: values.description.clone(),
            value: serde_json::to_string_pretty(&values.value).unwrap_or_default(),
            fields: SectionForm::of(&values.key, &values.value),
            target: values.target.clone(),
            priority: values.priority.to_string(),
            enabled: values.enabled,
        }
    }
}

/// What to know about a piece of this key, if anything.
#[must_use]
pub fn note(key: &str) -> Option<String> {
    match KNOWN_KEYS.iter().find(|known| known.key == key) {
        None => Some(format!(
            "Ostiary does not know the key {key}: nodes get it as it is, and osqueryd ignores in silence what it does not know."
        )),
        Some(known) if known.since.is_empty() => None,
        Some(known) => Some(format!(
            "Nodes with osquery before {} ignore {key} in silence.",
            known.since
        )),
    }
}

async fn validate(app: &App, conn: &mut Conn, draft: &SectionDraft) -> Result<SectionValues> {
    let mut check = Check::default();
    let key = check.line("key", &draft.key, 100);
    if let Some(sentence) = check_key(&key) {
        check.wrong("key", sentence);
    }
    let values = SectionValues {
        name: check.name("name", &draft.name, 200),
        description: check.text("description", &draft.description, 5000),
        value: match &draft.fields {
            Some(form) => Value::Object(form.value(&mut check)),
            None => check.json("value", &check_text(&draft.value)),
        },
        target: check.target("target", &draft.target),
        priority: check.priority("priority", &draft.priority),
        enabled: draft.enabled,
        key,
    };
    if let Some(form) = &draft.fields {
        check.entries(app, conn, form, &values).await;
    } else if !check.is_wrong("value") {
        let wrong = check_value(&values.key, &values.value);
        if !wrong.is_empty() {
            check.wrong("value", wrong.join("\n"));
        }
        let found = statements(&values.key, &values.value);
        let own = [(values.key.clone(), values.value.clone())];
        check
            .statements(app, conn, "value", &values.target, (&found, &own))
            .await;
    }
    check.done()?;
    Ok(values)
}

/// Browsers send line ends as CRLF; inside JSON that is white space, but what is kept is kept without.
fn check_text(text: &str) -> String {
    text.replace("\r\n", "\n")
}

impl Check {
    /// Checks the entries of a section that was edited field by field, each at its own fields.
    async fn entries(
        &mut self,
        app: &App,
        conn: &mut Conn,
        form: &SectionForm,
        values: &SectionValues,
    ) {
        let own = [(values.key.clone(), values.value.clone())];
        for (at, entry) in form.kept() {
            let Some(value) = values.value.get(&entry.name) else {
                continue;
            };
            let names = form.shape.fields.iter().map(|field| field.member);
            let mut names = names.map(|member| field_name(at, member));
            if names.any(|name| self.is_wrong(&name)) {
                continue;
            }
            // Under a name that is fine, what is wrong is the entry's own.
            let is_own = !check_value(&values.key, &json!({"x": value})).is_empty();
            let one = json!({&entry.name: value});
            let wrong = check_value(&values.key, &one);
            if !wrong.is_empty() {
                let member = if is_own { form.shape.lists() } else { "name" };
                self.wrong(&field_name(at, member), wrong.join("\n"));
            }
            for statement in statements(&values.key, &one) {
                let used = SqlUse::of_statement(&statement, &values.target);
                let brought = Brought::Values(&own);
                let checked = check_sql_among(conn, app, &used, &statement.sql, brought);
                if let Err(problem) = checked.await {
                    self.wrong(&field_name(at, form.shape.sql()), problem.to_string());
                }
            }
        }
        let wrong = check_value(&values.key, &Value::Object(form.odd(&values.value)));
        if !wrong.is_empty() {
            self.wrong("other", wrong.join("\n"));
        }
    }

    /// Checks SQL that stands inside free JSON; `target` is which nodes get it, and the values that are brought may make tables and
    /// views for it.
    pub(super) async fn statements(
        &mut self,
        app: &App,
        conn: &mut Conn,
        field: &str,
        target: &str,
        (found, brought): (&[Statement], &[(String, Value)]),
    ) {
        let mut wrong = Vec::new();
        for statement in found {
            let used = SqlUse::of_statement(statement, target);
            let checked =
                check_sql_among(conn, app, &used, &statement.sql, Brought::Values(brought));
            if let Err(problem) = checked.await {
                wrong.push(format!("{}: {problem}", statement.place));
            }
        }
        if !wrong.is_empty() {
            self.wrong(field, wrong.join("\n"));
        }
    }

    /// Checks the keys that came with an imported pack: shapes and SQL of file paths, views and the like.
    pub(super) async fn pack_extra(
        &mut self,
        app: &App,
        conn: &mut Conn,
        target: &str,
        extra: &Map<String, Value>,
    ) {
        let own: Vec<(String, Value)> = extra
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        for (key, value) in extra {
            let wrong = check_value(key, value);
            if !wrong.is_empty() {
                self.wrong("form", format!("{key} of the pack: {}", wrong.join(" ")));
            }
            let found = statements(key, value);
            self.statements(app, conn, "form", target, (&found, &own))
                .await;
        }
    }
}

/// Makes a piece.
///
/// # Errors
/// [`Error::Invalid`], [`Error::Refused`] when a config would become too large.
pub async fn create(
    app: &App,
    permit: &Permit<Edit>,
    draft: &SectionDraft,
    saving: &Saving,
) -> Result<SectionId> {
    let id = SectionId(ostiary_boot::clock::new_id());
    let mut tx = ConfigChange::begin(app).await?;
    let values = validate(app, &mut tx, draft).await?;
    taken(
        sections::insert(&mut tx, id, &values, app.now()).await,
        "config_sections_key_name_key",
        "name",
        TAKEN,
    )?;
    let change = Change {
        action: "sections.create",
        kind: "section",
        id: id.to_string(),
        name: &values.name,
        after: Some(json!(values)),
        ..Change::default()
    };
    tx.finish(app, permit, saving, change).await?;
    Ok(id)
}

/// Changes a piece.
///
/// # Errors
/// [`Error::Invalid`], [`Error::NotFound`], [`Error::Refused`].
pub async fn update(
    app: &App,
    permit: &Permit<Edit>,
    id: SectionId,
    draft: &SectionDraft,
    saving: &Saving,
) -> Result<()> {
    let mut tx = ConfigChange::begin(app).await?;
    let before = sections::find(&mut tx, id).await?.ok_or(Error::NotFound)?;
    let values = validate(app, &mut tx, draft).await?;
    taken(
        sections::update(&mut tx, id, &values, app.now()).await,
        "config_sections_key_name_key",
        "name",
        TAKEN,
    )?;
    let change = Change {
        action: "sections.update",
        kind: "section",
        id: id.to_string(),
        name: &values.name,
        before: Some(json!(before)),
        after: Some(json!(values)),
    };
    tx.finish(app, permit, saving, change).await.map(drop)
}

/// Deletes a piece.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`] on `confirm`.
pub async fn delete(
    app: &App,
    permit: &Permit<Edit>,
    id: SectionId,
    confirm: &str,
    saving: &Saving,
) -> Result<()> {
    let mut tx = ConfigChange::begin(app).await?;
    let found = sections::find(&mut tx, id).await?.ok_or(Error::NotFound)?;
    super::validate::confirmed(confirm, &found.values.name)?;
    sections::delete(&mut tx, id).await?;
    let change = Change {
        action: "sections.delete",
        kind: "section",
        id: id.to_string(),
        name: &found.values.name,
        before: Some(json!(found)),
        after: None,
    };
    tx.finish(app, permit, saving, change).await.map(drop)
}

//! Pieces of top-level keys of configs that have no form of their own.

use ostiary_domain::ids::SectionId;
use ostiary_domain::node_config::section::{StatementKind, statements};
use ostiary_domain::node_config::section_check::KNOWN_KEYS;
use ostiary_store::Conn;
use ostiary_store::sections::{self as store, SectionRecord};
use serde_json::{Value, json};

use super::Fields;
use super::entries::{Entry, Words};
use crate::actions::config_change::Saving;
use crate::actions::section_form::{SectionForm, Shape};
use crate::actions::sections::{self, SectionDraft};
use crate::actions::sql_check::{SqlUse, StoredSql, problems_of};
use crate::auth::{Edit, Permit};
use crate::error::Result;
use crate::state::App;

/// Sections, for [`super::entries::routes`].
pub(crate) struct Sections;

impl Entry for Sections {
    type Id = SectionId;
    type Draft = SectionDraft;

    const WORDS: Words = Words {
        noun: "section",
        title: "Other sections",
        path: "/sections",
        nav: "sections",
        templates: "pages/sections",
        known_as: "section",
    };

    fn draft(fields: &Fields) -> SectionDraft {
        SectionDraft {
            key: fields.owned("key"),
            name: fields.owned("name"),
            description: fields.owned("description"),
            value: fields.owned("value"),
            fields: SectionForm::read(fields.text("key"), |name| fields.text(name)),
            target: fields.owned("target"),
            priority: fields.owned("priority"),
            enabled: fields.is_on("enabled"),
        }
    }

    fn fresh(wanted: &Fields) -> SectionDraft {
        let fresh = SectionDraft {
            key: wanted.owned("key"),
            fields: SectionForm::empty(wanted.text("key")),
            enabled: true,
            ..SectionDraft::default()
        };
        Self::shown(fresh, wanted)
    }

    fn shown(draft: SectionDraft, wanted: &Fields) -> SectionDraft {
        SectionDraft {
            fields: draft.fields.filter(|_| wanted.text("as") != "json"),
            ..draft
        }
    }

    fn statements(draft: &SectionDraft) -> Vec<StoredSql> {
        let value = serde_json::from_str(&draft.value).unwrap_or_default();
        let found = statements(draft.key.trim(), &value).into_iter();
        found
            .map(|statement| StoredSql {
                what: SqlUse::of_statement(&statement, "").what,
                place: statement.place,
                sql: statement.sql,
                platform: statement.platform,
                target: draft.target.clone(),
            })
            .collect()
    }

    fn more() -> Value {
        let keys = KNOWN_KEYS.map(|known| {
            json!({"key": known.key, "since": known.since, "meaning": known.meaning, "example": known.example})
        });
        let with_fields = KNOWN_KEYS.iter().filter_map(|known| Shape::of(known.key));
        json!({"known_keys": keys, "with_fields": with_fields.collect::<Vec<_>>()})
    }

    fn note(draft: &SectionDraft) -> Option<String> {
        sections::note(draft.key.trim())
    }

    async fn list(conn: &mut Conn) -> Result<Value> {
        let found = store::list(conn).await?;
        let of = |section: &SectionRecord| statements(&section.values.key, &section.values.value);
        let all: Vec<_> = found.iter().flat_map(of).collect();
        let problems = problems_of(conn, all.iter().map(|statement| &statement.sql)).await?;
        let shown = found.iter().map(|section| {
            let mut shown = json!(section);
            // The SQL of an automatic table is for a file of the node: what is known of the same text elsewhere does not count.
            let own = of(section).into_iter();
            let own = own.filter(|statement| statement.kind != StatementKind::AutoTable);
            let problem = own
                .filter_map(|one| Some((one.place, problems.get(&one.sql)?)))
                .next();
            shown["problem"] = json!(problem.map(|(place, problem)| format!("{place}: {problem}")));
            shown["value"] = section.values.value.to_string().into();
            shown
        });
        Ok(json!({"sections": shown.collect::<Vec<_>>()}))
    }

    async fn find(conn: &mut Conn, id: SectionId) -> Result<Option<(String, SectionDraft)>> {
        let found = store::find(conn, id).await?;
        Ok(found.map(|found| (found.values.name.clone(), SectionDraft::from(&found))))
    }

    async fn create(
        app: &App,
        permit: &Permit<Edit>,
        draft: &SectionDraft,
        saving: &Saving,
    ) -> Result<()> {
        sections::create(app, permit, draft, saving).await.map(drop)
    }

    async fn update(
        app: &App,
        permit: &Permit<Edit>,
        id: SectionId,
        draft: &SectionDraft,
        saving: &Saving,
    ) -> Result<()> {
        sections::update(app, permit, id, draft, saving).await
    }

    async fn delete(
        app: &App,
        permit: &Permit<Edit>,
        id: SectionId,
        confirm: &str,
        saving: &Saving,
    ) -> Result<()> {
        sections::delete(app, permit, id, confirm, saving).await
    }
}

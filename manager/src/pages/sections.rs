//! Pieces of top-level keys of configs that have no form of their own.

use ostiary_domain::ids::SectionId;
use ostiary_domain::node_config::section_check::KNOWN_KEYS;
use ostiary_store::{Conn, sections as store};
use serde_json::{Value, json};

use super::Fields;
use super::entries::{Entry, Words};
use crate::actions::config_change::Saving;
use crate::actions::sections::{self, SectionDraft};
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
            target: fields.owned("target"),
            priority: fields.owned("priority"),
            enabled: fields.is_on("enabled"),
        }
    }

    fn fresh() -> SectionDraft {
        SectionDraft {
            enabled: true,
            ..SectionDraft::default()
        }
    }

    fn more() -> Value {
        let keys = KNOWN_KEYS.map(|known| {
            json!({"key": known.key, "since": known.since, "meaning": known.meaning, "example": known.example})
        });
        json!({"known_keys": keys})
    }

    fn note(draft: &SectionDraft) -> Option<String> {
        sections::note(draft.key.trim())
    }

    async fn list(conn: &mut Conn) -> Result<Value> {
        let found = store::list(conn).await?;
        let shown = found.iter().map(|section| {
            let mut shown = json!(section);
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

//! Decorators: columns on every line of a node.

use ostiary_domain::ids::DecoratorId;
use ostiary_store::{Conn, decorators as store};
use serde_json::{Value, json};

use super::Fields;
use super::entries::{Entry, Words};
use crate::actions::config_change::Saving;
use crate::actions::decorators::{self, DecoratorDraft};
use crate::actions::sql_check::{SqlKind, StoredSql, problems_of};
use crate::auth::{Edit, Permit};
use crate::error::Result;
use crate::state::App;

/// For [`super::entries::routes`].
pub(crate) struct Decorators;

impl Entry for Decorators {
    type Id = DecoratorId;
    type Draft = DecoratorDraft;

    const WORDS: Words = Words {
        noun: "decorator",
        title: "Decorators",
        path: "/decorators",
        nav: "decorators",
        templates: "pages/decorators",
        known_as: "decorator",
    };

    fn draft(fields: &Fields) -> DecoratorDraft {
        DecoratorDraft {
            name: fields.owned("name"),
            moment: fields.owned("moment"),
            interval_seconds: fields.owned("interval_seconds"),
            sql: fields.owned("sql"),
            target: fields.owned("target"),
            enabled: fields.is_on("enabled"),
        }
    }

    fn fresh(_: &Fields) -> DecoratorDraft {
        DecoratorDraft {
            moment: "load".to_owned(),
            enabled: true,
            ..DecoratorDraft::default()
        }
    }

    fn statements(draft: &DecoratorDraft) -> Vec<StoredSql> {
        vec![StoredSql {
            what: SqlKind::Decorator,
            place: String::new(),
            sql: draft.sql.clone(),
            platform: String::new(),
            target: draft.target.clone(),
        }]
    }

    async fn list(conn: &mut Conn) -> Result<Value> {
        let found = store::list(conn).await?;
        let problems = problems_of(conn, found.iter().map(|one| &one.values.sql)).await?;
        let shown = found.iter().map(|one| {
            let mut shown = json!(one);
            shown["problem"] = json!(problems.get(&one.values.sql));
            shown
        });
        Ok(json!({"decorators": shown.collect::<Vec<_>>()}))
    }

    async fn find(conn: &mut Conn, id: DecoratorId) -> Result<Option<(String, DecoratorDraft)>> {
        let found = store::find(conn, id).await?;
        Ok(found.map(|found| (found.values.name.clone(), DecoratorDraft::from(&found))))
    }

    async fn create(
        app: &App,
        permit: &Permit<Edit>,
        draft: &DecoratorDraft,
        saving: &Saving,
    ) -> Result<()> {
        decorators::create(app, permit, draft, saving)
            .await
            .map(drop)
    }

    async fn update(
        app: &App,
        permit: &Permit<Edit>,
        id: DecoratorId,
        draft: &DecoratorDraft,
        saving: &Saving,
    ) -> Result<()> {
        decorators::update(app, permit, id, draft, saving).await
    }

    async fn delete(
        app: &App,
        permit: &Permit<Edit>,
        id: DecoratorId,
        confirm: &str,
        saving: &Saving,
    ) -> Result<()> {
        decorators::delete(app, permit, id, confirm, saving).await
    }
}

//! Scheduled queries, of a pack or of the schedule itself: the same form at two places.

use axum::extract::{Path, State};
use axum::response::Response;
use ostiary_domain::ids::{PackId, QueryId};
use ostiary_store::{packs, queries as store, tags};
use serde_json::{Value, json};

use super::Fields;
use super::reach::Reach;
use super::shell::Page;
use crate::actions::queries::{self, QueryDraft};
use crate::actions::sql_check::{problems_of, said_of};
use crate::auth::{Edit, Permit, View, Visitor};
use crate::error::{Error, FieldErrors, Result};
use crate::state::App;

fn draft(fields: &Fields) -> QueryDraft {
    QueryDraft {
        name: fields.owned("name"),
        sql: fields.owned("sql"),
        interval_seconds: fields.owned("interval_seconds"),
        kind: fields.owned("kind"),
        denylist: fields.is_on("denylist"),
        startup_priority: fields.owned("startup_priority"),
        platform: fields.owned("platform"),
        version: fields.owned("version"),
        shard: fields.owned("shard"),
        description: fields.owned("description"),
        value: fields.owned("value"),
        target: fields.owned("target"),
        enabled: fields.is_on("enabled"),
    }
}

/// Where the form lies: in a pack or in the schedule; for a new query or for one that exists.
#[derive(Debug, Clone, Copy)]
struct Place {
    pack: Option<PackId>,
    query: Option<QueryId>,
}

impl Place {
    fn base(self) -> String {
        self.pack.map_or_else(
            || "/queries".to_owned(),
            |pack| format!("/packs/{pack}/queries"),
        )
    }

    /// Where one comes back to.
    fn back(self) -> String {
        self.pack
            .map_or_else(|| "/queries".to_owned(), |pack| format!("/packs/{pack}"))
    }

    async fn context(self, app: &App, form: &QueryDraft, errors: FieldErrors) -> Result<Value> {
        let mut conn = app.db.acquire().await?;
        let pack = match self.pack {
            Some(id) => Some(packs::find(&mut conn, id).await?.ok_or(Error::NotFound)?),
            None => None,
        };
        let query = match self.query {
            Some(id) => store::find(&mut conn, id)
                .await?
                .map(|query| json!({"id": query.id, "name": query.name})),
            None => None,
        };
        let action = self
            .query
            .map_or_else(|| self.base(), |id| format!("{}/{id}", self.base()));
        let mut shown = json!(form);
        shown["delete"] = self.query.map(|_| format!("{action}/delete")).into();
        shown["cancel"] = self.back().into();
        shown["action"] = action.into();
        Ok(json!({
            "pack": pack.map(|pack| json!({"id": pack.id, "name": pack.name})), "query": query, "form": shown, "errors": errors,
            "all_tags": tags::names(&mut conn).await?, "said": [],
        }))
    }

    async fn form(self, app: App, visitor: Visitor) -> Result<Response> {
        let form = QueryDraft {
            interval_seconds: "3600".to_owned(),
            kind: "differential".to_owned(),
            denylist: true,
            enabled: true,
            ..QueryDraft::default()
        };
        self.page("New query")
            .show(
                &app,
                &visitor,
                self.context(&app, &form, FieldErrors::default()).await?,
            )
            .await
    }

    async fn create(
        self,
        app: App,
        visitor: Visitor,
        permit: Permit<Edit>,
        fields: Fields,
    ) -> Result<Response> {
        let form = draft(&fields);
        let saving = fields.saving();
        match queries::create(&app, &permit, self.pack, &form, &saving).await {
            Ok(_) => {
                warn(&visitor, &form).await?;
                visitor
                    .done(
                        &self.back(),
                        "The query was made. Nodes get it with their next config.",
                    )
                    .await
            }
            Err(error) => {
                let context = self.context(&app, &form, error.into_fields()?).await?;
                self.page("New query")
                    .show_again(&app, &visitor, saving.kept_in(context))
                    .await
            }
        }
    }

    async fn edit(self, app: App, visitor: Visitor, id: QueryId) -> Result<Response> {
        let found = store::find(&mut *app.db.acquire().await?, id).await?;
        let query = found
            .filter(|query| query.pack_id == self.pack.map(|id| id.0))
            .ok_or(Error::NotFound)?;
        let form = QueryDraft::from(&query);
        let mut context = self.context(&app, &form, FieldErrors::default()).await?;
        let mut conn = app.db.acquire().await?;
        let stored = queries::stored_sql(&mut conn, self.pack, &form).await?;
        context["said"] = json!(said_of(&app, &mut conn, &[stored]).await);
        drop(conn);
        self.page(&format!("Edit {}", query.name))
            .show(&app, &visitor, context)
            .await
    }

    async fn update(
        self,
        app: App,
        visitor: Visitor,
        permit: Permit<Edit>,
        id: QueryId,
        fields: Fields,
    ) -> Result<Response> {
        let form = draft(&fields);
        let saving = fields.saving();
        match queries::update(&app, &permit, self.pack, id, &form, &saving).await {
            Ok(()) => {
                warn(&visitor, &form).await?;
                visitor
                    .done(&self.back(), "Saved. Nodes get it with their next config.")
                    .await
            }
            Err(error) => {
                let context = self.context(&app, &form, error.into_fields()?).await?;
                self.page(&format!("Edit {}", form.name))
                    .show_again(&app, &visitor, saving.kept_in(context))
                    .await
            }
        }
    }

    async fn delete(
        self,
        app: App,
        visitor: Visitor,
        permit: Permit<Edit>,
        id: QueryId,
        fields: Fields,
    ) -> Result<Response> {
        let result = queries::delete(
            &app,
            &permit,
            self.pack,
            id,
            fields.text("confirm"),
            &fields.saving(),
        )
        .await;
        let again = format!("{}/{id}/edit", self.base());
        visitor
            .answer(result, &self.back(), "The query was deleted.", &again)
            .await
    }

    fn page(self, title: &str) -> Page<'_> {
        let nav = if self.pack.is_some() {
            "packs"
        } else {
            "queries"
        };
        Page {
            template: "pages/queries/form.html",
            title,
            nav,
        }
    }
}

/// Says what is odd about what was saved.
async fn warn(visitor: &Visitor, saved: &QueryDraft) -> Result<()> {
    for note in queries::notes(saved) {
        visitor.flash("warning", note).await?;
    }
    Ok(())
}

/// `GET /queries`
pub(crate) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let reach = Reach::load(&mut conn).await?;
    let found = store::list(&mut conn, None).await?;
    let problems = problems_of(&mut conn, found.iter().map(|query| &query.sql)).await?;
    drop(conn);
    let shown = found.iter().map(|query| {
        let mut shown = json!(query);
        shown["problem"] = json!(problems.get(&query.sql));
        shown["nodes"] = json!(if query.enabled {
            reach.count(&query.target)
        } else {
            Some(0)
        });
        shown
    });
    let context = json!({"queries": shown.collect::<Vec<_>>()});
    Page {
        template: "pages/queries/list.html",
        title: "Schedule",
        nav: "queries",
    }
    .show(&app, &visitor, context)
    .await
}

/// `GET /queries/new`
pub(crate) async fn new(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Edit>,
) -> Result<Response> {
    Place {
        pack: None,
        query: None,
    }
    .form(app, visitor)
    .await
}

/// `POST /queries`
pub(crate) async fn create(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    fields: Fields,
) -> Result<Response> {
    Place {
        pack: None,
        query: None,
    }
    .create(app, visitor, permit, fields)
    .await
}

/// `GET /queries/{id}/edit`
pub(crate) async fn edit(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Edit>,
    Path(id): Path<QueryId>,
) -> Result<Response> {
    Place {
        pack: None,
        query: Some(id),
    }
    .edit(app, visitor, id)
    .await
}

/// `POST /queries/{id}`
pub(crate) async fn update(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<QueryId>,
    fields: Fields,
) -> Result<Response> {
    Place {
        pack: None,
        query: Some(id),
    }
    .update(app, visitor, permit, id, fields)
    .await
}

/// `POST /queries/{id}/delete`
pub(crate) async fn delete(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<QueryId>,
    fields: Fields,
) -> Result<Response> {
    Place {
        pack: None,
        query: Some(id),
    }
    .delete(app, visitor, permit, id, fields)
    .await
}

/// `GET /packs/{pack}/queries/new`
pub(crate) async fn new_in_pack(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Edit>,
    Path(pack): Path<PackId>,
) -> Result<Response> {
    Place {
        pack: Some(pack),
        query: None,
    }
    .form(app, visitor)
    .await
}

/// `POST /packs/{pack}/queries`
pub(crate) async fn create_in_pack(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(pack): Path<PackId>,
    fields: Fields,
) -> Result<Response> {
    Place {
        pack: Some(pack),
        query: None,
    }
    .create(app, visitor, permit, fields)
    .await
}

/// `GET /packs/{pack}/queries/{id}/edit`
pub(crate) async fn edit_in_pack(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Edit>,
    Path((pack, id)): Path<(PackId, QueryId)>,
) -> Result<Response> {
    Place {
        pack: Some(pack),
        query: Some(id),
    }
    .edit(app, visitor, id)
    .await
}

/// `POST /packs/{pack}/queries/{id}`
pub(crate) async fn update_in_pack(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path((pack, id)): Path<(PackId, QueryId)>,
    fields: Fields,
) -> Result<Response> {
    Place {
        pack: Some(pack),
        query: Some(id),
    }
    .update(app, visitor, permit, id, fields)
    .await
}

/// `POST /packs/{pack}/queries/{id}/delete`
pub(crate) async fn delete_in_pack(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path((pack, id)): Path<(PackId, QueryId)>,
    fields: Fields,
) -> Result<Response> {
    Place {
        pack: Some(pack),
        query: Some(id),
    }
    .delete(app, visitor, permit, id, fields)
    .await
}

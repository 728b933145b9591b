//! Packs: what nodes are asked.

use axum::extract::{Path, State};
use axum::response::Response;
use ostiary_domain::ids::PackId;
use ostiary_domain::node_config::conditions::Conditions;
use ostiary_store::packs::{self as store, PackRecord};
use ostiary_store::{queries, tags};
use serde_json::{Value, json};

use super::Fields;
use super::reach::Reach;
use super::shell::Page;
use crate::actions::packs::{self, PackDraft};
use crate::actions::sql_check::problems_of;
use crate::auth::{Edit, Permit, View, Visitor};
use crate::error::{Error, FieldErrors, Result};
use crate::state::App;

fn draft(fields: &Fields) -> PackDraft {
    PackDraft {
        name: fields.owned("name"),
        description: fields.owned("description"),
        target: fields.owned("target"),
        platform: fields.owned("platform"),
        version: fields.owned("version"),
        shard: fields.owned("shard"),
        discovery: fields.owned("discovery"),
        enabled: fields.is_on("enabled"),
    }
}

/// `GET /packs`
pub(crate) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let reach = Reach::load(&mut conn).await?;
    let packs: Vec<Value> = store::list(&mut conn)
        .await?
        .iter()
        .map(|pack| shown(pack, &reach))
        .collect();
    drop(conn);
    Page {
        template: "pages/packs/list.html",
        title: "Packs",
        nav: "packs",
    }
    .show(&app, &visitor, json!({"packs": packs}))
    .await
}

fn shown(pack: &PackRecord, reach: &Reach) -> Value {
    let mut shown = json!(pack);
    shown["nodes"] = json!(if pack.enabled {
        reach.count(&pack.target)
    } else {
        Some(0)
    });
    let conditions = Conditions {
        platform: &pack.platform,
        version: &pack.version,
        shard: pack.shard,
    };
    shown["running"] = json!(
        reach
            .count_running(&pack.target, conditions)
            .filter(|_| pack.enabled)
    );
    shown
}

/// `GET /packs/{id}`
pub(crate) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Path(id): Path<PackId>,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let pack = store::find(&mut conn, id).await?.ok_or(Error::NotFound)?;
    let queries = queries::list(&mut conn, Some(id)).await?;
    let reach = Reach::load(&mut conn).await?;
    let problems = problems_of(&mut conn, queries.iter().map(|query| &query.sql)).await?;
    drop(conn);
    let queries = queries.iter().map(|query| {
        let mut shown = json!(query);
        shown["problem"] = json!(problems.get(&query.sql));
        shown
    });
    let context = json!({"pack": shown(&pack, &reach), "queries": queries.collect::<Vec<_>>()});
    Page {
        template: "pages/packs/show.html",
        title: &pack.name,
        nav: "packs",
    }
    .show(&app, &visitor, context)
    .await
}

async fn context(
    app: &App,
    pack: Option<(PackId, &str)>,
    form: &PackDraft,
    errors: FieldErrors,
) -> Result<Value> {
    let all_tags = tags::names(&mut *app.db.acquire().await?).await?;
    let pack = pack.map(|(id, name)| json!({"id": id, "name": name}));
    Ok(json!({"pack": pack, "form": form, "errors": errors, "all_tags": all_tags}))
}

const FORM: &str = "pages/packs/form.html";

/// `GET /packs/new`
pub(crate) async fn new(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Edit>,
) -> Result<Response> {
    let form = PackDraft {
        enabled: true,
        ..PackDraft::default()
    };
    let context = context(&app, None, &form, FieldErrors::default()).await?;
    Page {
        template: FORM,
        title: "New pack",
        nav: "packs",
    }
    .show(&app, &visitor, context)
    .await
}

/// `POST /packs`
pub(crate) async fn create(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    fields: Fields,
) -> Result<Response> {
    let form = draft(&fields);
    let saving = fields.saving();
    match packs::create(&app, &permit, &form, &saving).await {
        Ok(id) => {
            visitor
                .done(
                    &format!("/packs/{id}"),
                    "The pack was made. Nodes get it with their next config.",
                )
                .await
        }
        Err(error) => {
            let context = context(&app, None, &form, error.into_fields()?).await?;
            Page {
                template: FORM,
                title: "New pack",
                nav: "packs",
            }
            .show_again(&app, &visitor, saving.kept_in(context))
            .await
        }
    }
}

/// `GET /packs/{id}/edit`
pub(crate) async fn edit(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Edit>,
    Path(id): Path<PackId>,
) -> Result<Response> {
    let pack = store::find(&mut *app.db.acquire().await?, id)
        .await?
        .ok_or(Error::NotFound)?;
    let context = context(
        &app,
        Some((id, &pack.name)),
        &PackDraft::from(&pack),
        FieldErrors::default(),
    )
    .await?;
    Page {
        template: FORM,
        title: &format!("Edit {}", pack.name),
        nav: "packs",
    }
    .show(&app, &visitor, context)
    .await
}

/// `POST /packs/{id}`
pub(crate) async fn update(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<PackId>,
    fields: Fields,
) -> Result<Response> {
    let form = draft(&fields);
    let saving = fields.saving();
    match packs::update(&app, &permit, id, &form, &saving).await {
        Ok(()) => {
            visitor
                .done(
                    &format!("/packs/{id}"),
                    "Saved. Nodes get it with their next config.",
                )
                .await
        }
        Err(error) => {
            let errors = error.into_fields()?;
            let pack = store::find(&mut *app.db.acquire().await?, id)
                .await?
                .ok_or(Error::NotFound)?;
            let context = context(&app, Some((id, &pack.name)), &form, errors).await?;
            Page {
                template: FORM,
                title: &format!("Edit {}", pack.name),
                nav: "packs",
            }
            .show_again(&app, &visitor, saving.kept_in(context))
            .await
        }
    }
}

/// `POST /packs/{id}/delete`
pub(crate) async fn delete(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<PackId>,
    fields: Fields,
) -> Result<Response> {
    let result = packs::delete(&app, &permit, id, fields.text("confirm"), &fields.saving()).await;
    visitor
        .answer(
            result,
            "/packs",
            "The pack was deleted.",
            &format!("/packs/{id}"),
        )
        .await
}

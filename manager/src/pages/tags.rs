//! Tags: what hangs together?

use std::collections::HashMap;

use axum::extract::{Path, State};
use axum::response::Response;
use ostiary_domain::ids::TagId;
use ostiary_domain::target::Target;
use ostiary_store::tags::{self as store, TagLine};
use ostiary_store::{Conn, packs};
use serde_json::{Value, json};

use super::Fields;
use super::shell::Page;
use crate::actions::tags::{self, TagDraft};
use crate::auth::{Edit, Permit, View, Visitor};
use crate::error::{Error, FieldErrors, Result};
use crate::state::App;

const LIST: Page<'static> = Page {
    template: "pages/tags/list.html",
    title: "Tags",
    nav: "tags",
};

fn draft(fields: &Fields) -> TagDraft {
    TagDraft {
        name: fields.owned("name"),
        description: fields.owned("description"),
    }
}

/// How many packs name each tag in their target, by lower-cased name.
async fn packs_by_tag(conn: &mut Conn) -> Result<HashMap<String, usize>> {
    let mut counts = HashMap::new();
    for pack in packs::list(conn).await? {
        let Ok(target) = Target::parse(&pack.target) else {
            continue;
        };
        let mut names: Vec<String> = target.tags().into_iter().map(str::to_lowercase).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            *counts.entry(name).or_insert(0) += 1;
        }
    }
    Ok(counts)
}

fn shown(tag: &TagLine, packs: &HashMap<String, usize>) -> Value {
    let mut shown = json!(tag);
    shown["packs"] = json!(packs.get(&tag.name.to_lowercase()).copied().unwrap_or(0));
    shown
}

async fn list_context(app: &App, form: &TagDraft, errors: FieldErrors) -> Result<Value> {
    let mut conn = app.db.acquire().await?;
    let packs = packs_by_tag(&mut conn).await?;
    let tags: Vec<Value> = store::list(&mut conn)
        .await?
        .iter()
        .map(|tag| shown(tag, &packs))
        .collect();
    Ok(json!({"tags": tags, "form": form, "errors": errors}))
}

/// `GET /tags`
pub(crate) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
) -> Result<Response> {
    LIST.show(
        &app,
        &visitor,
        list_context(&app, &TagDraft::default(), FieldErrors::default()).await?,
    )
    .await
}

/// `POST /tags`
pub(crate) async fn create(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    fields: Fields,
) -> Result<Response> {
    let form = draft(&fields);
    match tags::create(&app, &permit, &form).await {
        Ok(_) => {
            visitor
                .done("/tags", format!("The tag {} was made.", form.name.trim()))
                .await
        }
        Err(error) => {
            LIST.show_again(
                &app,
                &visitor,
                list_context(&app, &form, error.into_fields()?).await?,
            )
            .await
        }
    }
}

async fn form_context(
    app: &App,
    id: TagId,
    form: Option<&TagDraft>,
    errors: FieldErrors,
) -> Result<(String, Value)> {
    let mut conn = app.db.acquire().await?;
    let tag = store::list(&mut conn)
        .await?
        .into_iter()
        .find(|tag| tag.id == id.0)
        .ok_or(Error::NotFound)?;
    let packs = packs_by_tag(&mut conn).await?;
    let stored = TagDraft {
        name: tag.name.clone(),
        description: tag.description.clone(),
    };
    let context =
        json!({"tag": shown(&tag, &packs), "form": form.unwrap_or(&stored), "errors": errors});
    Ok((format!("Edit {}", tag.name), context))
}

/// `GET /tags/{id}/edit`
pub(crate) async fn edit(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Edit>,
    Path(id): Path<TagId>,
) -> Result<Response> {
    let (title, context) = form_context(&app, id, None, FieldErrors::default()).await?;
    Page {
        template: "pages/tags/form.html",
        title: &title,
        nav: "tags",
    }
    .show(&app, &visitor, context)
    .await
}

/// `POST /tags/{id}`
pub(crate) async fn update(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<TagId>,
    fields: Fields,
) -> Result<Response> {
    let form = draft(&fields);
    match tags::update(&app, &permit, id, &form).await {
        Ok(()) => visitor.done("/tags", "Saved.").await,
        Err(error) => {
            let (title, context) =
                form_context(&app, id, Some(&form), error.into_fields()?).await?;
            Page {
                template: "pages/tags/form.html",
                title: &title,
                nav: "tags",
            }
            .show_again(&app, &visitor, context)
            .await
        }
    }
}

/// `POST /tags/{id}/delete`
pub(crate) async fn delete(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<TagId>,
    fields: Fields,
) -> Result<Response> {
    let result = tags::delete(&app, &permit, id, fields.text("confirm")).await;
    visitor
        .answer(
            result,
            "/tags",
            "The tag was deleted.",
            &format!("/tags/{id}/edit"),
        )
        .await
}

//! The pages of small things of configs: a list, and one form to make, change and delete one. What such a thing is, its module says
//! by [`Entry`]; larger things have pages of their own.

use std::fmt::Display;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::routing::{get, post};
use ostiary_store::{Conn, tags};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Fields;
use super::shell::Page;
use crate::actions::config_change::Saving;
use crate::actions::sql_check::{StoredSql, said_of};
use crate::auth::{Edit, Permit, View, Visitor};
use crate::error::{Error, FieldErrors, Result};
use crate::state::App;

/// What pages call a thing, and where they lie.
pub(crate) struct Words {
    /// `file path`.
    pub(crate) noun: &'static str,
    /// The list's title.
    pub(crate) title: &'static str,
    /// `/file-paths`.
    pub(crate) path: &'static str,
    /// Its entry in the side bar.
    pub(crate) nav: &'static str,
    /// The folder of its templates, `list.html` and `form.html`.
    pub(crate) templates: &'static str,
    /// What the form's template calls the thing that is edited: `file_path`.
    pub(crate) known_as: &'static str,
}

/// A small thing of configs.
pub(crate) trait Entry: 'static {
    /// Which.
    type Id: Copy + Display + Serialize + DeserializeOwned + Send + Sync + 'static;
    /// What is typed.
    type Draft: Serialize + Send + Sync + 'static;

    /// What pages call it.
    const WORDS: Words;

    /// What a form sent.
    fn draft(fields: &Fields) -> Self::Draft;

    /// What a new form shows; `wanted` is what stands in its address.
    fn fresh(wanted: &Fields) -> Self::Draft;

    /// What the form of a thing shows at first; `wanted` is what stands in its address.
    fn shown(draft: Self::Draft, _wanted: &Fields) -> Self::Draft {
        draft
    }

    /// The SQL of a thing that is stored.
    fn statements(_draft: &Self::Draft) -> Vec<StoredSql> {
        Vec::new()
    }

    /// Members that the form's context has besides.
    fn more() -> Value {
        json!({})
    }

    /// What to know about what was saved, if anything.
    fn note(_: &Self::Draft) -> Option<String> {
        None
    }

    /// The context of the list.
    fn list(conn: &mut Conn) -> impl Future<Output = Result<Value>> + Send;

    /// Its name and what its form shows.
    fn find(
        conn: &mut Conn,
        id: Self::Id,
    ) -> impl Future<Output = Result<Option<(String, Self::Draft)>>> + Send;

    /// Makes one.
    fn create(
        app: &App,
        permit: &Permit<Edit>,
        draft: &Self::Draft,
        saving: &Saving,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Changes one.
    fn update(
        app: &App,
        permit: &Permit<Edit>,
        id: Self::Id,
        draft: &Self::Draft,
        saving: &Saving,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Deletes one.
    fn delete(
        app: &App,
        permit: &Permit<Edit>,
        id: Self::Id,
        confirm: &str,
        saving: &Saving,
    ) -> impl Future<Output = Result<()>> + Send;
}

/// The routes of a thing: `/things`, `/things/new`, `/things/{id}`, `/things/{id}/edit`, `/things/{id}/delete`.
pub(crate) fn routes<E: Entry>() -> Router<App> {
    let path = E::WORDS.path;
    Router::new()
        .route(path, get(list::<E>).post(create::<E>))
        .route(&format!("{path}/new"), get(new::<E>))
        .route(&format!("{path}/{{id}}"), post(update::<E>))
        .route(&format!("{path}/{{id}}/edit"), get(edit::<E>))
        .route(&format!("{path}/{{id}}/delete"), post(delete::<E>))
}

fn page<E: Entry>(title: &str) -> Page<'_> {
    Page {
        template: E::WORDS.templates,
        title,
        nav: E::WORDS.nav,
    }
}

async fn context<E: Entry>(
    app: &App,
    known: Option<(E::Id, &str)>,
    form: &E::Draft,
    errors: FieldErrors,
) -> Result<Value> {
    let mut context = E::more();
    let known = known.map(|(id, name)| json!({"id": id, "name": name}));
    context[E::WORDS.known_as] = json!(known);
    context["form"] = json!(form);
    context["errors"] = json!(errors);
    context["said"] = json!([]);
    context["all_tags"] = json!(tags::names(&mut *app.db.acquire().await?).await?);
    Ok(context)
}

async fn show_form<E: Entry>(
    app: &App,
    visitor: &Visitor,
    title: &str,
    context: Value,
) -> Result<Response> {
    let template = format!("{}/form.html", E::WORDS.templates);
    Page {
        template: &template,
        ..page::<E>(title)
    }
    .show(app, visitor, context)
    .await
}

async fn show_form_again<E: Entry>(
    app: &App,
    visitor: &Visitor,
    title: &str,
    context: Value,
) -> Result<Response> {
    let template = format!("{}/form.html", E::WORDS.templates);
    Page {
        template: &template,
        ..page::<E>(title)
    }
    .show_again(app, visitor, context)
    .await
}

async fn list<E: Entry>(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
) -> Result<Response> {
    let context = E::list(&mut *app.db.acquire().await?).await?;
    let template = format!("{}/list.html", E::WORDS.templates);
    Page {
        template: &template,
        ..page::<E>(E::WORDS.title)
    }
    .show(&app, &visitor, context)
    .await
}

async fn new<E: Entry>(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Edit>,
    RawQuery(wanted): RawQuery,
) -> Result<Response> {
    let form = E::fresh(&Fields::parse(wanted.unwrap_or_default().as_bytes()));
    let context = context::<E>(&app, None, &form, FieldErrors::default()).await?;
    show_form::<E>(&app, &visitor, &new_title::<E>(), context).await
}

fn new_title<E: Entry>() -> String {
    format!("New {}", E::WORDS.noun)
}

async fn create<E: Entry>(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    fields: Fields,
) -> Result<Response> {
    let (form, saving) = (E::draft(&fields), fields.saving());
    match E::create(&app, &permit, &form, &saving).await {
        Ok(()) => {
            let sentence = format!(
                "The {} was made. Nodes get it with their next config.",
                E::WORDS.noun
            );
            saved::<E>(&visitor, &form, sentence).await
        }
        Err(error) => {
            let context = context::<E>(&app, None, &form, error.into_fields()?).await?;
            let context = saving.kept_in(context);
            show_form_again::<E>(&app, &visitor, &new_title::<E>(), context).await
        }
    }
}

async fn saved<E: Entry>(visitor: &Visitor, form: &E::Draft, sentence: String) -> Result<Response> {
    if let Some(note) = E::note(form) {
        visitor.flash("warning", note).await?;
    }
    visitor.done(E::WORDS.path, sentence).await
}

async fn find<E: Entry>(app: &App, id: E::Id) -> Result<(String, E::Draft)> {
    E::find(&mut *app.db.acquire().await?, id)
        .await?
        .ok_or(Error::NotFound)
}

async fn edit<E: Entry>(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Edit>,
    Path(id): Path<E::Id>,
    RawQuery(wanted): RawQuery,
) -> Result<Response> {
    let (name, form) = find::<E>(&app, id).await?;
    let form = E::shown(form, &Fields::parse(wanted.unwrap_or_default().as_bytes()));
    let mut context = context::<E>(&app, Some((id, &name)), &form, FieldErrors::default()).await?;
    let mut conn = app.db.acquire().await?;
    context["said"] = json!(said_of(&app, &mut conn, &E::statements(&form)).await);
    drop(conn);
    show_form::<E>(&app, &visitor, &format!("Edit {name}"), context).await
}

async fn update<E: Entry>(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<E::Id>,
    fields: Fields,
) -> Result<Response> {
    let (form, saving) = (E::draft(&fields), fields.saving());
    match E::update(&app, &permit, id, &form, &saving).await {
        Ok(()) => {
            let sentence = "Saved. Nodes get it with their next config.".to_owned();
            saved::<E>(&visitor, &form, sentence).await
        }
        Err(error) => {
            let errors = error.into_fields()?;
            let (name, _) = find::<E>(&app, id).await?;
            let context = context::<E>(&app, Some((id, &name)), &form, errors).await?;
            let context = saving.kept_in(context);
            show_form_again::<E>(&app, &visitor, &format!("Edit {name}"), context).await
        }
    }
}

async fn delete<E: Entry>(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<E::Id>,
    fields: Fields,
) -> Result<Response> {
    let path = E::WORDS.path;
    let result = E::delete(&app, &permit, id, fields.text("confirm"), &fields.saving()).await;
    let sentence = format!("The {} was deleted.", E::WORDS.noun);
    visitor
        .answer(result, path, &sentence, &format!("{path}/{id}/edit"))
        .await
}

//! Revisions of everything that configs are made of, for programs: what was changed when and by whom, and the way back.

use axum::Json;
use axum::extract::{Path, State};
use ostiary_domain::revision::{Objects, diff};
use ostiary_store::{Conn, config_revisions as store};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Asked, Paging, listed};
use crate::actions::config_change::Saving;
use crate::actions::revisions;
use crate::auth::{Edit, Permit, View};
use crate::error::{Error, Result};
use crate::state::App;

/// How a change is to be saved; the same as the fields of a form.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    /// `once` or `stages`; left out, what the settings say.
    saving: String,
    /// Only say what would happen: in `errors.preview` of a refusal.
    preview: bool,
    /// `errors.cut_off_digest` of a refusal, which confirms what it names.
    cut_off: String,
    /// `errors.cut_off_word`, where that must be typed.
    cut_off_typed: String,
}

impl From<Wanted> for Saving {
    fn from(wanted: Wanted) -> Self {
        Self {
            how: wanted.saving,
            preview: wanted.preview,
            confirmed: wanted.cut_off,
            typed: wanted.cut_off_typed,
        }
    }
}

/// `GET /api/v1/revisions`, newest first.
pub(crate) async fn list(
    State(app): State<App>,
    _: Permit<View>,
    Asked(paging): Asked<Paging>,
) -> Result<Json<Value>> {
    let paging = paging.request::<1>()?;
    let page = store::list(&mut *app.db.acquire().await?, &paging).await?;
    Ok(listed(&page.items, page.next.as_deref()))
}

/// `GET /api/v1/revisions/{number}`: with all objects as they were after it, and what it changed.
pub(crate) async fn show(
    State(app): State<App>,
    _: Permit<View>,
    Path(number): Path<i64>,
) -> Result<Json<Value>> {
    let mut conn = app.db.acquire().await?;
    let (line, objects) = store::find(&mut conn, number)
        .await?
        .ok_or(Error::NotFound)?;
    let before = store::find(&mut conn, number - 1).await?;
    let mut shown = json!(line);
    shown["changes"] = json!(before.map(|(_, before)| diff(&before, &objects)));
    shown["objects"] = json!(objects);
    Ok(Json(shown))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Compared {
    from: Option<i64>,
}

/// `GET /api/v1/revisions/{number}/diff?from=`: what differs from another revision to this one; without `from`, from how things are
/// now, which is what a return would do.
pub(crate) async fn differences(
    State(app): State<App>,
    _: Permit<View>,
    Path(number): Path<i64>,
    Asked(wanted): Asked<Compared>,
) -> Result<Json<Value>> {
    let mut conn = app.db.acquire().await?;
    let from = match wanted.from {
        Some(number) => objects_of(&mut conn, number).await?,
        None => store::objects(&mut conn).await?,
    };
    let to = objects_of(&mut conn, number).await?;
    Ok(Json(
        json!({"from": wanted.from, "to": number, "changes": diff(&from, &to)}),
    ))
}

async fn objects_of(conn: &mut Conn, number: i64) -> Result<Objects> {
    let (_, objects) = store::find(conn, number).await?.ok_or(Error::NotFound)?;
    Ok(objects)
}

/// `POST /api/v1/revisions/{number}/return`; answers the new revision.
pub(crate) async fn return_to(
    State(app): State<App>,
    permit: Permit<Edit>,
    Path(number): Path<i64>,
    Json(wanted): Json<Wanted>,
) -> Result<Json<Value>> {
    let revision = revisions::return_to(&app, &permit, number, &wanted.into()).await?;
    Ok(Json(json!({"revision": revision})))
}

//! Uploads between the page that shows what they would do and the click that does it: each is its sender's alone, for an hour.

use ostiary_domain::ids::UserId;
use ostiary_store::Db;
use ostiary_store::uploads::{self, NewUpload};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use uuid::Uuid;

use crate::auth::{Permit, Right};
use crate::error::{Error, Result};
use crate::state::App;

fn user_of<R: Right>(permit: &Permit<R>) -> Result<UserId> {
    permit.actor().user_id.ok_or(Error::NotFound)
}

/// Keeps one for its sender, and returns its id. **Invariant:** no secret and no node key is in it.
///
/// # Errors
/// Postgres failed, or a command asks: it keeps nothing.
pub(super) async fn keep<R: Right>(
    app: &App,
    permit: &Permit<R>,
    kind: &str,
    content: &impl Serialize,
) -> Result<Uuid> {
    let id = ostiary_boot::clock::new_id();
    let mut tx = app.db.begin().await?;
    let upload = NewUpload {
        id,
        user: user_of(permit)?,
        kind,
        content: &json!(content),
    };
    uploads::insert(&mut tx, &upload, app.now()).await?;
    Db::commit(tx).await?;
    Ok(id)
}

/// One that its sender has kept.
///
/// # Errors
/// [`Error::NotFound`] when it is another's, or its hour is over.
pub(super) async fn find<R: Right, T: DeserializeOwned>(
    app: &App,
    permit: &Permit<R>,
    kind: &str,
    id: Uuid,
) -> Result<T> {
    let mut conn = app.db.acquire().await?;
    let content = uploads::find(&mut conn, id, user_of(permit)?, kind, app.now()).await?;
    serde_json::from_value(content.ok_or(Error::NotFound)?).map_err(|_| Error::NotFound)
}

/// Forgets one: it was applied.
///
/// # Errors
/// Postgres failed.
pub(super) async fn forget<R: Right>(app: &App, permit: &Permit<R>, id: Uuid) -> Result<()> {
    uploads::delete(&mut *app.db.acquire().await?, id, user_of(permit)?).await?;
    Ok(())
}

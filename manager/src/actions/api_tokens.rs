//! API tokens: made by a user for themselves, with their rights.

use chrono::TimeDelta;
use ostiary_boot::seal::random_token;
use ostiary_domain::ids::UserId;
use ostiary_store::{Db, api_tokens};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::audit::{Change, record};
use super::validate::Check;
use crate::auth::{Admin, Permit, Right, View, hash_token};
use crate::error::{Error, Result};
use crate::state::App;

/// What is typed about a token.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TokenDraft {
    /// What it is for.
    pub name: String,
    /// Days until it ends; empty for never.
    pub expires_days: String,
}

/// Makes a token for whoever holds the permit and returns it; it is never shown again.
///
/// # Errors
/// [`Error::Invalid`].
pub async fn create(app: &App, permit: &Permit<View>, draft: &TokenDraft) -> Result<String> {
    let user = permit.actor().user_id.ok_or(Error::Unauthenticated)?;
    create_for(app, permit, user, draft).await
}

/// Makes a token for any user; for the command line.
///
/// # Errors
/// [`Error::Invalid`].
pub async fn create_for<R: Right>(
    app: &App,
    permit: &Permit<R>,
    user: UserId,
    draft: &TokenDraft,
) -> Result<String> {
    let mut check = Check::default();
    let name = check.name("name", &draft.name, 100);
    let days = check.optional_number("expires_days", &draft.expires_days, 1, 3650);
    check.done()?;
    let token = format!("ostiary_{}", random_token::<32>());
    let (id, now) = (ostiary_boot::clock::new_id(), app.now());
    let expires_at = days.map(|days| now + TimeDelta::days(days));
    let mut tx = app.db.begin().await?;
    api_tokens::insert(
        &mut tx,
        id,
        &name,
        &hash_token(&token),
        user,
        expires_at,
        now,
    )
    .await?;
    let after = Some(json!({"name": name, "user_id": user, "expires_at": expires_at}));
    let change = Change {
        action: "api_tokens.create",
        kind: "api_token",
        id: id.to_string(),
        name: &name,
        after,
        ..Change::default()
    };
    record(app, &mut tx, permit, change).await?;
    Db::commit(tx).await?;
    Ok(token)
}

/// Revokes a token: one's own, or, as an admin, anybody's.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn revoke(app: &App, permit: &Permit<View>, id: Uuid) -> Result<()> {
    let of = if Permit::<Admin>::for_actor(permit.actor()).is_ok() {
        None
    } else {
        permit.actor().user_id
    };
    let mut tx = app.db.begin().await?;
    let name = api_tokens::revoke(&mut tx, id, of, app.now())
        .await?
        .ok_or(Error::NotFound)?;
    let change = Change {
        action: "api_tokens.revoke",
        kind: "api_token",
        id: id.to_string(),
        name: &name,
        ..Change::default()
    };
    record(app, &mut tx, permit, change).await?;
    Ok(Db::commit(tx).await?)
}

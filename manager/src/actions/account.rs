//! What people change of themselves, and proving once more who they are.

use ostiary_store::{Db, sessions, users};

use super::audit::{Change, record};
use super::users::check_password;
use super::validate::Check;
use crate::auth::{Permit, Right, View, Visitor, hash_password, verify_password};
use crate::error::{Error, Result};
use crate::state::App;

/// Changes the own password; all other sessions of the user end.
///
/// # Errors
/// [`Error::Invalid`] on `current_password` or `new_password`.
pub async fn change_password(
    app: &App,
    permit: &Permit<View>,
    visitor: &Visitor,
    current: &str,
    new: &str,
) -> Result<()> {
    let id = permit.actor().user_id.ok_or(Error::Unauthenticated)?;
    let mut check = Check::default();
    check_password(&mut check, "new_password", new);
    check.done()?;
    prove(app, permit, visitor, "current_password", current).await?;
    let hash = hash_password(new.to_owned()).await?;
    let mut tx = app.db.begin().await?;
    users::set_password(&mut tx, id, &hash, app.now()).await?;
    sessions::delete_of_user(
        &mut tx,
        id,
        visitor.session_hash().as_ref().map(<[u8; 32]>::as_slice),
    )
    .await?;
    let name = permit.actor().name.clone();
    let change = Change {
        action: "account.change_password",
        kind: "user",
        id: id.to_string(),
        name: &name,
        ..Change::default()
    };
    record(app, &mut tx, permit, change).await?;
    Ok(Db::commit(tx).await?)
}

/// Step-up: the password once more, before something that a stolen session must not give. Counted like a sign-in.
///
/// # Errors
/// [`Error::Invalid`] on `field` when it is wrong, [`Error::TooMany`] after too many attempts.
pub async fn prove<R: Right>(
    app: &App,
    permit: &Permit<R>,
    visitor: &Visitor,
    field: &str,
    password: &str,
) -> Result<()> {
    let name = permit.actor().name.clone();
    let window = chrono::TimeDelta::minutes(app.settings.manager.sign_in_window_minutes);
    let now = app.now();
    let subject = format!("user:{}", name.to_lowercase());
    let (attempts, ends_at) =
        sessions::count_attempt(&mut *app.db.acquire().await?, &subject, window, now).await?;
    if attempts > app.settings.manager.sign_in_attempts_per_user {
        tracing::warn!(user.name = name, ip = %visitor.address.0, "too many passwords tried within a session");
        return Err(Error::TooMany {
            retry_after: (ends_at - now).num_seconds().max(1),
        });
    }
    let found = users::find_credentials(&mut *app.db.acquire().await?, &name).await?;
    if !verify_password(
        password.to_owned(),
        found.and_then(|user| user.password_hash),
    )
    .await?
    {
        return Err(Error::field(field, "This is not your password."));
    }
    Ok(sessions::forgive(&mut *app.db.acquire().await?, &subject, i32::MAX).await?)
}

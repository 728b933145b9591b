//! Signing in and out. The only actions without a permit: they are how one gets to it.

use chrono::TimeDelta;
use ostiary_domain::ids::UserId;
use ostiary_store::audit::{NewEntry, insert};
use ostiary_store::{Db, sessions, users};

use crate::auth::{Visitor, verify_password};
use crate::error::{Error, Result};
use crate::state::App;

/// The same sentence whatever was wrong: who guesses learns nothing of names.
const REFUSED: &str = "Name or password is wrong.";

/// Signs a visitor in by name and password.
///
/// # Errors
/// [`Error::Invalid`] on `form` for a wrong name or password, [`Error::TooMany`] after too many attempts for this name or from this
/// address.
pub async fn sign_in(app: &App, visitor: &Visitor, name: &str, password: &str) -> Result<()> {
    let name: String = name.trim().chars().take(200).collect();
    let subjects = count_attempt(app, visitor, &name).await?;
    let found = users::find_credentials(&mut *app.db.acquire().await?, &name).await?;
    let hash = found.as_ref().and_then(|user| user.password_hash.clone());
    let fits = verify_password(password.to_owned(), hash).await?;
    let user = found.filter(|user| fits && user.disabled_at.is_none());
    let mut tx = app.db.begin().await?;
    let action = if user.is_some() {
        "session.sign_in"
    } else {
        "session.sign_in_refused"
    };
    let entry = NewEntry {
        user_id: user.as_ref().map(|user| UserId(user.id)),
        user_name: user.as_ref().map_or(name.as_str(), |user| &user.name),
        action,
        ip: Some(visitor.address.0),
        ..NewEntry::default()
    };
    insert(&mut tx, &entry, app.now()).await?;
    if user.is_some() {
        for subject in &subjects {
            // The name starts anew; of the address only this attempt is taken back, else one account would unlock guessing at others.
            let by = if subject.starts_with("user:") {
                i32::MAX
            } else {
                1
            };
            sessions::forgive(&mut tx, subject, by).await?;
        }
    }
    Db::commit(tx).await?;
    let user = user.ok_or_else(|| Error::field("form", REFUSED))?;
    visitor.begin(app, UserId(user.id)).await
}

/// Counts before the password is looked at, so that many attempts at once cannot slip through.
async fn count_attempt(app: &App, visitor: &Visitor, name: &str) -> Result<[String; 2]> {
    let options = &app.settings.manager;
    let window = TimeDelta::minutes(options.sign_in_window_minutes);
    let now = app.now();
    let subjects = [
        format!("user:{}", name.to_lowercase()),
        format!("address:{}", visitor.address.0),
    ];
    let limits = [
        options.sign_in_attempts_per_user,
        options.sign_in_attempts_per_address,
    ];
    let mut conn = app.db.acquire().await?;
    for (subject, limit) in subjects.iter().zip(limits) {
        let (attempts, ends_at) = sessions::count_attempt(&mut conn, subject, window, now).await?;
        if attempts > limit {
            return Err(Error::TooMany {
                retry_after: (ends_at - now).num_seconds().max(1),
            });
        }
    }
    Ok(subjects)
}

/// Signs a visitor out.
///
/// # Errors
/// Postgres failed.
pub async fn sign_out(app: &App, visitor: &Visitor) -> Result<()> {
    if let Some(actor) = &visitor.actor {
        let entry = NewEntry {
            user_id: actor.user_id,
            user_name: &actor.name,
            action: "session.sign_out",
            ip: actor.ip,
            ..NewEntry::default()
        };
        insert(&mut *app.db.acquire().await?, &entry, app.now()).await?;
    }
    visitor.end().await
}

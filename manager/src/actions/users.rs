//! Users: who may sign in, and as what.

use ostiary_domain::ids::UserId;
use ostiary_store::{Conn, Db, sessions, users};
use serde::Serialize;
use serde_json::json;

use super::audit::{Change, record};
use super::validate::{Check, taken};
use crate::auth::{Admin, Permit, Role, hash_password};
use crate::error::{Error, Result};
use crate::state::App;

const NAME_TAKEN: &str = "There is already a user of this name.";

/// What is typed about a user.
#[derive(Debug, Clone, Default, Serialize)]
pub struct UserDraft {
    /// For signing in.
    pub name: String,
    /// May be empty.
    pub email: String,
    /// `viewer`, `editor` or `admin`.
    pub role: String,
}

fn validate(check: &mut Check, draft: &UserDraft) -> (String, Option<String>) {
    let name = check.name("name", &draft.name, 100);
    let email = check.line("email", &draft.email, 254);
    if !email.is_empty()
        && !email
            .split_once('@')
            .is_some_and(|(user, host)| !user.is_empty() && host.contains('.'))
    {
        check.wrong("email", "This is not an e-mail address.");
    }
    if Role::parse(&draft.role).is_none() {
        check.wrong("role", "Choose a role.");
    }
    (name, Some(email).filter(|email| !email.is_empty()))
}

/// NIST SP 800-63B: length matters, composition rules do not.
pub(super) fn check_password(check: &mut Check, field: &str, password: &str) {
    let length = password.chars().count();
    if length < 12 {
        check.wrong(
            field,
            "A password needs 12 characters or more; a few words do well.",
        );
    } else if length > 1000 {
        check.wrong(field, "A password may have 1000 characters at most.");
    }
}

/// Makes a user with a password.
///
/// # Errors
/// [`Error::Invalid`] on `name`, `email`, `role` or `password`.
pub async fn create(
    app: &App,
    permit: &Permit<Admin>,
    draft: &UserDraft,
    password: &str,
) -> Result<UserId> {
    let mut check = Check::default();
    let (name, email) = validate(&mut check, draft);
    check_password(&mut check, "password", password);
    check.done()?;
    let hash = hash_password(password.to_owned()).await?;
    let id = UserId(ostiary_boot::clock::new_id());
    let mut tx = app.db.begin().await?;
    let inserted = users::insert(
        &mut tx,
        id,
        &name,
        email.as_deref(),
        &draft.role,
        Some(&hash),
        app.now(),
    )
    .await;
    taken(inserted, "users_name_key", "name", NAME_TAKEN)?;
    let after = Some(json!({"name": name, "email": email, "role": draft.role}));
    let change = Change {
        action: "users.create",
        kind: "user",
        id: id.to_string(),
        name: &name,
        after,
        ..Change::default()
    };
    record(app, &mut tx, permit, change).await?;
    Db::commit(tx).await?;
    Ok(id)
}

/// Changes name, address and role.
///
/// # Errors
/// [`Error::Invalid`], [`Error::NotFound`], [`Error::Refused`] for the last admin.
pub async fn update(
    app: &App,
    permit: &Permit<Admin>,
    id: UserId,
    draft: &UserDraft,
) -> Result<()> {
    let mut check = Check::default();
    let (name, email) = validate(&mut check, draft);
    check.done()?;
    let mut tx = app.db.begin().await?;
    let before = users::find(&mut tx, id).await?.ok_or(Error::NotFound)?;
    if draft.role != Role::Admin.as_str() {
        keep_an_admin(&mut tx, id).await?;
    }
    let updated = users::update(&mut tx, id, &name, email.as_deref(), &draft.role).await;
    taken(updated, "users_name_key", "name", NAME_TAKEN)?;
    let before = Some(json!({"name": before.name, "email": before.email, "role": before.role}));
    let after = Some(json!({"name": name, "email": email, "role": draft.role}));
    record(
        app,
        &mut tx,
        permit,
        Change {
            action: "users.update",
            kind: "user",
            id: id.to_string(),
            name: &name,
            before,
            after,
        },
    )
    .await?;
    Ok(Db::commit(tx).await?)
}

/// Gives a user another password; all their sessions end.
///
/// # Errors
/// [`Error::Invalid`] on `new_password`, [`Error::NotFound`].
pub async fn set_password(
    app: &App,
    permit: &Permit<Admin>,
    id: UserId,
    password: &str,
) -> Result<()> {
    let mut check = Check::default();
    check_password(&mut check, "new_password", password);
    check.done()?;
    let hash = hash_password(password.to_owned()).await?;
    let mut tx = app.db.begin().await?;
    let user = users::find(&mut tx, id).await?.ok_or(Error::NotFound)?;
    users::set_password(&mut tx, id, &hash, app.now()).await?;
    sessions::delete_of_user(&mut tx, id, None).await?;
    let change = Change {
        action: "users.set_password",
        kind: "user",
        id: id.to_string(),
        name: &user.name,
        ..Change::default()
    };
    record(app, &mut tx, permit, change).await?;
    Ok(Db::commit(tx).await?)
}

/// Bars or admits a user; who is barred is signed out at once.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Refused`] for the last admin.
pub async fn set_disabled(
    app: &App,
    permit: &Permit<Admin>,
    id: UserId,
    disabled: bool,
) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let user = users::find(&mut tx, id).await?.ok_or(Error::NotFound)?;
    if disabled {
        keep_an_admin(&mut tx, id).await?;
        sessions::delete_of_user(&mut tx, id, None).await?;
    }
    users::set_disabled(&mut tx, id, disabled.then(|| app.now())).await?;
    let action = if disabled {
        "users.disable"
    } else {
        "users.enable"
    };
    record(
        app,
        &mut tx,
        permit,
        Change {
            action,
            kind: "user",
            id: id.to_string(),
            name: &user.name,
            ..Change::default()
        },
    )
    .await?;
    Ok(Db::commit(tx).await?)
}

/// Deletes a user with sessions and tokens.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`] on `confirm`, [`Error::Refused`] for the last admin.
pub async fn delete(app: &App, permit: &Permit<Admin>, id: UserId, confirm: &str) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let user = users::find(&mut tx, id).await?.ok_or(Error::NotFound)?;
    super::validate::confirmed(confirm, &user.name)?;
    keep_an_admin(&mut tx, id).await?;
    users::delete(&mut tx, id).await?;
    let before = Some(json!({"name": user.name, "email": user.email, "role": user.role}));
    let change = Change {
        action: "users.delete",
        kind: "user",
        id: id.to_string(),
        name: &user.name,
        before,
        after: None,
    };
    record(app, &mut tx, permit, change).await?;
    Ok(Db::commit(tx).await?)
}

/// Refuses to take the last admin away, under a lock, so that two admins cannot remove each other at the same moment.
async fn keep_an_admin(conn: &mut Conn, id: UserId) -> Result<()> {
    let admins = users::lock_admins(conn).await?;
    if admins == [id] {
        return Err(Error::Refused(
            "This is the last admin: make another one first.".to_owned(),
        ));
    }
    Ok(())
}

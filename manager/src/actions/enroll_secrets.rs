//! Enroll secrets: made here, shown once, and again only after the password; the api finds them by their HMAC.

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_boot::seal::random_token;
use ostiary_domain::enrollment::Approval;
use ostiary_domain::ids::{EnrollSecretId, TagId};
use ostiary_store::enroll_secrets::{self, NewSecret, SecretTerms};
use ostiary_store::{Db, tags};
use serde::Serialize;
use serde_json::json;

use super::account::prove;
use super::audit::{Change, record};
use super::tags::tag_name;
use super::validate::{Check, taken, words};
use crate::auth::{Admin, Permit, Visitor};
use crate::error::{Error, Result};
use crate::state::App;

/// For what a secret is sealed; the api opens none, it only compares.
const PURPOSE: &str = "enroll_secret";

/// What is typed about a secret.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SecretDraft {
    /// Unique.
    pub name: String,
    /// Given to nodes that enroll with it; commas or blanks between.
    pub tags: String,
    /// Days until it ends; empty for never.
    pub expires_days: String,
    /// How often it may be used; empty for any number.
    pub use_limit: String,
    /// Which enrollments wait for an admin: `none` (or empty), `reestablished` or `all`.
    pub approval: String,
}

fn approval_of(check: &mut Check, text: &str) -> Approval {
    match text.trim() {
        "" => Approval::None,
        text => Approval::from_str_opt(text).unwrap_or_else(|| {
            check.wrong("approval", "There is no such choice.");
            Approval::All
        }),
    }
}

/// Makes a secret of 192 random bits and returns it.
///
/// # Errors
/// [`Error::Invalid`].
pub async fn create(app: &App, permit: &Permit<Admin>, draft: &SecretDraft) -> Result<String> {
    let secret = random_token::<24>();
    create_with(app, permit, draft, &secret).await?;
    Ok(secret)
}

/// Stores a secret that was chosen elsewhere; for the command line.
///
/// # Errors
/// [`Error::Invalid`], also on `secret` when nodes could not send it.
pub async fn create_with(
    app: &App,
    permit: &Permit<Admin>,
    draft: &SecretDraft,
    secret: &str,
) -> Result<EnrollSecretId> {
    let mut check = Check::default();
    let name = check.name("name", &draft.name, 100);
    let tag_names: Vec<String> = words(&draft.tags)
        .iter()
        .map(|tag| tag_name(&mut check, "tags", tag))
        .collect();
    let days = check.optional_number("expires_days", &draft.expires_days, 1, 3650);
    let use_limit = check
        .optional_number("use_limit", &draft.use_limit, 1, 1_000_000)
        .and_then(|limit| i32::try_from(limit).ok());
    let approval = approval_of(&mut check, &draft.approval);
    // osqueryd can put it unencoded into a URL (`tls_enroll_override` and `tls_secret_always`).
    if secret.len() < 16
        || !secret
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.~".contains(c))
    {
        check.wrong(
            "secret",
            "A secret has 16 or more of the characters A-Z, a-z, 0-9, - . _ ~",
        );
    }
    check.done()?;
    let (id, now) = (EnrollSecretId(ostiary_boot::clock::new_id()), app.now());
    let key = &app.settings.keys.enroll;
    let (hmac, sealed) = (
        key.hmac(secret.as_bytes()),
        key.seal(PURPOSE, secret.as_bytes()),
    );
    let new = NewSecret {
        id,
        name: &name,
        hmac: &hmac,
        sealed: &sealed,
        tags: &tag_names,
        approval,
        expires_at: days.map(|days| now + TimeDelta::days(days)),
        use_limit,
        created_by: permit.actor().user_id,
    };
    let mut tx = app.db.begin().await?;
    for tag in &tag_names {
        tags::ensure(&mut tx, TagId(ostiary_boot::clock::new_id()), tag, now).await?;
    }
    let inserted = enroll_secrets::insert(&mut tx, &new, now).await;
    if inserted
        .as_ref()
        .is_err_and(|error| error.is_constraint("enroll_secrets_secret_hmac_key"))
    {
        return Err(Error::field(
            "secret",
            "This secret is stored already, under another name.",
        ));
    }
    taken(
        inserted,
        "enroll_secrets_name_key",
        "name",
        "There is already a secret of this name.",
    )?;
    let after = Some(
        json!({"name": name, "tags": tag_names, "expires_at": new.expires_at, "use_limit": use_limit, "approval": approval.as_str()}),
    );
    let change = Change {
        action: "enroll_secrets.create",
        kind: "enroll_secret",
        id: id.to_string(),
        name: &name,
        after,
        ..Change::default()
    };
    record(app, &mut tx, permit, change).await?;
    Db::commit(tx).await?;
    Ok(id)
}

/// Changes on what terms a secret is taken: `expires_days` from now on (empty for never), `use_limit` and `approval` of the draft.
///
/// # Errors
/// [`Error::Invalid`], [`Error::NotFound`].
pub async fn update(
    app: &App,
    permit: &Permit<Admin>,
    id: EnrollSecretId,
    draft: &SecretDraft,
) -> Result<()> {
    let mut check = Check::default();
    let days = check.optional_number("expires_days", &draft.expires_days, 0, 3650);
    let use_limit = check
        .optional_number("use_limit", &draft.use_limit, 1, 1_000_000)
        .and_then(|limit| i32::try_from(limit).ok());
    let approval = approval_of(&mut check, &draft.approval);
    check.done()?;
    let mut tx = app.db.begin().await?;
    let before = enroll_secrets::find(&mut tx, id)
        .await?
        .ok_or(Error::NotFound)?;
    let terms = SecretTerms {
        approval,
        expires_at: days.map(|days| app.now() + TimeDelta::days(days)),
        use_limit,
    };
    enroll_secrets::update(&mut tx, id, &terms).await?;
    let told = |expires_at: &Option<DateTime<Utc>>, use_limit: Option<i32>, approval: &str| {
        Some(json!({"expires_at": expires_at, "use_limit": use_limit, "approval": approval}))
    };
    let change = Change {
        action: "enroll_secrets.update",
        kind: "enroll_secret",
        id: id.to_string(),
        name: &before.name,
        before: told(&before.expires_at, before.use_limit, &before.approval),
        after: told(&terms.expires_at, use_limit, approval.as_str()),
    };
    record(app, &mut tx, permit, change).await?;
    Ok(Db::commit(tx).await?)
}

/// Revokes a secret: nobody enrolls with it any more; nodes that did keep their keys.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn revoke(app: &App, permit: &Permit<Admin>, id: EnrollSecretId) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let name = enroll_secrets::revoke(&mut tx, id, app.now())
        .await?
        .ok_or(Error::NotFound)?;
    let change = Change {
        action: "enroll_secrets.revoke",
        kind: "enroll_secret",
        id: id.to_string(),
        name: &name,
        ..Change::default()
    };
    record(app, &mut tx, permit, change).await?;
    Ok(Db::commit(tx).await?)
}

/// Shows a secret again, for the password, and says so in the audit log. Returns name and secret.
///
/// # Errors
/// [`Error::Invalid`] on `password`, [`Error::NotFound`], [`Error::Refused`] when another key sealed it.
pub async fn reveal(
    app: &App,
    permit: &Permit<Admin>,
    visitor: &Visitor,
    id: EnrollSecretId,
    password: &str,
) -> Result<(String, String)> {
    prove(app, permit, visitor, "password", password).await?;
    let mut tx = app.db.begin().await?;
    let (name, sealed) = enroll_secrets::find_sealed(&mut tx, id)
        .await?
        .ok_or(Error::NotFound)?;
    let secret = app
        .settings
        .keys
        .enroll
        .open(PURPOSE, &sealed)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let secret = secret.ok_or_else(|| {
        Error::Refused(format!(
            "{name} was sealed with another key than [keys] enroll of today."
        ))
    })?;
    let change = Change {
        action: "enroll_secrets.reveal",
        kind: "enroll_secret",
        id: id.to_string(),
        name: &name,
        ..Change::default()
    };
    record(app, &mut tx, permit, change).await?;
    Db::commit(tx).await?;
    Ok((name, secret))
}

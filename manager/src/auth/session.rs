//! Sessions of people: who is signed in, what they are told once, and the token of their forms.

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use chrono::{DateTime, TimeDelta, Utc};
use ostiary_domain::ids::UserId;
use ostiary_store::users;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use tower_sessions::{Expiry, Session};

use super::{Actor, Address, Role};
use crate::error::{Error, Result};
use crate::state::App;

/// Where the user's id stands in a session; the store copies it to its column.
pub(super) const USER_ID: &str = "user_id";
const SIGNED_IN_AT: &str = "signed_in_at";
const SEEN_AT: &str = "seen_at";
const CSRF: &str = "csrf";
const FLASH: &str = "flash";

/// A sentence that is shown once, on the next page.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Flash {
    /// `success`, `info`, `warning` or `danger`.
    pub kind: String,
    /// The sentence.
    pub text: String,
}

/// Whoever looks at a page, signed in or not.
#[derive(Debug, Clone)]
pub struct Visitor {
    session: Session,
    /// `None`: nobody is signed in.
    pub actor: Option<Actor>,
    /// Where the request comes from.
    pub address: Address,
}

impl<S: Send + Sync> FromRequestParts<S> for Visitor {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Error::Internal(anyhow::anyhow!("a page outside of the sessions")))
    }
}

/// Middleware of the pages: finds out who asks and puts a [`Visitor`] and, if somebody is signed in, an [`Actor`] into the request.
pub async fn identify(
    State(app): State<App>,
    session: Session,
    mut request: Request,
    next: Next,
) -> Response {
    let address = Address::of(&request, &app.settings.manager.trusted_proxies);
    let actor = match signed_in(&app, &session, address).await {
        Ok(actor) => actor,
        Err(error) => return error.into_response(),
    };
    if let Some(actor) = &actor {
        request.extensions_mut().insert(actor.clone());
    }
    request.extensions_mut().insert(Visitor {
        session,
        actor,
        address,
    });
    next.run(request).await
}

async fn signed_in(app: &App, session: &Session, address: Address) -> Result<Option<Actor>> {
    let Some(id) = session.get::<UserId>(USER_ID).await? else {
        return Ok(None);
    };
    let now = app.now();
    let signed_in_at = session
        .get::<DateTime<Utc>>(SIGNED_IN_AT)
        .await?
        .unwrap_or(DateTime::UNIX_EPOCH);
    let mut conn = app.db.acquire().await?;
    let user = users::find(&mut conn, id)
        .await?
        .filter(|user| user.disabled_at.is_none());
    let too_old = now - signed_in_at > TimeDelta::hours(app.settings.manager.session_hours);
    let Some((user, role)) = user
        .filter(|_| !too_old)
        .and_then(|user| Role::parse(&user.role).map(|role| (user, role)))
    else {
        session.flush().await?;
        return Ok(None);
    };
    session.set_expiry(Some(idle_expiry(app)));
    // Saved at most every few minutes: each saving is a write, and it moves the end of the session.
    let seen_at = session
        .get::<DateTime<Utc>>(SEEN_AT)
        .await?
        .unwrap_or(DateTime::UNIX_EPOCH);
    if now - seen_at > TimeDelta::minutes(5) {
        session.insert(SEEN_AT, now).await?;
    }
    Ok(Some(Actor {
        user_id: Some(id),
        name: user.name,
        role,
        ip: Some(address.0),
    }))
}

fn idle_expiry(app: &App) -> Expiry {
    Expiry::OnInactivity(time::Duration::minutes(
        app.settings.manager.session_idle_minutes,
    ))
}

/// The token that forms of this session carry; made when first asked for.
///
/// # Errors
/// The session cannot be kept.
pub async fn token_of(session: &Session) -> Result<String> {
    if let Some(token) = session.get::<String>(CSRF).await? {
        return Ok(token);
    }
    let token = ostiary_boot::seal::random_token::<24>();
    session.insert(CSRF, &token).await?;
    Ok(token)
}

impl Visitor {
    /// Who is signed in.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`]: nobody.
    pub fn actor(&self) -> Result<&Actor> {
        self.actor.as_ref().ok_or(Error::Unauthenticated)
    }

    /// The token of this visitor's forms.
    ///
    /// # Errors
    /// The session cannot be kept.
    pub async fn csrf(&self) -> Result<String> {
        token_of(&self.session).await
    }

    /// Is this the token of this visitor's forms?
    ///
    /// # Errors
    /// The session cannot be read.
    pub async fn knows_csrf(&self, token: &str) -> Result<bool> {
        let own = self.session.get::<String>(CSRF).await?;
        Ok(own.is_some_and(|own| bool::from(own.as_bytes().ct_eq(token.as_bytes()))))
    }

    /// Keeps a sentence for the next page.
    ///
    /// # Errors
    /// The session cannot be kept.
    pub async fn flash(&self, kind: &str, text: impl Into<String>) -> Result<()> {
        let mut flashes = self
            .session
            .get::<Vec<Flash>>(FLASH)
            .await?
            .unwrap_or_default();
        flashes.push(Flash {
            kind: kind.to_owned(),
            text: text.into(),
        });
        self.session.insert(FLASH, flashes).await?;
        Ok(())
    }

    /// Takes the sentences that are due.
    ///
    /// # Errors
    /// The session cannot be kept.
    pub async fn take_flashes(&self) -> Result<Vec<Flash>> {
        if self.session.get_value(FLASH).await?.is_none() {
            return Ok(Vec::new());
        }
        Ok(self.session.remove(FLASH).await?.unwrap_or_default())
    }

    /// Begins a session for a user: under a new id, with a new token, and nothing of what was before.
    ///
    /// # Errors
    /// The session cannot be kept.
    pub async fn begin(&self, app: &App, user: UserId) -> Result<()> {
        self.session.clear().await;
        self.session.cycle_id().await?;
        self.session.insert(USER_ID, user).await?;
        self.session.insert(SIGNED_IN_AT, app.now()).await?;
        self.session.insert(SEEN_AT, app.now()).await?;
        self.session.set_expiry(Some(idle_expiry(app)));
        Ok(())
    }

    /// Ends the session.
    ///
    /// # Errors
    /// The session cannot be deleted.
    pub async fn end(&self) -> Result<()> {
        Ok(self.session.flush().await?)
    }

    /// The hash under which the session is stored, to spare it when the others of its user are ended.
    #[must_use]
    pub fn session_hash(&self) -> Option<[u8; 32]> {
        self.session
            .id()
            .map(|id| super::session_store::hash_id(&id))
    }
}

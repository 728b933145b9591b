//! Bearer tokens of REST. Cookies mean nothing there, so no other site can act through a browser.

use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use chrono::TimeDelta;
use ostiary_domain::ids::UserId;
use ostiary_store::api_tokens;
use sha2::{Digest as _, Sha256};

use super::{Actor, Address, Role};
use crate::error::{Error, Result};
use crate::state::App;

/// By which a token is found. It holds 256 random bits, so a plain hash is enough.
#[must_use]
pub fn hash_token(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Middleware of REST: whoever has no valid token gets no further.
pub async fn identify_by_token(
    State(app): State<App>,
    mut request: Request,
    next: Next,
) -> Response {
    // Taken out first: a request may not be shared while we wait.
    let token = bearer(&request).map(ToOwned::to_owned);
    let address = Address::of(&request, &app.settings.manager.trusted_proxies);
    match owner(&app, token, address).await {
        Ok(actor) => {
            request.extensions_mut().insert(actor);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

fn bearer(request: &Request) -> Option<&str> {
    let (scheme, token) = request
        .headers()
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}

async fn owner(app: &App, token: Option<String>, address: Address) -> Result<Actor> {
    let token = token.ok_or(Error::Unauthenticated)?;
    let now = app.now();
    let mut conn = app.db.acquire().await?;
    let found = api_tokens::find_owner(&mut conn, &hash_token(&token), now)
        .await?
        .ok_or(Error::Unauthenticated)?;
    let role = Role::parse(&found.role).ok_or(Error::Unauthenticated)?;
    if found
        .last_used_at
        .is_none_or(|used| now - used > TimeDelta::minutes(1))
    {
        api_tokens::note_use(&mut conn, found.token_id, now).await?;
    }
    Ok(Actor {
        user_id: Some(UserId(found.user_id)),
        name: found.user_name,
        role,
        ip: Some(address.0),
    })
}

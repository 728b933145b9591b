//! The dead man's signal: a regular call to a URL by which somebody outside knows that Ostiary works. When it stays away, that service
//! tells people; Ostiary itself could not.
//!
//! **Honest:** no call is made unless Postgres answers, an api is there, posts are worked and deliveries are made. So it says more than
//! that this process runs.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_store::{Conn, Result, api_uptime, deliveries, pending};
use serde::Deserialize;

use crate::App;

/// What is due and has waited for longer is stuck.
const STUCK_AFTER: TimeDelta = TimeDelta::minutes(10);

/// Settings `[dead_man]`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadMan {
    /// What is called; whoever knows it could call in our place, so it is a secret. Empty: nobody is.
    pub url: String,
    /// How often, in seconds.
    pub every_seconds: u64,
}

impl Default for DeadMan {
    fn default() -> Self {
        Self {
            url: String::new(),
            every_seconds: 60,
        }
    }
}

impl fmt::Debug for DeadMan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadMan")
            .field("is_set", &!self.url.is_empty())
            .field("every_seconds", &self.every_seconds)
            .finish()
    }
}

/// Calls the URL of the settings, if all is well; says whether it did, and was heard.
///
/// # Errors
/// Postgres failed, so nobody is called.
pub(crate) async fn signal(app: &App) -> Result<bool> {
    let url = &app.settings.dead_man.url;
    if url.is_empty() {
        return Ok(false);
    }
    let mut conn = app.db.acquire().await?;
    let trouble = find_trouble(&mut conn, app.now()).await?;
    drop(conn);
    if let Some(trouble) = trouble {
        tracing::warn!(trouble, "no sign of life is given");
        return Ok(false);
    }
    match app.outbound.sign_of_life(url).await {
        Ok(answer) => {
            tracing::debug!(answer, "a sign of life was given");
            Ok(true)
        }
        Err(error) => {
            tracing::warn!(
                answer = error.answer(),
                "the sign of life was not heard; it is given again"
            );
            Ok(false)
        }
    }
}

/// Why Ostiary does not do what it is for.
async fn find_trouble(conn: &mut Conn, now: DateTime<Utc>) -> Result<Option<&'static str>> {
    let stuck = now - STUCK_AFTER;
    if !api_uptime::is_up(conn, now).await? {
        return Ok(Some("no api is there"));
    }
    if pending::is_any_due_since(conn, stuck).await? {
        return Ok(Some("posts are not worked"));
    }
    if !deliveries::list_due(conn, stuck, 1).await?.is_empty() {
        return Ok(Some("deliveries are not made"));
    }
    Ok(None)
}

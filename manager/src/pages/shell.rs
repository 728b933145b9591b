//! The frame of every page: who is signed in, the side bar, sentences that are due.

use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use ostiary_store::{finding_lists, node_conflicts, nodes, rollouts};
use serde_json::{Value, json};

use crate::auth::{Role, Visitor};
use crate::error::Result;
use crate::state::App;
use crate::views::Context;

/// A page to be shown: its template, title and place in the side bar.
#[derive(Debug, Clone)]
pub(super) struct Page<'a> {
    pub(super) template: &'a str,
    pub(super) title: &'a str,
    pub(super) nav: &'a str,
}

impl Page<'_> {
    /// Fills and renders the page. `context` is an object.
    pub(super) async fn show(
        &self,
        app: &App,
        visitor: &Visitor,
        context: Value,
    ) -> Result<Response> {
        self.show_with(StatusCode::OK, app, visitor, context).await
    }

    /// The same, for a form that was refused.
    pub(super) async fn show_again(
        &self,
        app: &App,
        visitor: &Visitor,
        context: Value,
    ) -> Result<Response> {
        self.show_with(StatusCode::UNPROCESSABLE_ENTITY, app, visitor, context)
            .await
    }

    pub(super) async fn show_with(
        &self,
        status: StatusCode,
        app: &App,
        visitor: &Visitor,
        context: Value,
    ) -> Result<Response> {
        let mut frame = frame(app, visitor, self.title, self.nav).await?;
        if let Value::Object(own) = context {
            frame.extend(own);
        }
        let html = app.views.render(self.template, &frame)?;
        // What a signed-in person sees must not be read from a shared cache, nor with the back button after signing out.
        Ok((status, [(header::CACHE_CONTROL, "no-store")], Html(html)).into_response())
    }
}

async fn frame(app: &App, visitor: &Visitor, title: &str, nav: &str) -> Result<Context> {
    let actor = visitor.actor.as_ref();
    let (open_findings, rollout, undecided) = match actor {
        // A page about an unreachable database must come out without it.
        Some(_) => match app.db.acquire().await {
            Ok(mut conn) => (
                finding_lists::count_open(&mut conn).await.unwrap_or(0),
                rollouts::find_active(&mut conn).await.unwrap_or(None),
                (
                    node_conflicts::count(&mut conn).await.unwrap_or(0),
                    nodes::count_waiting(&mut conn).await.unwrap_or(0),
                ),
            ),
            Err(_) => (0, None, (0, 0)),
        },
        None => (0, None, (0, 0)),
    };
    let least = |role: Role| actor.is_some_and(|actor| actor.role >= role);
    let frame = json!({
        "page": {"title": title, "nav": nav},
        "user": actor.map(|actor| json!({"id": actor.user_id, "name": actor.name, "role": actor.role})),
        "can": {"edit": least(Role::Editor), "query": least(Role::Editor), "admin": least(Role::Admin)},
        "csrf": visitor.csrf().await?,
        "flash": visitor.take_flashes().await?,
        "open_findings": open_findings,
        "rollout": rollout,
        "undecided": {"conflicts": undecided.0, "approvals": undecided.1},
        "saving": {"how": if app.settings.rollouts.save_in_stages { "stages" } else { "once" }, "typed": ""},
        "now": app.now(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    match frame {
        Value::Object(frame) => Ok(frame),
        _ => Ok(Context::new()),
    }
}

impl Visitor {
    /// After a change: to another page, with a sentence there.
    pub(super) async fn done(&self, to: &str, sentence: impl Into<String>) -> Result<Response> {
        self.flash("success", sentence).await?;
        Ok(Redirect::to(to).into_response())
    }

    /// After a small form was refused: back to its page, with the reason there.
    pub(super) async fn refused(&self, to: &str, error: crate::error::Error) -> Result<Response> {
        let errors = error.into_fields()?;
        // Of the cut-off guard only the sentences are for people.
        let sentences = (errors.0.into_iter())
            .filter(|(field, _)| !matches!(field.as_str(), "cut_off_digest" | "cut_off_word"));
        for (_, sentence) in sentences {
            self.flash("danger", sentence).await?;
        }
        Ok(Redirect::to(to).into_response())
    }

    /// Either of both.
    pub(super) async fn answer(
        &self,
        result: Result<()>,
        done: &str,
        sentence: &str,
        refused: &str,
    ) -> Result<Response> {
        match result {
            Ok(()) => self.done(done, sentence).await,
            Err(error) => self.refused(refused, error).await,
        }
    }
}

//! The one error of the manager, and what it looks like: a page for people, problem JSON (RFC 9457) for programs.

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use serde_json::json;

use crate::auth::Visitor;
use crate::state::App;

/// What handlers and actions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What is wrong with which field of a form, in whole sentences. The field `form` stands for no field in particular.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct FieldErrors(pub BTreeMap<String, String>);

impl FieldErrors {
    /// One error.
    pub fn one(field: &str, sentence: impl Into<String>) -> Self {
        let mut errors = Self::default();
        errors.add(field, sentence);
        errors
    }

    /// Adds an error; of several on one field the first stays.
    pub fn add(&mut self, field: &str, sentence: impl Into<String>) {
        self.0
            .entry(field.to_owned())
            .or_insert_with(|| sentence.into());
    }
}

/// Why a request cannot be answered as it wished.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such thing (any more).
    #[error("not found")]
    NotFound,
    /// Nobody is signed in, or the token is unknown.
    #[error("sign in first")]
    Unauthenticated,
    /// The role does not suffice.
    #[error("{0}")]
    Forbidden(String),
    /// Fields of a form.
    #[error("some fields need another value")]
    Invalid(FieldErrors),
    /// It cannot be done as things stand; says why.
    #[error("{0}")]
    Refused(String),
    /// Too many attempts.
    #[error("too many attempts")]
    TooMany {
        /// Seconds until the next may succeed.
        retry_after: i64,
    },
    /// Too much of this is going on; says what, and when to try again.
    #[error("{0}")]
    Busy(String),
    /// Postgres.
    #[error(transparent)]
    Store(#[from] ostiary_store::Error),
    /// A session could not be read or written.
    #[error("the session cannot be kept: {0}")]
    Session(#[from] tower_sessions::session::Error),
    /// A template.
    #[error("the page cannot be shown: {0:#}")]
    View(#[from] minijinja::Error),
    /// A defect of ours.
    #[error("{0:#}")]
    Internal(#[from] anyhow::Error),
}

impl Error {
    /// An error of one field.
    pub fn field(field: &str, sentence: impl Into<String>) -> Self {
        Self::Invalid(FieldErrors::one(field, sentence))
    }

    /// The errors of a form that is to be shown again; any other error is passed on.
    ///
    /// # Errors
    /// The error itself, when it is not about what was typed.
    pub fn into_fields(self) -> Result<FieldErrors> {
        match self {
            Self::Invalid(errors) => Ok(errors),
            Self::Refused(sentence) => Ok(FieldErrors::one("form", sentence)),
            other => Err(other),
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Invalid(_) | Self::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Store(error) if error.is_temporary() => StatusCode::SERVICE_UNAVAILABLE,
            Self::Session(tower_sessions::session::Error::Store(_)) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Store(_) | Self::Session(_) | Self::View(_) | Self::Internal(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }

    /// What may be told to the person who asked.
    fn sentence(&self) -> Option<String> {
        match self {
            Self::Forbidden(sentence) | Self::Refused(sentence) | Self::Busy(sentence) => {
                Some(sentence.clone())
            }
            Self::Invalid(errors) => errors.0.values().next().cloned(),
            _ if self.status() == StatusCode::SERVICE_UNAVAILABLE => {
                Some("The database cannot be reached at the moment. Nothing was changed; try again in a minute.".to_owned())
            }
            _ => None,
        }
    }
}

/// What went wrong, on its way to the layer that knows how to show it.
#[derive(Debug, Clone)]
struct Problem {
    sentence: Option<String>,
    retry_after: Option<i64>,
    fields: Option<FieldErrors>,
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = self.status();
        if status.is_server_error() {
            tracing::error!(error = format!("{self:#}"), "a request failed");
        }
        let sentence = self.sentence();
        // Read only where no layer turns it into a page or a problem: outside of the sessions.
        let text = sentence
            .as_deref()
            .or(status.canonical_reason())
            .unwrap_or("error")
            .to_owned();
        let mut response = (status, text).into_response();
        let retry_after = match &self {
            Self::TooMany { retry_after } => Some(*retry_after),
            _ => None,
        };
        if let Some(seconds) = retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        let fields = match self {
            Self::Invalid(errors) => Some(errors),
            _ => None,
        };
        response.extensions_mut().insert(Problem {
            sentence,
            retry_after,
            fields,
        });
        response
    }
}

/// Middleware of the pages: errors become pages, and who is not signed in is led to the sign-in.
pub async fn as_pages(State(app): State<App>, request: Request, next: Next) -> Response {
    let visitor = request.extensions().get::<Visitor>().cloned();
    let wanted = request
        .uri()
        .path_and_query()
        .map(ToString::to_string)
        .unwrap_or_default();
    let reads = request.method().is_safe();
    let response = next.run(request).await;
    let status = response.status();
    if status == StatusCode::UNAUTHORIZED {
        let back = if reads { wanted } else { "/".to_owned() };
        return Redirect::to(&format!("/sign-in?next={}", crate::views::urlencode(&back)))
            .into_response();
    }
    if !(status.is_client_error() || status.is_server_error()) || is_html(&response) {
        return response;
    }
    let problem = response.extensions().get::<Problem>().cloned();
    match crate::pages::errors::page(
        &app,
        visitor.as_ref(),
        status,
        problem.as_ref().and_then(|p| p.sentence.clone()),
    )
    .await
    {
        Ok(mut page) => {
            if let Some(after) = problem.and_then(|problem| problem.retry_after) {
                page.headers_mut()
                    .insert(header::RETRY_AFTER, HeaderValue::from(after));
            }
            page
        }
        Err(error) => {
            tracing::error!(
                error = format!("{error:#}"),
                "the page of an error cannot be shown"
            );
            response
        }
    }
}

fn is_html(response: &Response) -> bool {
    response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"))
}

/// Middleware of REST: errors become `application/problem+json`.
pub async fn as_problems(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    let is_json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !(status.is_client_error() || status.is_server_error()) || is_json {
        return response;
    }
    let problem = response.extensions().get::<Problem>().cloned();
    let mut body = json!({"type": "about:blank", "title": status.canonical_reason().unwrap_or("error"), "status": status.as_u16()});
    if let Some(detail) = problem
        .as_ref()
        .and_then(|problem| problem.sentence.clone())
    {
        body["detail"] = detail.into();
    }
    if let Some(fields) = problem.and_then(|problem| problem.fields) {
        body["errors"] = json!(fields);
    }
    let mut answer = (
        status,
        [(header::CONTENT_TYPE, "application/problem+json")],
        body.to_string(),
    )
        .into_response();
    if status == StatusCode::UNAUTHORIZED {
        answer
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(after) = response.headers().get(header::RETRY_AFTER) {
        answer
            .headers_mut()
            .insert(header::RETRY_AFTER, after.clone());
    }
    answer
}

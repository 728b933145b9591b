//! `POST /config`: what the node is to do. From memory; in steady state nothing is asked and nothing written.

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use ostiary_domain::osquery::endpoint::Endpoint;
use ostiary_domain::osquery::{ConfigRequest, sanitise};

use super::request::Head;
use crate::App;
use crate::error::Result;

pub(crate) async fn config(State(app): State<App>, request: Request) -> Result<Response> {
    let (head, body) = Head::admit(&app, request).await?;
    let read = head.read_small(&app, body).await?;
    let request = ConfigRequest::parse(&sanitise(&read.bytes).text, head.key())?;
    let (caller, node) = head.authenticate(&app, &request.node_key).await?;
    let document = app.configs.of(&node)?;
    let now = app.clock.now();
    app.checkins.note(&caller, Endpoint::Config, now);
    app.checkins.note_fetched(node.id, &document, now);
    Ok((
        [(header::CONTENT_TYPE, "application/json")],
        document.answer_to(request.etag.as_deref()),
    )
        .into_response())
}

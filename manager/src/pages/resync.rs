//! Having nodes send everything again: first the number of nodes is shown, then it is done.

use axum::extract::{Query, State};
use axum::response::Response;
use ostiary_store::tags;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Fields;
use super::shell::Page;
use crate::actions::resync;
use crate::auth::{Edit, Permit, Visitor};
use crate::error::{FieldErrors, Result};
use crate::state::App;

const FORM: Page<'static> = Page {
    template: "pages/resync/form.html",
    title: "Send everything again",
    nav: "options",
};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    target: String,
    /// Filled once a target was chosen; an empty target is a choice, too.
    ask: String,
}

async fn context(
    app: &App,
    target: &str,
    nodes: Option<usize>,
    errors: FieldErrors,
) -> Result<Value> {
    let all_tags = tags::names(&mut *app.db.acquire().await?).await?;
    let form = json!({"target": target});
    Ok(json!({"form": form, "nodes": nodes, "errors": errors, "all_tags": all_tags}))
}

/// `GET /resync`: asks for the target, and (`?ask=1`) tells how many nodes it chooses.
pub(crate) async fn ask(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Edit>,
    Query(wanted): Query<Wanted>,
) -> Result<Response> {
    if wanted.ask.is_empty() {
        let context = context(&app, &wanted.target, None, FieldErrors::default()).await?;
        return FORM.show(&app, &visitor, context).await;
    }
    match resync::reach(&app, &wanted.target).await {
        Ok(nodes) => {
            let errors = FieldErrors::default();
            let context = context(&app, &wanted.target, Some(nodes), errors).await?;
            FORM.show(&app, &visitor, context).await
        }
        Err(error) => {
            let context = context(&app, &wanted.target, None, error.into_fields()?).await?;
            FORM.show_again(&app, &visitor, context).await
        }
    }
}

/// `POST /resync`
pub(crate) async fn resync(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    fields: Fields,
) -> Result<Response> {
    let (target, confirmed) = (fields.text("target"), fields.text("confirm"));
    match resync::resync(&app, &permit, target, confirmed).await {
        Ok(_) => {
            let sentence =
                "Done. With their next config these nodes begin to send everything again.";
            visitor.done("/options", sentence).await
        }
        Err(error) => {
            let mut errors = error.into_fields()?;
            if let Some(sentence) = errors.0.remove("confirm") {
                errors.add("form", sentence);
            }
            let nodes = resync::reach(&app, target).await.ok();
            let context = context(&app, target, nodes, errors).await?;
            FORM.show_again(&app, &visitor, context).await
        }
    }
}

//! The list of nodes, and what is done to them.

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use chrono::TimeDelta;
use ostiary_domain::ids::NodeId;
use ostiary_store::node_lists::{self, NodeFilter};
use ostiary_store::tags;
use serde::Deserialize;
use serde_json::json;

use crate::actions::nodes;
use crate::auth::{Admin, Edit, Permit, View, Visitor};
use crate::error::{Error, Result};
use crate::pages::Fields;
use crate::pages::paging::{pager, request};
use crate::pages::shell::Page;
use crate::state::App;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    q: String,
    state: String,
    platform: String,
    tag: String,
    version: String,
    enrolled: String,
    after: String,
}

/// `GET /nodes`
pub(crate) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    let filter = NodeFilter {
        text: asked.q.clone(),
        state: asked.state.clone(),
        platform: asked.platform.clone(),
        tag: asked.tag.clone(),
        version: asked.version.clone(),
        enrolled_since: (asked.enrolled == "day").then(|| app.now() - TimeDelta::days(1)),
    };
    let mut conn = app.db.acquire().await?;
    let page = node_lists::list(
        &mut conn,
        &filter,
        app.cutoffs(),
        &request(Some(&asked.after)),
    )
    .await?;
    let choices = node_lists::choices(&mut conn).await?;
    let filters = [
        ("q", asked.q.as_str()),
        ("state", &asked.state),
        ("platform", &asked.platform),
        ("tag", &asked.tag),
        ("version", &asked.version),
        ("enrolled", &asked.enrolled),
    ];
    let is_unfiltered = filters.iter().all(|(_, value)| value.is_empty());
    let total = if is_unfiltered {
        Some(node_lists::count(&mut conn, app.cutoffs()).await?.total)
    } else {
        (page.next.is_none() && asked.after.is_empty()).then_some(page.items.len() as i64)
    };
    let context = json!({
        "filter": {"q": asked.q, "state": asked.state, "platform": asked.platform, "tag": asked.tag, "version": asked.version,
            "enrolled": asked.enrolled},
        "platforms": choices.platforms,
        "versions": choices.versions,
        "tags": tags::names(&mut conn).await?,
        "pager": pager("/nodes", &filters, "after", page.next.as_deref(), asked.after.is_empty()),
        "nodes": page.items,
        "total": total,
    });
    drop(conn);
    Page {
        template: "pages/nodes/list.html",
        title: "Nodes",
        nav: "nodes",
    }
    .show(&app, &visitor, context)
    .await
}

/// `POST /nodes/tags`
pub(crate) async fn tag_many(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    fields: Fields,
) -> Result<Response> {
    let ids: Vec<NodeId> = fields
        .all("node")
        .iter()
        .filter_map(|id| id.parse().ok())
        .collect();
    let back = format!("/nodes?{}", fields.text("back").trim_start_matches('?'));
    let back = if back.chars().any(char::is_control) {
        "/nodes".to_owned()
    } else {
        back
    };
    if ids.is_empty() {
        visitor.flash("warning", "No node was chosen.").await?;
        return Ok(Redirect::to(&back).into_response());
    }
    let tag = fields.text("tag").trim();
    let saving = fields.saving();
    let removes = fields.text("do") == "remove";
    let result = if removes {
        nodes::remove_tag(&app, &permit, &ids, tag, &saving).await
    } else {
        nodes::add_tag(&app, &permit, &ids, tag, &saving).await
    };
    let word = if removes { "taken from" } else { "given to" };
    match result {
        Ok(count) => {
            let nodes = if count == 1 { "node" } else { "nodes" };
            let sentence = format!("{tag} was {word} {count} {nodes}.");
            visitor.done(&back, sentence).await
        }
        Err(error) => {
            let form = TagForm {
                action: "/nodes/tags",
                fields: &fields,
                back: &back,
                sentence: format!("The tag {tag} is {word} {}.", counted(ids.len())),
            };
            form.asked_or_refused(&app, &visitor, error).await
        }
    }
}

fn counted(nodes: usize) -> String {
    if nodes == 1 {
        "1 node".to_owned()
    } else {
        format!("{nodes} nodes")
    }
}

/// A form that gives or takes tags, as it was sent.
struct TagForm<'a> {
    action: &'a str,
    fields: &'a Fields,
    back: &'a str,
    sentence: String,
}

impl TagForm<'_> {
    /// Shows what is to be confirmed, since options come and go with tags; any other trouble is said where the form came from.
    async fn asked_or_refused(
        self,
        app: &App,
        visitor: &Visitor,
        error: Error,
    ) -> Result<Response> {
        let errors = error.into_fields()?;
        if !errors.0.contains_key("cut_off") {
            return visitor.refused(self.back, Error::Invalid(errors)).await;
        }
        let asked = ["csrf", "cut_off", "cut_off_typed"];
        let sent = (self.fields.iter())
            .filter(|(name, _)| !asked.contains(name))
            .map(|(name, value)| json!({"name": name, "value": value}));
        let context = json!({"action": self.action, "fields": sent.collect::<Vec<_>>(), "back": self.back,
            "sentence": self.sentence, "errors": errors});
        let page = Page {
            template: "pages/nodes/tag.html",
            title: "Tags decide what nodes are sent",
            nav: "nodes",
        };
        let saving = self.fields.saving();
        page.show_again(app, visitor, saving.kept_in(context)).await
    }
}

/// `POST /nodes/{id}/name`
pub(crate) async fn rename(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<NodeId>,
    fields: Fields,
) -> Result<Response> {
    let result = nodes::rename(&app, &permit, id, fields.text("display_name")).await;
    let to = format!("/nodes/{id}");
    visitor
        .answer(result, &to, "The name was saved.", &to)
        .await
}

/// `POST /nodes/{id}/tags`
pub(crate) async fn tag(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<NodeId>,
    fields: Fields,
) -> Result<Response> {
    let to = format!("/nodes/{id}");
    let (add, remove) = (fields.text("add").trim(), fields.text("remove").trim());
    let saving = fields.saving();
    let (result, sentence) = if remove.is_empty() {
        let result = nodes::add_tag(&app, &permit, &[id], add, &saving).await;
        (result, format!("{add} was added."))
    } else {
        let result = nodes::remove_tag(&app, &permit, &[id], remove, &saving).await;
        (result, format!("{remove} was removed."))
    };
    match result {
        Ok(_) => visitor.done(&to, sentence).await,
        Err(error) => {
            let word = if remove.is_empty() {
                "given to"
            } else {
                "taken from"
            };
            let form = TagForm {
                action: &format!("{to}/tags"),
                fields: &fields,
                back: &to,
                sentence: format!("The tag {add}{remove} is {word} {}.", counted(1)),
            };
            form.asked_or_refused(&app, &visitor, error).await
        }
    }
}

/// `POST /nodes/{id}/disable`
pub(crate) async fn disable(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<NodeId>,
) -> Result<Response> {
    nodes::set_disabled(&app, &permit, id, true).await?;
    visitor
        .done(
            &format!("/nodes/{id}"),
            "The node is switched off. It keeps its key and what it buffered.",
        )
        .await
}

/// `POST /nodes/{id}/enable`
pub(crate) async fn enable(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<NodeId>,
) -> Result<Response> {
    nodes::set_disabled(&app, &permit, id, false).await?;
    visitor
        .done(&format!("/nodes/{id}"), "The node is switched on.")
        .await
}

/// `POST /nodes/{id}/revoke-keys`
pub(crate) async fn revoke_keys(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    Path(id): Path<NodeId>,
) -> Result<Response> {
    nodes::revoke_keys(&app, &permit, id).await?;
    visitor
        .done(
            &format!("/nodes/{id}"),
            "Its keys are revoked. It will enroll again if its secret still holds.",
        )
        .await
}

/// `POST /nodes/{id}/delete`
pub(crate) async fn delete(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    Path(id): Path<NodeId>,
    fields: Fields,
) -> Result<Response> {
    let result = nodes::delete(&app, &permit, id, fields.text("confirm")).await;
    visitor
        .answer(
            result,
            "/nodes",
            "The node was deleted.",
            &format!("/nodes/{id}"),
        )
        .await
}

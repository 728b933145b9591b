//! Who changed what?

use axum::extract::{Query, State};
use axum::response::Response;
use ostiary_store::audit::{self, EntryRecord};
use serde::Deserialize;
use serde_json::{Value, json};

use super::paging::{pager, request};
use super::shell::Page;
use crate::auth::{Admin, Permit, Visitor};
use crate::error::Result;
use crate::state::App;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    user: String,
    action: String,
    before: String,
}

/// `GET /audit`
pub(crate) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Admin>,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let page = audit::list(
        &mut conn,
        &asked.user,
        &asked.action,
        &request(Some(&asked.before)),
    )
    .await?;
    let actions = audit::actions(&mut conn).await?;
    drop(conn);
    let filters = [("user", asked.user.as_str()), ("action", &asked.action)];
    let context = json!({
        "filter": {"user": asked.user, "action": asked.action}, "actions": actions,
        "entries": page.items.iter().map(entry).collect::<Vec<_>>(),
        "pager": pager("/audit", &filters, "before", page.next.as_deref(), asked.before.is_empty()),
    });
    Page {
        template: "pages/audit/list.html",
        title: "Audit log",
        nav: "audit",
    }
    .show(&app, &visitor, context)
    .await
}

fn entry(entry: &EntryRecord) -> Value {
    let id = &entry.subject_id;
    let url = match entry.subject_kind.as_str() {
        "node" => Some(format!("/nodes/{id}")),
        "pack" => Some(format!("/packs/{id}")),
        "rule" => Some(format!("/rules/{id}")),
        "finding" => Some(format!("/findings/{id}")),
        "destination" => Some(format!("/destinations/{id}")),
        "live_query" => Some(format!("/live-queries/{id}")),
        "user" => Some(format!("/users/{id}/edit")),
        _ => None,
    };
    let text = |value: &Option<Value>| value.as_ref().map(ToString::to_string);
    json!({
        "at": entry.at, "user_name": entry.user_name, "action": entry.action,
        "subject": {"kind": entry.subject_kind, "id": id, "name": entry.subject_name},
        "url": url.filter(|_| !entry.action.ends_with(".delete")), "ip": entry.ip,
        "before": text(&entry.before), "after": text(&entry.after),
    })
}

//! Nodes that look like one machine, and machines that wait to be let in: both sides beside each other, and a decision.

use axum::extract::{Path, State};
use axum::response::Response;
use ostiary_domain::ids::NodeId;
use ostiary_store::node_records::{self, NodeRecord};
use ostiary_store::{Conn, node_approvals, node_conflicts};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Fields;
use super::nodes::health;
use super::shell::Page;
use crate::actions::identity;
use crate::auth::{Admin, Permit, View, Visitor};
use crate::error::{Error, Result};
use crate::state::App;

/// So many at most on a page; the newest come first, and go when they are decided.
const MOST: i64 = 30;

/// What a fact is called, whether it tells machines apart, and where it stands.
type Compared = (&'static str, bool, fn(&NodeRecord) -> String);

/// Facts of two nodes beside each other, and whether they agree where both say something.
fn compared(one: &NodeRecord, other: Option<&NodeRecord>) -> Vec<Value> {
    let facts: [Compared; 12] = [
        ("Instance", true, |node| node.instance_id.clone()),
        ("Hardware UUID", true, |node| node.hardware_uuid.clone()),
        ("Serial number", true, |node| node.hardware_serial.clone()),
        ("Host identifier", true, |node| node.host_identifier.clone()),
        ("Host name", false, |node| node.hostname.clone()),
        ("Model", false, |node| node.hardware_model.clone()),
        ("Operating system", false, |node| {
            format!("{} {}", node.os_name, node.os_version)
                .trim()
                .to_owned()
        }),
        ("osquery", false, |node| node.osquery_version.clone()),
        ("Last address", false, |node| {
            node.last_ip.clone().unwrap_or_default()
        }),
        ("Enroll secret", false, |node| {
            node.enroll_secret.clone().unwrap_or_default()
        }),
        ("Tags", false, |node| node.tags.join(" ")),
        ("Node keys in force", false, |node| node.keys.to_string()),
    ];
    facts
        .iter()
        .map(|(label, identifies, of)| {
            let (mine, theirs) = (of(one), other.map(of).unwrap_or_default());
            let verdict = if !identifies || mine.is_empty() || theirs.is_empty() {
                ""
            } else if mine.eq_ignore_ascii_case(&theirs) {
                "same"
            } else {
                "differs"
            };
            json!({"label": label, "one": mine, "other": theirs, "verdict": verdict})
        })
        .collect()
}

fn side(node: &NodeRecord, app: &App) -> Value {
    json!({
        "id": node.id, "name": node.name, "state": node.approval.as_deref().unwrap_or_else(|| health(node, app)), "platform": node.platform, "last_seen_at": node.last_seen_at,
        "first_enrolled_at": node.first_enrolled_at, "enrolled_at": node.enrolled_at, "open_findings": node.open_findings,
        "reestablished_at": node.reestablished_at,
    })
}

async fn find(conn: &mut Conn, id: Option<Uuid>) -> Result<Option<NodeRecord>> {
    match id {
        Some(id) => Ok(node_records::find(conn, NodeId(id)).await?),
        None => Ok(None),
    }
}

/// Pairs that nobody has decided about, at most so many as a page shows.
pub(crate) async fn undecided(app: &App, conn: &mut Conn) -> Result<Vec<Value>> {
    let mut pairs = Vec::new();
    for conflict in node_conflicts::list(conn, MOST).await? {
        let one = find(conn, Some(conflict.node_id)).await?;
        let other = find(conn, Some(conflict.other_id)).await?;
        if let (Some(one), Some(other)) = (one, other) {
            pairs.push(json!({
                "one": side(&one, app), "other": side(&other, app), "reason": conflict.reason, "noted_at": conflict.noted_at,
                "facts": compared(&one, Some(&other)),
            }));
        }
    }
    Ok(pairs)
}

/// Machines that wait for an approval (`waiting`), or did not get it (`refused`), at most so many as a page shows.
pub(crate) async fn claimants(app: &App, conn: &mut Conn, state: &str) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    for claimant in node_approvals::list(conn, state, MOST).await? {
        let Some(one) = find(conn, Some(claimant.id)).await? else {
            continue;
        };
        let claimed = claimant.approval_of.or(claimant.conflict_with);
        let other = find(conn, claimed).await?;
        found.push(json!({
            "one": side(&one, app), "other": other.as_ref().map(|other| side(other, app)),
            "claims_silent": claimant.approval_of.is_some(), "came_at": claimant.first_enrolled_at,
            "facts": compared(&one, other.as_ref()),
        }));
    }
    Ok(found)
}

/// `GET /nodes/conflicts`
pub(crate) async fn conflicts(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let total = node_conflicts::count(&mut conn).await?;
    let pairs = undecided(&app, &mut conn).await?;
    drop(conn);
    Page {
        template: "pages/identity/conflicts.html",
        title: "Conflicts",
        nav: "conflicts",
    }
    .show(&app, &visitor, json!({"pairs": pairs, "total": total}))
    .await
}

fn node_of(fields: &Fields, name: &str) -> Result<NodeId> {
    fields.text(name).parse().map_err(|_| Error::NotFound)
}

/// `POST /nodes/conflicts/merge`
pub(crate) async fn merge(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    fields: Fields,
) -> Result<Response> {
    let (gone, kept) = (node_of(&fields, "gone")?, node_of(&fields, "kept")?);
    let result = identity::merge(&app, &permit, gone, kept).await;
    visitor
        .answer(
            result,
            &format!("/nodes/{kept}"),
            "The two are one node now. What they reported is put together within minutes.",
            "/nodes/conflicts",
        )
        .await
}

/// `POST /nodes/conflicts/keep-apart`
pub(crate) async fn keep_apart(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    fields: Fields,
) -> Result<Response> {
    let (one, other) = (node_of(&fields, "one")?, node_of(&fields, "other")?);
    let result = identity::keep_apart(&app, &permit, one, other).await;
    let back = "/nodes/conflicts";
    visitor
        .answer(
            result,
            back,
            "They stay two nodes, and are not asked about again.",
            back,
        )
        .await
}

/// `GET /nodes/approvals`
pub(crate) async fn approvals(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let waiting = claimants(&app, &mut conn, "waiting").await?;
    let refused = claimants(&app, &mut conn, "refused").await?;
    drop(conn);
    Page {
        template: "pages/identity/approvals.html",
        title: "Approvals",
        nav: "approvals",
    }
    .show(
        &app,
        &visitor,
        json!({"waiting": waiting, "refused": refused}),
    )
    .await
}

/// `POST /nodes/{id}/approve`
pub(crate) async fn approve(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    Path(id): Path<NodeId>,
    fields: Fields,
) -> Result<Response> {
    let same = fields.text("as") == "same";
    let result = identity::approve(&app, &permit, id, same).await.map(drop);
    let sentence = if same {
        "Approved: it is the node that it claims to be, marked as re-established."
    } else {
        "Approved: a node of its own. It is served at its next request."
    };
    let back = "/nodes/approvals";
    visitor.answer(result, back, sentence, back).await
}

/// `POST /nodes/{id}/refuse`
pub(crate) async fn refuse(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    Path(id): Path<NodeId>,
) -> Result<Response> {
    let result = identity::refuse(&app, &permit, id).await;
    let back = "/nodes/approvals";
    visitor
        .answer(
            result,
            back,
            "Refused, and remembered: it is not asked about again.",
            back,
        )
        .await
}

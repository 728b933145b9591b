//! What people decide about findings.

use ostiary_domain::ids::FindingId;
use ostiary_store::Db;
use ostiary_store::finding_lists::{self, Decision};
use serde_json::json;

use super::audit::{Change, record};
use crate::auth::{Edit, Permit};
use crate::error::{Error, Result};
use crate::state::App;

/// Acknowledges, resolves or reopens a finding. Deciding what was decided already changes nothing.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Refused`] when a newer finding of the same matter is open.
pub async fn decide(
    app: &App,
    permit: &Permit<Edit>,
    id: FindingId,
    decision: Decision,
) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let before = finding_lists::find(&mut tx, id)
        .await?
        .ok_or(Error::NotFound)?;
    let changed = finding_lists::decide(&mut tx, id, decision, permit.actor().user_id, app.now())
        .await
        .map_err(|error| {
            if error.is_constraint("findings_open_key") {
                return Error::Refused(
                    "The same matter was found again since and is open: work on the newer finding."
                        .to_owned(),
                );
            }
            error.into()
        })?;
    if !changed {
        return Ok(());
    }
    let (action, state) = match decision {
        Decision::Acknowledge => ("findings.acknowledge", "acknowledged"),
        Decision::Resolve => ("findings.resolve", "resolved"),
        Decision::Reopen => ("findings.reopen", "open"),
    };
    let name = format!("{} · {}", before.rule_name, before.node_name);
    let (before, after) = (
        Some(json!({"state": before.state})),
        Some(json!({"state": state})),
    );
    record(
        app,
        &mut tx,
        permit,
        Change {
            action,
            kind: "finding",
            id: id.to_string(),
            name: &name,
            before,
            after,
        },
    )
    .await?;
    Ok(Db::commit(tx).await?)
}

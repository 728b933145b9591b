//! What nodes keep until their restart though it is no part of configs any more: noted with every change, forgotten on demand.

use ostiary_domain::node_config::{LeftoverKind, Parts};
use ostiary_store::{Conn, leftovers};
use serde_json::json;

use super::audit::Change;
use super::config_change::{ConfigChange, Saving};
use crate::auth::{Edit, Permit};
use crate::error::{Error, Result};
use crate::state::App;

/// Notes what a change of configs leaves behind, and forgets what is set anew. Says whether there was anything.
pub(super) async fn note(
    conn: &mut Conn,
    app: &App,
    before: &Parts,
    after: &Parts,
) -> Result<bool> {
    let mut any = false;
    for leftover in before.leftovers_in(after, app.now()) {
        any = true;
        let (kind, name, target) = (leftover.kind, &leftover.name, leftover.target.as_str());
        leftovers::put(conn, kind, name, target, leftover.since).await?;
    }
    for leftover in &after.leftovers {
        if after.supersedes(leftover) {
            any = true;
            leftovers::delete(
                conn,
                leftover.kind,
                &leftover.name,
                leftover.target.as_str(),
            )
            .await?;
        }
    }
    Ok(any)
}

/// Forgets that nodes of this target may carry something: its default is no longer sent.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn forget(
    app: &App,
    permit: &Permit<Edit>,
    kind: LeftoverKind,
    name: &str,
    target: &str,
) -> Result<()> {
    let mut tx = ConfigChange::begin(app).await?;
    if !leftovers::delete(&mut tx, kind, name, target).await? {
        return Err(Error::NotFound);
    }
    let before = Some(json!({"kind": kind, "name": name, "target": target}));
    let change = Change {
        action: "leftovers.forget",
        kind: "leftover",
        id: name.to_owned(),
        name,
        before,
        ..Change::default()
    };
    tx.finish(app, permit, &Saving::at_once(), change)
        .await
        .map(drop)
}

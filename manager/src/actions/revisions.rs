//! Going back to a revision of all config objects.

use ostiary_store::{config_revisions, rollouts};
use serde_json::json;

use super::audit::Change;
use super::config_change::{ConfigChange, Saving};
use crate::auth::{Edit, Permit};
use crate::error::{Error, Result};
use crate::state::App;

/// Makes all config objects what they were after a revision, as a new revision. What is built in stays as this release has it.
///
/// A roll-out that is under way ends with it, and all nodes get what there is then; at once, since the nodes outside have a good config
/// that must not be exchanged for the one that is tried. Only a return in stages to something else than its base joins it, and
/// the base stays what the nodes outside get.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Refused`] when nothing differs while a roll-out is under way, a name is taken, or a config would
/// become too large;
/// [`Error::Invalid`] when it could cut nodes off and that was not confirmed.
pub async fn return_to(
    app: &App,
    permit: &Permit<Edit>,
    number: i64,
    saving: &Saving,
) -> Result<i64> {
    let tx = ConfigChange::begin(app).await?;
    return_in(app, permit, tx, number, saving).await
}

/// The same, in a change that was begun.
pub(super) async fn return_in(
    app: &App,
    permit: &Permit<Edit>,
    mut tx: ConfigChange,
    number: i64,
    saving: &Saving,
) -> Result<i64> {
    let (_, objects) = config_revisions::find(&mut tx, number)
        .await?
        .ok_or(Error::NotFound)?;
    let mut saving = saving.clone();
    let active = rollouts::lock_active(&mut tx).await?;
    if let Some(active) = &active
        && (number == active.base_revision || !saving.in_stages(app))
    {
        rollouts::end(&mut tx, active.id, true, app.now()).await?;
        Saving::at_once().how.clone_into(&mut saving.how);
    }
    config_revisions::restore(&mut tx, &objects, app.now())
        .await
        .map_err(|error| match error {
            ostiary_store::Error::Constraint { .. } => Error::Refused(
                "It cannot be returned to as it was: a name in it is taken by something built in."
                    .to_owned(),
            ),
            other => other.into(),
        })?;
    // It would give everybody what is still being tried.
    if active.is_some_and(|active| number != active.base_revision) && !tx.has_changed().await? {
        return Err(Error::Refused(
            "Nothing differs from this revision, and a roll-out of it is under way. To give it to all nodes now, finish that roll-out."
                .to_owned(),
        ));
    }
    let what = format!("Returned to revision {number}");
    let change = Change {
        action: "revisions.return",
        kind: "revision",
        id: number.to_string(),
        name: &what,
        after: Some(json!({"revision": number})),
        ..Change::default()
    };
    let revision = tx.finish(app, permit, &saving, change).await?;
    // Nothing differed: the present revision is the one.
    Ok(revision.unwrap_or(number))
}

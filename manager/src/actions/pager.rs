//! What a pager says that people did there: it counts as done here.

use chrono::TimeDelta;
use ostiary_domain::ids::DestinationId;
use ostiary_outputs::destinations::pagerduty_hook::{self, Deed};
use ostiary_store::findings::Decision;
use ostiary_store::{Db, destinations};

use super::destinations::open_settings;
use super::findings::{Decided, decide};
use crate::auth::{Edit, Permit};
use crate::error::{Error, Result};
use crate::state::App;

/// PagerDuty repeats what was not taken for some days; what is older is a copy that somebody kept.
const OLDEST: TimeDelta = TimeDelta::days(7);

/// Takes a webhook of PagerDuty (v3): an acknowledgement, a resolution or a reopening over there is one here, once. What is about no
/// finding of ours is passed over.
///
/// # Errors
/// [`Error::Unauthenticated`] when there is no such destination, or its secret did not sign the body.
pub async fn take_pagerduty(
    app: &App,
    id: DestinationId,
    signatures: &str,
    body: &[u8],
) -> Result<()> {
    let mut conn = app.db.acquire().await?;
    let found = destinations::find(&mut conn, id).await?;
    let found = found
        .filter(|found| found.kind == "pagerduty" && found.enabled)
        .ok_or(Error::Unauthenticated)?;
    let settings = open_settings(app, &mut conn, id).await?;
    drop(conn);
    if !pagerduty_hook::is_signed(&settings, signatures, body) {
        return Err(Error::Unauthenticated);
    }
    let event = pagerduty_hook::read(body)
        .map_err(|_| Error::field("form", "This is no event of PagerDuty's webhooks."))?;
    let Some(event) = event.filter(|event| event.occurred_at > app.now() - OLDEST) else {
        return Ok(());
    };
    let mut conn = app.db.acquire().await?;
    if destinations::knows_event(&mut conn, id, &event.id).await? {
        return Ok(());
    }
    drop(conn);
    let by = if event.by.is_empty() {
        found.name
    } else {
        format!("{} ({})", event.by, found.name)
    };
    let permit = Permit::<Edit>::for_pager(by);
    let decision = match event.deed {
        Deed::Acknowledged => Decision::Acknowledge,
        Deed::Resolved => Decision::Resolve,
        Deed::Reopened => Decision::Reopen,
    };
    match decide(app, &permit, event.finding, decision, "").await {
        Ok(Decided::Changed | Decided::Already(_)) => {}
        // The finding is forgotten, or a newer one is open: nothing that the pager could mend.
        Err(Error::NotFound | Error::Refused(_)) => {}
        Err(error) => return Err(error),
    }
    let mut tx = app.db.begin().await?;
    destinations::note_event(&mut tx, id, &event.id, app.now()).await?;
    Ok(Db::commit(tx).await?)
}

//! What was delivered, how, and what pagers told us, when its time is over.

use chrono::TimeDelta;
use ostiary_store::{Result, delivery_upkeep};

use crate::App;

/// Rows that are deleted in one statement, and statements in one turn.
const AT_ONCE: i64 = 5_000;
const TIMES: usize = 20;

/// A pager tells an event again for some days at most, and older ones are refused.
const PAGER_EVENTS_FOR: TimeDelta = TimeDelta::days(8);

/// Forgets deliveries of resolved findings, and attempts, that are older than the settings want.
pub(crate) async fn forget(app: &App) -> Result<()> {
    let days = app.settings.worker.keep_deliveries_days.clamp(1, 36_500);
    let before = app.now() - TimeDelta::days(days);
    let mut conn = app.db.acquire().await?;
    for _ in 0..TIMES {
        let attempts = delivery_upkeep::delete_old_attempts(&mut conn, before, AT_ONCE).await?;
        let deliveries = delivery_upkeep::delete_old(&mut conn, before, AT_ONCE).await?;
        if attempts + deliveries == 0 {
            break;
        }
    }
    delivery_upkeep::delete_old_events(&mut conn, app.now() - PAGER_EVENTS_FOR).await
}

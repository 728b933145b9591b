//! Certificates that come to their end, as facts: `ostiary/certificate_expiring`, about Ostiary itself. Which certificates there are is
//! told by the processes that serve them (`store::certificates`).

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_boot::certificates::{self, Details};
use ostiary_store::certificates::{self as store, ServedChain};
use ostiary_store::reporting_nodes::OSTIARY;
use ostiary_store::{Db, Result, pending};
use serde_json::{Value, json};

use crate::App;

/// The name of the fact.
pub(crate) const EXPIRING: &str = "certificate_expiring";

/// What was served longer ago is forgotten.
const REMEMBERED: TimeDelta = TimeDelta::days(400);

/// Notes each certificate whose end has come nearer than one of the days in the settings; each of these once. The caller sees to it
/// that one worker does so at a time.
pub(crate) async fn note_ends(app: &App) -> Result<()> {
    let now = app.now();
    let mut tx = app.db.begin().await?;
    for chain in store::list_served(&mut tx).await? {
        if !chain.is_served(now) {
            continue;
        }
        let Some(details) = earliest_end(&chain) else {
            continue;
        };
        let days_left = (details.not_after - now).num_days();
        let mut is_news = false;
        for days in &app.settings.worker.certificate_days {
            if days_left < i64::from(*days) {
                is_news |= store::note_threshold(&mut tx, &chain, *days, now).await?;
            }
        }
        if is_news {
            tracing::warn!(
                role = chain.role.as_str(),
                days_left,
                "a certificate comes to its end"
            );
            let fact = expiring(&chain, &details, now);
            pending::insert_fact(&mut tx, OSTIARY, &fact, now).await?;
        }
    }
    store::delete_old(&mut tx, now - REMEMBERED).await?;
    Db::commit(tx).await
}

/// The certificate of a chain that ends first.
fn earliest_end(chain: &ServedChain) -> Option<Details> {
    let ders = certificates::from_pem(chain.pem.as_bytes()).unwrap_or_default();
    ders.iter()
        .filter_map(certificates::details)
        .min_by_key(|details| details.not_after)
}

fn expiring(chain: &ServedChain, details: &Details, now: DateTime<Utc>) -> Value {
    json!({"name": EXPIRING, "columns": {
        "role": chain.role.as_str(),
        "subject": details.subject,
        "not_after": details.not_after.to_rfc3339(),
        "days_left": (details.not_after - now).num_days(),
        "fingerprint": details.fingerprint,
    }})
}

//! Certificates that come to their end, as facts: `ostiary/certificate_expiring`, about Ostiary itself. Which certificates there are is
//! told by the processes that serve them (`store::certificates`).

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_boot::certificates::{self, Details};
use ostiary_domain::fact;
use ostiary_store::certificates::{self as store, ServedChain};
use ostiary_store::noted_facts::{self, Holding};
use ostiary_store::reporting_nodes::OSTIARY;
use ostiary_store::{Db, Result, pending};
use serde_json::{Value, json};

use crate::App;
use crate::facts::note_ended;

/// What was served longer ago is forgotten.
const REMEMBERED: TimeDelta = TimeDelta::days(400);

/// Notes each certificate whose end has come nearer than one of the days in the settings; each of these once; and that none of its
/// subject that is about to end is served any more. The caller sees to it that one worker does so at a time.
pub(crate) async fn note_ends(app: &App) -> Result<()> {
    let now = app.now();
    let mut tx = app.db.begin().await?;
    let mut near = BTreeMap::new();
    for chain in store::list_served(&mut tx).await? {
        if !chain.is_served(now) {
            continue;
        }
        let Some(details) = earliest_end(&chain) else {
            continue;
        };
        let days_left = (details.not_after - now).num_days();
        let mut is_news = false;
        let most_days = app.settings.worker.certificate_days.iter().max();
        if most_days.is_some_and(|days| days_left < i64::from(*days)) {
            let one = Holding {
                node_id: OSTIARY,
                entity: format!("{} {}", chain.role.as_str(), details.subject),
                columns: columns(&chain, &details, now),
            };
            near.insert(one.entity.clone(), one);
        }
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
            let fact = fact::CERTIFICATE_EXPIRING.noted(columns(&chain, &details, now));
            pending::insert_fact(&mut tx, OSTIARY, &fact, now).await?;
        }
    }
    let kind = &fact::CERTIFICATE_EXPIRING;
    let near = near.into_values().collect();
    let settled = noted_facts::settle(&mut tx, kind.name, near, now).await?;
    note_ended(app, &mut tx, kind, settled.ended).await?;
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

fn columns(chain: &ServedChain, details: &Details, now: DateTime<Utc>) -> Value {
    json!({
        "role": chain.role.as_str(),
        "subject": details.subject,
        "not_after": details.not_after.to_rfc3339(),
        "days_left": (details.not_after - now).num_days(),
        "fingerprint": details.fingerprint,
    })
}

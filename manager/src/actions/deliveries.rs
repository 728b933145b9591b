//! What people do about deliveries: have them sent again, one, all that were given up, or all since a time.

use chrono::{DateTime, Utc};
use ostiary_boot::clock::new_id;
use ostiary_domain::ids::{AlertId, DeliveryId, DestinationId};
use ostiary_store::deliveries::{self, NewDelivery};
use ostiary_store::{Db, Tx, delivery_upkeep, destination_circuits, destinations};
use serde_json::json;

use super::audit::{Change, record};
use crate::auth::{Admin, Permit};
use crate::error::{Error, Result};
use crate::state::App;

/// Alerts that one replay sends again; whoever wants more goes on from a later time.
const MOST_REPLAYED: i64 = 10_000;

/// Has a delivery sent again that was given up or left out, and tries its destination at once.
///
/// # Errors
/// [`Error::Refused`] when it is neither, or its destination is gone.
pub async fn send_again(app: &App, permit: &Permit<Admin>, id: DeliveryId) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let Some(destination) = delivery_upkeep::send_again(&mut tx, id, app.now()).await? else {
        let sentence = "This delivery waits or has arrived, or its destination is gone.";
        return Err(Error::Refused(sentence.to_owned()));
    };
    destination_circuits::close(&mut tx, destination).await?;
    let change = Change {
        action: "deliveries.send_again",
        kind: "delivery",
        id: id.to_string(),
        name: "",
        ..Change::default()
    };
    record(app, &mut tx, permit, change).await?;
    Ok(Db::commit(tx).await?)
}

/// Has all deliveries of a destination sent again that were given up, and tries it at once; gives their number.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn send_dead_again(app: &App, permit: &Permit<Admin>, id: DestinationId) -> Result<u64> {
    let mut tx = app.db.begin().await?;
    let name = name_of(&mut tx, id).await?;
    let sent = delivery_upkeep::send_dead_again(&mut tx, id, app.now()).await?;
    destination_circuits::close(&mut tx, id).await?;
    let change = Change {
        action: "destinations.send_dead_again",
        kind: "destination",
        id: id.to_string(),
        name: &name,
        after: Some(json!({"deliveries": sent})),
        ..Change::default()
    };
    record(app, &mut tx, permit, change).await?;
    Db::commit(tx).await?;
    Ok(sent)
}

/// Sends all alerts again that were for a destination since a time, whatever became of them, as new deliveries in their old order;
/// gives their number. What still waits is not sent twice.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`] on `since`, [`Error::Refused`] when the destination is disabled.
pub async fn replay(
    app: &App,
    permit: &Permit<Admin>,
    id: DestinationId,
    since: DateTime<Utc>,
) -> Result<usize> {
    if since > app.now() {
        return Err(Error::field("since", "This time is yet to come."));
    }
    let mut tx = app.db.begin().await?;
    let found = destinations::find(&mut tx, id)
        .await?
        .ok_or(Error::NotFound)?;
    if !found.enabled {
        let sentence = "The destination is off: nothing is sent to it.";
        return Err(Error::Refused(sentence.to_owned()));
    }
    let alerts = delivery_upkeep::list_alerts_since(&mut tx, id, since, MOST_REPLAYED).await?;
    let again: Vec<NewDelivery> = alerts
        .into_iter()
        .map(|alert| NewDelivery {
            id: DeliveryId(new_id()),
            alert_id: AlertId(alert),
            destination_id: id,
        })
        .collect();
    let made = deliveries::insert(&mut tx, &again, app.now()).await?;
    let change = Change {
        action: "destinations.replay",
        kind: "destination",
        id: id.to_string(),
        name: &found.name,
        after: Some(json!({"since": since, "deliveries": made.len()})),
        ..Change::default()
    };
    record(app, &mut tx, permit, change).await?;
    Db::commit(tx).await?;
    Ok(made.len())
}

async fn name_of(tx: &mut Tx, id: DestinationId) -> Result<String> {
    let found = destinations::find(tx, id).await?;
    Ok(found.ok_or(Error::NotFound)?.name)
}

//! The jobs. Each is idempotent: it asks Postgres what there is to do. Which there are, and how many at once: [`crate::registry`].

pub(crate) mod deliver_alert;
pub(crate) mod forget_deliveries;
pub(crate) mod process_batches;

use ostiary_domain::ids::DeliveryId;
use ostiary_queue::jobs::DeliverAlert;

use crate::App;

/// Rings for deliveries that were just committed. Redis may not hear it; the sweep finds them then.
pub(crate) async fn ring_for_deliveries(app: &App, deliveries: &[DeliveryId]) {
    if deliveries.is_empty() {
        return;
    }
    let jobs: Vec<DeliverAlert> = deliveries
        .iter()
        .map(|id| DeliverAlert { delivery_id: id.0 })
        .collect();
    if let Err(error) = app.queue.ring_many(&jobs).await {
        tracing::debug!(%error, "Redis did not hear of deliveries; the sweep will find them");
    }
}

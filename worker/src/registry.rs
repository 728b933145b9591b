//! The one list of jobs: what is rung for, how many at once, and how long one may take. Schedules are in [`crate::sweep`].

use std::time::Duration;

use apalis::prelude::{Data, Monitor};
use ostiary_domain::ids::DeliveryId;
use ostiary_queue::JobError;
use ostiary_queue::jobs::{BatchesStored, CarveReceived, DeliverAlert};

use crate::App;
use crate::carves;
use crate::jobs::{deliver_alert, process_batches};

/// A look at the pending work goes on as long as there is some, so its end is left to the groups' own time-outs.
const LOOK_TIMEOUT: Duration = Duration::from_secs(3_600);

/// Longer than any attempt: those end by themselves, and record how.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(300);

/// How long jobs under way may take to end when the process is to stop. What is cut off is as if it had not begun.
const DRAIN: Duration = Duration::from_secs(30);

/// Works jobs until the process is to stop, and then ends those under way.
pub(crate) async fn run(app: App) {
    let monitor = Monitor::new()
        .register({
            let app = app.clone();
            move |_| {
                let concurrency = app.settings.worker.batch_concurrency.max(1);
                let worker =
                    app.queue
                        .worker::<BatchesStored>("process_batches", concurrency, LOOK_TIMEOUT);
                worker.data(app.clone()).build(process_batches)
            }
        })
        .register({
            let app = app.clone();
            move |_| {
                let concurrency = app.settings.worker.delivery_concurrency.max(1);
                let worker = app.queue.worker::<DeliverAlert>(
                    "deliver_alert",
                    concurrency,
                    DELIVERY_TIMEOUT,
                );
                worker.data(app.clone()).build(deliver_alert)
            }
        })
        .register({
            let app = app.clone();
            move |_| {
                let worker = app
                    .queue
                    .worker::<CarveReceived>("join_carves", 1, LOOK_TIMEOUT);
                worker.data(app.clone()).build(join_carves)
            }
        })
        .should_restart(|_, _| true)
        .shutdown_timeout(DRAIN);
    let stopped = async {
        app.shutdown.cancelled().await;
        Ok(())
    };
    if let Err(error) = monitor.run_with_signal(stopped).await {
        tracing::error!(%error, "the jobs' monitor has failed");
    }
}

async fn process_batches(job: BatchesStored, app: Data<App>) -> Result<(), JobError> {
    process_batches::work_until_idle(&app, usize::from(job.shard))
        .await
        .map(drop)
        .map_err(JobError::failed)
}

async fn join_carves(_: CarveReceived, app: Data<App>) -> Result<(), JobError> {
    carves::join_received(&app)
        .await
        .map(drop)
        .map_err(JobError::failed)
}

async fn deliver_alert(job: DeliverAlert, app: Data<App>) -> Result<(), JobError> {
    let key = &app.settings.keys.destinations;
    let delivery = DeliveryId(job.delivery_id);
    deliver_alert::deliver(&app.db, &app.outbound, key, &*app.clock, delivery)
        .await
        .map(drop)
        .map_err(JobError::failed)
}

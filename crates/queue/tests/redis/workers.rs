//! Workers: running, dying, stopping, and handlers that misbehave.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use apalis::prelude::{Data, Monitor};
use ostiary_queue::{
    Job, JobError,
    jobs::{BatchesStored, DeliverAlert},
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};

use crate::server::{
    LEASE, RedisServer, delivery, depth, handler, start_worker, until, until_empty,
};

/// A handler that waits at a gate, and counts who came to it and who went through.
#[derive(Clone)]
pub(crate) struct Gate {
    begun: Arc<AtomicU32>,
    done: Arc<AtomicU32>,
    open: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            begun: Arc::default(),
            done: Arc::default(),
            open: Arc::new(Semaphore::new(0)),
        }
    }

    pub(crate) fn handler<J: Job>(&self) -> crate::server::Handler<J> {
        let gate = self.clone();
        handler(move |_| {
            let gate = gate.clone();
            async move {
                gate.begun.fetch_add(1, Ordering::SeqCst);
                gate.open
                    .acquire()
                    .await
                    .map_err(JobError::failed)?
                    .forget();
                gate.done.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
        })
    }

    pub(crate) fn let_through(&self, jobs: usize) {
        self.open.add_permits(jobs);
    }

    pub(crate) async fn until_begun(&self, jobs: u32) {
        until("jobs have begun", async || {
            self.begun.load(Ordering::SeqCst) == jobs
        })
        .await;
    }

    pub(crate) async fn until_done(&self, jobs: u32) {
        until("jobs are done", async || {
            self.done.load(Ordering::SeqCst) == jobs
        })
        .await;
    }
}

#[tokio::test]
async fn a_bell_rung_during_its_work_leads_to_one_more_look() {
    let redis = RedisServer::start().await;
    let queue = redis.queue();
    let gate = Gate::new();
    let bell = BatchesStored::for_pending(1);
    queue.ring(&bell).await.unwrap();
    let worker = start_worker(&queue, 4, gate.handler::<BatchesStored>());
    gate.until_begun(1).await;

    assert!(queue.ring(&bell).await.unwrap());
    assert!(!queue.ring(&bell).await.unwrap());
    assert_eq!(depth::<BatchesStored>(&queue).await, (0, 1));
    gate.let_through(3);
    gate.until_done(2).await;
    until_empty::<BatchesStored>(&queue).await;
    worker.stop_gracefully().await;
    gate.until_begun(2).await;
    assert_eq!(redis.keys().await, 0);
}

#[tokio::test]
async fn a_job_longer_than_its_lease_stays_with_its_worker() {
    let redis = RedisServer::start().await;
    let queue = redis.queue();
    let gate = Gate::new();
    queue.ring(&delivery(1)).await.unwrap();
    let first = start_worker(&queue, 1, gate.handler::<DeliverAlert>());
    gate.until_begun(1).await;
    let second = start_worker(&queue, 1, gate.handler::<DeliverAlert>());
    tokio::time::sleep(LEASE * 5 / 2).await;
    gate.until_begun(1).await;
    gate.let_through(1);
    until_empty::<DeliverAlert>(&queue).await;
    first.stop_gracefully().await;
    second.stop_gracefully().await;
}

#[tokio::test]
async fn jobs_of_a_killed_worker_run_again_once_their_lease_is_over() {
    let redis = RedisServer::start().await;
    let queue = redis.queue();
    let gate = Gate::new();
    queue
        .ring_many(&[delivery(1), delivery(2), delivery(3)])
        .await
        .unwrap();
    let worker = start_worker(&queue, 2, gate.handler::<DeliverAlert>());
    gate.until_begun(2).await;
    worker.kill().await;
    assert_eq!(depth::<DeliverAlert>(&queue).await, (1, 2));

    gate.let_through(3);
    let worker = start_worker(&queue, 2, gate.handler::<DeliverAlert>());
    until_empty::<DeliverAlert>(&queue).await;
    gate.until_done(3).await;
    worker.stop_gracefully().await;
}

#[tokio::test]
async fn a_job_that_kills_its_workers_is_dropped_and_can_be_rung_again() {
    let redis = RedisServer::start().await;
    let queue = redis.queue();
    let gate = Gate::new();
    queue.ring(&delivery(1)).await.unwrap();
    for round in 1..=3 {
        let worker = start_worker(&queue, 1, gate.handler::<DeliverAlert>());
        gate.until_begun(round).await;
        worker.kill().await;
    }
    let worker = start_worker(&queue, 1, gate.handler::<DeliverAlert>());
    until_empty::<DeliverAlert>(&queue).await;
    gate.until_begun(3).await;

    assert!(queue.ring(&delivery(1)).await.unwrap());
    gate.let_through(1);
    gate.until_done(1).await;
    worker.stop_gracefully().await;
    assert_eq!(redis.keys().await, 0);
}

#[tokio::test]
async fn a_graceful_stop_finishes_what_was_begun_and_leaves_the_rest_waiting() {
    let redis = RedisServer::start().await;
    let queue = redis.queue();
    let gate = Gate::new();
    let jobs: Vec<_> = (0..100).map(delivery).collect();
    queue.ring_many(&jobs).await.unwrap();
    let worker = start_worker(&queue, 5, gate.handler::<DeliverAlert>());
    gate.until_begun(5).await;
    let stopping = tokio::spawn(worker.stop_gracefully());
    gate.let_through(5);
    stopping.await.unwrap();
    let done = u64::from(gate.done.load(Ordering::SeqCst));
    assert_eq!(depth::<DeliverAlert>(&queue).await, (100 - done, 0));

    gate.let_through(100);
    let worker = start_worker(&queue, 5, gate.handler::<DeliverAlert>());
    gate.until_done(100).await;
    worker.stop_gracefully().await;
    assert_eq!(redis.keys().await, 0);
}

#[tokio::test]
async fn jobs_taken_but_not_begun_are_given_back_at_once() {
    use apalis_core::{backend::Backend, worker::context::WorkerContext};
    use std::future::poll_fn;

    let redis = RedisServer::start().await;
    let queue = redis.queue();
    let jobs: Vec<_> = (0..10).map(delivery).collect();
    queue.ring_many(&jobs).await.unwrap();
    let worker = WorkerContext::new("test");
    let mut backend = queue.backend::<DeliverAlert>(10);
    poll_fn(|cx| backend.poll_ready(cx, &worker)).await.unwrap();
    poll_fn(|cx| backend.poll_next(cx, &worker))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(depth::<DeliverAlert>(&queue).await, (0, 10));
    poll_fn(|cx| backend.poll_close(cx, &worker)).await.unwrap();
    assert_eq!(depth::<DeliverAlert>(&queue).await, (9, 1));
}

#[tokio::test]
async fn a_backlog_of_20_000_jobs_drains_each_job_once() {
    let redis = RedisServer::start().await;
    let queue = redis.queue();
    let jobs: Vec<_> = (0..20_000).map(delivery).collect();
    assert_eq!(queue.ring_many(&jobs).await.unwrap(), 20_000);
    let seen: Arc<Mutex<HashMap<DeliveryId, u32>>> = Arc::default();
    let work = {
        let seen = seen.clone();
        handler(move |job: DeliverAlert| {
            *seen.lock().unwrap().entry(job.delivery_id).or_default() += 1;
            async { Ok(()) }
        })
    };
    let started = std::time::Instant::now();
    let worker = start_worker(&queue, 32, work);
    until_empty::<DeliverAlert>(&queue).await;
    println!("20,000 jobs in {:?}", started.elapsed());
    worker.stop_gracefully().await;
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 20_000);
    assert!(seen.values().all(|runs| *runs == 1));
}

type DeliveryId = uuid::Uuid;

/// Panics, hangs or fails as its number says; tells how often it was begun.
async fn misbehave(job: DeliverAlert, begun: Data<Arc<AtomicU32>>) -> Result<(), JobError> {
    begun.fetch_add(1, Ordering::SeqCst);
    match job.delivery_id.as_u128() % 4 {
        0 => panic!("the handler panics"),
        1 => std::future::pending().await,
        2 => Err(JobError::failed("the handler fails")),
        _ => Ok(()),
    }
}

#[tokio::test]
async fn a_panic_a_time_out_and_a_failure_leave_the_queue_healthy() {
    let redis = RedisServer::start().await;
    let queue = redis.queue();
    let begun = Arc::new(AtomicU32::new(0));
    let stop = Arc::new(Notify::new());
    let monitor = {
        let (queue, begun) = (queue.clone(), begun.clone());
        Monitor::new().register(move |_| {
            queue
                .worker::<DeliverAlert>("misbehave", 3, Duration::from_millis(300))
                .data(begun.clone())
                .build(misbehave)
        })
    };
    let stopped = stop.clone();
    let monitor = tokio::spawn(monitor.run_with_signal(async move {
        stopped.notified().await;
        Ok(())
    }));
    let jobs: Vec<_> = (0..12).map(delivery).collect();
    for round in 1..=2 {
        assert_eq!(queue.ring_many(&jobs).await.unwrap(), 12);
        until_empty::<DeliverAlert>(&queue).await;
        assert_eq!(
            begun.load(Ordering::SeqCst),
            12 * round,
            "each job makes one attempt"
        );
    }
    stop.notify_one();
    monitor.await.unwrap().unwrap();
    assert_eq!(redis.keys().await, 0);
}

/// What a later release might ring.
#[derive(Serialize, Deserialize)]
struct LaterDeliverAlert {
    delivery_ids: Vec<u32>,
}

impl Job for LaterDeliverAlert {
    const QUEUE: &'static str = DeliverAlert::QUEUE;
    const VERSION: u16 = DeliverAlert::VERSION + 1;

    fn id(&self) -> String {
        "later".to_owned()
    }
}

#[tokio::test]
async fn a_payload_of_an_unknown_version_is_removed_and_harms_no_other() {
    let redis = RedisServer::start().await;
    let queue = redis.queue();
    let gate = Gate::new();
    gate.let_through(1);
    let delivery_ids = vec![1, 2];
    queue
        .ring(&LaterDeliverAlert { delivery_ids })
        .await
        .unwrap();
    queue.ring(&delivery(1)).await.unwrap();
    let worker = start_worker(&queue, 1, gate.handler::<DeliverAlert>());
    until_empty::<DeliverAlert>(&queue).await;
    gate.until_done(1).await;
    worker.stop_gracefully().await;
    assert_eq!(redis.keys().await, 0);
}

//! Redis restarts, forgets and freezes while workers are at work.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use ostiary_queue::{
    Queue,
    jobs::{BatchesStored, DeliverAlert},
};
use uuid::Uuid;

use crate::{
    server::{Handler, RedisServer, delivery, handler, start_worker, until, until_empty},
    workers::Gate,
};

type Seen = Arc<Mutex<HashSet<Uuid>>>;

fn record(seen: &Seen) -> Handler<DeliverAlert> {
    let seen = seen.clone();
    handler(move |job: DeliverAlert| {
        let seen = seen.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            seen.lock().unwrap().insert(job.delivery_id);
            Ok(())
        }
    })
}

async fn backlog(queue: &Queue) -> Vec<DeliverAlert> {
    let jobs: Vec<_> = (0..2_000).map(delivery).collect();
    queue.ring_many(&jobs).await.unwrap();
    jobs
}

async fn until_seen(seen: &Seen, jobs: usize) {
    until("jobs are seen", async || seen.lock().unwrap().len() >= jobs).await;
}

#[tokio::test]
async fn a_restart_of_redis_loses_no_job_and_no_worker() {
    let mut redis = RedisServer::start().await;
    let queue = redis.queue();
    backlog(&queue).await;
    let seen = Seen::default();
    let worker = start_worker(&queue, 4, record(&seen));
    for round in 1..=2 {
        until_seen(&seen, round * 300).await;
        redis.stop();
        assert!(queue.ring(&delivery(1)).await.is_err());
        redis.start_again().await;
    }
    until_seen(&seen, 2_000).await;
    until_empty::<DeliverAlert>(&queue).await;
    worker.stop_gracefully().await;
}

#[tokio::test]
async fn after_a_flush_the_next_bells_are_answered() {
    let redis = RedisServer::start().await;
    let queue = redis.queue();
    let jobs = backlog(&queue).await;
    let seen = Seen::default();
    let worker = start_worker(&queue, 4, record(&seen));
    until_seen(&seen, 300).await;
    redis.flush_all().await;
    // As the sweep does: what Postgres still has is rung for again.
    let undone: Vec<_> = jobs
        .into_iter()
        .filter(|job| !seen.lock().unwrap().contains(&job.delivery_id))
        .collect();
    assert!(!undone.is_empty());
    queue.ring_many(&undone).await.unwrap();
    until_seen(&seen, 2_000).await;
    until_empty::<DeliverAlert>(&queue).await;
    worker.stop_gracefully().await;
}

#[tokio::test]
async fn a_bell_rung_after_a_flush_while_its_twin_is_worked_leads_to_one_more_look() {
    let redis = RedisServer::start().await;
    let queue = redis.queue();
    let gate = Gate::new();
    let bell = BatchesStored::for_pending(1);
    queue.ring(&bell).await.unwrap();
    let worker = start_worker(&queue, 4, gate.handler::<BatchesStored>());
    gate.until_begun(1).await;
    redis.flush_all().await;
    // Redis no longer knows that the job is being worked, and hands it to the same worker again.
    queue.ring(&bell).await.unwrap();
    until("the worker has fetched it", async || {
        queue
            .depth()
            .await
            .unwrap()
            .iter()
            .any(|depth| depth.working == 1)
    })
    .await;
    gate.let_through(2);
    gate.until_done(2).await;
    until_empty::<BatchesStored>(&queue).await;
    worker.stop_gracefully().await;
    assert_eq!(redis.keys().await, 0);
}

#[tokio::test]
async fn a_worker_outlives_a_redis_that_is_frozen_or_not_there_yet() {
    let mut redis = RedisServer::start().await;
    let queue = redis.queue();
    redis.stop();
    let gate = Gate::new();
    gate.let_through(2);
    let worker = start_worker(&queue, 1, gate.handler::<DeliverAlert>());
    redis.start_again().await;
    until("a bell is taken", async || {
        queue.ring(&delivery(1)).await.is_ok()
    })
    .await;
    gate.until_done(1).await;
    until_empty::<DeliverAlert>(&queue).await;

    redis.signal("STOP");
    assert!(queue.ring(&delivery(2)).await.is_err());
    redis.signal("CONT");
    until("a bell is taken", async || {
        queue.ring(&delivery(3)).await.is_ok()
    })
    .await;
    until_empty::<DeliverAlert>(&queue).await;
    worker.stop_gracefully().await;
}

#[tokio::test]
async fn a_worker_stops_gracefully_though_redis_is_gone() {
    let mut redis = RedisServer::start().await;
    let queue = redis.queue();
    let gate = Gate::new();
    queue.ring(&delivery(1)).await.unwrap();
    let worker = start_worker(&queue, 1, gate.handler::<DeliverAlert>());
    gate.until_begun(1).await;
    redis.stop();
    gate.let_through(1);
    let stop = tokio::time::timeout(Duration::from_secs(180), worker.stop_gracefully());
    stop.await.expect("a stop does not wait for Redis for ever");
}

#[tokio::test]
async fn a_bell_whose_place_in_the_queue_was_lost_does_not_stay_deaf() {
    let redis = RedisServer::start().await;
    let queue = redis.queue();
    queue.ring(&delivery(1)).await.unwrap();
    redis.delete("{ostiary}:deliver_alert:ready").await;
    assert!(
        !queue.ring(&delivery(1)).await.unwrap(),
        "deaf: its payload says that it waits"
    );
    let gate = Gate::new();
    gate.let_through(1);
    let worker = start_worker(&queue, 1, gate.handler::<DeliverAlert>());
    until("the bell rings", async || {
        queue.ring(&delivery(1)).await.unwrap()
    })
    .await;
    gate.until_done(1).await;
    worker.stop_gracefully().await;
}

//! Ringing: what is queued, what is not, and how long a caller waits.

use std::time::{Duration, Instant};

use ostiary_queue::{
    Error, Options, Queue,
    jobs::{BatchesStored, DeliverAlert},
};

use crate::server::{RedisServer, delivery, depth};

#[tokio::test]
async fn ringing_twice_queues_once() {
    let redis = RedisServer::start().await;
    let queue = redis.queue();
    assert!(queue.ring(&delivery(1)).await.unwrap());
    assert!(!queue.ring(&delivery(1)).await.unwrap());
    assert_eq!(
        queue
            .ring_many(&[delivery(1), delivery(2), delivery(2)])
            .await
            .unwrap(),
        1
    );
    assert_eq!(depth::<DeliverAlert>(&queue).await, (2, 0));

    // Queues of other kinds and other installations have nothing to do with it.
    assert_eq!(depth::<BatchesStored>(&queue).await, (0, 0));
    let prefix = "other".to_owned();
    let other = Queue::connect(&Options {
        prefix,
        ..redis.options()
    })
    .unwrap();
    assert!(other.ring(&delivery(1)).await.unwrap());
}

#[tokio::test]
async fn a_process_starts_and_rings_without_redis() {
    let options = Options {
        url: "redis://127.0.0.1:1/".into(),
        prefix: "ostiary".to_owned(),
        timeout_ms: 500,
    };
    let queue = Queue::connect(&options).unwrap();
    assert!(matches!(
        queue.ring(&delivery(1)).await,
        Err(Error::Redis(_))
    ));
    assert!(queue.ping().await.is_err());
    assert!(queue.depth().await.is_err());
    assert!(queue.signals().publish("topic", "id").await.is_err());
}

#[tokio::test]
async fn a_frozen_redis_costs_a_caller_no_more_than_the_time_out() {
    let redis = RedisServer::start().await;
    let queue = redis.queue();
    queue.ping().await.unwrap();
    redis.signal("STOP");
    // The second call finds a pooled connection that hangs, or must open one; both are bounded.
    for _ in 0..2 {
        let started = Instant::now();
        assert!(queue.ring(&delivery(1)).await.is_err());
        // Far less than for ever, though the machine may be busy.
        assert!(started.elapsed() < Duration::from_secs(20));
    }
    redis.signal("CONT");
    crate::server::until("the queue rings again", async || {
        queue.ring(&delivery(2)).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn options_that_cannot_be_meant_are_refused() {
    let options = |url: &str, prefix: &str, timeout_ms| Options {
        url: url.into(),
        prefix: prefix.to_owned(),
        timeout_ms,
    };
    let url = "redis://127.0.0.1/";
    for bad in [
        options(url, "", 500),
        options(url, "a{b", 500),
        options(url, "a", 0),
        options(url, "a", 1_001),
        options("http://127.0.0.1/", "a", 500),
    ] {
        assert!(
            matches!(
                Queue::connect(&bad),
                Err(Error::Options(_) | Error::Redis(_))
            ),
            "{bad:?}"
        );
    }
    assert!(serde_json::from_str::<Options>(r#"{"url": "redis://h/", "surprise": 1}"#).is_err());
    let options: Options = serde_json::from_str(r#"{"url": "redis://:hunter2@h/"}"#).unwrap();
    assert!(!format!("{options:?} {:?}", Queue::connect(&options)).contains("hunter2"));
}

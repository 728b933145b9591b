//! Hints: they arrive, on their topic only, and again after Redis was away.

use std::time::Duration;

use ostiary_queue::{Signals, Subscription};

use crate::server::{RedisServer, until};

/// Publishes until a hint arrives: a subscription begins only about when it is asked for.
async fn hears(subscription: &mut Subscription, signals: &Signals, topic: &str, id: &str) {
    until("a hint arrives", async || {
        let _ = signals.publish("something_else", "noise").await;
        let _ = signals.publish(topic, id).await;
        let next = tokio::time::timeout(Duration::from_millis(100), subscription.next());
        match next.await {
            Ok(heard) => {
                assert_ne!(heard, "noise");
                // An earlier one that was published twice may still come.
                heard == id
            }
            Err(_) => false,
        }
    })
    .await;
}

#[tokio::test]
async fn hints_arrive_on_their_topic_and_again_after_a_restart_of_redis() {
    let mut redis = RedisServer::start().await;
    // Two processes: one publishes, the other has the page open.
    let (here, there) = (redis.queue().signals(), redis.queue().signals());
    let mut subscription = there.subscribe("live_query");
    hears(&mut subscription, &here, "live_query", "first").await;
    drop(subscription);

    let mut subscription = there.subscribe("findings");
    hears(&mut subscription, &here, "findings", "second").await;
    redis.stop();
    assert!(here.publish("findings", "lost").await.is_err());
    redis.start_again().await;
    let mut later = there.subscribe("live_query");
    hears(&mut later, &here, "live_query", "third").await;
    hears(&mut subscription, &here, "findings", "fourth").await;
}

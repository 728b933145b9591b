//! Hints that something changed, for pages that are open. Nothing may depend on one arriving: a page that
//! gets a hint reads the store, and a page that gets none reads it at its own pace.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use deadpool_redis::redis;
use futures::StreamExt;
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::{sleep, timeout},
};

use crate::{Queue, Result};

/// How long to wait before listening again after Redis was lost.
const RECONNECT: Duration = Duration::from_secs(1);

/// How long a connection may take to come about; the system's own limit is minutes.
const CONNECT: Duration = Duration::from_secs(5);

/// Hints that a slow page may lag behind before it misses some.
const BACKLOG: usize = 256;

/// Sends and receives hints. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Signals {
    queue: Queue,
}

#[derive(Debug, Clone)]
struct Signal {
    topic: String,
    id: String,
}

/// All subscriptions of a process share one connection, held by a task that ends with the last of them.
#[derive(Debug, Default)]
pub(crate) struct Hub(Mutex<Option<broadcast::WeakSender<Signal>>>);

impl Signals {
    pub(crate) fn new(queue: Queue) -> Self {
        Self { queue }
    }

    /// Tells whoever listens to `topic` in any process that the thing with this id has changed.
    ///
    /// # Errors
    /// If Redis does not take it in time, which a caller may ignore.
    pub async fn publish(&self, topic: &str, id: &str) -> Result<()> {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(self.queue.channel(topic)).arg(id);
        self.queue
            .within(async |connection| publish.query_async(connection).await)
            .await
    }

    /// Listens to `topic` from about now on, through losses of Redis. Must be called within a tokio runtime.
    pub fn subscribe(&self, topic: &str) -> Subscription {
        let mut hub = self
            .queue
            .hub()
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let living = hub.as_ref().and_then(broadcast::WeakSender::upgrade);
        let receiver = if let Some(sender) = living {
            sender.subscribe()
        } else {
            let (sender, receiver) = broadcast::channel(BACKLOG);
            *hub = Some(sender.downgrade());
            tokio::spawn(listen(self.queue.clone(), sender));
            receiver
        };
        Subscription {
            topic: topic.to_owned(),
            receiver,
        }
    }
}

/// One listener to one topic.
#[derive(Debug)]
pub struct Subscription {
    topic: String,
    receiver: broadcast::Receiver<Signal>,
}

impl Subscription {
    /// Waits for the next hint and returns its id; never ends by itself.
    pub async fn next(&mut self) -> String {
        loop {
            match self.receiver.recv().await {
                Ok(signal) if signal.topic == self.topic => return signal.id,
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                // Only when the runtime is shutting down.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

async fn listen(queue: Queue, sender: broadcast::Sender<Signal>) {
    loop {
        tokio::select! {
            heard = forward(&queue, &sender) => {
                if let Err(error) = heard {
                    tracing::debug!(%error, "live hints interrupted");
                }
                sleep(RECONNECT).await;
            }
            () = sender.closed() => {
                // Someone may have subscribed since; `closed` and a new receiver race only inside the hub's lock.
                let mut hub = queue.hub().0.lock().unwrap_or_else(PoisonError::into_inner);
                if sender.receiver_count() == 0 {
                    *hub = None;
                    return;
                }
            }
        }
    }
}

/// Passes on what Redis says, until the connection ends.
async fn forward(
    queue: &Queue,
    sender: &broadcast::Sender<Signal>,
) -> std::result::Result<(), redis::RedisError> {
    let start = queue.channel("");
    // Hints need a connection of their own, since a pooled one that listens could do nothing else.
    let mut pubsub = timeout(CONNECT, queue.client().get_async_pubsub())
        .await
        .map_err(std::io::Error::from)??;
    pubsub.psubscribe(format!("{start}*")).await?;
    let mut messages = pubsub.on_message();
    while let Some(message) = messages.next().await {
        let topic = message.get_channel_name().strip_prefix(&start);
        if let (Some(topic), Ok(id)) = (topic, message.get_payload()) {
            let topic = topic.to_owned();
            // Fails when nobody listens, which `listen` notices.
            let _ = sender.send(Signal { topic, id });
        }
    }
    Ok(())
}

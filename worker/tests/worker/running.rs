//! The whole process: bells from a real Redis, the sweep without one, health, and a graceful end.

use ostiary_queue::Queue;
use ostiary_queue::jobs::BatchesStored;
use ostiary_worker::Settings;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::support::{PATIENCE, Stage, line, until};

async fn until_done(stage: &Stage) {
    until("the work is done", async || {
        stage.count("pending").await == 0
    })
    .await;
}

/// One request; the whole answer as text, `None` while nobody listens.
async fn get(address: std::net::SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

/// Waits until an answer holds all of this.
async fn shows(settings: &Settings, path: &str, parts: &[&str]) {
    until(&format!("{path} shows {parts:?}"), async || {
        let answer = get(settings.worker.listen, path).await.unwrap_or_default();
        parts.iter().all(|part| answer.contains(part))
    })
    .await;
}

async fn started(
    stage: &Stage,
    change: impl FnOnce(&mut Settings),
) -> (
    Settings,
    CancellationToken,
    tokio::task::JoinHandle<anyhow::Result<()>>,
) {
    let mut settings = (*stage.app.settings).clone();
    // Held until the worker listens: who asks for any port is not given it meanwhile.
    let held = TcpSocket::new_v4().unwrap();
    held.set_reuseaddr(true).unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    settings.worker.listen = held.local_addr().unwrap();
    change(&mut settings);
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(ostiary_worker::run(settings.clone(), shutdown.clone()));
    until("the worker starts", async || {
        assert!(!running.is_finished(), "the worker has ended");
        get(settings.worker.listen, "/healthz").await.is_some()
    })
    .await;
    (settings, shutdown, running)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bell_is_heard_at_once_and_the_process_ends_when_told() {
    let redis = std::env::var("OSTIARY_TEST_REDIS_URL").expect("script/test starts a Redis");
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    let prefix = format!("worker-test-{}", std::process::id());
    let (settings, shutdown, running) = started(&stage, |settings| {
        settings.redis = serde_json::from_value(json!({"url": redis, "prefix": prefix})).unwrap();
        settings.worker.sweep_seconds = 3_600; // only the bell can do it
    })
    .await;
    // The sweep has looked once, at the start.
    let queue = Queue::connect(&settings.redis).unwrap();
    for counter in 1..=3 {
        let id = stage
            .results(
                node,
                &[line(
                    "q",
                    "added",
                    counter,
                    stage.unix_now(),
                    json!({"a": "1"}),
                )],
            )
            .await;
        queue.ring(&BatchesStored::for_pending(id)).await.unwrap();
        until_done(&stage).await;
    }
    assert_eq!(stage.events(node).await.len(), 3);
    shows(
        &settings,
        "/readyz",
        &["HTTP/1.1 200", r#""name":"redis","ok":true"#],
    )
    .await;
    // Counted once the posts are committed.
    shows(&settings, "/metrics", &["ostiary_worker_posts_total"]).await;
    shutdown.cancel();
    tokio::time::timeout(PATIENCE, running)
        .await
        .expect("it ends")
        .unwrap()
        .unwrap();
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_the_sweep_does_the_work() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    let (settings, shutdown, running) =
        started(&stage, |settings| settings.worker.sweep_seconds = 1).await;
    for counter in 1..=2 {
        stage
            .results(
                node,
                &[line(
                    "q",
                    "added",
                    counter,
                    stage.unix_now(),
                    json!({"a": "1"}),
                )],
            )
            .await;
        until_done(&stage).await;
    }
    assert_eq!(stage.events(node).await.len(), 2);
    shows(
        &settings,
        "/readyz",
        &["HTTP/1.1 200", r#""name":"redis","ok":false"#],
    )
    .await;
    shutdown.cancel();
    tokio::time::timeout(PATIENCE, running)
        .await
        .expect("it ends")
        .unwrap()
        .unwrap();
    stage.end().await;
}

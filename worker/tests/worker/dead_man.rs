//! The dead man's signal: given only while Ostiary does what it is for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::standing::is_up;
use crate::support::{Stage, seconds, when};

/// A server that counts calls and answers each with this status line.
async fn listener(status: &'static str) -> (String, Arc<AtomicUsize>) {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/ping/secret", server.local_addr().unwrap());
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = server.accept().await {
            let mut request = [0; 4096];
            let read = stream.read(&mut request).await.unwrap_or(0);
            if request[..read].starts_with(b"GET /ping/secret ") {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            let answer =
                format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (url, calls)
}

#[tokio::test]
async fn a_sign_of_life_is_given_only_while_an_api_is_there_and_work_is_done() {
    let (url, calls) = listener("200 OK").await;
    let stage = Stage::with(|settings| {
        settings.dead_man.url = url;
        settings.outputs.allow_private_addresses = true;
    })
    .await;
    let node = stage.node("web-1").await;
    is_up(&stage).await;
    assert!(stage.app.signal_life().await.unwrap());
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert!(!format!("{:?}", stage.app.settings.dead_man).contains("secret"));
    stage.clock.advance(seconds(300));
    assert!(!stage.app.signal_life().await.unwrap(), "no api is there");
    is_up(&stage).await;
    assert!(stage.app.signal_life().await.unwrap());
    // A post waits, and nobody works it.
    stage.results(node, &[]).await;
    stage.clock.advance(seconds(11 * 60));
    is_up(&stage).await;
    assert!(!stage.app.signal_life().await.unwrap(), "posts wait");
    stage.work().await;
    assert!(stage.app.signal_life().await.unwrap());
    // A delivery waits, and nobody makes it.
    stage.rule("any", &when("q", "a", "b"), "").await;
    let at = stage.now().to_rfc3339();
    stage
        .test
        .execute(&format!(
            "INSERT INTO findings (id, rule_id, rule_name, node_id, node_name, entity_hash, entity, severity, state, opened_at, last_matched_at)
                 SELECT '01900000-0000-7000-8000-000000000001', id, name, '{node}', 'web-1', '', '', 'low', 'open', '{at}', '{at}' FROM rules;
             INSERT INTO alerts (id, finding_id, kind, body, created_at)
                 SELECT id, id, 'opened', '{{}}', '{at}' FROM findings;
             INSERT INTO deliveries (id, alert_id, finding_id, destination_id, destination_name, destination_kind, state, due_at, created_at)
                 SELECT a.id, a.id, a.id, d.id, d.name, d.kind, 'waiting', '{at}', '{at}' FROM alerts a, destinations d"
        ))
        .await;
    assert!(stage.app.signal_life().await.unwrap(), "it has time");
    stage.clock.advance(seconds(11 * 60));
    is_up(&stage).await;
    assert!(!stage.app.signal_life().await.unwrap(), "a delivery waits");
    assert_eq!(calls.load(Ordering::SeqCst), 4);
    stage.end().await;
}

#[tokio::test]
async fn a_sign_of_life_that_is_refused_was_not_heard() {
    let (url, calls) = listener("404 Not Found").await;
    let stage = Stage::with(|settings| {
        settings.dead_man.url = url;
        settings.outputs.allow_private_addresses = true;
    })
    .await;
    assert!(
        !stage.app.signal_life().await.unwrap(),
        "no api was ever there"
    );
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    is_up(&stage).await;
    assert!(!stage.app.signal_life().await.unwrap());
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    stage.end().await;
}

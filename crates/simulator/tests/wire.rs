//! A fleet against a small TLS server that answers by script: what nodes send, keep, repeat and forget.

use std::io::Read as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use ostiary_simulator::config::config_hash;
use ostiary_simulator::verdict::fleet_line_in;
use ostiary_simulator::version::Version;
use ostiary_simulator::{Drift, Fleet, Misbehaviour, Server, Settings};
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;
use tokio::time::Instant;

/// How long anything may take that must happen in the end. Generous, for the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(180);

/// A request as it came.
#[derive(Clone)]
struct Seen {
    at: Instant,
    path: String,
    authorization: Option<String>,
    user_agent: String,
    gzip: bool,
    body: Vec<u8>,
}

impl Seen {
    fn json(&self) -> Json {
        serde_json::from_slice(&self.body).expect("a body is JSON")
    }

    fn is_log(&self, log_type: &str) -> bool {
        self.path == "/log" && self.json()["log_type"] == log_type
    }
}

enum Reply {
    Body(String),
    /// The connection is closed after the request was read.
    Close,
}

type Script = dyn Fn(&Seen, usize) -> Reply + Send + Sync;

struct Host {
    port: u16,
    ca_pem: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Host {
    /// Serves by a script that gets each request and its number among those of its path, from 0.
    async fn start(script: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Host {
        let certified =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der())
            .expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .expect("a server's certificate");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let host = Host {
            port: listener.local_addr().expect("an address").port(),
            ca_pem: certified.cert.pem(),
            seen: Arc::default(),
        };
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let (seen, script): (_, Arc<Script>) = (Arc::clone(&host.seen), Arc::new(script));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, seen, script) =
                    (acceptor.clone(), Arc::clone(&seen), Arc::clone(&script));
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else {
                        return;
                    };
                    let service = service_fn(|request| {
                        serve(request, Arc::clone(&seen), Arc::clone(&script))
                    });
                    // Clients leave without a word, and scripts cut connections.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(tls), service)
                        .await;
                });
            }
        });
        host
    }

    fn settings(&self) -> Settings {
        let server = Server::new(&format!("localhost:{}", self.port), self.ca_pem.as_bytes())
            .expect("a server");
        let mut settings = Settings::new(server, "s3cret");
        settings.versions = vec![Version(5, 23, 1)];
        settings.logger_tls_period = 1;
        settings.distributed_interval = 1;
        settings.config_refresh = 1;
        settings.config_accelerated_refresh = 1;
        settings.retry_unit = Duration::from_millis(20);
        settings.batch_share = 0.0;
        settings.gzip_share = 0.0;
        settings.reuse_share = 0.0;
        settings
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic").clone()
    }

    fn of(&self, path: &str) -> Vec<Seen> {
        self.seen()
            .into_iter()
            .filter(|seen| seen.path == path)
            .collect()
    }

    /// All lines of a log type that came, in order.
    fn lines(&self, log_type: &str) -> Vec<Json> {
        self.of("/log")
            .iter()
            .filter(|seen| seen.is_log(log_type))
            .flat_map(|seen| seen.json()["data"].as_array().cloned().unwrap_or_default())
            .collect()
    }
}

async fn serve(
    request: Request<hyper::body::Incoming>,
    seen: Arc<Mutex<Vec<Seen>>>,
    script: Arc<Script>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let (head, body) = request.into_parts();
    let text = |name: &str| {
        head.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let mut body = body
        .collect()
        .await
        .map_err(std::io::Error::other)?
        .to_bytes()
        .to_vec();
    let gzip = text("content-encoding").as_deref() == Some("gzip");
    if gzip {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain)?;
        body = plain;
    }
    let request = Seen {
        at: Instant::now(),
        path: head.uri.path().to_owned(),
        authorization: text("authorization"),
        user_agent: text("user-agent").unwrap_or_default(),
        gzip,
        body,
    };
    let reply = {
        let mut seen = seen.lock().expect("no panic");
        let nth = seen
            .iter()
            .filter(|earlier| earlier.path == request.path)
            .count();
        seen.push(request.clone());
        script(&request, nth)
    };
    match reply {
        Reply::Body(body) => Ok(Response::new(Full::new(body.into()))),
        Reply::Close => Err(std::io::Error::other("as the script says")),
    }
}

/// What a good server without work answers.
fn plain(seen: &Seen, config: &Json) -> Reply {
    Reply::Body(match seen.path.as_str() {
        "/enroll" => json!({"node_key": "key-1", "node_invalid": false}).to_string(),
        "/config" => config.to_string(),
        _ => "{}".to_owned(),
    })
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn schedule(queries: &[(&str, &str, bool)]) -> Json {
    let entries: serde_json::Map<_, _> = queries
        .iter()
        .map(|(name, sql, snapshot)| {
            (
                (*name).to_owned(),
                json!({"query": sql, "interval": 1, "snapshot": snapshot}),
            )
        })
        .collect();
    json!({"schedule": entries})
}

#[tokio::test]
async fn a_node_starts_in_osquerys_order_and_tells_the_hash_of_its_config() {
    let config = schedule(&[(
        "info",
        "SELECT config_hash, version FROM osquery_info",
        true,
    )]);
    let body = config.to_string();
    let host = Host::start(move |seen, _| plain(seen, &config)).await;
    let fleet = Fleet::builder(host.settings())
        .nodes(1)
        .start()
        .await
        .expect("a fleet");
    // Each comes from a thread of its own.
    until("results, status lines, a poll", || {
        !host.lines("result").is_empty()
            && host.lines("status").len() >= 20
            && !host.of("/distributed/read").is_empty()
    })
    .await;
    let seen = host.seen();
    assert_eq!(seen[0].path, "/enroll");
    assert_eq!(seen[0].authorization, None);
    assert_eq!(
        seen[0].json()["host_details"]["os_version"]["platform"],
        "ubuntu"
    );
    assert_eq!(seen[1].path, "/config");
    assert_eq!(seen[1].json(), json!({"node_key": "key-1"}));
    assert_eq!(seen[1].authorization.as_deref(), Some("NodeKey key-1"));
    assert_eq!(seen[1].user_agent, "osquery/5.23.1");
    let line = &host.lines("result")[0];
    assert_eq!(
        line["snapshot"],
        json!([{"config_hash": config_hash(&body), "version": "5.23.1"}])
    );
    assert_eq!(
        (&line["action"], &line["counter"]),
        (&json!("snapshot"), &json!(0))
    );
    until("requests on connections of their own", || {
        fleet.traffic().0 == fleet.totals().posts
    })
    .await;
    fleet.stop().await;
}

#[tokio::test]
async fn a_cut_connection_is_followed_at_once_by_the_same_post() {
    let host = Host::start(|seen, nth| match (seen.path.as_str(), nth) {
        ("/log", 0) => Reply::Close,
        _ => plain(seen, &json!({})),
    })
    .await;
    let mut settings = host.settings();
    settings.logger_tls_period = 600;
    let fleet = Fleet::builder(settings)
        .nodes(1)
        .start()
        .await
        .expect("a fleet");
    until("lines are deleted", || !fleet.ledger().is_empty()).await;
    let posts = host.of("/log");
    assert_eq!(posts[0].body, posts[1].body);
    assert!(
        posts[1].at - posts[0].at < Duration::from_secs(500),
        "long before the next period"
    );
    assert_eq!(fleet.traffic().1, 1);
    assert_eq!(
        (fleet.totals().failures, fleet.ledger().len()),
        (0, posts[0].json()["data"].as_array().map_or(0, Vec::len))
    );
    fleet.stop().await;
}

#[tokio::test]
async fn lines_are_deleted_only_on_success_and_failures_are_followed_by_growing_silence() {
    let host = Host::start(|seen, nth| match (seen.path.as_str(), nth) {
        ("/log", 0) => Reply::Body(r#"{"error":"busy"}"#.to_owned()),
        ("/log", 1) => Reply::Body("<html>".to_owned()),
        _ => plain(seen, &json!({})),
    })
    .await;
    let mut settings = host.settings();
    settings.logger_tls_period = 2;
    let fleet = Fleet::builder(settings)
        .nodes(1)
        .start()
        .await
        .expect("a fleet");
    until("two posts", || host.of("/log").len() == 2).await;
    assert!(fleet.ledger().is_empty());
    let waiting = fleet.undelivered();
    assert!(waiting >= 20);
    until("lines are deleted", || !fleet.ledger().is_empty()).await;
    let posts = host.of("/log");
    let gaps = [posts[1].at - posts[0].at, posts[2].at - posts[1].at];
    // One period and four; how much later a busy machine comes to it says nothing.
    assert!(gaps[0] >= Duration::from_millis(1900), "{gaps:?}");
    assert!(gaps[1] >= Duration::from_millis(7500), "{gaps:?}");
    assert_eq!(fleet.ledger().len(), waiting);
    assert_eq!(fleet.totals().failures, 2);
    let sent = posts[2].json();
    let ids: Vec<_> = sent["data"]
        .as_array()
        .expect("lines")
        .iter()
        .map(|line| line["message"].as_str())
        .collect();
    assert!(ids.iter().all(|message| {
        let id = message.and_then(fleet_line_in).expect("an id");
        fleet.ledger().find(|line| line.fleet_line == id).is_some()
    }));
    fleet.stop().await;
}

#[tokio::test]
async fn an_old_node_repeats_each_period_and_an_empty_error_deletes_its_lines() {
    let host = Host::start(|seen, nth| match (seen.path.as_str(), nth) {
        ("/log", 0..=2) => Reply::Body(r#"{"error":""}"#.to_owned()),
        ("/log", _) => Reply::Body(String::new()),
        _ => plain(seen, &json!({})),
    })
    .await;
    let mut settings = host.settings();
    settings.versions = vec![Version(2, 11, 2)];
    let fleet = Fleet::builder(settings)
        .nodes(1)
        .start()
        .await
        .expect("a fleet");
    until("lines are deleted", || !fleet.ledger().is_empty()).await;
    let posts = host.of("/log");
    // Silence that grows would take 1 + 4 + 9 periods.
    assert!(posts[3].at - posts[0].at < Duration::from_secs(13));
    assert_eq!(posts[0].authorization, None);
    assert_eq!(posts[0].body.last(), Some(&b'\n'));
    assert_eq!(posts[0].json()["data"][0]["severity"], "0");
    fleet.stop().await;
}

#[tokio::test]
async fn node_invalid_brings_a_new_enrollment_and_the_request_again() {
    let host = Host::start(|seen, nth| match (seen.path.as_str(), nth) {
        ("/enroll", nth) => Reply::Body(json!({"node_key": format!("key-{nth}")}).to_string()),
        ("/config", 0) => Reply::Body(r#"{"node_invalid":true}"#.to_owned()),
        _ => plain(seen, &json!({})),
    })
    .await;
    let fleet = Fleet::builder(host.settings())
        .nodes(1)
        .start()
        .await
        .expect("a fleet");
    until("a second config", || host.of("/config").len() >= 2).await;
    let paths: Vec<_> = host
        .seen()
        .into_iter()
        .map(|seen| seen.path)
        .take(4)
        .collect();
    assert_eq!(paths, ["/enroll", "/config", "/enroll", "/config"]);
    assert_eq!(host.of("/config")[1].json()["node_key"], "key-1");
    assert_eq!(
        (fleet.totals().enrollments, fleet.totals().node_invalid),
        (2, 1)
    );
    fleet.stop().await;
}

#[tokio::test]
async fn a_drift_comes_as_one_added_row() {
    let config = schedule(&[
        ("usb", "SELECT * FROM usb_devices", false),
        ("broken", "SELECT * FROM nowhere", false),
    ]);
    let host = Host::start(move |seen, _| plain(seen, &config)).await;
    let fleet = Fleet::builder(host.settings())
        .nodes(1)
        .start()
        .await
        .expect("a fleet");
    until("the first set", || host.lines("result").len() == 2).await;
    assert!(
        host.lines("result")
            .iter()
            .all(|line| line["counter"] == 0 && line["action"] == "added")
    );
    fleet.drift(0, Drift::Usb).expect("node 0");
    until("the drift", || host.lines("result").len() == 3).await;
    let line = host.lines("result").remove(2);
    assert_eq!(
        (&line["action"], &line["counter"]),
        (&json!("added"), &json!(1))
    );
    assert_eq!(line["columns"]["model"], "Ultra Fit");
    fleet.recover(0, Drift::Usb).expect("node 0");
    until("the recovery", || host.lines("result").len() == 4).await;
    assert_eq!(host.lines("result")[3]["action"], "removed");
    until("the error", || {
        host.lines("status").iter().any(|line| {
            line["message"].as_str().is_some_and(|m| {
                m.starts_with("Error executing scheduled query broken: no such table: nowhere")
            })
        })
    })
    .await;
    fleet.stop().await;
}

#[tokio::test]
async fn live_queries_are_answered_and_answers_kept_until_they_are_taken() {
    let host = Host::start(|seen, nth| match (seen.path.as_str(), nth) {
        ("/distributed/read", 0) => Reply::Body(
            json!({
                "queries": {"a": "SELECT platform FROM os_version", "b": "SELECT * FROM foo", "c": "SELECT 1"},
                "discovery": {"c": "SELECT 1 FROM os_version WHERE platform = 'darwin'"},
            })
            .to_string(),
        ),
        ("/distributed/write", 0..=2) => Reply::Body(r#"{"error":"later"}"#.to_owned()),
        _ => plain(seen, &json!({})),
    })
    .await;
    let fleet = Fleet::builder(host.settings())
        .nodes(1)
        .start()
        .await
        .expect("a fleet");
    until("the fourth write", || {
        host.of("/distributed/write").len() == 4
    })
    .await;
    let write = host.of("/distributed/write")[3].json();
    assert_eq!(
        write["queries"],
        json!({"a": [{"platform": "ubuntu"}], "b": []})
    );
    assert_eq!(write["statuses"], json!({"a": 0, "b": 1}));
    assert_eq!(write["messages"]["b"], "no such table: foo");
    assert!(
        host.of("/distributed/read").len() >= 2,
        "it read again before it sent the same answers again"
    );
    fleet.stop().await;
}

#[tokio::test]
async fn a_live_query_that_kills_is_never_answered_and_denylisted_from_then_on() {
    for (version, denylists) in [("5.23.1", true), ("5.4.0", false)] {
        let host = Host::start(|seen, nth| match (seen.path.as_str(), nth) {
            ("/distributed/read", 0 | 4) => Reply::Body(
                json!({"queries": {"a": "SELECT * FROM processes", "b": "SELECT platform FROM os_version"}})
                    .to_string(),
            ),
            _ => plain(seen, &json!({})),
        })
        .await;
        let mut settings = host.settings();
        settings.versions = vec![version.parse().expect("a version")];
        let fleet = Fleet::builder(settings)
            .nodes(1)
            .costly_tables(&["processes"])
            .start()
            .await
            .expect("a fleet");
        let writes = || host.of("/distributed/write");
        until("the second offer is answered", || writes().len() == 2).await;
        let [first, second] = [0, 1].map(|nth| writes()[nth].json());
        // Queued before the process ended, run by the next one.
        assert_eq!(first["queries"], json!({"b": [{"platform": "ubuntu"}]}));
        assert_eq!(fleet.enrolled(), 1, "the database has outlived it");
        if denylists {
            assert_eq!(second["queries"]["a"], json!([]));
            assert_eq!(second["statuses"]["a"], 1);
            assert_eq!(second["messages"]["a"], "distributed query is denylisted");
            assert_eq!(second["stats"]["a"], json!({}));
        } else {
            assert_eq!(second["queries"].get("a"), None, "it was ended again");
        }
        fleet.stop().await;
    }
}

#[tokio::test]
async fn a_restart_on_the_same_database_keeps_key_counters_and_lines() {
    let config = schedule(&[("users", "SELECT username FROM users", false)]);
    let host = Host::start(move |seen, _| match seen.path.as_str() {
        "/log" => Reply::Body(r#"{"error":"full"}"#.to_owned()),
        _ => plain(seen, &config),
    })
    .await;
    let folder = std::env::temp_dir().join(format!("ostiary-fleet-{}", std::process::id()));
    // Of a process of the same number that was killed.
    let _ = std::fs::remove_dir_all(&folder);
    let start = || {
        Fleet::builder(host.settings())
            .nodes(1)
            .state_folder(folder.clone())
            .start()
    };
    let fleet = start().await.expect("a fleet");
    until("results wait, and lines were refused", || {
        fleet.totals().queries_run > 0 && !host.of("/log").is_empty()
    })
    .await;
    let identity = fleet.identity(0).expect("node 0");
    fleet.stop().await;
    let before = host.of("/log").last().map(Seen::json).expect("a post");
    let fleet = start().await.expect("a fleet");
    assert_eq!(
        (
            fleet.enrolled(),
            fleet.identity(0).expect("node 0").instance_id
        ),
        (1, identity.instance_id)
    );
    let seen = host.seen().len();
    let id = before["data"][0]["message"]
        .as_str()
        .or(before["data"][0]["decorations"]["fleet_line"].as_str())
        .map(str::to_owned);
    until("an old line comes again", || {
        host.seen()[seen..]
            .iter()
            .any(|post| String::from_utf8_lossy(&post.body).contains(id.as_deref().expect("an id")))
    })
    .await;
    assert_eq!(host.of("/enroll").len(), 1);
    fleet.stop().await;
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}

#[tokio::test]
async fn misbehaving_nodes_do_what_they_are_told() {
    let config = schedule(&[
        ("processes", "SELECT pid, cmdline FROM processes", true),
        ("users", "SELECT username FROM users", false),
    ]);
    let host = Host::start(move |seen, _| plain(seen, &config)).await;
    let fleet = Fleet::builder(host.settings())
        .nodes(1)
        .misbehave(&[Misbehaviour::DoublePost], 1.0)
        .start()
        .await
        .expect("a fleet");
    until("results", || host.of("/log").len() >= 4).await;
    let bodies: Vec<_> = host.of("/log").into_iter().map(|seen| seen.body).collect();
    assert!(bodies.iter().all(
        |body| bodies.iter().filter(|other| *other == body).count() >= 2
            || Some(body) == bodies.last()
    ));
    fleet.behave(0, Misbehaviour::DoublePost).expect("node 0");

    fleet.misbehave(0, Misbehaviour::Poison).expect("node 0");
    until("raw bytes", || {
        host.of("/log")
            .iter()
            .any(|seen| seen.body.windows(3).any(|bytes| bytes == b"\xFFA\xC3"))
    })
    .await;
    fleet.behave(0, Misbehaviour::Poison).expect("node 0");

    let first = fleet.identity(0).expect("node 0");
    fleet.misbehave(0, Misbehaviour::Wipe).expect("node 0");
    until("a second enrollment", || host.of("/enroll").len() == 2).await;
    let enrolled = host.of("/enroll")[1].json();
    assert_eq!(
        enrolled["host_details"]["osquery_info"]["uuid"],
        first.uuid.as_str()
    );
    assert_ne!(
        enrolled["host_details"]["osquery_info"]["instance_id"],
        first.instance_id.as_str()
    );
    let ledger = fleet.ledger().len();
    until("all is added again", || {
        fleet.ledger().lines()[ledger..]
            .iter()
            .any(|line| line.name == "users" && line.counter == 0)
    })
    .await;
    fleet.stop().await;
}

#[tokio::test]
async fn clones_share_hardware_but_not_a_database_and_some_nodes_compress() {
    let host = Host::start(|seen, _| plain(seen, &json!({}))).await;
    let mut settings = host.settings();
    settings.gzip_share = 1.0;
    let fleet = Fleet::builder(settings)
        .nodes(4)
        .start()
        .await
        .expect("a fleet");
    until("all enroll", || fleet.enrolled() == 4).await;
    fleet.misbehave(3, Misbehaviour::Clone).expect("node 3");
    let (original, clone) = (
        fleet.identity(0).expect("node 0"),
        fleet.identity(3).expect("node 3"),
    );
    assert_eq!(
        (&original.uuid, &original.serial),
        (&clone.uuid, &clone.serial)
    );
    assert_ne!(original.instance_id, clone.instance_id);
    until("it enrolls again", || host.of("/enroll").len() == 5).await;
    until("a compressed post", || {
        host.of("/log").iter().any(|seen| seen.gzip)
    })
    .await;
    assert!(fleet.drain(PATIENCE).await);
    fleet.stop().await;
}

#[tokio::test]
async fn a_new_node_keeps_the_etag_of_its_config_until_it_restarts_and_an_old_one_knows_none() {
    let document = schedule(&[("info", "SELECT version FROM osquery_info", true)]);
    let host = Host::start(move |seen, _| {
        let sent = seen.json();
        match (seen.path.as_str(), sent["etag"].as_str()) {
            ("/config", Some("e1")) => Reply::Body(r#"{"etag":"ok"}"#.to_owned()),
            ("/config", Some(_)) => {
                let mut document = document.clone();
                document["etag"] = "e1".into();
                Reply::Body(document.to_string())
            }
            _ => plain(seen, &document),
        }
    })
    .await;
    let mut settings = host.settings();
    settings.versions = vec![Version(5, 24, 0), Version(5, 23, 1)];
    settings.config_refresh = 1;
    let fleet = Fleet::builder(settings)
        .nodes(2)
        .start()
        .await
        .expect("a fleet");
    let etags = |host: &Host| -> Vec<Option<String>> {
        host.of("/config")
            .iter()
            .filter(|seen| seen.user_agent == "osquery/5.24.0")
            .map(|seen| seen.json()["etag"].as_str().map(str::to_owned))
            .collect()
    };
    let known = Some("e1".to_owned());
    until("two answers that nothing changed, and both nodes", || {
        let totals = fleet.totals();
        totals.configs_unchanged >= 2 && totals.configs_changed >= 2
    })
    .await;
    assert_eq!(
        etags(&host)[..3],
        [Some(String::new()), known.clone(), known]
    );
    let old: Vec<_> = (host.of("/config").into_iter())
        .filter(|seen| seen.user_agent == "osquery/5.23.1")
        .map(|seen| seen.json())
        .collect();
    assert!(!old.is_empty() && old.iter().all(|sent| sent.get("etag").is_none()));
    assert_eq!(
        fleet.totals().configs_changed,
        2,
        "one document for each node"
    );
    let before = host.of("/config").len();
    fleet.restart(0).expect("a node");
    until("a full document after the restart", || {
        etags(&host)
            .iter()
            .skip(1)
            .any(|etag| etag.as_deref() == Some(""))
    })
    .await;
    assert!(host.of("/config").len() > before);
    fleet.stop().await;
}

//! Sinks against servers: what each vendor is sent, and what their answers mean; S3 and NATS against real ones.

use std::io::Read as _;
use std::sync::{Arc, Mutex};

use ostiary_domain::sink::LineType;
use ostiary_outputs::sinks::{Body, Kind, NodeOfRecord, Record, Sink, Way};
use ostiary_outputs::{Options, Outbound, SendError};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use uuid::Uuid;

use crate::{Folder, server_tls};

pub(crate) fn record(number: u32) -> Record {
    let at = "2026-11-21T09:30:05.250Z".parse().unwrap();
    Record {
        id: format!("r-{number}-0"),
        received_at: at,
        occurred_at: at,
        node: Some(Arc::new(NodeOfRecord {
            id: Uuid::from_u128(1),
            name: "web-1".into(),
            hostname: "web-1.example".into(),
            host_identifier: "4C4C".into(),
            platform: "linux".into(),
            tags: vec!["prod".into()],
        })),
        body: Body::Result {
            query: "usb".into(),
            action: "added".into(),
            columns: json!({"model": "stick"}),
            decorations: Value::Null,
            epoch: "0".into(),
            counter: 1,
            unix_time: 1_795_253_405,
            baseline: false,
            late: false,
        },
    }
}

pub(crate) fn way(allow_private_addresses: bool) -> Way {
    let options = Options {
        allow_private_addresses,
        ..Options::default()
    };
    Way {
        outbound: Outbound::new(options).unwrap(),
        folder: std::path::PathBuf::new(),
        name: "siem".into(),
        now: "2026-11-21T09:31:00Z".parse().unwrap(),
    }
}

pub(crate) fn sink(kind: &str, settings: &Value) -> Box<dyn Sink> {
    match Kind::find(kind).unwrap().read(settings) {
        Ok(sink) => sink,
        Err(error) => panic!("{kind}: {error}"),
    }
}

/// What a web server was asked: first line and headers in small letters, and the body, decompressed.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<(String, String)>>>);

impl Heard {
    fn only(&self) -> (String, String) {
        let heard = self.0.lock().unwrap();
        assert_eq!(heard.len(), 1);
        heard[0].clone()
    }
}

/// A web server that answers everything alike.
async fn web_server(answer: &'static str) -> (String, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let heard = Heard::default();
    let ears = heard.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(listen(stream, ears.clone(), answer));
        }
    });
    (url, heard)
}

async fn listen(mut stream: TcpStream, ears: Heard, answer: &'static str) {
    let mut bytes = Vec::new();
    loop {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
                .unwrap_or(0);
            let body = bytes[end + 4..].to_vec();
            if body.len() >= length {
                let text = if head.contains("content-encoding: gzip") {
                    let mut text = String::new();
                    let mut reader = flate2::read::GzDecoder::new(&body[..]);
                    reader.read_to_string(&mut text).unwrap();
                    text
                } else {
                    String::from_utf8(body).unwrap()
                };
                ears.0.lock().unwrap().push((head, text));
                let _ = stream.write_all(answer.as_bytes()).await;
                return;
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";

async fn heard(
    kind: &str,
    settings: impl Fn(&str) -> Value,
    answer: &'static str,
) -> (String, String) {
    let (url, heard) = web_server(answer).await;
    let mut sink = sink(kind, &settings(&url));
    sink.forward(&way(true), &[record(1), record(2)])
        .await
        .unwrap();
    heard.only()
}

fn assert_has(head: &str, parts: &[&str]) {
    for part in parts {
        assert!(head.contains(part), "{part} is missing in {head}");
    }
}

#[tokio::test]
async fn json_lines_go_to_a_url() {
    let settings = |url: &str| json!({"url": format!("{url}/in"), "authorization": "Bearer abc", "compression": "none"});
    let (head, body) = heard("http", settings, OK).await;
    assert_has(
        &head,
        &[
            "post /in http",
            "authorization: bearer abc",
            "content-type: application/x-ndjson",
        ],
    );
    let lines: Vec<Value> = body
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["type"], LineType::Result.as_str());
    let settings = |url: &str| json!({"url": url, "compression": "gzip"});
    let (head, compressed) = heard("http", settings, OK).await;
    assert_has(&head, &["content-encoding: gzip"]);
    assert_eq!(compressed, body);
}

#[tokio::test]
async fn splunk_gets_events_one_after_the_other() {
    let settings = |url: &str| json!({"url": url, "token": "T0K", "index": "osquery"});
    let (head, body) = heard("splunk", settings, OK).await;
    assert_has(
        &head,
        &[
            "post /services/collector/event http",
            "authorization: splunk t0k",
        ],
    );
    let first: Value = serde_json::from_str(body.lines().next().unwrap()).unwrap();
    assert_eq!(
        first,
        json!({"time": "1795253405.250", "host": "web-1.example", "source": "ostiary", "sourcetype": "osquery:result",
            "index": "osquery", "event": record(1).to_json()})
    );
}

#[tokio::test]
async fn elasticsearch_gets_documents_with_ids_of_ours() {
    let answer =
        "HTTP/1.1 200 OK\r\nContent-Length: 16\r\nConnection: close\r\n\r\n{\"errors\":false}";
    let settings = |url: &str| json!({"url": url, "index": "logs-ostiary", "api_key": "a2V5"});
    let (head, body) = heard("elasticsearch", settings, answer).await;
    assert_has(
        &head,
        &[
            "post /_bulk?filter_path=errors",
            "authorization: apikey a2v5",
            "content-type: application/x-ndjson",
        ],
    );
    let lines: Vec<Value> = body
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(
        lines[0],
        json!({"create": {"_index": "logs-ostiary", "_id": "r-1-0"}})
    );
    assert_eq!(lines[1]["@timestamp"], "2026-11-21T09:30:05.250Z");
    assert_eq!(lines[1]["columns"], json!({"model": "stick"}));
    assert!(body.ends_with('\n'), "the bulk API wants it");
}

#[tokio::test]
async fn loki_gets_a_stream_per_type() {
    let answer = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
    let settings =
        |url: &str| json!({"url": url, "tenant": "sec", "username": "u", "password": "p"});
    let (head, body) = heard("loki", settings, answer).await;
    assert_has(
        &head,
        &[
            "post /loki/api/v1/push http",
            "x-scope-orgid: sec",
            "authorization: basic dtpw",
            "content-type: application/json",
        ],
    );
    let body: Value = serde_json::from_str(&body).unwrap();
    let stream = &body["streams"][0];
    assert_eq!(
        stream["stream"],
        json!({"job": "ostiary", "type": "result"})
    );
    assert_eq!(stream["values"][0][0], "1795253405250000000");
    assert_eq!(stream["values"][1][1], record(2).to_json_line());
}

#[tokio::test]
async fn sumo_logic_gets_lines_and_datadog_entries() {
    let settings =
        |url: &str| json!({"url": format!("{url}/receiver/v1/http/xyz"), "category": "osquery"});
    let (head, body) = heard("sumo_logic", settings, OK).await;
    assert_has(
        &head,
        &[
            "post /receiver/v1/http/xyz http",
            "x-sumo-category: osquery",
            "x-sumo-name: ostiary",
        ],
    );
    assert_eq!(body.lines().count(), 2);
    let answer = "HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
    let settings = |url: &str| json!({"url": url, "api_key": "dd", "tags": "env:prod"});
    let (head, body) = heard("datadog", settings, answer).await;
    assert_has(
        &head,
        &[
            "post /api/v2/logs http",
            "dd-api-key: dd",
            "content-type: application/json",
        ],
    );
    let entries: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        entries[0],
        json!({"ddsource": "osquery", "ddtags": "env:prod", "hostname": "web-1.example", "service": "ostiary",
            "message": record(1).to_json_line()})
    );
}

#[tokio::test]
async fn answers_tell_whether_lines_or_settings_are_to_blame() {
    for (status, expected) in [
        ("400 Bad Request", "refused"),
        ("413 Content Too Large", "refused"),
        ("401 Unauthorized", "rejected"),
        ("404 Not Found", "rejected"),
        ("302 Found", "rejected"),
        ("429 Too Many Requests", "retry"),
        ("503 Service Unavailable", "retry"),
    ] {
        let answer = format!(
            "HTTP/1.1 {status}\r\nRetry-After: 7\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let (url, _) = web_server(answer.leak()).await;
        let mut sink = sink("splunk", &json!({"url": url, "token": "x"}));
        let error = sink.forward(&way(true), &[record(1)]).await.unwrap_err();
        let got = match &error {
            SendError::Refused { .. } => "refused",
            SendError::Rejected { .. } => "rejected",
            SendError::Retry { after, .. } => {
                assert_eq!(after.unwrap().as_secs(), 7);
                "retry"
            }
        };
        assert_eq!(got, expected, "{status}: {error}");
    }
}

#[tokio::test]
async fn no_kind_reaches_a_private_address_that_is_not_allowed() {
    let settings = [
        (
            "http",
            json!({"url": "http://127.0.0.1:9/", "compression": "none"}),
        ),
        ("splunk", json!({"url": "http://localhost:9", "token": "x"})),
        (
            "elasticsearch",
            json!({"url": "http://[::1]:9", "index": "x"}),
        ),
        (
            "syslog",
            json!({"server": "localhost", "port": 9, "transport": "tcp", "format": "json"}),
        ),
        (
            "syslog",
            json!({"server": "169.254.169.254", "port": 9, "transport": "udp", "format": "json"}),
        ),
        (
            "nats",
            json!({"server": "10.0.0.1", "port": 9, "encryption": "none", "subject": "x"}),
        ),
        (
            "kafka",
            json!({"brokers": "localhost:9", "topic": "x", "encryption": "none", "compression": "none"}),
        ),
        (
            "s3",
            json!({"endpoint": "http://169.254.169.254", "region": "x", "bucket": "x", "access_key_id": "x",
                "secret_access_key": "x", "addressing": "path", "seconds": 60}),
        ),
        (
            "s3",
            json!({"endpoint": "http://localhost:9", "region": "x", "bucket": "x", "access_key_id": "x", "secret_access_key": "x",
                "addressing": "path", "seconds": 60}),
        ),
    ];
    for (kind, settings) in settings {
        let error = sink(kind, &settings)
            .forward(&way(false), &[record(1)])
            .await
            .unwrap_err();
        let text = format!("{error:?}");
        assert!(text.contains("private address"), "{kind}: {text}");
    }
}

/// Reads frames with their length in front until the other side has said all, and hangs up then.
async fn read_frames<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    mut stream: S,
) -> Vec<String> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let (mut text, mut frames) = (String::from_utf8(bytes).unwrap(), Vec::new());
    while let Some((length, rest)) = text.split_once(' ') {
        let length: usize = length.parse().unwrap();
        frames.push(rest[..length].to_owned());
        text = rest[length..].to_owned();
    }
    assert_eq!(text, "");
    frames
}

fn syslog(port: u16, transport: &str, ca: &str) -> Box<dyn Sink> {
    let settings = json!({"server": "localhost", "port": port, "transport": transport, "format": "json", "ca_certificate": ca});
    sink("syslog", &settings)
}

#[tokio::test]
async fn syslog_messages_arrive_in_order_over_every_transport() {
    let expected = |n: u32| {
        format!(
            "<134>1 2026-11-21T09:30:05.250000Z web-1.example ostiary - result - {}",
            record(n).to_json_line()
        )
    };
    let records = [record(1), record(2)];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move { read_frames(listener.accept().await.unwrap().0).await });
    let taken = syslog(port, "tcp", "")
        .forward(&way(true), &records)
        .await
        .unwrap();
    assert!(taken.answer.contains("2 messages read"), "{taken:?}");
    assert_eq!(server.await.unwrap(), [expected(1), expected(2)]);

    let folder = Folder::new();
    let (tls, ca) = server_tls(&folder, &["localhost"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let stream = listener.accept().await.unwrap().0;
        read_frames(
            tokio_rustls::TlsAcceptor::from(tls)
                .accept(stream)
                .await
                .unwrap(),
        )
        .await
    });
    syslog(port, "tls", &ca)
        .forward(&way(true), &records)
        .await
        .unwrap();
    assert_eq!(server.await.unwrap(), [expected(1), expected(2)]);

    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let mut sink = sink(
        "syslog",
        &json!({"server": "127.0.0.1", "port": port, "transport": "udp", "format": "json"}),
    );
    sink.forward(&way(true), &records[..1]).await.unwrap();
    let mut datagram = [0; 9000];
    let length = socket.recv(&mut datagram).await.unwrap();
    assert_eq!(
        std::str::from_utf8(&datagram[..length]).unwrap(),
        expected(1)
    );
}

#[tokio::test]
async fn a_server_that_breaks_off_has_not_taken_the_messages() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let stream = listener.accept().await.unwrap().0;
        // Closed with something unread: a reset.
        stream.readable().await.unwrap();
        stream.set_zero_linger().unwrap();
    });
    let records: Vec<Record> = (0..5000).map(record).collect();
    let error = syslog(port, "tcp", "")
        .forward(&way(true), &records)
        .await
        .unwrap_err();
    assert!(matches!(error, SendError::Retry { .. }), "{error:?}");
    server.await.unwrap();
}

#[tokio::test]
async fn objects_lie_in_the_bucket_by_day_and_sink() {
    let folder = Folder::new();
    let server = ostiary_dev::s3::S3::start(&folder.0).await.unwrap();
    server.make_bucket("lake").await.unwrap();
    let settings = json!({"endpoint": server.endpoint, "region": "us-east-1", "bucket": "lake", "prefix": "osquery",
        "access_key_id": "id", "secret_access_key": "secret", "addressing": "path", "seconds": 60});
    let mut lake = sink("s3", &settings);
    lake.forward(&way(true), &[record(1), record(2)])
        .await
        .unwrap();
    let objects = server.objects("lake").await.unwrap();
    let [(name, bytes)] = &objects[..] else {
        panic!("{} objects", objects.len());
    };
    assert_eq!(name, "osquery/2026/11/21/siem/093005-r-1-0-2.ndjson.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&bytes[..])
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(
        text,
        format!(
            "{}\n{}\n",
            record(1).to_json_line(),
            record(2).to_json_line()
        )
    );
    let mut elsewhere = settings.clone();
    elsewhere["bucket"] = "no-such-bucket".into();
    let error = sink("s3", &elsewhere)
        .forward(&way(true), &[record(1)])
        .await
        .unwrap_err();
    assert!(matches!(error, SendError::Rejected { .. }), "{error:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_jetstream_stream_acknowledges_every_message_and_drops_what_comes_again() {
    let folder = Folder::new();
    let server = ostiary_dev::nats::Nats::start(&folder.0, "s3cret")
        .await
        .unwrap();
    let settings = |token: &str, subject: &str| json!({"server": "127.0.0.1", "port": server.port, "encryption": "none", "subject": subject, "token": token});
    let error = sink("nats", &settings("wrong", "ostiary"))
        .forward(&way(true), &[record(1)])
        .await
        .unwrap_err();
    assert!(matches!(error, SendError::Rejected { .. }), "{error:?}");
    server.make_stream("LOGS", "ostiary.*").await.unwrap();
    let error = sink("nats", &settings("s3cret", "elsewhere"))
        .forward(&way(true), &[record(1)])
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no stream"), "{error:?}");
    let mut stream = sink("nats", &settings("s3cret", "ostiary"));
    let records: Vec<Record> = (0..1000).map(record).collect();
    stream.forward(&way(true), &records).await.unwrap();
    // Once more on the same connection, and in part again on another, as after a kill.
    stream.forward(&way(true), &[record(1000)]).await.unwrap();
    let mut again = sink("nats", &settings("s3cret", "ostiary"));
    again.forward(&way(true), &records[900..]).await.unwrap();
    let messages = server.messages("LOGS").await.unwrap();
    let expected = (0..1001).map(|n| ("ostiary.result".to_owned(), record(n).to_json_line()));
    assert_eq!(messages, expected.collect::<Vec<_>>());
    server.stop().await;
}

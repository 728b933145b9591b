//! An api in this process, on a database of its own, and a client that sees every byte.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ostiary_api::Settings;
use ostiary_boot::seal::Key;
use ostiary_store::testing::TestDb;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// The paths of osqueryd, each with a body that would be taken if `key` were in force.
pub(crate) fn endpoints(key: &str) -> Vec<(&'static str, Value)> {
    vec![
        ("/enroll", modern_enroll("table", "table")),
        ("/config", json!({"node_key": key})),
        (
            "/log",
            json!({"node_key": key, "log_type": "result", "data": [{"name": "q"}]}),
        ),
        ("/distributed/read", json!({"node_key": key})),
        (
            "/distributed/write",
            json!({"node_key": key, "queries": {"x": []}}),
        ),
    ]
}

/// A Redis that nobody runs: port 9 is "discard".
pub(crate) const NO_REDIS: &str = "redis://127.0.0.1:9/";
pub(crate) const SECRET: &str = "the-enroll-secret";

/// How long anything may take that must happen in the end. Generous, for the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
/// osqueryd hangs up after this long.
pub(crate) const CLIENT_WAITS: Duration = Duration::from_secs(16);

pub(crate) struct Api {
    pub(crate) db: TestDb,
    pub(crate) address: SocketAddr,
    pub(crate) app: ostiary_api::App,
    running: ostiary_api::Running,
    shutdown: CancellationToken,
}

/// Settings for a plain listener on any port. Patient with Postgres: most tests are not about time.
pub(crate) fn settings(database_url: &str) -> Settings {
    let settings = json!({
        "log": {"filter": "info", "format": "text"},
        "database": {"url": database_url, "max_connections": 6, "acquire_timeout_ms": 60_000, "statement_timeout_ms": 60_000},
        "redis": {"url": NO_REDIS, "prefix": "api-test", "timeout_ms": 200},
        "keys": {"enroll": "11".repeat(32)},
        "api": {"plain_listen": "127.0.0.1:0", "checkin_flush_ms": 200, "freshness_poll_ms": 100, "answer_timeout_ms": 60_000},
    });
    serde_json::from_value(settings).unwrap()
}

/// A further api process on the same database.
pub(crate) struct Beside {
    pub(crate) address: SocketAddr,
    running: ostiary_api::Running,
    shutdown: CancellationToken,
}

impl Beside {
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.running.stopped().await.unwrap();
    }
}

impl Api {
    pub(crate) async fn beside(&self) -> Beside {
        self.beside_with(|_| {}).await
    }

    pub(crate) async fn beside_with(&self, change: impl FnOnce(&mut Settings)) -> Beside {
        let shutdown = CancellationToken::new();
        let mut settings = settings(&self.db.url(Some("ostiary_api")));
        change(&mut settings);
        let running = ostiary_api::start(settings, shutdown.clone())
            .await
            .unwrap();
        running.app.load().await.unwrap();
        let address = running.plain_address.unwrap();
        Beside {
            address,
            running,
            shutdown,
        }
    }

    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        let db = TestDb::new().await;
        let mut settings = settings(&db.url(Some("ostiary_api")));
        change(&mut settings);
        let shutdown = CancellationToken::new();
        let running = ostiary_api::start(settings, shutdown.clone())
            .await
            .unwrap();
        let address = running.plain_address.unwrap();
        running.app.load().await.unwrap();
        let api = Self {
            db,
            address,
            app: running.app.clone(),
            running,
            shutdown,
        };
        api.add_secret("default", SECRET, "").await;
        api
    }

    /// Where it speaks TLS, if it was told to.
    pub(crate) fn tls_address(&self) -> SocketAddr {
        self.running
            .address
            .expect("the test asked for a TLS listener")
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        drop(self.app);
        self.running.stopped().await.unwrap();
        self.db.drop().await;
    }

    /// `more` are further columns with values: `, use_limit = 1`.
    pub(crate) async fn add_secret(&self, name: &str, secret: &str, more: &str) {
        let hmac = hex::encode(Key::new(&[0x11; 32]).hmac(secret.as_bytes()));
        let id = ostiary_boot::clock::new_id();
        self.db
            .execute(&format!(
                "INSERT INTO enroll_secrets (id, name, secret_hmac, secret_sealed, created_at)
                 VALUES ('{id}', '{name}', '\\x{hmac}', '', now());"
            ))
            .await;
        if !more.is_empty() {
            self.db
                .execute(&format!(
                    "UPDATE enroll_secrets SET {more} WHERE id = '{id}'"
                ))
                .await;
        }
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        post(self.address, path, &[], body.to_string().as_bytes()).await
    }

    pub(crate) async fn enroll(&self, host: &str) -> String {
        let answer = self.post("/enroll", modern_enroll(host, host)).await;
        answer.json()["node_key"]
            .as_str()
            .unwrap_or_else(|| panic!("no key: {answer:?}"))
            .to_owned()
    }

    /// Waits until a query gives exactly these texts.
    pub(crate) async fn eventually(&self, sql: &str, expected: &[&str]) {
        let started = Instant::now();
        loop {
            let texts = self.db.texts(sql).await;
            if texts == expected {
                return;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "{sql} gives {texts:?}, not {expected:?}"
            );
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
}

/// Waits until it holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < PATIENCE, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

/// Little patience with Postgres, as tests want it where it is away.
pub(crate) fn hasty(settings: &mut Settings) {
    settings.database.acquire_timeout_ms = 1_500;
    settings.api.answer_timeout_ms = 3_000;
}

/// The enrollment of an osqueryd 5.23 on `host` with this instance id.
pub(crate) fn modern_enroll(host: &str, instance: &str) -> Value {
    json!({
        "enroll_secret": SECRET, "host_identifier": host, "platform_type": "9",
        "host_details": {
            "os_version": {"name": "Ubuntu", "version": "24.04", "platform": "ubuntu"},
            "osquery_info": {"uuid": format!("uuid-{host}"), "instance_id": format!("i-{instance}"), "version": "5.23.1", "build_platform": "linux"},
            "system_info": {"hostname": host, "uuid": format!("uuid-{host}"), "hardware_serial": format!("serial-{host}")},
        }
    })
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// As osqueryd judges it, whatever the status (osquery-protocol: an empty body is an empty object).
    pub(crate) fn is_success(&self) -> bool {
        if self.body.is_empty() {
            return true;
        }
        match self.json() {
            Value::Object(map) => {
                !map.contains_key("error") && map.get("node_invalid") != Some(&Value::Bool(true))
            }
            _ => false,
        }
    }
}

pub(crate) async fn post(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    request(address, "POST", path, headers, body).await
}

pub(crate) async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: osquery/5.23.1\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let bytes = raw(address, &[head.as_bytes(), body].concat()).await;
    parse(&bytes).unwrap_or_else(|| {
        panic!(
            "{method} {path} got no answer: {:?}",
            String::from_utf8_lossy(&bytes)
        )
    })
}

/// Sends bytes and reads until the other side closes.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let socket = TcpStream::connect(address).await.unwrap();
    let (mut read, mut write) = socket.into_split();
    let bytes = bytes.to_vec();
    // The other side may answer, and close, before it has read everything.
    let sending = tokio::spawn(async move {
        let _ = write.write_all(&bytes).await;
        write
    });
    let mut answer = Vec::new();
    let reading = tokio::time::timeout(PATIENCE, read.read_to_end(&mut answer)).await;
    let _ = reading.expect("the server answers or closes");
    sending.abort();
    answer
}

/// The first answer in some bytes.
pub(crate) fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer {
        status,
        head,
        body: bytes[end + 4..].to_vec(),
    })
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

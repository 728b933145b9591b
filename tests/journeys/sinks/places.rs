//! Where the sinks of the journey lead: real servers from their packages, and what each of them holds.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ostiary_dev::kafka::Kafka;
use ostiary_dev::nats::Nats;
use ostiary_dev::rsyslog::Rsyslog;
use ostiary_dev::s3::S3;
use ostiary_tests::World;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// The sinks that have somebody to speak to from the beginning.
pub(super) const OPEN: [&str; 5] = ["file", "syslog", "kafka", "nats", "s3"];

/// All the servers.
pub(super) struct Places {
    file: PathBuf,
    rsyslog: Rsyslog,
    kafka: Kafka,
    nats: Nats,
    s3: S3,
}

impl Places {
    /// Starts the servers and makes a sink of status logs for each, and `folder` that of the file.
    pub(super) async fn start(world: &World, folder: &Path) -> Self {
        let (rsyslog, kafka, nats, s3) = tokio::join!(
            Rsyslog::start(folder, &world.certificates),
            Kafka::start(folder),
            Nats::start(folder, "s3cret"),
            S3::start(folder),
        );
        let places = Self {
            file: folder.join("status.log"),
            rsyslog: rsyslog.unwrap(),
            kafka: kafka.unwrap(),
            nats: nats.unwrap(),
            s3: s3.unwrap(),
        };
        places.s3.make_bucket("lake").await.unwrap();
        places.nats.make_stream("LOGS", "ostiary.*").await.unwrap();
        let ca = std::fs::read_to_string(&world.certificates.ca).unwrap();
        let port = |port: u16| port.to_string();
        let fields = |name| match name {
            "file" => json!({"file": "status.log", "format": "json"}),
            "syslog" => {
                json!({"server": "localhost", "port": port(places.rsyslog.port), "transport": "tls", "format": "json",
                "ca_certificate": ca})
            }
            "kafka" => {
                json!({"brokers": places.kafka.brokers, "topic": "ostiary", "encryption": "none", "compression": "gzip"})
            }
            "nats" => {
                json!({"server": "127.0.0.1", "port": port(places.nats.port), "encryption": "none", "subject": "ostiary",
                "token": "s3cret"})
            }
            _ => {
                json!({"endpoint": places.s3.endpoint, "region": "us-east-1", "bucket": "lake", "access_key_id": "id",
                "secret_access_key": "secret", "addressing": "path", "seconds": "1"})
            }
        };
        for name in OPEN {
            make(world, name, name, &fields(name)).await;
        }
        places
    }

    /// The lines that a place holds, those of a node in the order in which they came.
    pub(super) async fn lines(&self, place: &str) -> Vec<Value> {
        let lines: Vec<String> = match place {
            "file" => {
                let text = std::fs::read_to_string(&self.file).unwrap_or_default();
                let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
                whole.lines().map(str::to_owned).collect()
            }
            "syslog" => {
                let lines = self.rsyslog.lines();
                let said = |line: &String| line.splitn(4, ' ').nth(3).map(str::to_owned);
                lines.iter().filter_map(said).collect()
            }
            "kafka" => {
                // The topic may just be made; whoever waits for lines asks again.
                let messages = self.kafka.messages("ostiary").await.unwrap_or_default();
                messages.into_iter().map(|message| message.text).collect()
            }
            "nats" => {
                let messages = self.nats.messages("LOGS").await.unwrap();
                messages.into_iter().map(|(_, text)| text).collect()
            }
            _ => return self.objects().await,
        };
        lines.iter().map(|line| read(line)).collect()
    }

    /// The lines of all objects, in the order of the first line of each.
    async fn objects(&self) -> Vec<Value> {
        let objects = self.s3.objects("lake").await.unwrap();
        let mut batches: Vec<Vec<Value>> = objects
            .iter()
            .map(|(_, bytes)| {
                let mut text = String::new();
                let mut reader = flate2::read::GzDecoder::new(&bytes[..]);
                reader.read_to_string(&mut text).unwrap();
                text.lines().map(read).collect()
            })
            .collect();
        batches.sort_by_key(|batch| (number_of(&batch[0]), batch.len()));
        batches.into_iter().flatten().collect()
    }

    /// Ends all servers.
    pub(super) async fn stop(self) {
        self.rsyslog.stop().await;
        self.kafka.stop().await;
        self.nats.stop().await;
        self.s3.stop().await;
    }
}

/// Makes a sink of status logs.
pub(super) async fn make(world: &World, name: &str, kind: &str, fields: &Value) {
    let wanted = json!({"name": name, "kind": kind, "types": ["status"], "fields": fields});
    world.rest().post("sinks", &wanted).await;
}

fn read(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))
}

/// The number in the id of a line, `s-7`.
fn number_of(line: &Value) -> u64 {
    let id = line["id"].as_str().unwrap();
    id.trim_start_matches("s-").parse().unwrap()
}

/// A web server that is down until somebody begins to listen, and keeps the lines that it is sent.
pub(super) struct Late {
    /// Where it will be.
    pub(super) port: u16,
    heard: Arc<Mutex<Vec<Value>>>,
}

impl Late {
    pub(super) fn new() -> Self {
        Self {
            port: ostiary_dev::free_port().unwrap(),
            heard: Arc::default(),
        }
    }

    pub(super) async fn listen(&self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        let heard = self.heard.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(take_posts(BufReader::new(stream), heard.clone()));
            }
        });
    }

    pub(super) fn lines(&self) -> Vec<Value> {
        self.heard.lock().unwrap().clone()
    }
}

/// Takes one post after the other, until the client has enough.
async fn take_posts(mut stream: BufReader<TcpStream>, heard: Arc<Mutex<Vec<Value>>>) {
    loop {
        let (mut line, mut length) = (String::new(), 0);
        while stream.read_line(&mut line).await.unwrap_or(0) > 2 {
            let head = line.to_ascii_lowercase();
            if let Some(value) = head.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            line.clear();
        }
        let mut body = vec![0; length];
        if length == 0 || stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let text = String::from_utf8(body).unwrap();
        let lines: Vec<Value> = text.lines().map(read).collect();
        heard.lock().unwrap().extend(lines);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let _ = stream.write_all(answer).await;
    }
}

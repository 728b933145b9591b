//! A private NATS server with JetStream (Debian's nats-server), on a free port of 127.0.0.1, and a client that asks it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::process::{Process, Recipe, find_program};

/// A running server.
#[derive(Debug)]
pub struct Nats {
    process: Process,
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    token: String,
}

impl Nats {
    /// Starts a server that keeps its streams and its log in `folder`. With a token, clients must name it.
    ///
    /// # Errors
    /// nats-server is not installed, or does not start; the message holds its last words.
    pub async fn start(folder: &Path, token: &str) -> anyhow::Result<Self> {
        let port = crate::free_port()?;
        let program = find_program("nats-server")?;
        let (port_text, streams) = (port.to_string(), folder.join("streams"));
        let streams = streams.to_string_lossy().into_owned();
        let mut command: Vec<String> = [
            program.as_str(),
            "--jetstream",
            "--addr",
            "127.0.0.1",
            "--port",
            &port_text,
            "--store_dir",
            &streams,
        ]
        .map(String::from)
        .into();
        if !token.is_empty() {
            command.extend(["--auth".to_owned(), token.to_owned()]);
        }
        let process = Recipe::new("nats-server", command, &folder.join("nats.log"))
            .start_server(async || TcpStream::connect(("127.0.0.1", port)).await.is_ok())
            .await?;
        Ok(Self {
            process,
            port,
            token: token.to_owned(),
        })
    }

    /// Makes a stream, in a file, of messages on these subjects. What comes again within two minutes is dropped.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn make_stream(&self, name: &str, subjects: &str) -> anyhow::Result<()> {
        let wanted = json!({"name": name, "subjects": [subjects], "storage": "file", "retention": "limits", "max_consumers": -1,
            "max_msgs": -1, "max_bytes": -1, "max_age": 0, "num_replicas": 1, "discard": "old",
            "duplicate_window": 120_000_000_000_u64});
        let mut client = self.connect().await?;
        client
            .ask(&format!("STREAM.CREATE.{name}"), &wanted)
            .await?;
        Ok(())
    }

    /// How many messages a stream has.
    ///
    /// # Errors
    /// There is no such stream.
    pub async fn count(&self, stream: &str) -> anyhow::Result<u64> {
        let mut client = self.connect().await?;
        let info = client
            .ask(&format!("STREAM.INFO.{stream}"), &json!({}))
            .await?;
        info["state"]["messages"]
            .as_u64()
            .context("a stream counts its messages")
    }

    /// The subjects and payloads of a stream of which nothing was deleted, in its order.
    ///
    /// # Errors
    /// There is no such stream.
    pub async fn messages(&self, stream: &str) -> anyhow::Result<Vec<(String, String)>> {
        let count = self.count(stream).await?;
        let mut client = self.connect().await?;
        let mut messages = Vec::new();
        for sequence in 1..=count {
            let question = json!({"seq": sequence});
            let got = client
                .ask(&format!("STREAM.MSG.GET.{stream}"), &question)
                .await?;
            let message = &got["message"];
            let text = |name: &str| message[name].as_str().context("a message has it");
            let data = BASE64_STANDARD.decode(text("data")?)?;
            messages.push((text("subject")?.to_owned(), String::from_utf8(data)?));
        }
        Ok(messages)
    }

    async fn connect(&self) -> anyhow::Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let mut client = Client(BufReader::new(stream));
        let hello = json!({"verbose": false, "auth_token": self.token});
        let hello = format!("CONNECT {hello}\r\nSUB answers 1\r\n");
        client.0.write_all(hello.as_bytes()).await?;
        Ok(client)
    }

    /// Ends the server.
    pub async fn stop(self) {
        self.process
            .stop(Signal::KILL, Duration::from_secs(5))
            .await;
    }
}

/// A connection that asks JetStream's API, as any client would.
struct Client(BufReader<TcpStream>);

impl Client {
    async fn ask(&mut self, subject: &str, question: &Value) -> anyhow::Result<Value> {
        let question = question.to_string();
        let length = question.len();
        let asked = format!("PUB $JS.API.{subject} answers {length}\r\n{question}\r\n");
        self.0.write_all(asked.as_bytes()).await?;
        loop {
            let mut line = String::new();
            ensure!(
                self.0.read_line(&mut line).await? > 0,
                "nats-server hung up"
            );
            if line.trim_end() == "PING" {
                self.0.write_all(b"PONG\r\n").await?;
            }
            ensure!(!line.starts_with("-ERR"), "nats-server says {line}");
            if let Some(length) = line.strip_prefix("MSG answers 1 ") {
                let mut payload = vec![0; length.trim().parse::<usize>()? + 2];
                self.0.read_exact(&mut payload).await?;
                let answer: Value = serde_json::from_slice(&payload)?;
                ensure!(answer["error"].is_null(), "JetStream says {answer}");
                return Ok(answer);
            }
        }
    }
}

//! NATS JetStream.
//!
//! Source: docs.nats.io, "Client Protocol" and "JetStream wire API". A publication to a subject of a stream is answered with the
//! stream's acknowledgement; nobody there means that no stream has the subject. `Nats-Msg-Id` lets the stream drop what comes again
//! within its window. The conversation is held here and not by a client library: that would look names up itself and follow the
//! addresses that a cluster announces, past our check of where may be connected to.

use async_trait::async_trait;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use super::{
    Check, Input, Kind, Record, SettingsError, Sink, Taken, Way, begun, field, not_empty, wrong,
};
use crate::sinks::stream::{Stream, broken};
use crate::{SendError, Trust};

pub(super) const KIND: Kind = Kind::of::<Nats>(
    "nats",
    "NATS JetStream",
    "Messages on subjects of a JetStream stream, a subject per type.",
    &[
        field("server", "Server", "Its host name.", Input::Text, true),
        begun(field("port", "Port", "", Input::Number, true), "4222"),
        field(
            "encryption",
            "Encryption",
            "",
            Input::Choice(&[("tls", "TLS"), ("none", "none")]),
            true,
        ),
        begun(
            field(
                "subject",
                "Subject",
                "Lines go to <subject>.result, .status, .finding and .audit; a stream must have them.",
                Input::Text,
                true,
            ),
            "ostiary",
        ),
        field("username", "User name", "", Input::Text, false),
        field("password", "Password", "", Input::Secret, false),
        field(
            "token",
            "Token",
            "Instead of a user name and a password.",
            Input::Secret,
            false,
        ),
        field(
            "ca_certificate",
            "CA certificate",
            "PEM, if the server's is not publicly trusted.",
            Input::LongText,
            false,
        ),
    ],
);

/// Messages that are sent before their acknowledgements are read, so that neither side waits for the other with full buffers.
const WINDOW: usize = 200;
/// The longest line of the protocol that is read.
const LONGEST_LINE: u64 = 64 * 1024;
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Encryption {
    Tls,
    None,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nats {
    server: String,
    port: u16,
    encryption: Encryption,
    subject: String,
    username: Option<String>,
    password: Option<SecretString>,
    token: Option<SecretString>,
    #[serde(default)]
    ca_certificate: String,
    #[serde(skip)]
    open: Option<Conversation>,
}

struct Conversation {
    stream: BufReader<Box<dyn Stream>>,
    inbox: String,
    /// Acknowledgements are numbered throughout.
    next: u64,
    max_payload: usize,
}

/// What the server says first.
#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    max_payload: usize,
    #[serde(default)]
    tls_required: bool,
    #[serde(default)]
    headers: bool,
}

impl Check for Nats {
    fn check(&self) -> Result<(), SettingsError> {
        not_empty("server", &self.server)?;
        let is_subject = |text: &str| {
            text.split('.').all(|part| {
                !part.is_empty()
                    && part
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
            })
        };
        if !is_subject(&self.subject) {
            return Err(wrong(
                "subject",
                "a subject is made of letters, digits, \"-\" and \"_\", with dots between",
            ));
        }
        Trust::from_pem(&self.ca_certificate)
            .map(drop)
            .map_err(|problem| wrong("ca_certificate", problem))
    }
}

impl Nats {
    async fn connect(&self, way: &Way) -> Result<Conversation, SendError> {
        let connector = &way.outbound.connector;
        let mut stream = connector.tcp(&self.server, self.port).await?;
        let own_port = stream.local_addr().map_err(broken)?.port();
        // Unencrypted, byte by byte: what follows may belong to TLS.
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            if line.len() as u64 > LONGEST_LINE {
                return Err(SendError::rejected("this is no NATS server"));
            }
            line.push(stream.read_u8().await.map_err(broken)?);
        }
        let info: Info = std::str::from_utf8(&line)
            .ok()
            .and_then(|line| line.strip_prefix("INFO "))
            .and_then(|info| serde_json::from_str(info.trim()).ok())
            .ok_or_else(|| SendError::rejected("this is no NATS server"))?;
        if !info.headers {
            return Err(SendError::rejected(
                "this NATS server is too old: it knows no headers",
            ));
        }
        let stream: Box<dyn Stream> = match self.encryption {
            Encryption::Tls => {
                let trust = Trust::from_pem(&self.ca_certificate).map_err(SendError::rejected)?;
                Box::new(trust.encrypt(&self.server, stream).await?)
            }
            Encryption::None if info.tls_required => {
                return Err(SendError::rejected("the server demands TLS"));
            }
            Encryption::None => Box::new(stream),
        };
        let mut conversation = Conversation {
            stream: BufReader::new(stream),
            inbox: format!("_INBOX.ostiary.{}.{own_port}", way.now.timestamp_micros()),
            next: 0,
            max_payload: info.max_payload,
        };
        conversation.begin(&self.introduction()).await?;
        Ok(conversation)
    }

    fn introduction(&self) -> Value {
        let mut connect = json!({
            "verbose": false, "pedantic": false, "lang": "rust", "version": env!("CARGO_PKG_VERSION"), "name": "ostiary",
            "protocol": 1, "headers": true, "no_responders": true, "tls_required": self.encryption == Encryption::Tls,
        });
        if let Some(token) = &self.token {
            connect["auth_token"] = token.expose_secret().into();
        } else if let Some(user) = &self.username {
            connect["user"] = user.as_str().into();
            let password = self.password.as_ref();
            connect["pass"] = password.map_or("", |text| text.expose_secret()).into();
        }
        connect
    }
}

impl Conversation {
    async fn begin(&mut self, introduction: &Value) -> Result<(), SendError> {
        let hello = format!(
            "CONNECT {introduction}\r\nSUB {}.* 1\r\nPING\r\n",
            self.inbox
        );
        self.stream
            .write_all(hello.as_bytes())
            .await
            .map_err(broken)?;
        self.stream.flush().await.map_err(broken)?;
        loop {
            match self.line().await?.as_str() {
                "PONG" => return Ok(()),
                line => self.heed(line).await?,
            }
        }
    }

    /// Publishes messages, each with a subject, and waits until the stream has acknowledged all.
    async fn publish(&mut self, messages: &[(String, &Record)]) -> Result<(), SendError> {
        let begun = self.next;
        for (subject, record) in messages {
            let payload = record.to_json_line();
            if self.max_payload > 0 && payload.len() > self.max_payload {
                return Err(SendError::refused(format!(
                    "a line of {} bytes is larger than the server takes",
                    payload.len()
                )));
            }
            let header = format!("NATS/1.0\r\nNats-Msg-Id: {}\r\n\r\n", record.id);
            let message = format!(
                "HPUB {subject} {}.{} {} {}\r\n{header}{payload}\r\n",
                self.inbox,
                self.next,
                header.len(),
                header.len() + payload.len(),
            );
            self.next += 1;
            self.stream
                .write_all(message.as_bytes())
                .await
                .map_err(broken)?;
        }
        self.stream.flush().await.map_err(broken)?;
        let mut open = messages.len();
        while open > 0 {
            let line = self.line().await?;
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some(kind @ ("MSG" | "HMSG")) => {
                    let words: Vec<&str> = words.collect();
                    let number = words
                        .first()
                        .and_then(|subject| subject.rsplit('.').next())
                        .and_then(|number| number.parse::<u64>().ok());
                    let length = words.last().and_then(|length| length.parse().ok());
                    let answer = self.payload(length.ok_or_else(odd)?).await?;
                    // Of a batch that was given up before, an answer may still come.
                    if number.is_some_and(|number| number >= begun) {
                        judge(kind, &answer)?;
                        open -= 1;
                    }
                }
                _ => self.heed(&line).await?,
            }
        }
        Ok(())
    }

    /// Lines that may come at any time.
    async fn heed(&mut self, line: &str) -> Result<(), SendError> {
        if line == "PING" {
            self.stream.write_all(b"PONG\r\n").await.map_err(broken)?;
            return self.stream.flush().await.map_err(broken);
        }
        match line.strip_prefix("-ERR") {
            // A refusal of us, which somebody may mend.
            Some(error) => Err(SendError::rejected(error.trim().trim_matches('\''))),
            None if line == "PONG" || line == "+OK" || line.starts_with("INFO ") => Ok(()),
            None => Err(odd()),
        }
    }

    async fn line(&mut self) -> Result<String, SendError> {
        let mut line = String::new();
        let mut limited = (&mut self.stream).take(LONGEST_LINE);
        if limited.read_line(&mut line).await.map_err(broken)? == 0 || !line.ends_with('\n') {
            return Err(SendError::retry("the server hung up"));
        }
        Ok(line.trim_end().to_owned())
    }

    async fn payload(&mut self, length: usize) -> Result<Vec<u8>, SendError> {
        if length as u64 > LONGEST_LINE {
            return Err(odd());
        }
        let mut payload = vec![0; length + 2];
        self.stream.read_exact(&mut payload).await.map_err(broken)?;
        payload.truncate(length);
        Ok(payload)
    }
}

/// What the stream says to a message: `{"stream":…,"seq":…}` or `{"error":{…}}`; headers alone when nobody listens.
fn judge(kind: &str, answer: &[u8]) -> Result<(), SendError> {
    if kind == "HMSG" {
        return Err(SendError::rejected("no stream has these subjects"));
    }
    let answer: Value = serde_json::from_slice(answer).map_err(|_| odd())?;
    match &answer["error"] {
        Value::Null if answer["seq"].is_u64() => Ok(()),
        Value::Null => Err(odd()),
        error => {
            let text = error["description"].as_str().unwrap_or("an error");
            Err(SendError::retry(format!("the stream says: {text}")))
        }
    }
}

fn odd() -> SendError {
    SendError::retry("the server says what no NATS server says")
}

#[async_trait]
impl Sink for Nats {
    fn summary(&self) -> String {
        format!("{}.* at {}:{}", self.subject, self.server, self.port)
    }

    async fn forward(&mut self, way: &Way, records: &[Record]) -> Result<Taken, SendError> {
        // Kept only if all went well.
        let open = self.open.take();
        let conversation = async {
            let mut open = match open {
                Some(open) => open,
                None => self.connect(way).await?,
            };
            for window in records.chunks(WINDOW) {
                let messages: Vec<(String, &Record)> = window
                    .iter()
                    .map(|record| (format!("{}.{}", self.subject, record.type_name()), record))
                    .collect();
                open.publish(&messages).await?;
            }
            Ok::<_, SendError>(open)
        };
        let open = tokio::time::timeout(PATIENCE, conversation)
            .await
            .map_err(|_| SendError::retry("the server does not answer in time"))??;
        self.open = Some(open);
        Ok(Taken::all(format!(
            "{} messages acknowledged",
            records.len()
        )))
    }
}

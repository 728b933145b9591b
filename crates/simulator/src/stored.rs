//! What a manager has stored, read page by page through its REST API.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use serde_json::Value as Json;
use tokio::net::TcpStream;

use crate::verdict::StoredLine;

const PAGE: usize = 1000;
const DEADLINE: Duration = Duration::from_secs(30);

/// A manager's REST API, by plain HTTP (it listens on the loopback address or behind a proxy).
pub struct Manager {
    authority: String,
    token: String,
}

impl Manager {
    /// The manager at `url`, read with a bearer token.
    ///
    /// # Errors
    /// When the URL is not `http://host:port`.
    pub fn new(url: &str, token: &str) -> anyhow::Result<Manager> {
        let Some(authority) = url.trim_end_matches('/').strip_prefix("http://") else {
            bail!("the manager's URL must begin with http://");
        };
        let authority = if authority.contains(':') {
            authority.to_owned()
        } else {
            format!("{authority}:80")
        };
        Ok(Manager {
            authority,
            token: token.to_owned(),
        })
    }

    async fn get(&self, path: &str) -> anyhow::Result<Json> {
        let whole = async {
            let tcp = TcpStream::connect(&self.authority).await?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(tcp)).await?;
            let connection = tokio::spawn(connection);
            let request = Request::get(path)
                .header(header::HOST, &self.authority)
                .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
                .header(header::ACCEPT, "application/json")
                .body(Empty::<Bytes>::new())?;
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            let body = answer.into_body().collect().await?.to_bytes();
            connection.abort();
            if !status.is_success() {
                bail!("GET {path} answered {status}");
            }
            Ok(serde_json::from_slice(&body)?)
        };
        tokio::time::timeout(DEADLINE, whole)
            .await
            .context("the manager did not answer in time")?
    }

    /// All items of a paged collection.
    async fn all(&self, path: &str) -> anyhow::Result<Vec<Json>> {
        let mut items = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = match &after {
                Some(after) => {
                    self.get(&format!("{path}?limit={PAGE}&after={}", escaped(after)))
                        .await?
                }
                None => self.get(&format!("{path}?limit={PAGE}")).await?,
            };
            items.extend(
                page["items"]
                    .as_array()
                    .context("the answer has no items")?
                    .iter()
                    .cloned(),
            );
            let next = match &page["next"] {
                Json::String(next) => Some(next.clone()),
                Json::Number(next) => Some(next.to_string()),
                _ => None,
            };
            if next.is_none() || next == after {
                return Ok(items);
            }
            after = next;
        }
    }

    /// The ids of all stored events of all nodes, one for each event.
    ///
    /// # Errors
    /// When the API does not answer as it should.
    pub async fn stored_lines(&self) -> anyhow::Result<Vec<StoredLine>> {
        let mut lines = Vec::new();
        for node in self.all("/api/v1/nodes").await? {
            let id = node["id"].as_str().context("a node has no id")?;
            for event in self.all(&format!("/api/v1/nodes/{id}/events")).await? {
                if let Some(fleet_line) = event["decorations"]["fleet_line"].as_str() {
                    lines.push(StoredLine {
                        fleet_line: fleet_line.to_owned(),
                    });
                }
            }
        }
        Ok(lines)
    }
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

//! Recorded requests, and a machine that repeats them under its own names.

use std::io::{Read as _, Write as _};
use std::path::Path;

use base64::Engine as _;
use ostiary_tests::{Answer, PATIENCE, Wire, World, gzip};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

/// One recorded request.
#[derive(Debug, Deserialize)]
pub(super) struct Recorded {
    method: String,
    pub(super) path: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Recorded {
    pub(super) fn all(name: &str) -> Vec<Self> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("fixtures/osquery/recordings/{name}.jsonl"));
        let text = std::fs::read_to_string(file).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    pub(super) fn is_gzip(&self) -> bool {
        self.headers
            .iter()
            .any(|(name, value)| name == "Content-Encoding" && value == "gzip")
    }

    /// The body, inflated.
    pub(super) fn body(&self) -> Vec<u8> {
        let bytes = base64::prelude::BASE64_STANDARD.decode(&self.body).unwrap();
        if !self.is_gzip() {
            return bytes;
        }
        let mut inflated = Vec::new();
        flate2::read::GzDecoder::new(bytes.as_slice())
            .read_to_end(&mut inflated)
            .unwrap();
        inflated
    }

    /// The whole request with another body: headers in the recorded order.
    pub(super) fn request(&self, body: &[u8], replica: &Replica) -> Vec<u8> {
        let body = if self.is_gzip() {
            gzip(body)
        } else {
            body.to_vec()
        };
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.path).into_bytes();
        for (name, value) in &self.headers {
            let value = match name.as_str() {
                "Content-Length" => body.len().to_string(),
                "Authorization" => format!("NodeKey {}", replica.key),
                _ => value.clone(),
            };
            write!(bytes, "{name}: {value}\r\n").unwrap();
        }
        bytes.extend_from_slice(b"Host: localhost\r\n\r\n");
        bytes.extend_from_slice(&body);
        bytes
    }
}

/// A machine that repeats a recording under its own names.
pub(super) struct Replica {
    pub(super) wire: Wire,
    /// What is replaced by what in bodies, besides the key.
    names: Vec<(String, String)>,
    pub(super) key: String,
    pub(super) node: Uuid,
}

impl Replica {
    /// Sends the recorded enrollment as `host`.
    pub(super) async fn enroll(world: &World, recording: &[Recorded], host: &str) -> Self {
        let enrollment = &recording[0];
        let recorded: Value = serde_json::from_slice(&enrollment.body()).unwrap();
        let details = &recorded["host_details"];
        let uuid = Uuid::new_v5(&Uuid::NAMESPACE_DNS, host.as_bytes()).to_string();
        let own = [
            (&recorded["enroll_secret"], world.enroll_secret()),
            (&recorded["host_identifier"], host),
            (
                &details["osquery_info"]["instance_id"],
                &format!("instance-{host}"),
            ),
            (&details["system_info"]["uuid"], &uuid),
        ];
        let names = own
            .iter()
            .map(|(old, new)| (old.as_str().unwrap().to_owned(), (*new).to_owned()))
            .collect();
        let mut replica = Self {
            wire: world.wire(),
            names,
            key: String::new(),
            node: Uuid::nil(),
        };
        let answer = replica.send(enrollment, &enrollment.body()).await;
        replica.key = answer.json()["node_key"]
            .as_str()
            .expect("a key is given out")
            .to_owned();
        let nodes = world.find_nodes(host).await;
        assert_eq!(nodes.len(), 1, "{host}");
        let brand = nodes[0].host_details["system_info"]["cpu_brand"]
            .as_str()
            .unwrap();
        assert!(
            brand.starts_with("AMD EPYC\u{FFFD}"),
            "NUL bytes are replaced: {brand:?}"
        );
        replica.node = nodes[0].id;
        replica
    }

    pub(super) async fn send(&self, recorded: &Recorded, body: &[u8]) -> Answer {
        let request = recorded.request(&self.own(body), self);
        let answer = Answer::parse(&self.wire.raw(&request, PATIENCE).await);
        let answer =
            answer.unwrap_or_else(|| panic!("{}: closed without an answer", recorded.path));
        let said = String::from_utf8_lossy(&answer.body);
        assert!(
            answer.is_success() && !answer.body.is_empty(),
            "{}: {said}",
            recorded.path
        );
        answer
    }

    pub(super) fn own(&self, body: &[u8]) -> Vec<u8> {
        let key = (
            "\"node_key\":\"nk-1\"".to_owned(),
            format!("\"node_key\":\"{}\"", self.key),
        );
        self.names
            .iter()
            .chain([&key])
            .fold(body.to_vec(), |body, (old, new)| {
                replace(&body, old.as_bytes(), new.as_bytes())
            })
    }
}

/// The lines of a log post, without the brackets around them.
pub(super) fn lines_of(body: &[u8]) -> &[u8] {
    let start = find(body, b"\"data\":[").expect("a log post has data") + 8;
    let end = find(body, b"],\"log_type\"").unwrap_or(body.len() - 2);
    &body[start..end]
}

pub(super) fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

pub(super) fn replace(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let (mut replaced, mut rest) = (Vec::with_capacity(bytes.len()), bytes);
    while let Some(start) = find(rest, old) {
        replaced.extend_from_slice(&rest[..start]);
        replaced.extend_from_slice(new);
        rest = &rest[start + old.len()..];
    }
    replaced.extend_from_slice(rest);
    replaced
}

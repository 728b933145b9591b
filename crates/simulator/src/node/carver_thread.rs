//! The carver: looks once a minute for a carve that is due, archives it and sends it, block by block.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

use super::Node;
use crate::carver::{Carve, Carver, archive, asked_path, sha256};
use crate::client::{Client, Post};
use crate::counters::add;
use crate::identity::random_uuid;
use crate::misbehave::Misbehaviour;

/// The scheduler looks for carves this often (seconds, osquery from 4.6 on).
const LOOK_EVERY: u64 = 60;

/// Attempts for each request (osquery from 5.22 on).
const ATTEMPTS: u32 = 3;

impl Node {
    /// Looks for carves for as long as the process lives; without a carver it only waits.
    pub(super) async fn carver_thread(&self) {
        let Some(carver) = self.settings.carver.clone() else {
            return std::future::pending().await;
        };
        let mut client = self.client();
        loop {
            while let Some(carve) = self.next_carve(&carver) {
                let status = self.send(&mut client, &carver, &carve).await;
                self.note_carve(&carve.guid, |carve| carve.status = status);
            }
            tokio::time::sleep(self.settings.timer(LOOK_EVERY)).await;
        }
    }

    /// Notes what a query asks to carve; the query itself then sees it among all others.
    pub(super) fn schedule_carve(&self, sql: &str) {
        let Some(path) = asked_path(sql).filter(|_| self.settings.carver.is_some()) else {
            return;
        };
        let mut state = self.state();
        let guid = random_uuid(&mut state.dice);
        let time = state.now();
        state.carves.push(Carve {
            guid,
            path,
            status: "SCHEDULED",
            sha256: String::new(),
            size: 0,
            time,
            blocks_taken: 0,
        });
    }

    /// Only a scheduled carve is ever picked up: one that a restart cut off is never tried again.
    fn next_carve(&self, carver: &Carver) -> Option<Carve> {
        let mut state = self.state();
        let carve = state
            .carves
            .iter_mut()
            .find(|carve| carve.status == "SCHEDULED")?;
        let bytes = archive(&carve.guid, &carve.path, carver);
        carve.status = "PENDING";
        carve.size = bytes.len();
        carve.sha256 = sha256(&bytes);
        Some(carve.clone())
    }

    fn note_carve(&self, guid: &str, change: impl FnOnce(&mut Carve)) {
        let mut state = self.state();
        if let Some(carve) = state.carves.iter_mut().find(|carve| carve.guid == guid) {
            change(carve);
        }
    }

    /// Starts and sends a carve; gives the status that it ends with.
    async fn send(&self, client: &mut Client, carver: &Carver, carve: &Carve) -> &'static str {
        const FAILED: &str = "DATA POST FAILED";
        let bytes = archive(&carve.guid, &carve.path, carver);
        let blocks: Vec<&[u8]> = bytes.chunks(carver.block_size.max(1)).collect();
        let request_id = random_uuid(&mut self.state().dice);
        let start = json!({
            "block_count": blocks.len(), "block_size": carver.block_size, "carve_size": bytes.len(),
            "carve_id": carve.guid, "request_id": request_id, "node_key": self.present_key(),
        });
        let path = &self.settings.endpoints.carve_start;
        let answer = self.try_carve_post(client, path, &start, has_session).await;
        let Some(session) = answer.and_then(|body| session_of(&body)) else {
            return FAILED;
        };
        let mut failed = false;
        let fails = self.state().misbehaves(Misbehaviour::FailedCarves);
        for (nth, (number, block)) in self.order(&blocks).into_iter().enumerate() {
            if fails && nth >= blocks.len() / 2 {
                return FAILED;
            }
            let body = json!({
                "block_id": number, "session_id": session, "request_id": request_id,
                "data": STANDARD.encode(block),
            });
            let path = &self.settings.endpoints.carve_continue;
            if self
                .try_carve_post(client, path, &body, is_taken)
                .await
                .is_some()
            {
                self.note_carve(&carve.guid, |carve| carve.blocks_taken += 1);
            } else if self.version.repeats_carve_posts() {
                return FAILED;
            } else {
                failed = true;
            }
            if self.state().misbehaves(Misbehaviour::OddCarves) {
                self.send_rubbish(client, &session, number, block).await;
            }
        }
        if failed {
            tracing::debug!(node = self.index, guid = %carve.guid, "A block is skipped, and the carve succeeds all the same");
        }
        "SUCCESS"
    }

    /// The blocks in the order in which they are sent: as they come; backwards and each twice; or, on odd nodes, without the last.
    fn order<'a>(&self, blocks: &[&'a [u8]]) -> Vec<(usize, &'a [u8])> {
        let in_order: Vec<(usize, &[u8])> = blocks.iter().copied().enumerate().collect();
        if !self.state().misbehaves(Misbehaviour::OddCarves) {
            in_order
        } else if self.index.is_multiple_of(2) {
            in_order
                .into_iter()
                .rev()
                .flat_map(|block| [block, block])
                .collect()
        } else {
            in_order[..blocks.len().saturating_sub(1)].to_vec()
        }
    }

    /// What no server may take: a block too long, other bytes for a block that was sent, a session that was never given.
    async fn send_rubbish(&self, client: &mut Client, session: &str, number: usize, block: &[u8]) {
        let other: Vec<u8> = block.iter().map(|byte| !byte).collect();
        let long = [block, b"x"].concat();
        for (session, data) in [
            (session.to_owned(), other),
            (session.to_owned(), long),
            (format!("{session}x"), block.to_vec()),
        ] {
            let body = json!({"block_id": number, "session_id": session, "request_id": "", "data": STANDARD.encode(data)});
            let path = &self.settings.endpoints.carve_continue;
            if self
                .carve_post(client, path, &body)
                .await
                .is_some_and(|body| is_taken(&body))
            {
                add(&self.counters.rubbish_taken, 1);
            }
        }
    }

    /// One request, with the attempts of the version.
    async fn try_carve_post(
        &self,
        client: &mut Client,
        path: &str,
        body: &Json,
        succeeded: fn(&[u8]) -> bool,
    ) -> Option<Vec<u8>> {
        let attempts = if self.version.repeats_carve_posts() {
            ATTEMPTS
        } else {
            1
        };
        for attempt in 1..=attempts {
            match self.carve_post(client, path, body).await {
                Some(answer) if succeeded(&answer) => return Some(answer),
                _ => add(&self.counters.failures, 1),
            }
            if attempt < attempts {
                let pause: Duration = self.settings.retry_unit * (attempt * attempt);
                tokio::time::sleep(pause).await;
            }
        }
        None
    }

    async fn carve_post(&self, client: &mut Client, path: &str, body: &Json) -> Option<Vec<u8>> {
        let key = Some(self.present_key()).filter(|key| !key.is_empty());
        let post = Post {
            path: path.to_owned(),
            body: self.written(body),
            authorization: key.filter(|_| self.version.sends_authorization()),
            gzip: false,
        };
        add(&self.counters.posts, 1);
        Some(client.post(&post).await.ok()?.to_vec())
    }

    fn present_key(&self) -> String {
        self.state().database.node_key.clone().unwrap_or_default()
    }
}

/// A start is judged by its session alone; neither `error` nor `node_invalid` counts.
fn session_of(body: &[u8]) -> Option<String> {
    let answer: Json = serde_json::from_slice(body).ok()?;
    let session = answer.get("session_id")?.as_str()?;
    (!session.is_empty()).then(|| session.to_owned())
}

fn has_session(body: &[u8]) -> bool {
    session_of(body).is_some()
}

/// Of the answer to a block only this counts: it is JSON, or empty.
fn is_taken(body: &[u8]) -> bool {
    body.is_empty() || serde_json::from_slice::<Json>(body).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged_by_what_this_endpoint_looks_at() {
        assert!(has_session(
            br#"{"session_id":"s","error":"x","node_invalid":true}"#
        ));
        for none in [
            &b""[..],
            b"{}",
            br#"{"session_id":""}"#,
            br#"{"session_id":7}"#,
            b"s",
        ] {
            assert!(!has_session(none));
        }
        for taken in [
            &b""[..],
            b"{}",
            br#"{"error":"no"}"#,
            br#"{"node_invalid":true}"#,
            b"[]",
        ] {
            assert!(is_taken(taken));
        }
        for refused in [&b"refused: busy"[..], b"<html>", b"{", b"{} x"] {
            assert!(!is_taken(refused));
        }
    }
}

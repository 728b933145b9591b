//! Enrolling when a key is needed, and requests that carry the key.

use bytes::Bytes;
use serde_json::{Map, Value as Json};

use super::Node;
use crate::answer::{Answer, enrolled_key, judge};
use crate::client::{Client, Post};
use crate::counters::add;
use crate::identity::enroll_body;
use crate::misbehave::Misbehaviour;
use crate::value::{as_property_tree, to_bytes};

/// The longest pause between attempts to enroll, in seconds.
const MAX_PAUSE: u32 = 600;

impl Node {
    fn key(&self) -> Option<String> {
        self.state().database.node_key.clone()
    }

    /// Enrolls unless there is a key. One thread at a time does; the others wait for its key.
    pub(super) async fn enroll_if_needed(&self) {
        if self.key().is_some() {
            return;
        }
        let _turn = self.enrolling.lock().await;
        let mut client = self.client();
        let attempts = self
            .settings
            .enroll_max_attempts
            .unwrap_or_else(|| self.version.enroll_attempts());
        let mut attempt = 0_u32;
        while self.key().is_none() {
            if let Some(key) = self.enroll_once(&mut client).await {
                self.state().database.node_key = Some(key);
                add(&self.counters.enrollments, 1);
                if let Err(error) = self.save().await {
                    tracing::warn!(node = self.index, %error, "The node's database could not be written");
                }
                return;
            }
            add(&self.counters.enrollments_refused, 1);
            attempt += 1;
            if attempts != 0 && attempt >= attempts {
                return;
            }
            let pause = attempt.saturating_mul(attempt).min(MAX_PAUSE);
            tokio::time::sleep(self.settings.retry_unit * pause).await;
        }
    }

    async fn enroll_once(&self, client: &mut Client) -> Option<String> {
        let body = {
            let state = self.state();
            let identity = &state.database.identity;
            let tables = state.with_host(state.now(), &[], |host| {
                ["os_version", "osquery_info", "system_info", "platform_info"].map(|table| {
                    (
                        table,
                        host.table(table)
                            .ok()
                            .and_then(|rows| rows.into_iter().next()),
                    )
                })
            });
            let host_identifier = identity.host_identifier(self.settings.host_identifier);
            let poison = state.misbehaves(Misbehaviour::Poison);
            enroll_body(
                &self.settings.enroll_secret,
                host_identifier,
                identity,
                &tables,
                poison,
            )
        };
        let post = Post {
            path: self.settings.endpoints.enroll.clone(),
            body: self.written(&body),
            authorization: None,
            gzip: false,
        };
        add(&self.counters.posts, 1);
        let answer = client.post(&post).await;
        let key = answer.ok().and_then(|body| enrolled_key(&body));
        if key.is_none() {
            add(&self.counters.failures, 1);
        }
        key
    }

    /// A body as this version writes it.
    pub(super) fn written(&self, body: &Json) -> Bytes {
        let mut bytes = to_bytes(body);
        if self.version.writes_property_tree() {
            bytes = as_property_tree(&bytes);
            bytes.push(b'\n');
        }
        bytes.into()
    }

    /// One request with the node key, enrolling first if there is none (and asking without one if that
    /// fails). `node_invalid` erases the key, whichever it is by now.
    pub(super) async fn ask(
        &self,
        client: &mut Client,
        path: &str,
        gzip: bool,
        body: impl Fn(&str) -> Bytes,
    ) -> Option<Map<String, Json>> {
        self.enroll_if_needed().await;
        let post = self.keyed_post(path, gzip, body);
        add(&self.counters.posts, 1);
        let answer = client.post(&post).await;
        self.heed(answer)
    }

    pub(super) fn keyed_post(&self, path: &str, gzip: bool, body: impl Fn(&str) -> Bytes) -> Post {
        let key = self.key();
        Post {
            path: path.to_owned(),
            body: body(key.as_deref().unwrap_or_default()),
            authorization: key.filter(|_| self.version.sends_authorization()),
            gzip,
        }
    }

    /// What an answer means for a keyed request: its object if it is a success.
    pub(super) fn heed(
        &self,
        answer: Result<Bytes, crate::client::Trouble>,
    ) -> Option<Map<String, Json>> {
        let judged = match answer {
            Ok(body) => judge(&body, self.version),
            Err(trouble) => {
                tracing::debug!(node = self.index, ?trouble, "A request failed");
                Answer::Failure("no answer")
            }
        };
        match judged {
            Answer::Success(object) => return Some(object),
            Answer::Failure(why) => tracing::debug!(node = self.index, why, "A request failed"),
            Answer::NodeInvalid => {
                add(&self.counters.node_invalid, 1);
                self.state().database.node_key = None;
            }
        }
        add(&self.counters.failures, 1);
        None
    }

    /// Up to `attempts` requests, pausing 1, 4, … seconds between them.
    pub(super) async fn ask_repeatedly(
        &self,
        client: &mut Client,
        path: &str,
        attempts: u32,
        body: impl Fn(&str) -> Bytes,
    ) -> Option<Map<String, Json>> {
        for attempt in 1..=attempts {
            if let Some(object) = self.ask(client, path, false, &body).await {
                return Some(object);
            }
            if attempt < attempts {
                tokio::time::sleep(self.settings.retry_unit * (attempt * attempt)).await;
            }
        }
        None
    }
}

//! `POST /enroll`: a node key for who knows a secret.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Request, State};
use chrono::{DateTime, TimeDelta, Utc};
use ostiary_boot::clock::new_id;
use ostiary_boot::seal::random_token;
use ostiary_domain::enrollment::{Decision, decide};
use ostiary_domain::ids::NodeId;
use ostiary_domain::node::NodeDetails;
use ostiary_domain::osquery::{EnrollAccepted, EnrollRequest, sanitise};
use ostiary_store::checkins::{self, Checkin};
use ostiary_store::enrollment::{self, EnrollSecret};
use ostiary_store::node_keys::{self, KeyHash, KnownNode};
use ostiary_store::nodes::{self, Enrolled};
use ostiary_store::{Conn, Db, log_batches};
use serde_json::{Value, json};

use super::request::Head;
use crate::App;
use crate::error::{Error, Result};
use crate::known_nodes::hash_of;

/// The other keys of a node that enrolls again live on, for one of its threads may hold one; but not for ever.
const KEEP_UNUSED_KEYS: TimeDelta = TimeDelta::days(30);

const BAD_SECRET: Error = Error::EnrollRefused("the enroll secret is not valid");

pub(crate) async fn enroll(
    State(app): State<App>,
    request: Request,
) -> Result<Json<EnrollAccepted>> {
    let (head, body) = Head::of(&app, request);
    let read = head.read_small(&app, body).await?;
    let request =
        EnrollRequest::parse(&sanitise(&read.bytes).text, &app.options.enroll_secret_name)?;
    if request.enroll_secret.is_empty() {
        return Err(Error::EnrollRefused("the enroll secret is missing"));
    }
    let (secret, wanted_tags) =
        split_secret(&request.enroll_secret, &app.options.enroll_tag_delimiter);
    let hmac = app.enroll_key.hmac(secret.as_bytes());
    if app.bad_secrets.contains(&hmac) {
        return Err(BAD_SECRET);
    }
    let claim = Claim {
        hmac,
        wanted_tags,
        details: bounded(NodeDetails::of(&request)),
        request: &request,
        head: &head,
    };
    let enrolled = app.within_time(claim.enroll(&app)).await;
    if let Err(error) = &enrolled {
        tracing::warn!(ip = ?head.ip, %error, "an enrollment was refused");
    }
    let (key, hash, node) = enrolled?;
    tracing::info!(node.id = %node.id, ip = ?head.ip, "a node has enrolled");
    metrics::counter!("ostiary_enrollments_total").increment(1);
    app.nodes.insert(hash, Arc::new(node));
    Ok(Json(EnrollAccepted::new(key)))
}

/// What a machine says when it wants a key.
struct Claim<'a> {
    hmac: [u8; 32],
    wanted_tags: Vec<String>,
    details: NodeDetails,
    request: &'a EnrollRequest,
    head: &'a Head,
}

impl Claim<'_> {
    /// Decides and stores in one transaction.
    async fn enroll(&self, app: &App) -> Result<(String, KeyHash, KnownNode)> {
        let now = app.clock.now();
        let mut tx = app.db.begin().await?;
        let Some(secret) = enrollment::find_secret(&mut tx, &self.hmac).await? else {
            app.bad_secrets.insert(self.hmac);
            return Err(BAD_SECRET);
        };
        if !may_be_used(&secret, now) {
            return Err(BAD_SECRET);
        }
        let candidates = nodes::find_by_identifiers(&mut tx, &self.details.identifiers()).await?;
        let decision = match decide(&self.details, &candidates, now) {
            // Not handed over without an admin: it becomes a node of its own, and the conflict is shown.
            Decision::Reestablished(id) if secret.require_approval => Decision::New {
                conflict_with: Some(id),
            },
            decision => decision,
        };
        let (id, conflict_with, first) = match decision {
            Decision::Disabled(_) => return Err(Error::EnrollRefused("this node is disabled")),
            Decision::Known(id) => (id, None, false),
            Decision::Reestablished(id) => (id, None, true),
            Decision::New { conflict_with } => (NodeId(new_id()), conflict_with, true),
        };
        let reestablished = matches!(decision, Decision::Reestablished(_));
        let host_details = Value::Object(self.request.host_details.clone());
        let (details, host_details) = (&self.details, &host_details);
        let enrolled = Enrolled {
            id,
            details,
            host_details,
            secret: secret.id,
            conflict_with,
            reestablished,
            at: now,
        };
        nodes::put(&mut tx, &enrolled).await?;
        self.give_tags(&mut tx, id, &secret, now).await?;
        let checkin = Checkin {
            ip: self.head.ip,
            enroll_at: Some(now),
            client_version: self.head.client_version.clone(),
            ..Checkin::default()
        };
        checkins::put(&mut tx, &[(id, checkin)]).await?;
        let mut pending = None;
        if first {
            let fact = self.fact(&secret, conflict_with, reestablished);
            pending = Some(log_batches::insert_fact(&mut tx, id, &fact, now).await?);
            // A node that comes again because its threads race, or its key was lost, is no further use of the secret.
            if !enrollment::take_use(&mut tx, secret.id, now).await? {
                return Err(BAD_SECRET);
            }
        }
        node_keys::revoke_unused(&mut tx, id, now - KEEP_UNUSED_KEYS, now).await?;
        let key = random_token::<32>();
        let hash = hash_of(&key);
        node_keys::insert(&mut tx, new_id(), id, &hash, now).await?;
        let node = node_keys::list_nodes(&mut tx, Some(id))
            .await?
            .pop()
            .ok_or(Error::Internal)?;
        Db::commit(tx).await?;
        app.bell.ring(pending);
        Ok((key, hash, node))
    }

    async fn give_tags(
        &self,
        conn: &mut Conn,
        id: NodeId,
        secret: &EnrollSecret,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let has = node_keys::list_nodes(conn, Some(id))
            .await?
            .pop()
            .map(|node| node.facts.tags)
            .unwrap_or_default();
        let wanted = |tag: &&String| self.wanted_tags.is_empty() || self.wanted_tags.contains(tag);
        let missing: Vec<String> = secret
            .tags
            .iter()
            .filter(wanted)
            .filter(|tag| !has.contains(tag))
            .cloned()
            .collect();
        let new_ids: Vec<_> = missing.iter().map(|_| new_id()).collect();
        Ok(enrollment::give_tags(conn, id.0, &missing, &new_ids, now).await?)
    }

    /// The fact `enrolled`, as rules see it.
    fn fact(
        &self,
        secret: &EnrollSecret,
        conflict_with: Option<NodeId>,
        reestablished: bool,
    ) -> Value {
        json!({
            "name": "enrolled",
            "columns": {
                "host_identifier": self.details.host_identifier,
                "hostname": self.details.hostname,
                "platform": self.details.platform,
                "osquery_version": self.details.osquery_version,
                "ip": self.head.ip.map(|ip| ip.to_string()).unwrap_or_default(),
                "secret": secret.name,
                "conflict_with": conflict_with.map(|id| id.to_string()).unwrap_or_default(),
                "reestablished": if reestablished { "1" } else { "0" },
            }
        })
    }
}

fn may_be_used(secret: &EnrollSecret, now: DateTime<Utc>) -> bool {
    secret.revoked_at.is_none() && secret.expires_at.is_none_or(|expires_at| now < expires_at)
}

/// Splits `secret:tag1:tag2` when a delimiter is set.
fn split_secret<'a>(text: &'a str, delimiter: &str) -> (&'a str, Vec<String>) {
    if delimiter.is_empty() {
        return (text, Vec::new());
    }
    let mut parts = text.split(delimiter);
    let secret = parts.next().unwrap_or_default();
    (
        secret,
        parts
            .map(|tag| tag.trim().to_owned())
            .filter(|tag| !tag.is_empty())
            .collect(),
    )
}

/// Identifiers are indexed, and whoever knows the secret chooses them.
fn bounded(mut details: NodeDetails) -> NodeDetails {
    for text in [
        &mut details.host_identifier,
        &mut details.hostname,
        &mut details.os_name,
        &mut details.os_version,
        &mut details.osquery_version,
        &mut details.hardware_uuid,
        &mut details.hardware_serial,
        &mut details.hardware_model,
        &mut details.instance_id,
    ] {
        if let Some((end, _)) = text.char_indices().nth(500) {
            text.truncate(end);
        }
    }
    details
}

/// Secrets that Postgres does not know: a fleet with a wrong one asks for ever.
#[derive(Debug, Default)]
pub(crate) struct BadSecrets(Mutex<HashMap<[u8; 32], Instant>>);

impl BadSecrets {
    const REMEMBER: Duration = Duration::from_secs(3);
    const MAX: usize = 10_000;

    fn contains(&self, hmac: &[u8; 32]) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .get(hmac)
            .is_some_and(|since| since.elapsed() < Self::REMEMBER)
    }

    fn insert(&self, hmac: [u8; 32]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= Self::MAX {
            known.clear();
        }
        known.insert(hmac, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_split_only_when_a_delimiter_is_set() {
        assert_eq!(split_secret("s:a:b", ""), ("s:a:b", vec![]));
        assert_eq!(
            split_secret("s:a: b:", ":"),
            ("s", vec!["a".to_owned(), "b".to_owned()])
        );
        assert_eq!(split_secret("s", ":"), ("s", vec![]));
    }

    #[test]
    fn an_endless_identifier_is_cut_at_a_character() {
        let details = NodeDetails {
            host_identifier: "é".repeat(5000),
            ..NodeDetails::default()
        };
        assert_eq!(bounded(details).host_identifier, "é".repeat(500));
    }
}

//! `POST /enroll`: a node key for who knows a secret.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Request, State};
use chrono::{DateTime, TimeDelta, Utc};
use ostiary_boot::clock::new_id;
use ostiary_boot::seal::random_token;
use ostiary_domain::enrollment::{Approval, Claim, Conflict, Decision, Joined, decide};
use ostiary_domain::ids::NodeId;
use ostiary_domain::node::NodeDetails;
use ostiary_domain::osquery::{EnrollAccepted, EnrollRequest, sanitise};
use ostiary_store::checkins::{self, Checkin};
use ostiary_store::enrollment::{self, EnrollSecret};
use ostiary_store::node_keys::{self, KeyHash, KnownNode};
use ostiary_store::nodes::{self, Enrolled};
use ostiary_store::{Conn, Db, log_batches};
use serde_json::Value;

use super::request::Head;
use crate::App;
use crate::error::{Error, Result};
use crate::known_nodes::hash_of;
use crate::limits::Network;

/// The other keys of a node that enrolls again live on, for one of its threads may hold one; but not for ever.
const KEEP_UNUSED_KEYS: TimeDelta = TimeDelta::days(30);

const BAD_SECRET_SAID: &str = "the enroll secret is not valid";
const BAD_SECRET: Error = Error::EnrollRefused(BAD_SECRET_SAID);
const USED_UP: Error = Error::EnrollRefused("the enroll secret is used up");

pub(crate) async fn enroll(
    State(app): State<App>,
    request: Request,
) -> Result<Json<EnrollAccepted>> {
    let (head, body) = Head::of(&app, request);
    let network = Network::of(head.ip);
    let read = head.read_small(&app, body).await?;
    let request =
        EnrollRequest::parse(&sanitise(&read.bytes).text, &app.options.enroll_secret_name)
            .inspect_err(|_| app.enroll_limits.failed(network, Instant::now()))?;
    if request.enroll_secret.is_empty() {
        app.enroll_limits.failed(network, Instant::now());
        return Err(Error::EnrollRefused("the enroll secret is missing"));
    }
    let (secret, wanted_tags) =
        split_secret(&request.enroll_secret, &app.options.enroll_tag_delimiter);
    let hmac = app.enroll_key.hmac(secret.as_bytes());
    let claim = Claimant {
        hmac,
        wanted_tags,
        details: bounded(NodeDetails::of(&request)),
        request: &request,
        head: &head,
    };
    let attempt = app
        .enroll_limits
        .attempt(network, hmac, claim.details.identifiers());
    if !app.enroll_limits.admits(&attempt, Instant::now()) {
        return Err(Error::TooMany);
    }
    if app.bad_secrets.contains(&hmac) {
        app.enroll_limits.failed(network, Instant::now());
        return Err(BAD_SECRET);
    }
    let enrolled = app.within_time(claim.enroll(&app)).await;
    match &enrolled {
        Err(Error::EnrollRefused(reason)) if *reason == BAD_SECRET_SAID => {
            app.enroll_limits.learn(hmac, false);
            app.enroll_limits.failed(network, Instant::now());
        }
        Err(Error::EnrollRefused(_)) => {
            app.enroll_limits.learn(hmac, true);
            app.enroll_limits.refused(&attempt, Instant::now());
        }
        Err(_) => {}
        Ok(_) => app.enroll_limits.learn(hmac, true),
    }
    if let Err(error) = &enrolled {
        tracing::warn!(ip = ?head.ip, %error, "an enrollment was refused");
    }
    let (key, hash, node) = enrolled?;
    tracing::info!(node.id = %node.id, ip = ?head.ip, standing = ?node.standing, "a node has enrolled");
    metrics::counter!("ostiary_enrollments_total").increment(1);
    app.nodes.insert(hash, Arc::new(node));
    Ok(Json(EnrollAccepted::new(key)))
}

/// What a machine says when it wants a key.
struct Claimant<'a> {
    hmac: [u8; 32],
    wanted_tags: Vec<String>,
    details: NodeDetails,
    request: &'a EnrollRequest,
    head: &'a Head,
}

/// Who the machine becomes.
struct Outcome {
    id: NodeId,
    conflict: Option<Conflict>,
    reestablished: bool,
    /// It was not this node before.
    is_first: bool,
    waits: bool,
    approval_of: Option<NodeId>,
}

impl Outcome {
    /// A machine that must wait becomes a node of its own, whoever it may be: the key that it gets unlocks nothing of anybody else.
    fn of(decision: Decision, approval: Approval) -> Result<Self> {
        let waits = approval.is_needed(&decision);
        let outcome = Self {
            id: NodeId(new_id()),
            conflict: None,
            reestablished: false,
            is_first: true,
            waits,
            approval_of: None,
        };
        Ok(match decision {
            Decision::Barred(_) => return Err(Error::EnrollRefused("this node is switched off")),
            Decision::Known(id) => Self {
                id,
                is_first: false,
                ..outcome
            },
            Decision::Reestablished(id) if waits => Self {
                approval_of: Some(id),
                ..outcome
            },
            Decision::Reestablished(id) => Self {
                id,
                reestablished: true,
                ..outcome
            },
            Decision::New { conflict } => Self {
                conflict,
                ..outcome
            },
        })
    }
}

impl Claimant<'_> {
    /// Decides and stores, once more if a write in the background stood in the way: a node would wait for minutes.
    async fn enroll(&self, app: &App) -> Result<(String, KeyHash, KnownNode)> {
        match self.try_enroll(app).await {
            Err(Error::Deadlock) => self.try_enroll(app).await,
            result => result,
        }
    }

    /// Decides and stores in one transaction.
    async fn try_enroll(&self, app: &App) -> Result<(String, KeyHash, KnownNode)> {
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
        let claim = Claim {
            details: &self.details,
            secret: secret.id,
            ip: self.head.ip,
            alive_for: TimeDelta::minutes(app.options.alive_minutes.into()),
        };
        let outcome = Outcome::of(decide(&claim, &candidates, now), secret.approval)?;
        if outcome.waits
            && nodes::count_waiting(&mut tx).await? >= i64::from(app.options.approvals_max)
        {
            return Err(Error::EnrollRefused(
                "too many machines wait for an approval",
            ));
        }
        let pending = self.put(&mut tx, &secret, &outcome, now).await?;
        let id = outcome.id;
        node_keys::revoke_unused(&mut tx, id, now - KEEP_UNUSED_KEYS, now).await?;
        let key = random_token::<32>();
        let hash = hash_of(&key);
        node_keys::insert(&mut tx, new_id(), id, &hash, now).await?;
        let node = node_keys::find_node(&mut tx, id)
            .await?
            .ok_or(Error::Internal)?;
        Db::commit(tx).await?;
        app.bell.ring(pending);
        Ok((key, hash, node))
    }

    /// Writes the node; gives the pending row of the fact that it came, unless an approval decides about that.
    async fn put(
        &self,
        conn: &mut Conn,
        secret: &EnrollSecret,
        outcome: &Outcome,
        now: DateTime<Utc>,
    ) -> Result<Option<i64>> {
        let host_details = Value::Object(self.request.host_details.clone());
        let enrolled = Enrolled {
            id: outcome.id,
            details: &self.details,
            host_details: &host_details,
            secret: secret.id,
            conflict: outcome.conflict,
            reestablished: outcome.reestablished,
            waits: outcome.waits,
            approval_of: outcome.approval_of,
            at: now,
        };
        nodes::put(conn, &enrolled).await?;
        self.give_tags(conn, outcome.id, secret, now).await?;
        let checkin = Checkin {
            ip: self.head.ip,
            enroll_at: Some(now),
            client_version: self.head.client_version.clone(),
            ..Checkin::default()
        };
        checkins::put(conn, &[(outcome.id, checkin)]).await?;
        // A node that comes again because its threads race, or its key was lost, is no further use of the secret.
        if !outcome.is_first {
            return Ok(None);
        }
        if !enrollment::take_use(conn, secret.id, now).await? {
            return Err(USED_UP);
        }
        if outcome.waits {
            return Ok(None);
        }
        let fact = Joined {
            details: &self.details,
            ip: self.head.ip.map(|ip| ip.to_string()).unwrap_or_default(),
            secret: &secret.name,
            conflict_with: outcome.conflict.map(|conflict| conflict.with),
            reestablished: outcome.reestablished,
        };
        Ok(Some(
            log_batches::insert_fact(conn, outcome.id, &fact.to_fact(), now).await?,
        ))
    }

    async fn give_tags(
        &self,
        conn: &mut Conn,
        id: NodeId,
        secret: &EnrollSecret,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let wanted = |tag: &&String| {
            let tag = tag.to_lowercase();
            self.wanted_tags.is_empty()
                || self
                    .wanted_tags
                    .iter()
                    .any(|each| each.to_lowercase() == tag)
        };
        let wanted: Vec<String> = secret.tags.iter().filter(wanted).cloned().collect();
        // Else whoever enrolls again would get back what people took away.
        let never_given = enrollment::note_given(conn, id.0, &wanted).await?;
        let tags: Vec<String> = wanted
            .into_iter()
            .filter(|tag| never_given.contains(&tag.to_lowercase()))
            .collect();
        let new_ids: Vec<_> = tags.iter().map(|_| new_id()).collect();
        Ok(enrollment::give_tags(conn, id.0, &tags, &new_ids, now).await?)
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

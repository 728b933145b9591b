//! The certificates by which nodes know us: which chains are served, which node has accepted which, who refused one on trial.

use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};
use ipnet::IpNet;
use ostiary_domain::ids::NodeId;
use uuid::Uuid;

use crate::page::{Page, PageRequest};
use crate::{Conn, Result};

/// SHA-256 over a chain's certificates.
pub type Fingerprint = [u8; 32];

/// What a chain is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChainRole {
    /// Shown to nodes.
    Api,
    /// Shown to some connections of nodes, on trial.
    ApiNext,
    /// Shown to people.
    Manager,
    /// The roots that nodes are given.
    Ca,
    /// The root that shall come.
    CaNext,
}

impl ChainRole {
    const ALL: [Self; 5] = [
        Self::Api,
        Self::ApiNext,
        Self::Manager,
        Self::Ca,
        Self::CaNext,
    ];

    /// Its word in tables, metrics and facts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::ApiNext => "api_next",
            Self::Manager => "manager",
            Self::Ca => "ca",
            Self::CaNext => "ca_next",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == word)
    }
}

/// How often a process says what it serves.
pub const SAID_EVERY: TimeDelta = TimeDelta::minutes(1);

/// A chain that nobody has named for so long is served no more.
const SERVED_FOR: TimeDelta = TimeDelta::minutes(3);

/// A chain that is, or was, served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedChain {
    /// Which.
    pub fingerprint: Fingerprint,
    /// As what.
    pub role: ChainRole,
    /// PEM of its certificates.
    pub pem: String,
    /// Since when.
    pub first_served_at: DateTime<Utc>,
    /// When some process last said so.
    pub last_served_at: DateTime<Utc>,
}

impl ServedChain {
    /// Is it served now?
    #[must_use]
    pub fn is_served(&self, now: DateTime<Utc>) -> bool {
        now - self.last_served_at <= SERVED_FOR
    }
}

/// Notes that a chain is served.
///
/// # Errors
/// Postgres failed.
pub async fn put_served(
    conn: &mut Conn,
    role: ChainRole,
    fingerprint: &Fingerprint,
    pem: &str,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO served_chains AS s (fingerprint, role, chain, first_served_at, last_served_at) VALUES ($1, $2, $3, $4, $4)
        ON CONFLICT ON CONSTRAINT served_chains_pkey DO UPDATE SET last_served_at = greatest(s.last_served_at, excluded.last_served_at)
        "#,
        fingerprint.as_slice(),
        role.as_str(),
        pem,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The chains that are or were served, those in use first. There are few: what was served long ago is deleted.
///
/// # Errors
/// Postgres failed.
pub async fn list_served(conn: &mut Conn) -> Result<Vec<ServedChain>> {
    let rows = sqlx::query!(
        "SELECT fingerprint, role, chain, first_served_at, last_served_at FROM served_chains ORDER BY role, last_served_at DESC LIMIT 200"
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            Some(ServedChain {
                fingerprint: row.fingerprint.try_into().ok()?,
                role: ChainRole::parse(&row.role)?,
                pem: row.chain,
                first_served_at: row.first_served_at,
                last_served_at: row.last_served_at,
            })
        })
        .collect())
}

/// Notes over which chains nodes have made authenticated requests. Nodes that were deleted meanwhile are left out.
///
/// # Errors
/// Postgres failed.
pub async fn put_accepted(
    conn: &mut Conn,
    accepted: &[(NodeId, Fingerprint, DateTime<Utc>)],
) -> Result<()> {
    let nodes: Vec<Uuid> = accepted.iter().map(|(node, _, _)| node.0).collect();
    let chains: Vec<Vec<u8>> = accepted
        .iter()
        .map(|(_, chain, _)| chain.to_vec())
        .collect();
    let times: Vec<DateTime<Utc>> = accepted.iter().map(|(_, _, at)| *at).collect();
    sqlx::query!(
        r#"
        INSERT INTO node_chains AS stored (node_id, fingerprint, first_accepted_at, last_accepted_at)
        SELECT u.node_id, u.fingerprint, min(u.at), max(u.at)
        FROM unnest($1::uuid[], $2::bytea[], $3::timestamptz[]) AS u (node_id, fingerprint, at)
        JOIN nodes n ON n.id = u.node_id
        GROUP BY u.node_id, u.fingerprint
        ORDER BY u.node_id, u.fingerprint
        ON CONFLICT ON CONSTRAINT node_chains_pkey DO UPDATE
            SET last_accepted_at = greatest(stored.last_accepted_at, excluded.last_accepted_at)
        "#,
        &nodes,
        &chains,
        &times
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Somebody who would not take a chain on trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Where they came from.
    pub address: IpAddr,
    /// What they were shown.
    pub fingerprint: Fingerprint,
    /// How often.
    pub refusals: i32,
    /// The last time.
    pub last_refused_at: DateTime<Utc>,
    /// What they said then, e.g. `UnknownCA`.
    pub last_error: String,
}

/// Adds refusals, one statement each: they are rare.
///
/// # Errors
/// Postgres failed.
pub async fn add_refused(conn: &mut Conn, refused: &[Refused]) -> Result<()> {
    for one in refused {
        sqlx::query!(
            r#"
            INSERT INTO refused_trials AS r (address, fingerprint, refusals, last_refused_at, last_error) VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT ON CONSTRAINT refused_trials_pkey DO UPDATE SET refusals = r.refusals + excluded.refusals,
                last_refused_at = excluded.last_refused_at, last_error = excluded.last_error
            "#,
            IpNet::from(one.address) as IpNet,
            one.fingerprint.as_slice(),
            one.refusals,
            one.last_refused_at,
            one.last_error
        )
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

/// The addresses from which a chain was refused, the latest first.
///
/// # Errors
/// Postgres failed.
pub async fn list_refused(
    conn: &mut Conn,
    chain: &Fingerprint,
    limit: i64,
) -> Result<Vec<Refused>> {
    let rows = sqlx::query!(
        r#"
        SELECT address AS "address: IpNet", refusals, last_refused_at, last_error FROM refused_trials
        WHERE fingerprint = $1 ORDER BY last_refused_at DESC LIMIT $2
        "#,
        chain.as_slice(),
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Refused {
            address: row.address.addr(),
            fingerprint: *chain,
            refusals: row.refusals,
            last_refused_at: row.last_refused_at,
            last_error: row.last_error,
        })
        .collect())
}

/// How many nodes know a chain. Disabled nodes do not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reach {
    /// Nodes that have accepted it.
    pub accepted: i64,
    /// Nodes that are seen since `since`, and have not.
    pub missing: i64,
}

/// Counts who has accepted any of these chains, and who was heard of since some time and has not: if they lead to the root to come,
/// these could be cut off.
///
/// # Errors
/// Postgres failed.
pub async fn count_reach(
    conn: &mut Conn,
    chains: &[Fingerprint],
    since: DateTime<Utc>,
) -> Result<Reach> {
    Ok(sqlx::query_as!(
        Reach,
        r#"
        SELECT count(*) FILTER (WHERE k.node_id IS NOT NULL) AS "accepted!",
            count(*) FILTER (WHERE k.node_id IS NULL AND c.last_seen_at >= $2) AS "missing!"
        FROM nodes n
        LEFT JOIN node_checkins c ON c.node_id = n.id
        LEFT JOIN (SELECT DISTINCT node_id FROM node_chains WHERE fingerprint = ANY($1)) k ON k.node_id = n.id
        WHERE n.disabled_at IS NULL
        "#,
        &as_bytes(chains),
        since
    )
    .fetch_one(conn)
    .await?)
}

/// A node by what it has accepted.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct NodeChain {
    /// Which node.
    pub id: Uuid,
    /// Its name for people.
    pub name: String,
    /// When it was last heard of.
    pub last_seen_at: Option<DateTime<Utc>>,
    /// From where.
    pub last_ip: String,
    /// When it last accepted one of the chains in question; `None`: never.
    pub accepted_at: Option<DateTime<Utc>>,
}

fn as_bytes(chains: &[Fingerprint]) -> Vec<Vec<u8>> {
    chains.iter().map(|chain| chain.to_vec()).collect()
}

/// The nodes that have (`accepted`) or have not accepted any of these chains, the longest known first. Disabled nodes are left out.
///
/// # Errors
/// Postgres failed.
pub async fn list_nodes(
    conn: &mut Conn,
    chains: &[Fingerprint],
    accepted: bool,
    page: &PageRequest,
) -> Result<Page<NodeChain>> {
    let limit = page.limit_within(100, 10_000);
    let after = page
        .key::<1>()
        .and_then(|[id]| id.parse::<Uuid>().ok())
        .unwrap_or_default();
    let rows = sqlx::query_as!(
        NodeChain,
        r#"
        SELECT n.id, coalesce(nullif(n.display_name, ''), nullif(n.hostname, ''), n.host_identifier) AS "name!",
            c.last_seen_at AS "last_seen_at?", coalesce(host(c.last_ip), '') AS "last_ip!", k.accepted_at AS "accepted_at?"
        FROM nodes n
        LEFT JOIN node_checkins c ON c.node_id = n.id
        LEFT JOIN (
            SELECT node_id, max(last_accepted_at) AS accepted_at FROM node_chains WHERE fingerprint = ANY($1) GROUP BY node_id
        ) k ON k.node_id = n.id
        WHERE n.disabled_at IS NULL AND (k.node_id IS NOT NULL) = $2 AND n.id > $3
        ORDER BY n.id LIMIT $4
        "#,
        &as_bytes(chains),
        accepted,
        after,
        limit + 1
    )
    .fetch_all(conn)
    .await?;
    Ok(Page::cut(rows, limit, |row| [row.id.to_string()]))
}

/// Notes that the end of a certificate has come this near. `false`: that was noted before.
///
/// # Errors
/// Postgres failed.
pub async fn note_threshold(
    conn: &mut Conn,
    chain: &ServedChain,
    days: i32,
    now: DateTime<Utc>,
) -> Result<bool> {
    let done = sqlx::query!(
        r#"
        INSERT INTO certificate_notes (fingerprint, role, threshold_days, noted_at) VALUES ($1, $2, $3, $4)
        ON CONFLICT ON CONSTRAINT certificate_notes_pkey DO NOTHING
        "#,
        chain.fingerprint.as_slice(),
        chain.role.as_str(),
        days,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Forgets chains that were last served before, and refusals of that time.
///
/// # Errors
/// Postgres failed.
pub async fn delete_old(conn: &mut Conn, before: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "DELETE FROM served_chains WHERE last_served_at < $1",
        before
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "DELETE FROM refused_trials WHERE last_refused_at < $1",
        before
    )
    .execute(conn)
    .await?;
    Ok(())
}

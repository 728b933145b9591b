//! Nodes as people look for them: lists, filters, counts. What the wire needs of a node lives elsewhere.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::NodeId;
use ostiary_domain::node::{HealthLimits, NodeFacts};
use serde::Serialize;
use uuid::Uuid;

use crate::page::{Page, PageRequest};
use crate::{Conn, Result};

/// The moments that divide online from offline and silent: [`HealthLimits`] seen from now.
#[derive(Debug, Clone, Copy)]
pub struct Cutoffs {
    /// Last seen before this: offline.
    pub offline_before: DateTime<Utc>,
    /// Last results before this: silent.
    pub silent_before: DateTime<Utc>,
}

impl Cutoffs {
    /// The limits, seen from `now`.
    #[must_use]
    pub fn at(now: DateTime<Utc>, limits: &HealthLimits) -> Self {
        Self {
            offline_before: now - limits.offline_after,
            silent_before: now - limits.silent_after,
        }
    }
}

/// One line of the list of nodes.
#[derive(Debug, Clone, Serialize)]
pub struct NodeLine {
    /// Which.
    pub id: Uuid,
    /// Display name, else host name, else host identifier.
    pub name: String,
    /// `online`, `offline`, `silent` or `disabled`; the same judgement as `domain::node::Health::judge`.
    pub state: String,
    /// `linux`, `darwin`, `windows`, `freebsd` or empty.
    pub platform: String,
    /// `os_version.name`.
    pub os_name: String,
    /// `os_version.version`.
    pub os_version: String,
    /// Of the osqueryd.
    pub osquery_version: String,
    /// As the node named itself.
    pub host_identifier: String,
    /// `system_info.hostname`.
    pub hostname: String,
    /// The maker's serial number.
    pub hardware_serial: String,
    /// Names, sorted.
    pub tags: Vec<String>,
    /// Its latest request.
    pub last_seen_at: Option<DateTime<Utc>>,
    /// Where that came from.
    pub last_ip: Option<String>,
    /// When it got its latest key.
    pub enrolled_at: DateTime<Utc>,
    /// Findings that are not resolved.
    pub open_findings: i64,
    /// Another node claims the same hardware.
    pub conflict: bool,
}

/// Which nodes are wanted; empty texts mean "any".
#[derive(Debug, Clone, Default)]
pub struct NodeFilter {
    /// Part of a name, identifier, serial number or address.
    pub text: String,
    /// As in [`NodeLine::state`].
    pub state: String,
    /// Exactly this platform; `unknown` for none.
    pub platform: String,
    /// Carries this tag.
    pub tag: String,
    /// Exactly this osquery version; `unknown` for none.
    pub version: String,
    /// Enrolled for the first time since.
    pub enrolled_since: Option<DateTime<Utc>>,
}

/// A page of nodes in name order.
///
/// # Errors
/// Postgres failed.
pub async fn list(
    conn: &mut Conn,
    filter: &NodeFilter,
    cutoffs: Cutoffs,
    page: &PageRequest,
) -> Result<Page<NodeLine>> {
    let limit = page.limit_within(50, 500);
    let (after_name, after_id) = after_key(page);
    let rows = sqlx::query_as!(
        NodeLine,
        r#"
        SELECT n.id, n.name AS "name!", n.state AS "state!", n.platform AS "platform!", n.os_name AS "os_name!",
            n.os_version AS "os_version!", n.osquery_version AS "osquery_version!", n.host_identifier AS "host_identifier!",
            n.hostname AS "hostname!", n.hardware_serial AS "hardware_serial!",
            ARRAY(SELECT t.name FROM node_tags nt JOIN tags t ON t.id = nt.tag_id WHERE nt.node_id = n.id ORDER BY t.name)
                AS "tags!",
            n.last_seen_at AS "last_seen_at?", n.last_ip AS "last_ip?", n.enrolled_at AS "enrolled_at!",
            (SELECT count(*) FROM findings f WHERE f.node_id = n.id AND f.state <> 'resolved') AS "open_findings!",
            n.conflict AS "conflict!"
        FROM (
            SELECT nodes.*, conflict_with IS NOT NULL AS conflict, c.last_seen_at, host(c.last_ip) AS last_ip,
                coalesce(nullif(display_name, ''), nullif(hostname, ''), host_identifier) AS name,
                CASE
                    WHEN disabled_at IS NOT NULL THEN 'disabled'
                    WHEN coalesce(c.last_seen_at, enrolled_at) < $1 THEN 'offline'
                    WHEN greatest(c.results_at, enrolled_at) < $2 THEN 'silent'
                    ELSE 'online'
                END AS state
            FROM nodes
            LEFT JOIN node_checkins c ON c.node_id = nodes.id
        ) n
        WHERE ($3 = '' OR n.name ILIKE $3 OR n.hostname ILIKE $3 OR n.host_identifier ILIKE $3 OR n.hardware_serial ILIKE $3
                OR n.last_ip ILIKE $3)
            AND ($4 = '' OR n.state = $4)
            AND ($5 = '' OR n.platform = CASE WHEN $5 = 'unknown' THEN '' ELSE $5 END)
            AND ($6 = '' OR EXISTS (
                SELECT FROM node_tags nt JOIN tags t ON t.id = nt.tag_id WHERE nt.node_id = n.id AND lower(t.name) = lower($6)))
            AND ($7 = '' OR n.osquery_version = CASE WHEN $7 = 'unknown' THEN '' ELSE $7 END)
            AND ($8::timestamptz IS NULL OR n.first_enrolled_at >= $8)
            AND ($9::text IS NULL OR (lower(n.name), n.id) > ($9, $10))
        ORDER BY lower(n.name), n.id
        LIMIT $11::bigint + 1
        "#,
        cutoffs.offline_before,
        cutoffs.silent_before,
        contains(&filter.text),
        filter.state,
        filter.platform,
        filter.tag,
        filter.version,
        filter.enrolled_since,
        after_name,
        after_id,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(Page::cut(rows, limit, |row| {
        [hex::encode(row.name.to_lowercase()), row.id.to_string()]
    }))
}

fn after_key(page: &PageRequest) -> (Option<String>, Option<Uuid>) {
    let key = page.key::<2>().and_then(|[name, id]| {
        Some((
            String::from_utf8(hex::decode(name).ok()?).ok()?,
            id.parse().ok()?,
        ))
    });
    key.unzip()
}

/// A pattern for ILIKE that finds the text anywhere; empty for an empty text.
fn contains(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() {
        return String::new();
    }
    let escaped = text
        .replace('\\', "\\\\")
        .replace('%', "\\%")
        .replace('_', "\\_");
    format!("%{escaped}%")
}

/// How many nodes are in each state.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct NodeCounts {
    /// All.
    pub total: i64,
    /// Checking in, with results.
    pub online: i64,
    /// Not seen for a while.
    pub offline: i64,
    /// Checking in without results.
    pub silent: i64,
    /// Switched off by an admin.
    pub disabled: i64,
}

/// Counts the nodes by state.
///
/// # Errors
/// Postgres failed.
pub async fn count(conn: &mut Conn, cutoffs: Cutoffs) -> Result<NodeCounts> {
    Ok(sqlx::query_as!(
        NodeCounts,
        r#"
        SELECT count(*) AS "total!",
            count(*) FILTER (WHERE state = 'online') AS "online!", count(*) FILTER (WHERE state = 'offline') AS "offline!",
            count(*) FILTER (WHERE state = 'silent') AS "silent!", count(*) FILTER (WHERE state = 'disabled') AS "disabled!"
        FROM (
            SELECT CASE
                WHEN disabled_at IS NOT NULL THEN 'disabled'
                WHEN coalesce(c.last_seen_at, enrolled_at) < $1 THEN 'offline'
                WHEN greatest(c.results_at, enrolled_at) < $2 THEN 'silent'
                ELSE 'online'
            END AS state
            FROM nodes
            LEFT JOIN node_checkins c ON c.node_id = nodes.id
        ) n
        "#,
        cutoffs.offline_before,
        cutoffs.silent_before,
    )
    .fetch_one(conn)
    .await?)
}

/// What filters may offer.
#[derive(Debug, Clone, Default)]
pub struct Choices {
    /// Platforms that some node has.
    pub platforms: Vec<String>,
    /// osquery versions that some node has.
    pub versions: Vec<String>,
}

/// The platforms and versions there are.
///
/// # Errors
/// Postgres failed.
pub async fn choices(conn: &mut Conn) -> Result<Choices> {
    Ok(sqlx::query_as!(
        Choices,
        r#"
        SELECT ARRAY(SELECT DISTINCT platform FROM nodes WHERE platform <> '' ORDER BY 1) AS "platforms!",
            ARRAY(SELECT DISTINCT osquery_version FROM nodes WHERE osquery_version <> '' ORDER BY 1 DESC) AS "versions!"
        "#
    )
    .fetch_one(conn)
    .await?)
}

/// What targets ask, of every node.
///
/// # Errors
/// Postgres failed.
pub async fn facts(conn: &mut Conn) -> Result<Vec<(NodeId, NodeFacts)>> {
    facts_where(conn, None).await
}

/// What targets ask, of one node.
///
/// # Errors
/// Postgres failed.
pub async fn facts_of(conn: &mut Conn, id: NodeId) -> Result<Option<NodeFacts>> {
    Ok(facts_where(conn, Some(id.0))
        .await?
        .pop()
        .map(|(_, facts)| facts))
}

async fn facts_where(conn: &mut Conn, id: Option<Uuid>) -> Result<Vec<(NodeId, NodeFacts)>> {
    let rows = sqlx::query!(
        r#"
        SELECT n.id, host_identifier, hostname, platform, osquery_version,
            coalesce(nullif(display_name, ''), nullif(hostname, ''), host_identifier) AS "name!",
            ARRAY(SELECT t.name FROM node_tags nt JOIN tags t ON t.id = nt.tag_id WHERE nt.node_id = n.id ORDER BY t.name)
                AS "tags!"
        FROM nodes n
        WHERE $1::uuid IS NULL OR n.id = $1
        "#,
        id
    )
    .fetch_all(conn)
    .await?;
    let facts = rows.into_iter().map(|row| {
        let facts = NodeFacts {
            host_identifier: row.host_identifier,
            hostname: row.hostname,
            name: row.name,
            platform: row.platform,
            osquery_version: row.osquery_version,
            tags: row.tags,
        };
        (NodeId(row.id), facts)
    });
    Ok(facts.collect())
}

/// A node that has just come.
#[derive(Debug, Clone, Serialize)]
pub struct NewNode {
    /// Which.
    pub id: Uuid,
    /// As in [`NodeLine::name`].
    pub name: String,
    /// As in [`NodeLine::platform`].
    pub platform: String,
    /// For the first time.
    pub enrolled_at: DateTime<Utc>,
}

/// The newest nodes, enrolled for the first time since a moment (`None`: ever).
///
/// # Errors
/// Postgres failed.
pub async fn newest(
    conn: &mut Conn,
    since: Option<DateTime<Utc>>,
    limit: i64,
) -> Result<Vec<NewNode>> {
    Ok(sqlx::query_as!(
        NewNode,
        r#"
        SELECT id, coalesce(nullif(display_name, ''), nullif(hostname, ''), host_identifier) AS "name!", platform,
            first_enrolled_at AS enrolled_at
        FROM nodes
        WHERE $1::timestamptz IS NULL OR first_enrolled_at > $1
        ORDER BY first_enrolled_at DESC, id
        LIMIT $2
        "#,
        since,
        limit
    )
    .fetch_all(conn)
    .await?)
}

/// A node by id and name, for links.
#[derive(Debug, Clone, Serialize)]
pub struct NodeName {
    /// Which.
    pub id: Uuid,
    /// As in [`NodeLine::name`].
    pub name: String,
}

/// The names of these nodes; ids that are no node are left out.
///
/// # Errors
/// Postgres failed.
pub async fn names(conn: &mut Conn, ids: &[Uuid]) -> Result<Vec<NodeName>> {
    Ok(sqlx::query_as!(
        NodeName,
        r#"
        SELECT id, coalesce(nullif(display_name, ''), nullif(hostname, ''), host_identifier) AS "name!"
        FROM nodes WHERE id = ANY($1) ORDER BY 2
        "#,
        ids
    )
    .fetch_all(conn)
    .await?)
}

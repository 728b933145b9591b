//! Findings as people read them.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::{FindingId, NodeId, RuleId};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::page::{Page, PageRequest};
use crate::{Conn, Result};

/// One line of a list of findings.
#[derive(Debug, Clone, Serialize)]
pub struct FindingRecord {
    /// Which.
    pub id: Uuid,
    /// The rule, while it exists.
    pub rule_id: Option<Uuid>,
    /// Its name when the finding was opened.
    pub rule_name: String,
    /// The node, while it exists.
    pub node_id: Option<Uuid>,
    /// Its name when the finding was opened.
    pub node_name: String,
    /// What on the node it is about.
    pub entity: String,
    /// `info`, `low`, `medium`, `high` or `critical`.
    pub severity: String,
    /// `open`, `acknowledged` or `resolved`.
    pub state: String,
    /// The query whose row opened it.
    pub query_name: String,
    /// When the first match was judged.
    pub opened_at: DateTime<Utc>,
    /// When the latest match was judged.
    pub last_matched_at: DateTime<Utc>,
    /// How many matches there were.
    pub match_count: i64,
    /// When somebody took it over.
    pub acknowledged_at: Option<DateTime<Utc>>,
    /// Who, while that user exists.
    pub acknowledged_by: Option<String>,
    /// When it was closed.
    pub resolved_at: Option<DateTime<Utc>>,
    /// By whom, while that user exists; `None` as well when a rule closed it.
    pub resolved_by: Option<String>,
    /// What the rule is for, today; empty when it is gone.
    pub rule_description: String,
    /// What to do, today; empty when the rule is gone.
    pub runbook_url: String,
    /// It is one of the fleet: it has taken in those of many nodes.
    pub on_fleet: bool,
    /// Of one of the fleet: on how many nodes.
    pub fleet_nodes: i64,
    /// The finding of the fleet that took it in.
    pub fleet_finding_id: Option<Uuid>,
    /// It was taken in, and is told alone all the same.
    pub stands_out_at: Option<DateTime<Utc>>,
    /// The last one about the same matter, before this one.
    pub former_id: Option<Uuid>,
    /// The next one about the same matter.
    pub later_id: Option<Uuid>,
    /// It was opened silently.
    pub silence_id: Option<Uuid>,
}

/// Which findings are wanted; empty texts mean "any".
#[derive(Debug, Clone, Default)]
pub struct FindingFilter {
    /// As in [`FindingRecord::state`].
    pub state: String,
    /// As in [`FindingRecord::severity`].
    pub severity: String,
    /// Of this rule.
    pub rule: Option<RuleId>,
    /// Of this node.
    pub node: Option<NodeId>,
    /// Exactly this one.
    pub id: Option<FindingId>,
    /// Part of the name of the rule or node, or of the entity.
    pub text: String,
    /// Those that this finding of the fleet took in.
    pub within: Option<FindingId>,
    /// Also what a finding of the fleet took in.
    pub taken_in: bool,
}

/// How findings are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Worst first, then newest.
    Worst,
    /// Newest first.
    Newest,
}

/// A page of findings.
///
/// # Errors
/// Postgres failed.
pub async fn list(
    conn: &mut Conn,
    filter: &FindingFilter,
    order: Order,
    page: &PageRequest,
) -> Result<Page<FindingRecord>> {
    let limit = page.limit_within(50, 500);
    let after = page.key::<3>().and_then(|[rank, micros, id]| {
        Some((
            rank.parse().ok()?,
            DateTime::from_timestamp_micros(micros.parse().ok()?)?,
            id.parse().ok()?,
        ))
    });
    let (rank, opened_at, id): (Option<i32>, Option<DateTime<Utc>>, Option<Uuid>) = match after {
        Some((rank, opened_at, id)) => (Some(rank), Some(opened_at), Some(id)),
        None => (None, None, None),
    };
    let worst = order == Order::Worst;
    let rows = sqlx::query_as!(
        FindingRecord,
        r#"
        SELECT f.id, rule_id, rule_name, node_id, node_name, entity, f.severity, f.state, query_name, opened_at, last_matched_at,
            match_count, acknowledged_at, a.name AS "acknowledged_by?", resolved_at, s.name AS "resolved_by?",
            coalesce(r.description, '') AS "rule_description!", coalesce(r.runbook_url, '') AS "runbook_url!", on_fleet,
            CASE WHEN on_fleet THEN (SELECT count(DISTINCT m.node_id) FROM findings m WHERE m.fleet_finding_id = f.id) ELSE 0 END
                AS "fleet_nodes!",
            fleet_finding_id, stands_out_at, former_id,
            (SELECT l.id FROM findings l WHERE l.former_id = f.id ORDER BY l.opened_at LIMIT 1) AS later_id, silence_id
        FROM findings f
        LEFT JOIN rules r ON r.id = f.rule_id
        LEFT JOIN users a ON a.id = f.acknowledged_by
        LEFT JOIN users s ON s.id = f.resolved_by
        CROSS JOIN LATERAL (
            SELECT CASE WHEN $9 THEN -array_position(ARRAY['info', 'low', 'medium', 'high', 'critical'], f.severity) ELSE 0 END
                AS rank) o
        WHERE ($1 = '' OR f.state = $1)
            AND ($2 = '' OR f.severity = $2)
            AND ($3::uuid IS NULL OR f.rule_id = $3)
            AND ($4::uuid IS NULL OR f.node_id = $4)
            AND ($5::uuid IS NULL OR f.id = $5)
            AND ($11 = '' OR strpos(lower(concat_ws(' ', f.rule_name, f.node_name, f.entity)), lower($11)) > 0)
            AND ($12::uuid IS NULL OR f.fleet_finding_id = $12)
            AND ($13 OR f.fleet_finding_id IS NULL OR f.stands_out_at IS NOT NULL)
            AND ($6::int IS NULL OR (o.rank > $6) OR (o.rank = $6 AND (f.opened_at, f.id) < ($7, $8)))
        ORDER BY o.rank, f.opened_at DESC, f.id DESC
        LIMIT $10::bigint + 1
        "#,
        filter.state,
        filter.severity,
        filter.rule.map(|id| id.0),
        filter.node.map(|id| id.0),
        filter.id.map(|id| id.0),
        rank,
        opened_at,
        id,
        worst,
        limit,
        filter.text,
        filter.within.map(|id| id.0),
        filter.taken_in || filter.within.is_some() || filter.node.is_some() || filter.id.is_some()
    )
    .fetch_all(conn)
    .await?;
    Ok(Page::cut(rows, limit, |row| {
        let rank = if worst {
            -severity_rank(&row.severity)
        } else {
            0
        };
        [
            rank.to_string(),
            row.opened_at.timestamp_micros().to_string(),
            row.id.to_string(),
        ]
    }))
}

fn severity_rank(severity: &str) -> i32 {
    let names = ["info", "low", "medium", "high", "critical"];
    names
        .iter()
        .position(|name| *name == severity)
        .and_then(|rank| i32::try_from(rank + 1).ok())
        .unwrap_or(0)
}

/// One finding.
///
/// # Errors
/// Postgres failed.
pub async fn find(conn: &mut Conn, id: FindingId) -> Result<Option<FindingRecord>> {
    let filter = FindingFilter {
        id: Some(id),
        ..FindingFilter::default()
    };
    Ok(list(conn, &filter, Order::Newest, &PageRequest::default())
        .await?
        .items
        .pop())
}

/// How many findings are in each state.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct StateCounts {
    /// Nobody has looked.
    pub open: i64,
    /// Somebody has.
    pub acknowledged: i64,
    /// Closed.
    pub resolved: i64,
}

/// Counts findings by state, without those that a finding of the fleet took in.
///
/// # Errors
/// Postgres failed.
pub async fn count_by_state(conn: &mut Conn) -> Result<StateCounts> {
    Ok(sqlx::query_as!(
        StateCounts,
        r#"
        SELECT count(*) FILTER (WHERE state = 'open') AS "open!", count(*) FILTER (WHERE state = 'acknowledged') AS "acknowledged!",
            count(*) FILTER (WHERE state = 'resolved') AS "resolved!"
        FROM findings WHERE fleet_finding_id IS NULL OR stands_out_at IS NOT NULL
        "#
    )
    .fetch_one(conn)
    .await?)
}

/// How many open findings there are, without those that a finding of the fleet took in.
///
/// # Errors
/// Postgres failed.
pub async fn count_open(conn: &mut Conn) -> Result<i64> {
    Ok(sqlx::query_scalar!(
        r#"
        SELECT count(*) AS "n!" FROM findings WHERE state = 'open' AND (fleet_finding_id IS NULL OR stands_out_at IS NOT NULL)
        "#
    )
    .fetch_one(conn)
    .await?)
}

/// Open findings of one severity.
#[derive(Debug, Clone, Serialize)]
pub struct SeverityCount {
    /// As in [`FindingRecord::severity`].
    pub severity: String,
    /// How many are open.
    pub count: i64,
}

/// Open findings by severity, worst first, every severity present.
///
/// # Errors
/// Postgres failed.
pub async fn count_open_by_severity(conn: &mut Conn) -> Result<Vec<SeverityCount>> {
    Ok(sqlx::query_as!(
        SeverityCount,
        r#"
        SELECT s.severity AS "severity!", count(f.id) AS "count!"
        FROM unnest(ARRAY['critical', 'high', 'medium', 'low', 'info']) WITH ORDINALITY AS s (severity, position)
        LEFT JOIN findings f ON f.severity = s.severity AND f.state = 'open'
            AND (f.fleet_finding_id IS NULL OR f.stands_out_at IS NOT NULL)
        GROUP BY s.severity, s.position ORDER BY s.position
        "#
    )
    .fetch_all(conn)
    .await?)
}

/// A row that proves a finding.
#[derive(Debug, Clone, Serialize)]
pub struct MatchRecord {
    /// Orders them.
    pub id: i64,
    /// Of which finding.
    pub finding_id: Uuid,
    /// When it was judged.
    pub matched_at: DateTime<Utc>,
    /// When the node saw it.
    pub occurred_at: DateTime<Utc>,
    /// Which query reported it.
    pub query_name: String,
    /// `added`, `removed` or `snapshot`.
    pub action: String,
    /// The row.
    pub columns: Value,
    /// The row that the same change took away, or brought in its place.
    pub counterpart: Option<Value>,
}

/// The kept matches of findings, newest first.
///
/// # Errors
/// Postgres failed.
pub async fn list_matches(conn: &mut Conn, findings: &[Uuid]) -> Result<Vec<MatchRecord>> {
    Ok(sqlx::query_as!(
        MatchRecord,
        r#"
        SELECT id, finding_id, matched_at, occurred_at, query_name, action, columns, counterpart
        FROM finding_matches WHERE finding_id = ANY($1) ORDER BY id DESC
        "#,
        findings
    )
    .fetch_all(conn)
    .await?)
}

/// A line of a finding's timeline.
#[derive(Debug, Clone, Serialize)]
pub struct TimelineRecord {
    /// When.
    pub at: DateTime<Utc>,
    /// As in [`crate::findings::EntryKind`]; of deliveries `delivered` or `dead`.
    pub kind: String,
    /// Who; of deliveries the destination. Empty for the rule itself.
    pub who: String,
    /// A comment or a reason; of deliveries what was told, and of dead ones the last answer.
    pub text: String,
    /// Of a run of further matches: how many. Of deliveries the attempts.
    pub count: i64,
    /// The row that went, when it ended by itself.
    pub columns: Option<Value>,
}

/// What happened to a finding, and to what was told of it, newest first; the latest 500.
///
/// # Errors
/// Postgres failed.
pub async fn list_timeline(conn: &mut Conn, id: FindingId) -> Result<Vec<TimelineRecord>> {
    Ok(sqlx::query_as!(
        TimelineRecord,
        r#"
        SELECT at AS "at!", kind AS "kind!", who AS "who!", text AS "text!", count AS "count!", columns
        FROM (
            SELECT at, kind, user_name AS who, text, match_count AS count, columns, id AS place
            FROM finding_entries WHERE finding_id = $1
            UNION ALL
            SELECT d.finished_at, d.state, d.destination_name,
                CASE d.state WHEN 'dead' THEN d.last_answer ELSE a.kind END, d.attempts::bigint, NULL::json, 9223372036854775807
            FROM deliveries d JOIN alerts a ON a.id = d.alert_id
            WHERE d.finding_id = $1 AND d.finished_at IS NOT NULL) all_entries
        ORDER BY at DESC, place DESC, who
        LIMIT 500
        "#,
        id.0
    )
    .fetch_all(conn)
    .await?)
}

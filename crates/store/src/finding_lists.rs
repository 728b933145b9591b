//! Findings as people read them, and what they decide about one.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::{FindingId, NodeId, RuleId, UserId};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::page::{Page, PageRequest};
use crate::{Conn, Error, Result};

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
            coalesce(r.description, '') AS "rule_description!", coalesce(r.runbook_url, '') AS "runbook_url!"
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
        limit
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

/// Counts findings by state.
///
/// # Errors
/// Postgres failed.
pub async fn count_by_state(conn: &mut Conn) -> Result<StateCounts> {
    Ok(sqlx::query_as!(
        StateCounts,
        r#"
        SELECT count(*) FILTER (WHERE state = 'open') AS "open!", count(*) FILTER (WHERE state = 'acknowledged') AS "acknowledged!",
            count(*) FILTER (WHERE state = 'resolved') AS "resolved!"
        FROM findings
        "#
    )
    .fetch_one(conn)
    .await?)
}

/// How many open findings there are.
///
/// # Errors
/// Postgres failed.
pub async fn count_open(conn: &mut Conn) -> Result<i64> {
    Ok(
        sqlx::query_scalar!(r#"SELECT count(*) AS "n!" FROM findings WHERE state = 'open'"#)
            .fetch_one(conn)
            .await?,
    )
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
}

/// The kept matches of findings, newest first.
///
/// # Errors
/// Postgres failed.
pub async fn list_matches(conn: &mut Conn, findings: &[Uuid]) -> Result<Vec<MatchRecord>> {
    Ok(sqlx::query_as!(
        MatchRecord,
        r#"
        SELECT id, finding_id, matched_at, occurred_at, query_name, action, columns
        FROM finding_matches WHERE finding_id = ANY($1) ORDER BY id DESC
        "#,
        findings
    )
    .fetch_all(conn)
    .await?)
}

/// What a person decides about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// I look after it.
    Acknowledge,
    /// It is done.
    Resolve,
    /// It is not done.
    Reopen,
}

/// Puts a decision down. Says whether it changed anything: not if the finding is gone or was decided so before.
///
/// # Errors
/// [`Error::Constraint`] `findings_open_key`: reopening beside a newer open finding of the same matter. Else Postgres failed.
pub async fn decide(
    conn: &mut Conn,
    id: FindingId,
    decision: Decision,
    by: Option<UserId>,
    now: DateTime<Utc>,
) -> std::result::Result<bool, Error> {
    let by = by.map(|id| id.0);
    let done = match decision {
        Decision::Acknowledge => {
            sqlx::query!(
                "UPDATE findings SET state = 'acknowledged', acknowledged_at = $2, acknowledged_by = $3
                WHERE id = $1 AND state = 'open'",
                id.0,
                now,
                by
            )
            .execute(conn)
            .await?
        }
        Decision::Resolve => {
            sqlx::query!(
                "UPDATE findings SET state = 'resolved', resolved_at = $2, resolved_by = $3 WHERE id = $1 AND state <> 'resolved'",
                id.0,
                now,
                by
            )
            .execute(conn)
            .await?
        }
        Decision::Reopen => {
            sqlx::query!(
                "UPDATE findings SET state = 'open', acknowledged_at = NULL, acknowledged_by = NULL, resolved_at = NULL,
                    resolved_by = NULL
                WHERE id = $1 AND state <> 'open'",
                id.0
            )
            .execute(conn)
            .await?
        }
    };
    Ok(done.rows_affected() > 0)
}

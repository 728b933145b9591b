//! From rows of the store to lines of a sink.

use std::collections::HashMap;
use std::sync::Arc;

use ostiary_domain::ids::NodeId;
use ostiary_domain::node::NodeFacts;
use ostiary_domain::sink::{LineType, SinkFilter};
use ostiary_outputs::sinks::{Body, Limits, NodeOfRecord, Record};
use ostiary_store::event_lists::EventRecord;
use ostiary_store::sinks::sources::{self, FindingChange, Slice, StatusOfNode};
use ostiary_store::sinks::{Position, Source};
use ostiary_store::{Conn, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

/// Packed events read at once; unpacked they are some ten times as large.
const PACKED_BYTES: i64 = 256 * 1024;
/// What a line has besides its columns, in bytes, about.
const FRAME: usize = 400;

/// What a sink is to send next of a source.
#[derive(Debug)]
pub(super) struct Batch {
    /// In their order; none if the filter wants none of them.
    pub(super) records: Vec<Record>,
    /// Where the cursor stands when they are taken.
    pub(super) end: Position,
    /// There may be more.
    pub(super) is_full: bool,
}

/// Reads what comes next, up to the horizon.
pub(super) async fn read(
    conn: &mut Conn,
    source: Source,
    from: Position,
    up_to: i64,
    limits: Limits,
    filter: &SinkFilter,
) -> Result<Batch> {
    let slice = Slice {
        after: from.after_id,
        up_to,
        rows: i64::try_from(limits.lines).unwrap_or(i64::MAX),
        bytes: PACKED_BYTES,
    };
    let mut batch = Gathering::new(from, limits);
    let asked = limits.lines;
    let found = match source {
        Source::Events => {
            let rows = sources::list_events(conn, slice).await?;
            let nodes = Nodes::find(conn, rows.iter().map(|row| row.node_id)).await?;
            for row in &rows {
                batch.event(row, &nodes, filter);
            }
            // The bytes may have ended the slice before the rows did.
            rows.last()
                .map_or(0, |last| if last.id < up_to { asked } else { rows.len() })
        }
        Source::StatusLogs => {
            let rows = sources::list_status_logs(conn, slice).await?;
            let nodes = Nodes::find(conn, rows.iter().map(|row| row.node_id)).await?;
            for row in &rows {
                batch.status(row, &nodes, filter);
            }
            rows.len()
        }
        Source::FindingChanges => {
            let rows = sources::list_finding_changes(conn, slice).await?;
            let nodes = Nodes::find(conn, rows.iter().filter_map(|row| row.node_id)).await?;
            for row in &rows {
                batch.finding(row, &nodes, filter);
            }
            rows.len()
        }
        Source::AuditEntries => {
            let rows = sources::list_audit_entries(conn, slice).await?;
            for row in &rows {
                batch.audit(row, filter);
            }
            rows.len()
        }
    };
    Ok(batch.end(found >= asked, up_to))
}

/// The nodes of a slice, as they are now.
struct Nodes(HashMap<NodeId, (NodeFacts, Arc<NodeOfRecord>)>);

impl Nodes {
    async fn find(conn: &mut Conn, ids: impl Iterator<Item = Uuid>) -> Result<Self> {
        let mut ids: Vec<Uuid> = ids.collect();
        ids.sort_unstable();
        ids.dedup();
        let found = sources::find_nodes(conn, &ids).await?;
        Ok(Self(
            found
                .into_iter()
                .map(|(id, facts)| {
                    let shown = NodeOfRecord {
                        id: id.0,
                        name: facts.name.clone(),
                        hostname: facts.hostname.clone(),
                        host_identifier: facts.host_identifier.clone(),
                        platform: facts.platform.clone(),
                        tags: facts.tags.clone(),
                    };
                    (id, (facts, Arc::new(shown)))
                })
                .collect(),
        ))
    }

    fn facts(&self, id: Uuid) -> Option<&NodeFacts> {
        self.0.get(&NodeId(id)).map(|(facts, _)| facts)
    }

    /// Of a node that is gone, only its id is known.
    fn shown(&self, id: Uuid) -> Arc<NodeOfRecord> {
        match self.0.get(&NodeId(id)) {
            Some((_, shown)) => shown.clone(),
            None => Arc::new(NodeOfRecord {
                id,
                name: String::new(),
                hostname: String::new(),
                host_identifier: String::new(),
                platform: String::new(),
                tags: Vec::new(),
            }),
        }
    }
}

/// A row as `store::events` writes it.
#[derive(Deserialize)]
struct StoredRow {
    action: String,
    columns: Value,
    #[serde(default)]
    decorations: Value,
}

struct Gathering {
    from: Position,
    limits: Limits,
    records: Vec<Record>,
    bytes: usize,
    end: Position,
    is_over: bool,
}

impl Gathering {
    fn new(from: Position, limits: Limits) -> Self {
        Self {
            from,
            limits,
            records: Vec::new(),
            bytes: 0,
            end: from,
            is_over: false,
        }
    }

    fn end(self, is_slice_full: bool, up_to: i64) -> Batch {
        let is_full = self.is_over || is_slice_full;
        // Ids up to the horizon that are rows of nobody are done as well.
        let end = if is_full {
            self.end
        } else {
            self.end.max(done(up_to))
        };
        Batch {
            records: self.records,
            end,
            is_full,
        }
    }

    /// Is there room for a line of this size? A first one always finds it.
    fn has_room(&mut self, bytes: usize) -> bool {
        let is_first = self.records.is_empty();
        let fits = self.records.len() < self.limits.lines
            && (is_first || self.bytes + bytes <= self.limits.bytes);
        self.is_over |= !fits;
        fits && !self.is_over
    }

    fn push(&mut self, record: Record, bytes: usize, end: Position) {
        self.records.push(record);
        self.bytes += bytes;
        self.end = end;
    }

    fn event(&mut self, row: &EventRecord, nodes: &Nodes, filter: &SinkFilter) {
        if self.is_over {
            return;
        }
        let facts = nodes.facts(row.node_id);
        if !filter.wants(LineType::Result, &row.query_name, facts) {
            self.end = done(row.id);
            return;
        }
        let rows: Vec<StoredRow> = match serde_json::from_str(&row.rows) {
            Ok(rows) => rows,
            Err(error) if !row.rows.is_empty() => {
                tracing::error!(event.id = row.id, %error, "rows that were stored cannot be read: a defect of ours");
                Vec::new()
            }
            Err(_) => Vec::new(),
        };
        let bytes = FRAME + row.rows.len() / rows.len().max(1);
        let (query, epoch): (Arc<str>, Arc<str>) =
            (row.query_name.as_str().into(), row.epoch.as_str().into());
        let node = nodes.shown(row.node_id);
        let count = rows.len();
        let skipped = if row.id == self.from.after_id + 1 {
            usize::try_from(self.from.after_row).unwrap_or(0)
        } else {
            0
        };
        for (number, stored) in rows.into_iter().enumerate().skip(skipped) {
            if !self.has_room(bytes) {
                return;
            }
            let record = Record {
                id: format!("r-{}-{number}", row.id),
                received_at: row.received_at,
                occurred_at: row.occurred_at,
                node: Some(node.clone()),
                body: Body::Result {
                    query: query.clone(),
                    action: stored.action,
                    columns: stored.columns,
                    decorations: stored.decorations,
                    epoch: epoch.clone(),
                    counter: row.counter,
                    unix_time: row.unix_time,
                    baseline: row.baseline,
                    late: row.late,
                },
            };
            let end = Position {
                after_id: row.id - 1,
                after_row: i32::try_from(number + 1).unwrap_or(i32::MAX),
            };
            let end = if number + 1 == count {
                done(row.id)
            } else {
                end
            };
            self.push(record, bytes, end);
        }
        self.end = done(row.id);
    }

    fn status(&mut self, row: &StatusOfNode, nodes: &Nodes, filter: &SinkFilter) {
        let bytes = FRAME + row.message.len();
        let is_wanted = filter.wants(LineType::Status, "", nodes.facts(row.node_id));
        if self.is_over || (is_wanted && !self.has_room(bytes)) {
            return;
        }
        self.end = done(row.id);
        if is_wanted {
            let record = Record {
                id: format!("s-{}", row.id),
                received_at: row.received_at,
                occurred_at: row.occurred_at,
                node: Some(nodes.shown(row.node_id)),
                body: Body::Status {
                    severity: row.severity,
                    message: row.message.clone(),
                    filename: row.filename.clone(),
                    line: row.line,
                    version: row.version.clone(),
                },
            };
            self.push(record, bytes, done(row.id));
        }
    }

    fn finding(&mut self, row: &FindingChange, nodes: &Nodes, filter: &SinkFilter) {
        let first_match = row.first_match.clone().unwrap_or(Value::Null);
        let bytes = FRAME + row.finding.to_string().len() + first_match.to_string().len();
        let facts = row.node_id.and_then(|id| nodes.facts(id));
        let query = row.finding["query_name"].as_str().unwrap_or_default();
        let is_wanted = filter.wants(LineType::Finding, query, facts);
        if self.is_over || (is_wanted && !self.has_room(bytes)) {
            return;
        }
        self.end = done(row.id);
        if is_wanted {
            let record = Record {
                id: format!("f-{}", row.id),
                received_at: row.changed_at,
                occurred_at: row.changed_at,
                node: row.node_id.map(|id| nodes.shown(id)),
                body: Body::Finding {
                    change: row.change.clone(),
                    finding: row.finding.clone(),
                    first_match,
                },
            };
            self.push(record, bytes, done(row.id));
        }
    }

    fn audit(&mut self, row: &ostiary_store::audit::EntryRecord, filter: &SinkFilter) {
        let entry = json!({
            "user": row.user_name, "action": row.action, "subject_kind": row.subject_kind, "subject_id": row.subject_id,
            "subject_name": row.subject_name, "before": row.before, "after": row.after, "ip": row.ip,
        });
        let bytes = FRAME + entry.to_string().len();
        let is_wanted = filter.wants(LineType::Audit, "", None);
        if self.is_over || (is_wanted && !self.has_room(bytes)) {
            return;
        }
        self.end = done(row.id);
        if is_wanted {
            let record = Record {
                id: format!("a-{}", row.id),
                received_at: row.at,
                occurred_at: row.at,
                node: None,
                body: Body::Audit(entry),
            };
            self.push(record, bytes, done(row.id));
        }
    }
}

/// Behind a row.
fn done(id: i64) -> Position {
    Position {
        after_id: id,
        after_row: 0,
    }
}

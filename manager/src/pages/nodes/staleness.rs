//! Which present rows of a node no longer say how things are. The judgement itself is `domain::present`'s.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use ostiary_domain::ids::NodeId;
use ostiary_domain::present::{Stale, asked_in, confirmed_since, stale};
use ostiary_store::event_lists::{self, PresentRecord};
use ostiary_store::{Conn, node_records};

use crate::error::Result;

/// The stale ones of these sets, by query. Nothing is known of a node that never fetched a config.
pub(crate) async fn of(
    conn: &mut Conn,
    node: NodeId,
    sets: &[PresentRecord],
    now: DateTime<Utc>,
) -> Result<HashMap<String, Stale>> {
    let Some(config) = node_records::find_fetched_config(conn, node).await? else {
        return Ok(HashMap::new());
    };
    let asked = asked_in(&serde_json::from_str(&config.document).unwrap_or_default());
    let results_at = (node_records::find(conn, node).await?).and_then(|node| node.results_at);
    let since = |set: &PresentRecord| {
        let interval = asked.get(&set.query_name);
        interval.map(|interval| confirmed_since(*interval, now))
    };
    let open: Vec<(&str, DateTime<Utc>)> = (sets.iter())
        .filter(|set| set.snapshot)
        .filter_map(|set| Some((set.query_name.as_str(), since(set)?)))
        .collect();
    let reported = event_lists::list_reported_since(conn, node, &open).await?;
    let judged = sets.iter().filter_map(|set| {
        // Each execution of a snapshot comes; of changes none may come for weeks while the schedule runs.
        let confirmed = since(set).is_none_or(|since| {
            set.changed_at >= since
                || (set.snapshot && reported.contains(&set.query_name))
                || (!set.snapshot && results_at.is_some_and(|at| at >= since))
        });
        let interval = asked.get(&set.query_name).copied();
        Some((set.query_name.clone(), stale(interval, confirmed)?))
    });
    Ok(judged.collect())
}

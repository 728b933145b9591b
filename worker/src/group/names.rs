//! The names of queries that a group speaks of, and their ids.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use ostiary_domain::ids::NodeId;
use ostiary_store::{Conn, Result, query_names};

use crate::App;
use crate::decoding::ReadPost;

/// A longer name is none that an admin gave; an index could not hold it either.
pub(super) const LONGEST_NAME: usize = 500;

/// The ids of all query names of a group, and those of them that are not yet committed. A node may be the first to say only so many
/// names; those beyond get no id.
pub(super) async fn name_queries(
    app: &App,
    conn: &mut Conn,
    posts: &[ReadPost<'_>],
    now: DateTime<Utc>,
) -> Result<(HashMap<String, i32>, HashMap<String, i32>)> {
    // Each name with the nodes that say it here, in the order of their posts.
    let mut said: HashMap<&str, Vec<NodeId>> = HashMap::new();
    for post in posts {
        for execution in post
            .decoded
            .executions
            .iter()
            .filter(|one| one.query_name.len() <= LONGEST_NAME)
        {
            let nodes = said.entry(&execution.query_name).or_default();
            if !nodes.contains(&post.node_id) {
                nodes.push(post.node_id);
            }
        }
    }
    let mut names = app.names.get(said.keys().copied());
    said.retain(|name, _| !names.contains_key(*name));
    if said.is_empty() {
        return Ok((names, HashMap::new()));
    }
    let missing: Vec<&str> = said.keys().copied().collect();
    let mut looked_up = query_names::find(conn, &missing).await?;
    said.retain(|name, _| !looked_up.contains_key(*name));
    if !said.is_empty() {
        let nodes: Vec<NodeId> = said.values().flatten().copied().collect();
        let introduced = query_names::count_introduced_by(conn, &nodes).await?;
        let new = introduce(said, introduced, app.settings.worker.names_per_node);
        looked_up.extend(query_names::insert(conn, &new, now).await?);
    }
    names.extend(looked_up.clone());
    Ok((names, looked_up))
}

/// Which names become known, each with the node that counts as the first to say it: one that may still introduce some.
fn introduce(
    said: HashMap<&str, Vec<NodeId>>,
    mut introduced: HashMap<NodeId, i64>,
    most: i64,
) -> Vec<(&str, NodeId)> {
    let mut said: Vec<_> = said.into_iter().collect();
    said.sort_unstable();
    let mut first_to_say = |nodes: &[NodeId]| {
        let node = *nodes
            .iter()
            .find(|node| introduced.get(node).is_none_or(|count| *count < most))?;
        *introduced.entry(node).or_default() += 1;
        Some(node)
    };
    said.into_iter()
        .filter_map(|(name, nodes)| Some((name, first_to_say(&nodes)?)))
        .collect()
}

//! No config may grow beyond what osqueryd takes: a node that gets a larger one has already dropped its schedule when it refuses it.

use std::collections::HashSet;

use ostiary_domain::node::NodeFacts;
use ostiary_domain::node_config::{MAX_BYTES, Parts, Written};
use ostiary_store::{Conn, config_parts, node_lists};

use crate::error::{Error, Result};

/// Assembles the config of every distinct selection of parts, as the open transaction sees them, and refuses if one is too large.
/// Beside the nodes there are, it looks at one without tags of each platform, which may enroll at any time.
///
/// # Errors
/// [`Error::Refused`] names the size and a node that would get it.
pub async fn check(conn: &mut Conn) -> Result<()> {
    let parts = config_parts::load(conn).await?;
    let nodes = node_lists::facts(conn).await?;
    let bare = ["linux", "darwin", "windows", "freebsd"].map(|platform| NodeFacts {
        name: format!("any new {platform} node"),
        platform: platform.to_owned(),
        ..NodeFacts::default()
    });
    match too_large(&parts, nodes.iter().map(|(_, facts)| facts).chain(&bare)) {
        None => Ok(()),
        Some((size, node)) => Err(Error::Refused(format!(
            "This was not saved: the config of {node} would have {size} bytes, and osquery takes {MAX_BYTES} at most. Narrow the \
             target, shorten queries, or disable something first."
        ))),
    }
}

fn too_large<'a>(
    parts: &Parts,
    nodes: impl Iterator<Item = &'a NodeFacts>,
) -> Option<(usize, &'a str)> {
    let mut seen = HashSet::new();
    for node in nodes {
        let selection = parts.select(node);
        if seen.insert(selection.clone()) {
            let size = Written::of(&parts.assemble_selection(&selection)).size();
            if size > MAX_BYTES {
                return Some((size, &node.name));
            }
        }
    }
    None
}

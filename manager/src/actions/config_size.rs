//! No config may grow beyond what osqueryd takes: a node that gets such a one has already dropped its schedule when it refuses it.

use ostiary_domain::ids::NodeId;
use ostiary_domain::node::NodeFacts;
use ostiary_domain::node_config::Parts;

use crate::error::{Error, Result};

/// Looks at the config of every distinct selection of parts, and refuses if one is too large or too deep. Beside the nodes there are,
/// it looks at one without tags of each platform, which may enroll at any time.
///
/// # Errors
/// [`Error::Refused`] names the size and a node that would get it.
pub(super) fn refuse_too_large(parts: &Parts, nodes: &[(NodeId, NodeFacts)]) -> Result<()> {
    let bare = ["linux", "darwin", "windows", "freebsd"].map(|platform| NodeFacts {
        name: format!("any new {platform} node"),
        platform: platform.to_owned(),
        ..NodeFacts::default()
    });
    let all = nodes.iter().map(|(_, facts)| facts).chain(&bare);
    parts.check_limits(all).map_err(|error| {
        Error::Refused(format!(
            "This was not saved: {error}. Narrow the target, shorten queries, or disable something first."
        ))
    })
}

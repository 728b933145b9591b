//! The fact that a node has joined, as rules see it: at its enrollment, or when people approve of it.

use serde_json::{Value, json};

use crate::fact;
use crate::ids::NodeId;
use crate::node::NodeDetails;

/// How a node came in.
#[derive(Debug)]
pub struct Joined<'a> {
    /// What it said about itself.
    pub details: &'a NodeDetails,
    /// From where, or empty.
    pub ip: String,
    /// The name of its secret.
    pub secret: &'a str,
    /// The node that it may be.
    pub conflict_with: Option<NodeId>,
    /// It was taken for a node that had been silent.
    pub reestablished: bool,
}

impl Joined<'_> {
    /// The fact that it has enrolled.
    #[must_use]
    pub fn to_fact(&self) -> Value {
        fact::ENROLLED.noted(json!({
            "host_identifier": self.details.host_identifier,
            "hostname": self.details.hostname,
            "platform": self.details.platform,
            "osquery_version": self.details.osquery_version,
            "ip": self.ip,
            "secret": self.secret,
            "conflict_with": self.conflict_with.map(|id| id.to_string()).unwrap_or_default(),
            "reestablished": if self.reestablished { "1" } else { "0" },
        }))
    }
}

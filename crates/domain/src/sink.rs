//! What a sink wants of all that there is. How it is sent, and where each sink stands, is not decided here.

use crate::node::NodeFacts;
use crate::target::{Target, wildcard};

/// What a line of a sink is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LineType {
    /// A row of a query.
    Result,
    /// What osqueryd logs about itself.
    Status,
    /// A finding was opened, or changed its state.
    Finding,
    /// Somebody did something in the manager.
    Audit,
}

impl LineType {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Result, Self::Status, Self::Finding, Self::Audit];

    /// As it stands in tables, lines and forms.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Result => "result",
            Self::Status => "status",
            Self::Finding => "finding",
            Self::Audit => "audit",
        }
    }

    /// The type of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == name)
    }
}

/// What of it all a sink forwards.
#[derive(Debug, Clone)]
pub struct SinkFilter {
    /// Of these types.
    pub types: Vec<LineType>,
    /// Of queries whose names fit one of these patterns (`*` is any run of characters); of all queries if there is none. Findings
    /// have the query of their row; status logs and audit entries have none, and pass.
    pub queries: Vec<String>,
    /// Of these nodes. What is about no node (audit entries pass in any case) goes only to sinks of all nodes.
    pub target: Target,
}

impl SinkFilter {
    /// Is a line forwarded?
    #[must_use]
    pub fn wants(&self, line: LineType, query: &str, node: Option<&NodeFacts>) -> bool {
        if !self.types.contains(&line) {
            return false;
        }
        let has_query = matches!(line, LineType::Result | LineType::Finding);
        let query_fits = !has_query
            || self.queries.is_empty()
            || self.queries.iter().any(|pattern| wildcard(pattern, query));
        let node_fits = line == LineType::Audit
            || match node {
                Some(facts) => self.target.matches(facts),
                None => self.target == Target::All,
            };
        query_fits && node_fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(types: &[LineType], queries: &[&str], target: &str) -> SinkFilter {
        SinkFilter {
            types: types.to_vec(),
            queries: queries.iter().map(|&pattern| pattern.into()).collect(),
            target: Target::parse(target).unwrap(),
        }
    }

    fn node(tags: &[&str]) -> NodeFacts {
        NodeFacts {
            host_identifier: "id".into(),
            hostname: "web-1".into(),
            name: "web-1".into(),
            platform: "linux".into(),
            osquery_version: "5.9.1".into(),
            tags: tags.iter().map(|&tag| tag.into()).collect(),
        }
    }

    #[test]
    fn types_queries_and_nodes_must_all_fit() {
        let prod = node(&["prod"]);
        let wants = |filter: &SinkFilter, line, query| filter.wants(line, query, Some(&prod));
        let all = filter(&LineType::ALL, &[], "");
        let some = filter(
            &LineType::ALL,
            &["pack/*", "usb"],
            "prod and platform:linux",
        );
        for (line, query) in [
            (LineType::Result, "pack/incident/listening_ports"),
            (LineType::Result, "usb"),
            (LineType::Finding, "usb"),
            (LineType::Status, ""),
        ] {
            assert!(
                wants(&all, line, query) && wants(&some, line, query),
                "{query}"
            );
            assert!(!some.wants(line, query, Some(&node(&["test"]))), "{query}");
        }
        assert!(!wants(&some, LineType::Result, "usb_devices"));
        assert!(!wants(
            &filter(&[LineType::Audit], &[], ""),
            LineType::Result,
            "usb"
        ));
    }

    #[test]
    fn what_is_about_no_node_goes_to_sinks_of_all_nodes_and_the_audit_log_to_all() {
        let some = filter(&LineType::ALL, &["usb"], "prod");
        assert!(some.wants(LineType::Audit, "", None));
        assert!(!some.wants(LineType::Finding, "usb", None));
        assert!(filter(&LineType::ALL, &["usb"], "").wants(LineType::Finding, "usb", None));
    }

    #[test]
    fn names_of_types_are_read_back() {
        for one in LineType::ALL {
            assert_eq!(LineType::parse(one.as_str()), Some(one));
        }
        assert_eq!(LineType::parse("carve"), None);
    }
}

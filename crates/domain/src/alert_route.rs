//! Where alerts go: what a rule names, and what a destination wants of it.

use crate::finding::Severity;
use crate::node::NodeFacts;
use crate::target::Target;

/// What a destination wants to be told of.
#[derive(Debug, Clone)]
pub struct AlertRoute {
    /// Nothing milder.
    pub min_severity: Severity,
    /// Of these nodes.
    pub target: Target,
    /// Of every rule, rather than of those that name it.
    pub takes_all: bool,
}

impl AlertRoute {
    /// Is a destination told of a finding? `is_named`: the rule names it. `node` is `None` for what is of no single node (a finding of
    /// the fleet, or about Ostiary itself): of that a destination is told whatever its target.
    #[must_use]
    pub fn wants(&self, is_named: bool, severity: Severity, node: Option<&NodeFacts>) -> bool {
        (is_named || self.takes_all)
            && severity >= self.min_severity
            && node.is_none_or(|node| self.target.matches(node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_told_of_what_rule_and_destination_both_want() {
        let node = |tag: &str| NodeFacts {
            tags: vec![tag.to_owned()],
            ..NodeFacts::default()
        };
        let (prod, lab) = (node("prod"), node("lab"));
        let route = |takes_all| AlertRoute {
            min_severity: Severity::High,
            target: Target::parse("prod").unwrap(),
            takes_all,
        };
        for (takes_all, is_named, severity, node, is_told) in [
            (false, true, Severity::High, Some(&prod), true),
            (false, true, Severity::Critical, Some(&prod), true),
            (false, true, Severity::Medium, Some(&prod), false),
            (false, true, Severity::High, Some(&lab), false),
            (false, false, Severity::High, Some(&prod), false),
            (true, false, Severity::High, Some(&prod), true),
            (true, false, Severity::High, Some(&lab), false),
            (true, false, Severity::Low, Some(&prod), false),
            (false, true, Severity::High, None, true),
            (false, false, Severity::High, None, false),
        ] {
            assert_eq!(route(takes_all).wants(is_named, severity, node), is_told);
        }
    }
}

//! Times in which nobody is told of some findings.

use crate::ids::{NodeId, RuleId};
use crate::node::NodeFacts;
use crate::target::Target;

/// What a silence is about: everything that it names must be so.
#[derive(Debug, Clone)]
pub struct Silence {
    /// Only of this rule.
    pub rule: Option<RuleId>,
    /// Only on this node.
    pub node: Option<NodeId>,
    /// Only on such nodes; `None` for any.
    pub target: Option<Target>,
}

impl Silence {
    /// Is nobody to be told of a finding of this rule on this node?
    #[must_use]
    pub fn covers(&self, rule: RuleId, node: NodeId, facts: &NodeFacts) -> bool {
        self.rule.is_none_or(|wanted| wanted == rule)
            && self.node.is_none_or(|wanted| wanted == node)
            && self
                .target
                .as_ref()
                .is_none_or(|target| target.matches(facts))
    }

    /// Is nobody to be told of a finding of this rule on very many nodes? Only a silence that asks for no node is about them.
    #[must_use]
    pub fn covers_fleet(&self, rule: RuleId) -> bool {
        self.rule == Some(rule) && self.node.is_none() && self.target.is_none()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn everything_that_a_silence_names_must_be_so() {
        let (rule, node) = (RuleId(Uuid::from_u128(1)), NodeId(Uuid::from_u128(2)));
        let (other_rule, other_node) = (RuleId(Uuid::from_u128(3)), NodeId(Uuid::from_u128(4)));
        let facts = NodeFacts {
            name: "web-1".into(),
            host_identifier: "h".into(),
            hostname: "web-1".into(),
            platform: "linux".into(),
            osquery_version: String::new(),
            tags: vec!["prod".into(), "linux".into()],
        };
        let target = |text: &str| Some(Target::parse(text).unwrap());
        for (silence, covers, covers_fleet) in [
            ((Some(rule), None, None), true, true),
            ((Some(other_rule), None, None), false, false),
            ((None, Some(node), None), true, false),
            ((Some(rule), Some(other_node), None), false, false),
            ((Some(rule), Some(node), target("prod")), true, false),
            ((None, None, target("prod and linux")), true, false),
            ((Some(rule), None, target("not prod")), false, false),
        ] {
            let (of_rule, on_node, target) = silence;
            let silence = Silence {
                rule: of_rule,
                node: on_node,
                target,
            };
            assert_eq!(silence.covers(rule, node, &facts), covers, "{silence:?}");
            assert_eq!(silence.covers_fleet(rule), covers_fleet, "{silence:?}");
        }
    }
}

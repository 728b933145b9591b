//! The silences that are on, read once per transaction that opens something.

use chrono::{DateTime, Utc};
use ostiary_domain::finding::Silence;
use ostiary_domain::ids::{NodeId, RuleId};
use ostiary_domain::node::NodeFacts;
use ostiary_domain::target::Target;
use ostiary_store::silences::{self, ActiveSilence};
use ostiary_store::{Conn, Result};

#[derive(Debug)]
pub(super) struct Silences(Vec<(Silence, ActiveSilence)>);

impl Silences {
    pub(super) async fn read(conn: &mut Conn, now: DateTime<Utc>) -> Result<Self> {
        let active = silences::list_active(conn, now).await?;
        let readable = active.into_iter().filter_map(|stored| {
            let target = match stored.target.as_str() {
                "" => None,
                // One that cannot be read silences nothing: better told once too often.
                text => Some(Target::parse(text).ok()?),
            };
            let silence = Silence {
                rule: stored.rule_id,
                node: stored.node_id,
                target,
            };
            Some((silence, stored))
        });
        Ok(Self(readable.collect()))
    }

    pub(super) fn find(
        &self,
        rule: RuleId,
        node: NodeId,
        facts: &NodeFacts,
    ) -> Option<&ActiveSilence> {
        let covering = self
            .0
            .iter()
            .find(|(silence, _)| silence.covers(rule, node, facts));
        covering.map(|(_, stored)| stored)
    }

    pub(super) fn cover_fleet(&self, rule: RuleId) -> bool {
        self.0.iter().any(|(silence, _)| silence.covers_fleet(rule))
    }
}

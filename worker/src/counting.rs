//! Rules that count: whether what matched in a group makes up what the rule waits for, by what it has seen before. In the transaction of
//! the group, so that a count rises exactly once.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_domain::rule::Watch;
use ostiary_store::reporting_nodes::ReportingNode;
use ostiary_store::rule_values::{self, Sighting, Times};
use ostiary_store::{Conn, Result};
use serde_json::{Map, Value};

use crate::judging::{Judged, Matter};

/// Notes what rules have seen, and gives the matters that open or count on findings.
pub(crate) async fn settle<'k>(
    conn: &mut Conn,
    judged: &mut Judged<'k>,
    fleet: &'k ReportingNode,
    now: DateTime<Utc>,
) -> Result<Vec<Matter<'k>>> {
    let (counting, mut settled): (Vec<_>, Vec<_>) = std::mem::take(&mut judged.matters)
        .into_iter()
        .partition(|matter| matter.rule.watch.is_rarity() || matter.rule.watch.counts_together());
    let seen = see(conn, judged, &counting, now).await?;
    let mut firsts = HashSet::new();
    for matter in counting {
        let hash = &matter.entity.hash;
        let span = |seconds: u32| TimeDelta::seconds(seconds.into());
        match matter.rule.watch {
            Watch::Times { times, seconds } => {
                let added = Times {
                    rule_id: matter.rule.id,
                    node_id: matter.node.id,
                    entity_hash: hash,
                    times: &matter.times,
                    wanted: times,
                };
                let latest = rule_values::add_times(conn, &added).await?;
                let enough = latest.len() >= times as usize
                    && latest[latest.len() - 1] - latest[0] <= span(seconds);
                if enough {
                    settled.push(matter);
                }
            }
            Watch::Nodes { nodes, seconds } => {
                let since = latest_of(&matter) - span(seconds);
                let found =
                    rule_values::count_nodes(conn, matter.rule.id, hash, Some(since)).await?;
                if found.is_none_or(|found| found >= i64::from(nodes)) {
                    settled.push(of_the_fleet(matter, fleet));
                }
            }
            Watch::Rare { nodes } => {
                let found = rule_values::count_nodes(conn, matter.rule.id, hash, None).await?;
                if found.is_some_and(|found| found <= i64::from(nodes)) {
                    settled.push(matter);
                }
            }
            _ => {
                let key = (matter.rule.id, *hash);
                let here = seen.get(&key).copied().unwrap_or_default();
                let found = rule_values::count_nodes(conn, matter.rule.id, hash, None).await?;
                // Of several nodes that bring a new value at once, one tells of it.
                if here.is_new && found == Some(here.nodes) && firsts.insert(key) {
                    settled.push(matter);
                }
            }
        }
    }
    Ok(join(settled))
}

/// What this group brings of a value.
#[derive(Debug, Clone, Copy, Default)]
struct Here {
    /// Nobody had seen it.
    is_new: bool,
    /// On so many nodes.
    nodes: i64,
}

type Seen = HashMap<(ostiary_domain::ids::RuleId, [u8; 32]), Here>;

/// Forgets and notes values, of all rules on rarity and on counts of nodes.
async fn see(
    conn: &mut Conn,
    judged: &Judged<'_>,
    counting: &[Matter<'_>],
    now: DateTime<Utc>,
) -> Result<Seen> {
    fn sighting<'v>(
        (rule_id, node_id, entity_hash): &'v crate::judging::Value32,
        seen_at: DateTime<Utc>,
    ) -> Sighting<'v> {
        Sighting {
            rule_id: *rule_id,
            node_id: *node_id,
            entity_hash,
            seen_at,
        }
    }
    let forgotten: Vec<Sighting<'_>> = (judged.forgotten.iter())
        .map(|value| sighting(value, now))
        .collect();
    if !forgotten.is_empty() {
        rule_values::forget(conn, &forgotten).await?;
    }
    let of_values = counting
        .iter()
        .filter(|matter| !matches!(matter.rule.watch, Watch::Times { .. }))
        .map(|matter| Sighting {
            rule_id: matter.rule.id,
            entity_hash: &matter.entity.hash,
            node_id: matter.node.id,
            seen_at: latest_of(matter),
        });
    let matched: Vec<Sighting<'_>> = of_values.collect();
    let known = if matched.is_empty() {
        Vec::new()
    } else {
        rule_values::are_known(conn, &matched).await?
    };
    let mut seen = Seen::new();
    for (one, known) in matched.iter().zip(known) {
        let here = seen.entry((one.rule_id, *one.entity_hash)).or_default();
        here.is_new = !known;
        here.nodes += 1;
    }
    let learned = judged.learned.iter().map(|value| sighting(value, now));
    let all: Vec<Sighting<'_>> = matched.iter().copied().chain(learned).collect();
    if !all.is_empty() {
        rule_values::see(conn, &all).await?;
    }
    Ok(seen)
}

fn latest_of(matter: &Matter<'_>) -> DateTime<Utc> {
    let times = matter.matches.iter().map(|one| one.occurred_at);
    times.max().unwrap_or(DateTime::UNIX_EPOCH)
}

/// A matter that is of no single node; its rows say whose they are.
fn of_the_fleet<'k>(mut matter: Matter<'k>, fleet: &'k ReportingNode) -> Matter<'k> {
    for one in &mut matter.matches {
        if let Value::Object(columns) = &mut one.columns {
            let mut named = Map::new();
            named.insert("node".into(), matter.node.facts.name.clone().into());
            named.append(columns);
            *columns = named;
        }
    }
    matter.node = fleet;
    matter
}

/// Matters of the fleet about the same become one.
fn join(matters: Vec<Matter<'_>>) -> Vec<Matter<'_>> {
    let mut joined: Vec<Matter<'_>> = Vec::new();
    let mut places = HashMap::new();
    for matter in matters {
        let key = (matter.rule.id, matter.node.id, matter.entity.hash);
        match places.get(&key) {
            Some(place) => {
                let first: &mut Matter<'_> = &mut joined[*place];
                first.count += matter.count;
                first.matches.extend(matter.matches);
            }
            None => {
                places.insert(key, joined.len());
                joined.push(matter);
            }
        }
    }
    joined.sort_by_key(|matter| (matter.rule.id, matter.node.id, matter.entity.hash));
    joined
}

//! What admins decide and jobs need in memory: compiled rules and the schedule, brought up to date when their generations move.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use chrono::TimeDelta;
use ostiary_domain::finding::Severity;
use ostiary_domain::ids::RuleId;
use ostiary_domain::rule::{Rule, RuleDefinition, RuleSet};
use ostiary_store::reporting_nodes::ReportingNode;
use ostiary_store::rules::StoredRule;
use ostiary_store::{Conn, Db, Result, config_parts, rules};

use crate::schedule::Schedule;

/// The compiled rules, and of each what is needed when it matches.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) set: RuleSet,
    pub(crate) stored: HashMap<RuleId, StoredRule>,
    /// Where rules stand in the set.
    places: HashMap<RuleId, usize>,
    /// Whose findings are that are of no single node.
    pub(crate) fleet: ReportingNode,
}

impl Rules {
    fn new(set: RuleSet, stored: Vec<StoredRule>) -> Self {
        let places = set.rules().iter().map(|rule| rule.definition.id).zip(0..);
        Self {
            places: places.collect(),
            stored: stored.into_iter().map(|rule| (rule.id, rule)).collect(),
            fleet: ReportingNode::fleet(),
            set,
        }
    }

    /// The compiled rule; `None` if it is broken.
    pub(crate) fn compiled(&self, id: RuleId) -> Option<&Rule> {
        self.places.get(&id).map(|place| &self.set.rules()[*place])
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::new(RuleSet::default(), Vec::new())
    }
}

/// What is known at one moment.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Of `rules`, `destinations` and `configs`; empty before the first load.
    generations: HashMap<String, i64>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) schedule: Arc<Schedule>,
}

/// Keeps it.
#[derive(Debug, Default)]
pub(crate) struct Knowledge {
    now: ArcSwap<Known>,
    /// One loads, the others wait for it.
    loading: tokio::sync::Mutex<()>,
}

impl Knowledge {
    /// What is true now. Costs one small look at Postgres, so that a change is in force for the next group of posts.
    pub(crate) async fn fresh(&self, db: &Db) -> Result<Arc<Known>> {
        let mut conn = db.acquire().await?;
        let known = self.now.load_full();
        if known.generations == generations(&mut conn).await? {
            return Ok(known);
        }
        drop(conn);
        let _one = self.loading.lock().await;
        let mut tx = db.begin().await?;
        let known = self.now.load_full();
        // Read first: what changes while we load is loaded again next time.
        let generations = generations(&mut tx).await?;
        if known.generations == generations {
            return Ok(known);
        }
        let moved = |name: &str| known.generations.get(name) != generations.get(name);
        let rules = if moved("rules") || moved("destinations") {
            Arc::new(load_rules(&mut tx).await?)
        } else {
            known.rules.clone()
        };
        let schedule = if moved("configs") {
            Arc::new(Schedule::new(&config_parts::load(&mut tx).await?.enabled()))
        } else {
            known.schedule.clone()
        };
        Db::commit(tx).await?;
        let fresh = Arc::new(Known {
            generations,
            rules,
            schedule,
        });
        self.now.store(fresh.clone());
        Ok(fresh)
    }
}

/// The generations that matter here.
async fn generations(conn: &mut Conn) -> Result<HashMap<String, i64>> {
    let mut generations = ostiary_store::generations(conn).await?;
    generations.retain(|name, _| ["rules", "destinations", "configs"].contains(&name.as_str()));
    Ok(generations)
}

/// Compiles the rules. One that cannot be compiled is off, says why, and stops no other.
async fn load_rules(conn: &mut Conn) -> Result<Rules> {
    let stored = rules::list_enabled(conn).await?;
    let (set, broken) = RuleSet::compile(stored.iter().map(definition));
    let reasons: HashMap<RuleId, String> = broken
        .into_iter()
        .map(|broken| (broken.id, broken.reason.to_string()))
        .collect();
    for rule in &stored {
        let reason = reasons.get(&rule.id);
        if rule.broken_reason.as_ref() != reason {
            if let Some(reason) = reason {
                tracing::warn!(rule.id = %rule.id, rule.name = rule.name, reason, "the rule is switched off");
            }
            rules::set_broken_reason(conn, rule.id, reason.map(String::as_str)).await?;
        }
    }
    Ok(Rules::new(set, stored))
}

fn definition(rule: &StoredRule) -> RuleDefinition {
    RuleDefinition {
        id: rule.id,
        name: rule.name.clone(),
        conditions: rule.conditions.clone(),
        severity: Severity::parse(&rule.severity).unwrap_or(Severity::Medium),
        scope: rule.scope.clone(),
        entity_columns: rule.entity_columns.clone(),
        watch: rule.watch,
        on_baseline: rule.on_baseline,
        max_age: Some(TimeDelta::seconds(rule.max_age_seconds.into())),
    }
}

//! New and changed rules look once at what is present: rules on rarity learn what is common, rules on present rows that also want what was
//! there already open what holds. In slices, each in a transaction of its own under the locks of its nodes; doing it twice does no harm.

use chrono::TimeDelta;
use ostiary_domain::ids::{NodeId, RuleId};
use ostiary_domain::rule::{LONGEST_SPAN, Rule};
use ostiary_store::rules::{self, Holding};
use ostiary_store::{Db, Result, pending, present_rows, reporting_nodes, rule_values};

use crate::judging::Source;
use crate::knowledge::Known;
use crate::writes::Writes;
use crate::{App, jobs};

/// Present rows of so many (node, query) pairs at a time.
const PAIRS_AT_ONCE: i64 = 100;

/// Studies for all rules that have not yet. Those of which a node was busy come again with the next sweep.
pub(crate) async fn study(app: &App) -> Result<()> {
    let known = app.knowledge.fresh(&app.db).await?;
    for stored in known.rules.stored.values().filter(|rule| rule.to_study) {
        let Some(rule) = known.rules.compiled(stored.id) else {
            continue;
        };
        let whole = !stored.watch.studies() || study_for(app, &known, rule).await?;
        if app.shutdown.is_cancelled() {
            return Ok(());
        }
        if whole {
            let mut conn = app.db.acquire().await?;
            rules::set_studied(&mut conn, stored.id, stored.updated_at).await?;
            tracing::info!(rule.id = %stored.id, rule.name = stored.name, "the rule has looked at what is present");
        }
    }
    Ok(())
}

/// Gives whether no node was left out.
async fn study_for(app: &App, known: &Known, rule: &Rule) -> Result<bool> {
    let names = rule.query_names();
    let (mut after, mut whole) = (None, true);
    while !app.shutdown.is_cancelled() {
        let mut conn = app.db.acquire().await?;
        let names = names.as_deref();
        let found = rules::list_holding(&mut conn, names, after, PAIRS_AT_ONCE).await?;
        drop(conn);
        let Some(last) = found.last() else {
            break;
        };
        after = Some((last.node_id, last.query_name_id));
        whole &= study_slice(app, known, rule.definition.id, &found).await?;
    }
    Ok(whole)
}

async fn study_slice(app: &App, known: &Known, rule: RuleId, found: &[Holding]) -> Result<bool> {
    let now = app.now();
    let mut ids: Vec<NodeId> = found.iter().map(|one| one.node_id).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut tx = app.db.begin().await?;
    let locked = pending::lock_nodes(&mut tx, &ids).await?;
    let whole = locked.len() == ids.len();
    let nodes = reporting_nodes::find(&mut tx, &locked).await?;
    let pairs: Vec<(NodeId, i32)> = found
        .iter()
        .map(|one| (one.node_id, one.query_name_id))
        .collect();
    let mut writes = Writes::new(&known.rules);
    for stored in present_rows::find(&mut tx, &pairs).await? {
        let holding = found
            .iter()
            .find(|one| (one.node_id, one.query_name_id) == (stored.node_id, stored.query_name_id));
        let (Some(node), Some(holding)) = (nodes.get(&stored.node_id), holding) else {
            continue;
        };
        let source = Source {
            node,
            batch_id: None,
            occurred_at: now,
            received_at: now,
        };
        let snapshot = stored
            .present
            .series
            .as_ref()
            .is_some_and(|one| one.snapshot);
        let present = (&stored.present.rows, snapshot);
        writes
            .judge
            .study(rule, source, &holding.query_name, present);
    }
    let outcome = writes.store(&mut tx, &app.settings, now).await?;
    Db::commit(tx).await?;
    jobs::ring_for_deliveries(app, &outcome.deliveries).await;
    Ok(whole)
}

/// Forgets what counts no more.
pub(crate) async fn prune(app: &App) -> Result<()> {
    let longest = TimeDelta::seconds(LONGEST_SPAN.into());
    rule_values::prune(&mut *app.db.acquire().await?, app.now(), longest).await
}

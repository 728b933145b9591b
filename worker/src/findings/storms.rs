//! What a storm needs while it lasts: rare entities inside of it are told alone, and it ends when it is calm.

use ostiary_domain::ids::DeliveryId;
use ostiary_store::findings::storms::{self, Rare, Storm};
use ostiary_store::rules::StoredRule;
use ostiary_store::{Db, Result, finding_lists, reporting_nodes};

use super::alert_body::{FirstMatch, Subject, alert_body};
use super::opening::tell_opened;
use crate::App;
use crate::jobs;

/// Tells of what is rare, and ends storms that are over. Two workers may do it at once: each finding is told by one.
pub(crate) async fn look_after_storms(app: &App) -> Result<()> {
    let now = app.now();
    let limits = app.settings.storms;
    let mut conn = app.db.acquire().await?;
    let found = storms::list(
        &mut conn,
        i64::from(limits.rare_nodes),
        now - limits.rare_after(),
    )
    .await?;
    drop(conn);
    if found.is_empty() {
        return Ok(());
    }
    let known = app.knowledge.fresh(&app.db).await?;
    for storm in &found {
        if let Some(rule) = known.rules.stored.get(&storm.rule_id)
            && limits.stands_out(storm.nodes_with_rare, storm.nodes)
        {
            for rare in &storm.rare {
                let deliveries = tell_rare(app, storm, rare, rule).await?;
                jobs::ring_for_deliveries(app, &deliveries).await;
            }
        }
    }
    let mut tx = app.db.begin().await?;
    for finding in storms::end_calm(&mut tx, now - limits.window(), now).await? {
        tracing::info!(finding.id = %finding, "a storm is over");
    }
    Db::commit(tx).await
}

async fn tell_rare(
    app: &App,
    storm: &Storm,
    rare: &Rare,
    rule: &StoredRule,
) -> Result<Vec<DeliveryId>> {
    let now = app.now();
    let mut tx = app.db.begin().await?;
    if !storms::stand_out(&mut tx, rare.finding_id, now).await? {
        return Ok(Vec::new());
    }
    let nodes = reporting_nodes::find(&mut tx, &[rare.node_id]).await?;
    let matches = finding_lists::list_matches(&mut tx, &[rare.finding_id.0]).await?;
    let (Some(node), Some(first)) = (nodes.get(&rare.node_id), matches.last()) else {
        return Ok(Vec::new());
    };
    let body = alert_body(Subject {
        finding: rare.finding_id,
        rule,
        node,
        entity: &rare.entity,
        first: FirstMatch {
            query_name: &first.query_name,
            action: &first.action,
            columns: &first.columns,
            occurred_at: first.occurred_at,
        },
        opened_at: rare.opened_at,
        manager_url: &app.settings.public.manager_url,
    });
    let deliveries = tell_opened(
        &mut tx,
        rare.finding_id,
        (rule, Some(&node.facts)),
        &body,
        now,
    )
    .await?;
    Db::commit(tx).await?;
    tracing::info!(finding.id = %rare.finding_id, storm.finding_id = %storm.finding_id, "stands out of a storm");
    Ok(deliveries)
}

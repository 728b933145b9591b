//! What a group of posts writes, gathered first and then stored, all in the group's transaction.

use chrono::{DateTime, Utc};
use ostiary_boot::clock::new_id;
use ostiary_domain::ids::{AlertId, DeliveryId, FindingId, NodeId};
use ostiary_store::alerts::NewAlert;
use ostiary_store::deliveries::NewDelivery;
use ostiary_store::events::NewEvent;
use ostiary_store::findings::{Matched, Upserted};
use ostiary_store::post_fingerprints::Remembered;
use ostiary_store::present_rows::Stored;
use ostiary_store::status_logs::NewStatus;
use ostiary_store::unreadable::NewUnreadable;
use ostiary_store::{
    Conn, Result, alerts, deliveries, events, findings, pending, post_fingerprints, present_rows,
    status_logs, unreadable, vitals,
};
use serde_json::json;

use crate::judging::{Judge, Matter};
use crate::knowledge::Rules;
use crate::vitals::Brought;

/// Everything that a group writes.
#[derive(Debug)]
pub(crate) struct Writes<'g> {
    pub(crate) events: Vec<NewEvent<'g>>,
    pub(crate) statuses: Vec<NewStatus<'g>>,
    pub(crate) present: Vec<Stored>,
    pub(crate) remembered: Vec<Remembered>,
    pub(crate) unreadable: Vec<NewUnreadable>,
    pub(crate) vitals: Brought,
    /// When nodes proved that their schedule runs.
    pub(crate) proofs: Vec<(NodeId, DateTime<Utc>)>,
    pub(crate) judge: Judge<'g>,
    /// Pending rows that are done.
    pub(crate) done: Vec<i64>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) opened: u64,
    pub(crate) deliveries: Vec<DeliveryId>,
}

impl<'g> Writes<'g> {
    /// Nothing so far.
    pub(crate) fn new(rules: &'g Rules) -> Self {
        Self {
            events: Vec::new(),
            statuses: Vec::new(),
            present: Vec::new(),
            remembered: Vec::new(),
            unreadable: Vec::new(),
            vitals: Brought::default(),
            proofs: Vec::new(),
            judge: Judge::new(rules),
            done: Vec::new(),
        }
    }

    /// Stores everything. The caller commits.
    pub(crate) async fn store(
        self,
        conn: &mut Conn,
        manager_url: &str,
        now: DateTime<Utc>,
    ) -> Result<Outcome> {
        if !self.events.is_empty() {
            events::insert(conn, &self.events).await?;
        }
        if !self.statuses.is_empty() {
            status_logs::insert(conn, &self.statuses).await?;
        }
        if !self.present.is_empty() {
            present_rows::put(conn, &self.present, now).await?;
        }
        if !self.remembered.is_empty() {
            post_fingerprints::remember(conn, &self.remembered).await?;
        }
        if !self.unreadable.is_empty() {
            unreadable::insert(conn, &self.unreadable).await?;
        }
        let mut outcome = Outcome::default();
        for matter in self.judge.into_matters() {
            open_or_count(conn, &matter, manager_url, now, &mut outcome).await?;
        }
        if !self.done.is_empty() {
            pending::delete(conn, &self.done).await?;
        }
        // Last, since the api writes check-ins too and should not wait for us.
        let mut brought: Vec<_> = self.vitals.iter().collect();
        brought.sort_unstable_by_key(|(node, _)| **node);
        for (node, brought) in brought {
            vitals::update(conn, *node, brought).await?;
        }
        if !self.proofs.is_empty() {
            vitals::note_results(conn, &self.proofs).await?;
        }
        Ok(outcome)
    }
}

/// Opens a finding and records its alert with a delivery per destination of the rule, or counts on the one that is open.
async fn open_or_count(
    conn: &mut Conn,
    matter: &Matter<'_>,
    manager_url: &str,
    now: DateTime<Utc>,
    outcome: &mut Outcome,
) -> Result<()> {
    let matched = Matched {
        id: FindingId(new_id()),
        rule_id: matter.rule.id,
        rule_name: &matter.rule.name,
        severity: &matter.rule.severity,
        node_id: matter.node.id,
        node_name: &matter.node.facts.name,
        entity: &matter.entity.text,
        entity_hash: &matter.entity.hash,
        matches: &matter.matches,
        count: matter.count,
        matched_at: now,
        batch_id: matter.batch_id,
    };
    let Upserted::Opened(finding_id) = findings::upsert(conn, &matched).await? else {
        return Ok(());
    };
    outcome.opened += 1;
    let body = alert_body(matter, finding_id, manager_url, now);
    let alert = NewAlert {
        id: AlertId(new_id()),
        finding_id,
        kind: "opened",
        body: &body,
        created_at: now,
    };
    alerts::insert(conn, &alert).await?;
    let wanted: Vec<NewDelivery> = matter
        .rule
        .destinations
        .iter()
        .map(|destination| NewDelivery {
            id: DeliveryId(new_id()),
            alert_id: alert.id,
            destination_id: *destination,
        })
        .collect();
    outcome
        .deliveries
        .extend(deliveries::insert(conn, &wanted, now).await?);
    Ok(())
}

/// All that destinations need, fixed now; read by `outputs::Alert`.
fn alert_body(
    matter: &Matter<'_>,
    finding: FindingId,
    manager_url: &str,
    now: DateTime<Utc>,
) -> serde_json::Value {
    let (rule, node) = (matter.rule, matter.node);
    let first = &matter.matches[0];
    json!({
        "finding_id": finding,
        "rule": {
            "name": rule.name,
            "description": rule.description,
            "severity": rule.severity,
            "runbook_url": rule.runbook_url,
        },
        "node": {
            "id": node.id,
            "name": node.facts.name,
            "host_identifier": node.facts.host_identifier,
            "platform": node.facts.platform,
            "tags": node.facts.tags,
        },
        "entity": matter.entity.text,
        "query_name": first.query_name,
        "action": first.action,
        "columns": first.columns,
        "occurred_at": first.occurred_at,
        "opened_at": now,
        "url": format!("{}/findings/{finding}", manager_url.trim_end_matches('/')),
    })
}

//! Opening a finding and telling of it, or counting on the one that is open.

use chrono::{DateTime, Utc};
use ostiary_boot::clock::new_id;
use ostiary_domain::finding::StormLimits;
use ostiary_domain::ids::{AlertId, DeliveryId, FindingId};
use ostiary_domain::node::NodeFacts;
use ostiary_store::alerts::{self, NewAlert};
use ostiary_store::deliveries::{self, NewDelivery};
use ostiary_store::findings::storms::{self, JustOpened, TakenIn};
use ostiary_store::findings::{self, By, Entry, EntryKind, Matched, Upserted, storm_samples};
use ostiary_store::reporting_nodes::OSTIARY;
use ostiary_store::rules::StoredRule;
use ostiary_store::silences::ActiveSilence;
use ostiary_store::{Conn, Result};
use serde_json::Value;

use super::alert_body::{FirstMatch, Subject, alert_body, fleet_body};
use super::routing;
use super::silences::Silences;
use crate::judging::Matter;
use crate::settings::Settings;
use crate::writes::Outcome;

/// Nodes that an alert about the fleet names.
const NODES_NAMED: i64 = 100;

/// Opens findings within one transaction, and remembers what it read for that.
#[derive(Debug)]
pub(crate) struct Opener<'s> {
    manager_url: &'s str,
    limits: StormLimits,
    now: DateTime<Utc>,
    silences: Option<Silences>,
    threshold: Option<i64>,
}

impl<'s> Opener<'s> {
    /// Nothing read so far.
    pub(crate) fn new(settings: &'s Settings, now: DateTime<Utc>) -> Self {
        Self {
            manager_url: &settings.public.manager_url,
            limits: settings.storms,
            now,
            silences: None,
            threshold: None,
        }
    }

    /// Opens a finding and records its alert with a delivery per destination of the rule, or counts on the one that is open. Nobody is
    /// told of one that is silenced, nor alone of one that a storm takes in. One that was silenced is told when it matches again after
    /// the silence.
    pub(crate) async fn open_or_count(
        &mut self,
        conn: &mut Conn,
        matter: &Matter<'_>,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let silence = self.silence(conn, matter).await?;
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
            matched_at: self.now,
            batch_id: matter.batch_id,
            silence_id: silence.as_ref().map(|silence| silence.id),
        };
        match findings::upsert(conn, &matched).await? {
            Upserted::RuleGone => Ok(()),
            Upserted::Counted {
                id,
                silence_id: Some(_),
            } if silence.is_none() => {
                findings::unsilence(conn, id, self.now).await?;
                self.tell_of(conn, matter, id, outcome).await
            }
            Upserted::Counted { .. } => Ok(()),
            Upserted::Opened(finding) => {
                outcome.opened += 1;
                match silence {
                    Some(silence) => self.note_silence(conn, finding, &silence).await,
                    None => self.tell_of(conn, matter, finding, outcome).await,
                }
            }
        }
    }

    async fn silence(
        &mut self,
        conn: &mut Conn,
        matter: &Matter<'_>,
    ) -> Result<Option<ActiveSilence>> {
        let silences = match self.silences.take() {
            Some(silences) => silences,
            None => Silences::read(conn, self.now).await?,
        };
        let found = silences.find(matter.rule.id, matter.node.id, &matter.node.facts);
        let found = found.cloned();
        self.silences = Some(silences);
        Ok(found)
    }

    async fn note_silence(
        &self,
        conn: &mut Conn,
        finding_id: FindingId,
        silence: &ActiveSilence,
    ) -> Result<()> {
        let entry = Entry {
            finding_id,
            at: self.now,
            kind: EntryKind::Silenced,
            by: By {
                user_id: None,
                name: &silence.by_name,
            },
            text: &silence.reason,
            columns: None,
        };
        findings::insert_entry(conn, &entry).await
    }

    async fn tell_of(
        &mut self,
        conn: &mut Conn,
        matter: &Matter<'_>,
        finding: FindingId,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let first = &matter.matches[0];
        let subject = Subject {
            finding,
            rule: matter.rule,
            node: matter.node,
            entity: &matter.entity.text,
            first: FirstMatch {
                query_name: &first.query_name,
                action: first.action,
                columns: &first.columns,
                occurred_at: first.occurred_at,
            },
            opened_at: self.now,
            manager_url: self.manager_url,
        };
        let (told, node, body) = match self.take_in(conn, matter, finding).await? {
            TakenIn::Alone => {
                let node = (matter.node.id != OSTIARY).then_some(&matter.node.facts);
                (finding, node, alert_body(subject))
            }
            TakenIn::Into(_) => return Ok(()),
            TakenIn::Began(fleet) => {
                outcome.opened += 1;
                let silenced = self
                    .silences
                    .as_ref()
                    .is_some_and(|silences| silences.cover_fleet(matter.rule.id));
                if silenced {
                    return Ok(());
                }
                let sample = storm_samples::sample(conn, fleet, NODES_NAMED).await?;
                (fleet, None, fleet_body(fleet, subject, &sample))
            }
        };
        let made = tell_opened(conn, told, (matter.rule, node), &body, self.now).await?;
        outcome.deliveries.extend(made);
        Ok(())
    }

    async fn take_in(
        &mut self,
        conn: &mut Conn,
        matter: &Matter<'_>,
        finding_id: FindingId,
    ) -> Result<TakenIn> {
        // What is of no node is one matter already.
        if matter.node.id == OSTIARY {
            return Ok(TakenIn::Alone);
        }
        let threshold = match self.threshold {
            Some(threshold) => threshold,
            None => self.limits.threshold(storms::count_nodes(conn).await?),
        };
        self.threshold = Some(threshold);
        let opened = JustOpened {
            finding_id,
            rule_id: matter.rule.id,
            rule_name: &matter.rule.name,
            severity: &matter.rule.severity,
            at: self.now,
            window: self.limits.window(),
            threshold,
            new_id: FindingId(new_id()),
        };
        storms::take_in(conn, &opened).await
    }
}

/// Records that a finding was opened, with a delivery for each destination that is to be told; gives those to ring for. `node` is
/// `None` for what is of no single node.
pub(super) async fn tell_opened(
    conn: &mut Conn,
    finding_id: FindingId,
    (rule, node): (&StoredRule, Option<&NodeFacts>),
    body: &Value,
    now: DateTime<Utc>,
) -> Result<Vec<DeliveryId>> {
    let alert = NewAlert {
        id: AlertId(new_id()),
        finding_id,
        kind: "opened",
        body,
        created_at: now,
    };
    alerts::insert(conn, &alert).await?;
    let wanted: Vec<NewDelivery> = routing::destinations_of(conn, rule, node)
        .await?
        .into_iter()
        .map(|destination| NewDelivery {
            id: DeliveryId(new_id()),
            alert_id: alert.id,
            destination_id: destination,
        })
        .collect();
    let made = deliveries::insert(conn, &wanted, now).await?;
    if !made.is_empty() {
        let told = Entry {
            finding_id,
            at: now,
            kind: EntryKind::Told,
            by: By::RULE,
            text: "opened",
            columns: None,
        };
        findings::insert_entry(conn, &told).await?;
    }
    Ok(made)
}

//! What a group of posts writes, gathered first and then stored, all in the group's transaction.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::{DeliveryId, NodeId};
use ostiary_store::events::NewEvent;
use ostiary_store::post_fingerprints::Remembered;
use ostiary_store::present_rows::Stored;
use ostiary_store::reporting_nodes::ReportingNode;
use ostiary_store::status_logs::NewStatus;
use ostiary_store::unreadable::NewUnreadable;
use ostiary_store::{
    Conn, Result, events, pending, post_fingerprints, present_rows, status_logs, unreadable, vitals,
};

use crate::counting;
use crate::findings::{self, Opener, Recovery};
use crate::judging::Judge;
use crate::knowledge::Rules;
use crate::settings::Settings;
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
    fleet: &'g ReportingNode,
    /// Matters that are over, in an order that is the same for all transactions.
    pub(crate) recoveries: Vec<Recovery<'g>>,
    /// Pending rows that are done.
    pub(crate) done: Vec<i64>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) opened: u64,
    pub(crate) recovered: u64,
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
            fleet: &rules.fleet,
            recoveries: Vec::new(),
            done: Vec::new(),
        }
    }

    /// Stores everything. The caller commits.
    pub(crate) async fn store(
        self,
        conn: &mut Conn,
        settings: &Settings,
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
        let mut opener = Opener::new(settings, now);
        let mut judged = self.judge.finish();
        for matter in counting::settle(conn, &mut judged, self.fleet, now).await? {
            opener.open_or_count(conn, &matter, &mut outcome).await?;
        }
        for recovery in judged.recoveries.iter().chain(&self.recoveries) {
            findings::recover(conn, recovery, now, &mut outcome).await?;
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

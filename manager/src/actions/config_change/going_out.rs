//! A change on its way to nodes: at once, in stages, or with the roll-out that is under way.

use ostiary_domain::ids::NodeId;
use ostiary_domain::node::NodeFacts;
use ostiary_domain::node_config::Parts;
use ostiary_domain::rollout::{EVERYBODY, Inside, Move, changed_nodes, inside};
use ostiary_store::rollouts::{self, NewRollout, Rollout, Stage};
use ostiary_store::{Conn, rollout_nodes};
use uuid::Uuid;

use crate::error::Result;
use crate::state::App;

/// A change that has been written and counted.
pub(super) struct GoingOut<'a> {
    /// The revision before it.
    pub(super) base: i64,
    /// Its own.
    pub(super) number: i64,
    /// What is kept of how it was is what people set: what may not be asked of nodes is as of the moment.
    pub(super) base_parts: &'a Parts,
    /// What nodes were sent before.
    pub(super) before: &'a Parts,
    /// What they are sent from now on.
    pub(super) after: &'a Parts,
    pub(super) nodes: &'a [(NodeId, NodeFacts)],
    pub(super) user_name: &'a str,
}

/// Does a change join this roll-out? Not when that has reached everybody and the change is to be tried first: then it is over.
pub(super) fn joins(active: &Rollout, in_stages: bool) -> bool {
    !(in_stages && active.threshold == EVERYBODY)
}

impl GoingOut<'_> {
    /// At once or in stages? A change saved while a roll-out is under way joins it.
    pub(super) async fn decide(&self, app: &App, conn: &mut Conn, in_stages: bool) -> Result<()> {
        if let Some(active) = rollouts::lock_active(conn).await? {
            if joins(&active, in_stages) {
                return self.join(app, conn, &active).await;
            }
            rollouts::end(conn, active.id, false, app.now()).await?;
        }
        let concerned = self.concerned(self.before);
        if !in_stages || concerned.is_empty() {
            return Ok(());
        }
        let id = ostiary_boot::clock::new_id();
        let shares = app.settings.rollouts.shares();
        let share = shares.first().copied().unwrap_or(100);
        let first = first_nodes(app, conn, id, &concerned, (share, 0)).await?;
        let new = NewRollout {
            id,
            base_revision: self.base,
            revision: self.number,
            base: self.base_parts,
            shares: &shares,
            threshold: first.threshold,
            user_name: self.user_name,
        };
        rollouts::insert(conn, &new, app.now()).await?;
        rollout_nodes::add(conn, id, 0, &first.nodes, app.now()).await?;
        Ok(())
    }

    /// The stage begins anew with the change. Who is inside stays inside: sent the base again, a node would keep options that the
    /// base knows nothing of.
    async fn join(&self, app: &App, conn: &mut Conn, active: &Rollout) -> Result<()> {
        let Some(split) = rollouts::find_split(conn).await? else {
            return Ok(());
        };
        let concerned = self.concerned(&split.base);
        rollout_nodes::clear(conn, active.id).await?;
        if concerned.is_empty() {
            // By hand everything is again as it was.
            rollouts::end(conn, active.id, true, app.now()).await?;
            return Ok(());
        }
        let index = usize::try_from(active.stage).unwrap_or(0);
        let share = active.shares.get(index).copied().unwrap_or(100);
        let measured =
            first_nodes(app, conn, active.id, &concerned, (share, active.threshold)).await?;
        let stage = Stage {
            number: active.stage,
            threshold: measured.threshold,
            revision: self.number,
        };
        rollouts::begin_stage(conn, active.id, stage, app.now()).await?;
        rollout_nodes::add(conn, active.id, active.stage, &measured.nodes, app.now()).await?;
        Ok(())
    }

    fn concerned(&self, base: &Parts) -> Vec<NodeId> {
        let facts = self.nodes.iter().map(|(id, facts)| (*id, facts));
        changed_nodes(Move::all(base, self.after, facts))
    }
}

/// The first of the nodes concerned: so many percent, and at least those up to a position.
async fn first_nodes(
    app: &App,
    conn: &mut Conn,
    rollout: Uuid,
    concerned: &[NodeId],
    (share, least): (i16, i64),
) -> Result<Inside> {
    let since = app.now() - app.settings.rollouts.online_within();
    let seen = rollout_nodes::list_seen_since(conn, since).await?;
    Ok(inside(rollout, concerned, &seen, share, least))
}

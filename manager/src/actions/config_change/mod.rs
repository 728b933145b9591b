//! Changing what configs are made of: the one way for packs, queries, file paths, options, decorators, sections and imports alike.
//!
//! [`ConfigChange::begin`] takes the turn and remembers how things are; the caller writes; [`ConfigChange::finish`] looks at what came
//! of it, in the same transaction: is a config too large, could an option cut nodes off, who gets another config, at once or in
//! stages? Then it keeps a revision and the audit entry, and commits. Nothing else may commit such a change.

mod guard;
mod saving;

use std::ops::{Deref, DerefMut};

use ostiary_domain::cut_off;
use ostiary_domain::ids::NodeId;
use ostiary_domain::node::NodeFacts;
use ostiary_domain::node_config::Parts;
use ostiary_domain::revision::Objects;
use ostiary_domain::rollout::{Inside, changed_nodes, inside};
use ostiary_store::config_revisions::{self, NewRevision};
use ostiary_store::rollouts::{self, NewRollout, Stage};
use ostiary_store::{Conn, Db, Tx, config_parts, node_lists};
use uuid::Uuid;

pub use saving::Saving;

use super::audit::{Change, record};
use crate::auth::{Permit, Right};
use crate::error::Result;
use crate::state::App;

/// An open change. It derefs to the connection on which the caller writes; dropped, nothing happened.
pub(in crate::actions) struct ConfigChange {
    tx: Tx,
    objects: Objects,
    /// As people set them.
    parts: Parts,
    /// As nodes got them: without what they may not be asked.
    given: Parts,
}

impl ConfigChange {
    /// Waits for the turn to change config objects.
    pub(in crate::actions) async fn begin(app: &App) -> Result<Self> {
        let mut tx = app.db.begin().await?;
        config_revisions::lock(&mut tx).await?;
        let objects = config_revisions::objects(&mut tx).await?;
        let parts = config_parts::load(&mut tx).await?;
        let given = config_parts::load_for_nodes(&mut tx).await?;
        Ok(Self {
            tx,
            objects,
            parts,
            given,
        })
    }

    /// Checks what was written, keeps it as a revision with its audit entry, and commits. Gives the revision, unless nothing changed.
    ///
    /// # Errors
    /// [`Error::Refused`](crate::error::Error::Refused) when a config would become too large;
    /// [`Error::Invalid`](crate::error::Error::Invalid) when an option could cut nodes off and that was not confirmed, and with what
    /// would happen, when only that was asked. Nothing is changed then.
    pub(in crate::actions) async fn finish<R: Right>(
        mut self,
        app: &App,
        permit: &Permit<R>,
        saving: &Saving,
        change: Change<'_>,
    ) -> Result<Option<i64>> {
        let written = config_parts::load(&mut self.tx).await?;
        super::leftovers::note(&mut self.tx, app, &self.parts, &written).await?;
        super::check_config_sizes(&mut self.tx).await?;
        let after = config_parts::load_for_nodes(&mut self.tx).await?;
        let nodes = node_lists::facts(&mut self.tx).await?;
        let facts = || nodes.iter().map(|(id, facts)| (*id, facts));
        let changed = changed_nodes(&self.given, &after, facts());
        let dangers = cut_off::dangers(
            &self.given,
            &after,
            nodes.iter().map(|(_, facts)| facts),
            &guard::served(app),
        );
        if saving.preview {
            return Err(guard::preview(app, &nodes, &changed, &dangers));
        }
        guard::confirmed(saving, &dangers, change.action.ends_with(".delete"))?;
        let mut revision = None;
        let objects = config_revisions::objects(&mut self.tx).await?;
        if objects != self.objects {
            let base = self.base_revision(app).await?;
            let actor = permit.actor();
            let new = NewRevision {
                user_id: actor.user_id.map(|id| id.0),
                user_name: &actor.name,
                what: &change.sentence(),
                objects: &objects,
            };
            let number = config_revisions::insert(&mut self.tx, &new, app.now()).await?;
            revision = Some(number);
            let going_out = GoingOut {
                base,
                number,
                base_parts: &self.parts,
                before: &self.given,
                after: &after,
                nodes: &nodes,
                user_name: &actor.name,
            };
            going_out
                .decide(app, &mut self.tx, saving.in_stages(app))
                .await?;
        }
        record(app, &mut self.tx, permit, change).await?;
        Db::commit(self.tx).await?;
        Ok(revision)
    }

    /// The revision that says how things were before this change. The very first change has none yet, and a release may have changed
    /// what is there.
    async fn base_revision(&mut self, app: &App) -> Result<i64> {
        let newest = config_revisions::newest(&mut self.tx).await?;
        let hash = self.objects.hash();
        if let Some(newest) = &newest
            && newest.content_hash == hash
        {
            return Ok(newest.number);
        }
        let what = if newest.is_none() {
            "As it was when Ostiary began to keep revisions"
        } else {
            "Changed by an upgrade, or outside of the manager"
        };
        let revision = NewRevision {
            user_id: None,
            user_name: "Ostiary",
            what,
            objects: &self.objects,
        };
        Ok(config_revisions::insert(&mut self.tx, &revision, app.now()).await?)
    }
}

impl Deref for ConfigChange {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.tx
    }
}

impl DerefMut for ConfigChange {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.tx
    }
}

/// A change on its way to nodes.
struct GoingOut<'a> {
    base: i64,
    number: i64,
    /// What is kept of it is what people set: what may not be asked of nodes is as of the moment.
    base_parts: &'a Parts,
    before: &'a Parts,
    after: &'a Parts,
    nodes: &'a [(NodeId, NodeFacts)],
    user_name: &'a str,
}

impl GoingOut<'_> {
    /// At once or in stages? A change saved while a roll-out is under way joins it, and it begins again.
    async fn decide(&self, app: &App, conn: &mut Conn, in_stages: bool) -> Result<()> {
        if let Some(active) = rollouts::lock_active(conn).await? {
            let Some(split) = rollouts::find_split(conn).await? else {
                return Ok(());
            };
            let concerned = self.concerned(&split.base);
            rollouts::clear_nodes(conn, active.id).await?;
            if concerned.is_empty() {
                // By hand everything is again as it was.
                rollouts::end(conn, active.id, true, app.now()).await?;
                return Ok(());
            }
            let share = active.shares.first().copied().unwrap_or(100);
            let first = first_nodes(app, conn, active.id, &concerned, share).await?;
            let stage = Stage {
                number: 0,
                threshold: first.threshold,
                revision: self.number,
            };
            rollouts::begin_stage(conn, active.id, stage, app.now()).await?;
            rollouts::add_nodes(conn, active.id, 0, &first.nodes, app.now()).await?;
            return Ok(());
        }
        let concerned = self.concerned(self.before);
        if !in_stages || concerned.is_empty() {
            return Ok(());
        }
        let id = ostiary_boot::clock::new_id();
        let shares = app.settings.rollouts.shares();
        let share = shares.first().copied().unwrap_or(100);
        let first = first_nodes(app, conn, id, &concerned, share).await?;
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
        rollouts::add_nodes(conn, id, 0, &first.nodes, app.now()).await?;
        Ok(())
    }

    fn concerned(&self, base: &Parts) -> Vec<NodeId> {
        let facts = self.nodes.iter().map(|(id, facts)| (*id, facts));
        changed_nodes(base, self.after, facts)
    }
}

/// The first of the nodes concerned.
async fn first_nodes(
    app: &App,
    conn: &mut Conn,
    rollout: Uuid,
    concerned: &[NodeId],
    share: i16,
) -> Result<Inside> {
    let since = app.now() - app.settings.rollouts.online_within();
    let seen = rollouts::list_seen_since(conn, since).await?;
    Ok(inside(rollout, concerned, &seen, share))
}

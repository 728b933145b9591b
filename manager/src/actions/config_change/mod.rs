//! Changing what nodes are sent: the one way for packs, queries, file paths, options, decorators, sections and imports alike, and for
//! whatever else decides who gets what: tags of nodes, tables that are denied.
//!
//! [`ConfigChange::begin`] takes the turn and remembers how things are; the caller writes; [`ConfigChange::finish`] looks at what came
//! of it, in the same transaction: is a config too large, could an option cut nodes off, who gets another config, at once or in
//! stages? Then it keeps a revision and the audit entry, and commits. Nothing else may commit such a change.

mod going_out;
mod guard;
mod saving;
mod sent;

use std::ops::{Deref, DerefMut};

use ostiary_domain::cut_off;
use ostiary_domain::ids::NodeId;
use ostiary_domain::node::NodeFacts;
use ostiary_domain::node_config::Parts;
use ostiary_domain::revision::Objects;
use ostiary_domain::rollout::changed_nodes;
use ostiary_store::config_revisions::{self, NewRevision};
use ostiary_store::{Conn, Db, Tx, config_parts, leftovers, node_lists, rollouts, table_denials};

pub use saving::Saving;

use going_out::{GoingOut, joins};
use sent::Sent;

use super::audit::{Change, record};
use super::sql_check::look_at_all;
use crate::auth::{Actor, Permit, Right};
use crate::error::{Error, Result};
use crate::state::App;

/// An open change. It derefs to the connection on which the caller writes; dropped, nothing happened.
pub(in crate::actions) struct ConfigChange {
    tx: Tx,
    objects: Objects,
    /// As people set them.
    parts: Parts,
    sent: Sent,
}

/// How things are after what was written.
struct Written {
    /// What configs are made of, without what nodes may not be asked.
    after: Parts,
    nodes: Vec<(NodeId, NodeFacts)>,
}

impl ConfigChange {
    /// Waits for the turn to change what nodes are sent.
    pub(in crate::actions) async fn begin(app: &App) -> Result<Self> {
        let mut tx = app.db.begin().await?;
        config_revisions::lock(&mut tx).await?;
        let objects = config_revisions::objects(&mut tx).await?;
        let parts = config_parts::load(&mut tx).await?;
        let given = table_denials::withhold(&mut tx, parts.clone()).await?;
        let sent = Sent::load(&mut tx, given).await?;
        Ok(Self {
            tx,
            objects,
            parts,
            sent,
        })
    }

    /// Did what was written so far change an object?
    pub(in crate::actions) async fn has_changed(&mut self) -> Result<bool> {
        Ok(config_revisions::objects(&mut self.tx).await? != self.objects)
    }

    /// Checks what was written, keeps it as a revision with its audit entry, and commits. Gives the revision, unless no object changed.
    ///
    /// # Errors
    /// [`Error::Refused`] when a config would become too large;
    /// [`Error::Invalid`] when an option could cut nodes off and that was not confirmed, and with what
    /// would happen, when only that was asked. Nothing is changed then.
    pub(in crate::actions) async fn finish<R: Right>(
        mut self,
        app: &App,
        permit: &Permit<R>,
        saving: &Saving,
        change: Change<'_>,
    ) -> Result<Option<i64>> {
        let is_deletion = change.action.ends_with(".delete");
        let written = self.check(app, saving, is_deletion).await?;
        let objects = config_revisions::objects(&mut self.tx).await?;
        let mut revision = None;
        if objects != self.objects {
            let what = change.sentence();
            let number =
                (self.keep(app, saving, (permit.actor(), &what), &objects, &written)).await?;
            revision = Some(number);
        }
        record(app, &mut self.tx, permit, change).await?;
        Db::commit(self.tx).await?;
        Ok(revision)
    }

    /// Checks what was written about nodes rather than about config objects, and commits; the caller has recorded it. It takes
    /// effect at once, and is no revision.
    ///
    /// # Errors
    /// As of [`finish`](Self::finish).
    pub(in crate::actions) async fn finish_recorded(
        mut self,
        app: &App,
        saving: &Saving,
    ) -> Result<()> {
        self.check(app, saving, false).await?;
        Ok(Db::commit(self.tx).await?)
    }

    /// The same, where nothing can be confirmed, since tags come along with something else.
    ///
    /// # Errors
    /// [`Error::Refused`] when a config would become too large, and when an option that comes with a tag could cut nodes off.
    pub(in crate::actions) async fn finish_unasked(self, app: &App) -> Result<()> {
        let finished = self.finish_recorded(app, &Saving::default()).await;
        finished.map_err(|error| match error {
            Error::Invalid(mut errors) => Error::Refused(format!(
                "Nothing was changed, since a tag brings an option along that could cut nodes off. {} Give the tag on the node's \
                 page first, where that is confirmed.",
                errors.0.remove("cut_off").unwrap_or_default()
            )),
            other => other,
        })
    }

    /// Is there SQL that nobody looked at? What an old revision brings back may be forgotten by now.
    async fn is_new_to_us(&mut self, parts: &Parts) -> Result<bool> {
        let texts = parts.sql();
        let known = table_denials::reads_of(&mut self.tx, &texts).await?;
        Ok(texts.iter().any(|sql| !known.contains_key(sql)))
    }

    async fn check(&mut self, app: &App, saving: &Saving, is_deletion: bool) -> Result<Written> {
        let mut parts = config_parts::load(&mut self.tx).await?;
        if self.parts.tables_made() != parts.tables_made() || self.is_new_to_us(&parts).await? {
            look_at_all(&app.sql_checkers, &mut self.tx, app.now()).await?;
        }
        if super::leftovers::note(&mut self.tx, app, &self.parts, &parts).await? {
            parts.leftovers = leftovers::list(&mut self.tx).await?;
            parts = parts.sorted();
        }
        let nodes = node_lists::facts(&mut self.tx).await?;
        super::config_size::refuse_too_large(&parts, &nodes)?;
        let after = table_denials::withhold(&mut self.tx, parts).await?;
        let dangers = cut_off::dangers(self.sent.moves(&after, &nodes), &app.settings.api.aliases);
        if saving.preview {
            let active = rollouts::find_active(&mut self.tx).await?;
            let preview = guard::Preview {
                plan: &app.settings.rollouts,
                changed: changed_nodes(self.sent.moves(&after, &nodes)),
                joins: active.is_some_and(|active| joins(&active, saving.in_stages(app))),
                sent: &self.sent,
                nodes: &nodes,
            };
            return Err(preview.say(&dangers));
        }
        guard::confirmed(saving, &dangers, is_deletion)?;
        Ok(Written { after, nodes })
    }

    /// Keeps a revision, and lets the change go out.
    async fn keep(
        &mut self,
        app: &App,
        saving: &Saving,
        (actor, what): (&Actor, &str),
        objects: &Objects,
        written: &Written,
    ) -> Result<i64> {
        let base = self.base_revision(app).await?;
        let new = NewRevision {
            user_id: actor.user_id.map(|id| id.0),
            user_name: &actor.name,
            what,
            objects,
        };
        let number = config_revisions::insert(&mut self.tx, &new, app.now()).await?;
        let going_out = GoingOut {
            base,
            number,
            base_parts: &self.parts,
            before: &self.sent.parts,
            after: &written.after,
            nodes: &written.nodes,
            user_name: &actor.name,
        };
        going_out
            .decide(app, &mut self.tx, saving.in_stages(app))
            .await?;
        Ok(number)
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

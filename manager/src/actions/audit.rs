//! Writing an audit entry for a permit.

use ostiary_store::audit::{NewEntry, insert};
use ostiary_store::{Conn, Result};
use serde_json::Value;

use crate::auth::Permit;
use crate::state::App;

/// What was done to what. **Invariant:** `before` and `after` hold no secret.
#[derive(Debug, Default)]
pub(super) struct Change<'a> {
    pub(super) action: &'a str,
    pub(super) kind: &'a str,
    pub(super) id: String,
    pub(super) name: &'a str,
    pub(super) before: Option<Value>,
    pub(super) after: Option<Value>,
}

impl Change<'_> {
    /// The change in a few words, as a list of changes shows it.
    pub(super) fn sentence(&self) -> String {
        let verb = match self.action.rsplit('.').next() {
            Some("create") => "Made",
            Some("delete") => "Deleted",
            Some("import") => return format!("Imported {}", self.name).trim_end().to_owned(),
            Some("return") => return self.name.to_owned(),
            _ => "Changed",
        };
        format!("{verb} the {} {}", self.kind.replace('_', " "), self.name)
    }
}

/// Writes the entry in the transaction of the change.
pub(super) async fn record<R: crate::auth::Right>(
    app: &App,
    conn: &mut Conn,
    permit: &Permit<R>,
    change: Change<'_>,
) -> Result<()> {
    let actor = permit.actor();
    let entry = NewEntry {
        user_id: actor.user_id,
        user_name: &actor.name,
        action: change.action,
        subject_kind: change.kind,
        subject_id: change.id,
        subject_name: change.name,
        before: change.before,
        after: change.after,
        ip: actor.ip,
    };
    insert(conn, &entry, app.now()).await
}

//! Node keys of any other manager, from CSV ([`domain::node_key_file`](ostiary_domain::node_key_file)).

use ostiary_domain::node_key_file;
use ostiary_store::Conn;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::nodes::{Arrivals, Coming, carry_out, decide};
use crate::actions::audit::{Change, record};
use crate::actions::config_change::ConfigChange;
use crate::actions::config_import::{Action, Note, Report};
use crate::actions::kept;
use crate::auth::{Admin, Permit};
use crate::error::{Error, Result};
use crate::state::App;

const KIND: &str = "node_keys";

/// A file that was read; keys are hashes by now.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct KeyFile(node_key_file::KeyFile);

impl KeyFile {
    /// Reads CSV. Lines that cannot be used are told by the report, never with what stands in them.
    ///
    /// # Errors
    /// [`Error::Invalid`] on `file`: too large, no CSV, or without the two columns that are needed.
    pub fn read(text: &str) -> Result<Self> {
        let read = node_key_file::KeyFile::read(text);
        read.map(Self)
            .map_err(|error| Error::field("file", error.to_string()))
    }

    async fn decide(&self, conn: &mut Conn) -> Result<(Report, Arrivals)> {
        let coming = self.0.nodes.iter().map(Coming::of_line).collect();
        let mut arrivals = decide(conn, coming).await?;
        let mut notes: Vec<Note> = (self.0.problems.iter())
            .map(|(place, text)| Note {
                kind: "warning",
                place: place.clone(),
                text: text.clone(),
            })
            .collect();
        notes.append(&mut arrivals.notes);
        let report = Report::new(std::mem::take(&mut arrivals.steps), notes, KIND);
        Ok((report, arrivals))
    }
}

/// What the file would do.
///
/// # Errors
/// Postgres failed.
pub async fn dry_run_keys(app: &App, _: &Permit<Admin>, file: &KeyFile) -> Result<Report> {
    let mut tx = app.db.begin().await?;
    Ok(file.decide(&mut tx).await?.0)
}

/// Does what was shown; `digest` is that of the report.
///
/// # Errors
/// [`Error::Refused`] when something else would be done by now, and when a config would become too large, or an option could cut a
/// node off, by the tags that come.
pub async fn apply_keys(
    app: &App,
    permit: &Permit<Admin>,
    file: &KeyFile,
    digest: &str,
) -> Result<Report> {
    // Its tags may give nodes that are here other configs.
    let mut tx = ConfigChange::begin(app).await?;
    let (report, arrivals) = file.decide(&mut tx).await?;
    report.confirmed(digest)?;
    carry_out(app, &mut tx, arrivals.arrivals).await?;
    let (added, changed) = (report.count(Action::Added), report.count(Action::Changed));
    let change = Change {
        action: "nodes.import_keys",
        kind: "import",
        name: "node keys",
        after: Some(
            json!({"added": added, "changed": changed, "unchanged": report.unchanged, "odd": report.notes.len()}),
        ),
        ..Change::default()
    };
    record(app, &mut tx, permit, change).await?;
    tx.finish_unasked(app).await?;
    Ok(report)
}

/// Keeps a file for its sender until it is applied.
///
/// # Errors
/// Postgres failed.
pub async fn keep_keys(app: &App, permit: &Permit<Admin>, file: &KeyFile) -> Result<Uuid> {
    kept::keep(app, permit, KIND, file).await
}

/// What a kept file would do now.
///
/// # Errors
/// [`Error::NotFound`] when it is another's, or its hour is over.
pub async fn report_of_kept_keys(app: &App, permit: &Permit<Admin>, id: Uuid) -> Result<Report> {
    let file: KeyFile = kept::find(app, permit, KIND, id).await?;
    dry_run_keys(app, permit, &file).await
}

/// Applies a kept file, and forgets it.
///
/// # Errors
/// As [`apply_keys`], and [`Error::NotFound`].
pub async fn apply_kept_keys(
    app: &App,
    permit: &Permit<Admin>,
    id: Uuid,
    digest: &str,
) -> Result<Report> {
    let file: KeyFile = kept::find(app, permit, KIND, id).await?;
    let report = apply_keys(app, permit, &file, digest).await?;
    kept::forget(app, permit, id).await?;
    Ok(report)
}

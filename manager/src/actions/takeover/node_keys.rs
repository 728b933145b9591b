//! Node keys of any other manager, from CSV: `host_identifier,node_key`, and if known
//! `hardware_uuid,hardware_serial,hostname,platform,tags`.

use std::collections::HashMap;

use ostiary_boot::clock::new_id;
use ostiary_domain::ids::UserId;
use ostiary_domain::tag;
use ostiary_store::uploads::{self, NewUpload};
use ostiary_store::{Conn, Db};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::nodes::{Arrivals, Coming, carry_out, decide};
use crate::actions::audit::{Change, record};
use crate::actions::config_import::{Action, Note, Report};
use crate::actions::validate::words;
use crate::auth::{Admin, Permit};
use crate::error::{Error, Result};
use crate::state::App;

const COLUMNS: [&str; 7] = [
    "host_identifier",
    "node_key",
    "hardware_uuid",
    "hardware_serial",
    "hostname",
    "platform",
    "tags",
];

/// Bytes and lines of one file.
const MAX_BYTES: usize = 32 * 1024 * 1024;
const MAX_LINES: usize = 200_000;

/// Another manager's keys have another look, but no shorter one is a secret, and a header holds no other characters.
const KEY_LENGTHS: std::ops::RangeInclusive<usize> = 8..=512;

const KIND: &str = "node_keys";

/// A file that was read; keys are hashes by now.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct KeyFile {
    nodes: Vec<Coming>,
    problems: Vec<(String, String)>,
}

impl KeyFile {
    /// Reads CSV. Lines that cannot be used are told by the report, never with what stands in them.
    ///
    /// # Errors
    /// [`Error::Invalid`] on `file`: too large, no CSV, or without the two columns that are needed.
    pub fn read(text: &str) -> Result<Self> {
        let wrong = |sentence: String| Err(Error::field("file", sentence));
        if text.len() > MAX_BYTES {
            return wrong(format!(
                "This is too large: at most {} MiB.",
                MAX_BYTES >> 20
            ));
        }
        let mut reader = csv::ReaderBuilder::new()
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(text.trim_start_matches('\u{FEFF}').as_bytes());
        let Ok(headers) = reader.headers().cloned() else {
            return wrong("The first line cannot be read as CSV.".to_owned());
        };
        let columns: HashMap<String, usize> = (headers.iter().enumerate())
            .map(|(index, name)| (name.trim().to_lowercase(), index))
            .collect();
        if !["host_identifier", "node_key"]
            .iter()
            .all(|needed| columns.contains_key(*needed))
        {
            return wrong(format!(
                "The first line has to name the columns, at least host_identifier and node_key. There are: {}.",
                COLUMNS.join(", ")
            ));
        }
        let mut file = Self::default();
        for name in headers
            .iter()
            .filter(|name| !COLUMNS.contains(&name.trim().to_lowercase().as_str()))
        {
            // A line of keys that was taken for the headers must not be shown.
            let shown: String = name
                .chars()
                .filter(|c| c.is_ascii_alphanumeric() || *c == '_')
                .take(16)
                .collect();
            file.problems.push((
                "line 1".to_owned(),
                format!("The column {shown} is not used."),
            ));
        }
        for (index, record) in reader.into_records().enumerate() {
            if index >= MAX_LINES {
                return wrong(format!("There are too many lines: at most {MAX_LINES}."));
            }
            match record {
                Ok(record) => {
                    let line = record.position().map_or(0, csv::Position::line);
                    let cell = |name: &str| {
                        columns
                            .get(name)
                            .and_then(|index| record.get(*index))
                            .unwrap_or_default()
                            .to_owned()
                    };
                    file.line(&format!("line {line}"), cell);
                }
                Err(error) => {
                    let line = error.position().map_or(0, csv::Position::line);
                    file.problems.push((
                        format!("line {line}"),
                        "It cannot be read as CSV; it is left out.".to_owned(),
                    ));
                }
            }
        }
        Ok(file)
    }

    fn line(&mut self, place: &str, cell: impl Fn(&str) -> String) {
        let (key, host_identifier) = (cell("node_key"), cell("host_identifier"));
        let mut problem =
            |sentence: &str| self.problems.push((place.to_owned(), sentence.to_owned()));
        if !KEY_LENGTHS.contains(&key.len()) {
            return problem("The key has to have 8 to 512 characters; the line is left out.");
        }
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return problem("The key has characters that no node key has; the line is left out.");
        }
        if host_identifier.is_empty() {
            return problem("There is no host identifier; the line is left out.");
        }
        if [
            host_identifier.as_str(),
            &cell("hostname"),
            &cell("hardware_serial"),
        ]
        .iter()
        .any(|text| text.len() > 255 || text.chars().any(char::is_control))
        {
            return problem("A name is too long or has control characters; the line is left out.");
        }
        let mut tags = Vec::new();
        for tag in words(&cell("tags").replace(';', " ")) {
            if tag::is_name(&tag) {
                tags.push(tag);
            } else {
                problem(
                    "A tag is no word of letters, digits and - _ . / @, or too long, and is left out.",
                );
            }
        }
        self.nodes.push(Coming {
            place: place.to_owned(),
            key_sha256: hex::encode(Sha256::digest(key.as_bytes())),
            host_identifier,
            hostname: cell("hostname"),
            display_name: None,
            platform: cell("platform").to_lowercase(),
            hardware_uuid: cell("hardware_uuid"),
            hardware_serial: cell("hardware_serial"),
            hardware_model: String::new(),
            enrolled_at: None,
            disabled: false,
            tags,
        });
    }

    async fn decide(&self, conn: &mut Conn) -> Result<(Report, Arrivals)> {
        let mut arrivals = decide(conn, self.nodes.clone()).await?;
        let mut notes: Vec<Note> = (self.problems.iter())
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
/// [`Error::Refused`] when something else would be done by now.
pub async fn apply_keys(
    app: &App,
    permit: &Permit<Admin>,
    file: &KeyFile,
    digest: &str,
) -> Result<Report> {
    let mut tx = app.db.begin().await?;
    let (report, arrivals) = file.decide(&mut tx).await?;
    if report.digest != digest {
        return Err(Error::Refused(
            "Nodes have come or gone since this was shown, so something else would be done now. Nothing was changed; look at it again.".to_owned(),
        ));
    }
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
    Db::commit(tx).await?;
    Ok(report)
}

fn user_of(permit: &Permit<Admin>) -> Result<UserId> {
    permit.actor().user_id.ok_or(Error::NotFound)
}

/// Keeps a file for its sender until it is applied.
///
/// # Errors
/// Postgres failed.
pub async fn keep_keys(app: &App, permit: &Permit<Admin>, file: &KeyFile) -> Result<Uuid> {
    let id = new_id();
    let mut tx = app.db.begin().await?;
    let upload = NewUpload {
        id,
        user: user_of(permit)?,
        kind: KIND,
        content: &json!(file),
    };
    uploads::insert(&mut tx, &upload, app.now()).await?;
    Db::commit(tx).await?;
    Ok(id)
}

async fn kept(app: &App, permit: &Permit<Admin>, id: Uuid) -> Result<KeyFile> {
    let mut conn = app.db.acquire().await?;
    let content = uploads::find(&mut conn, id, user_of(permit)?, KIND, app.now()).await?;
    serde_json::from_value(content.ok_or(Error::NotFound)?).map_err(|_| Error::NotFound)
}

/// What a kept file would do now.
///
/// # Errors
/// [`Error::NotFound`] when it is another's, or its hour is over.
pub async fn report_of_kept_keys(app: &App, permit: &Permit<Admin>, id: Uuid) -> Result<Report> {
    let file = kept(app, permit, id).await?;
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
    let file = kept(app, permit, id).await?;
    let report = apply_keys(app, permit, &file, digest).await?;
    uploads::delete(&mut *app.db.acquire().await?, id, user_of(permit)?).await?;
    Ok(report)
}

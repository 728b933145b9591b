//! Importing files: shown first, then applied exactly as shown.

use ostiary_domain::node_config::section::statements;
use ostiary_domain::osquery::pack_file::{
    ImportedFile, PackFileError, YamlFile, parse, parse_yaml_files,
};
use ostiary_store::Conn;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::compare::{Steps, compare};
use super::current::Current;
use super::report::Report;
use super::wanted::Wanted;
use super::{carry_out, sql};
use crate::actions::audit::Change;
use crate::actions::config_change::{ConfigChange, Saving};
use crate::actions::kept;
use crate::actions::validate::Check;
use crate::auth::{Edit, Permit};
use crate::error::Result;
use crate::state::App;

/// Files of one import, and bytes of all of them.
const MAX_FILES: usize = 200;
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Pieces of SQL of one import: each of them is checked, while somebody waits.
const MAX_STATEMENTS: usize = 5_000;

const KIND: &str = "config";

/// A file as it was sent.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct UploadedFile {
    /// Its name; a pack file without a name inside is called so.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// What is typed or uploaded.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImportDraft {
    /// The files.
    pub files: Vec<UploadedFile>,
    /// For a single pack file, which does not say its own name.
    pub name: String,
    /// Tag expression: which nodes get it.
    pub target: String,
    /// Remove what this target has and the files do not.
    pub replace: bool,
    /// Switch on what the files have and what is switched off here.
    pub switch_on: bool,
}

/// Files that were read.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Import {
    /// What they hold; YAML files are read as one.
    files: Vec<(String, ImportedFile)>,
    /// All that were sent.
    #[serde(default)]
    names: Vec<String>,
    /// Tag expression.
    pub target: String,
    /// Remove what this target has and the files do not.
    pub replace: bool,
    /// Switch on what the files have and what is switched off here.
    #[serde(default)]
    pub switch_on: bool,
}

impl Import {
    /// Reads what was sent.
    ///
    /// # Errors
    /// `Error::Invalid` on `text`, `name` or `target`.
    pub fn read(draft: &ImportDraft) -> Result<Self> {
        let mut check = Check::default();
        let target = check.target("target", &draft.target);
        let name = check.line("name", &draft.name, 200);
        if draft.files.is_empty() {
            check.wrong("text", "Choose a file, or paste its text.");
        }
        let size: usize = draft.files.iter().map(|file| file.text.len()).sum();
        if draft.files.len() > MAX_FILES || size > MAX_BYTES {
            check.wrong(
                "text",
                format!(
                    "This is too much at once: at most {MAX_FILES} files of {} MiB together.",
                    MAX_BYTES >> 20
                ),
            );
        }
        let mut files = Vec::new();
        if size <= MAX_BYTES {
            for (place, read) in read_files(&draft.files, &name) {
                match read {
                    // Postgres keeps no such text.
                    Ok(read) if json!(read).to_string().contains("\\u0000") => {
                        check.wrong(
                            "text",
                            "It cannot be imported: a text in it has a NUL character.",
                        );
                    }
                    Ok(read) => files.push((place, read)),
                    Err(error) => {
                        let which = if place.is_empty() {
                            String::new()
                        } else {
                            format!("{place}: ")
                        };
                        check.wrong("text", format!("{which}it cannot be imported: {error}."));
                    }
                }
            }
        }
        if files
            .iter()
            .map(|(_, file)| statements_of(file))
            .sum::<usize>()
            > MAX_STATEMENTS
        {
            check.wrong(
                "text",
                format!("These files hold more than {MAX_STATEMENTS} pieces of SQL. Import them in parts."),
            );
        }
        check.done()?;
        let names = draft.files.iter().map(|file| file.name.clone());
        Ok(Self {
            files,
            names: names.collect(),
            target,
            replace: draft.replace,
            switch_on: draft.switch_on,
        })
    }

    fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::for_target(&self.target);
        wanted.switch_on = self.switch_on;
        for (name, file) in &self.files {
            let name = if name.is_empty() { "the text" } else { name };
            wanted.add(name, file.clone());
        }
        wanted.drop_repeated();
        wanted
    }

    fn names(&self) -> String {
        let names = self.names.iter().map(String::as_str);
        let names: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
        names.join(", ")
    }

    /// What is to be done as things stand.
    async fn steps(&self, app: &App, conn: &mut Conn) -> Result<(Report, Steps)> {
        let mut wanted = self.wanted();
        let current = Current::load(conn).await?;
        current.complete(&mut wanted);
        sql::check(app, conn, &mut wanted).await;
        let mut steps = compare(conn, &current, &wanted, self.replace).await?;
        let mut notes = wanted.notes;
        notes.append(&mut steps.notes);
        let scope = format!("{}\n{}\n{}", self.target, self.replace, self.switch_on);
        let report = Report::new(std::mem::take(&mut steps.steps), notes, &scope);
        Ok((report, steps))
    }
}

fn stem(name: &str) -> String {
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
    name.rsplit_once('.')
        .map_or(name, |(stem, _)| stem)
        .to_owned()
}

/// What is read, each with its place: that of a file, or of all YAML files as one, since they refer to each other.
fn read_files(
    sent: &[UploadedFile],
    name: &str,
) -> Vec<(String, std::result::Result<ImportedFile, PackFileError>)> {
    let (yaml, osquery): (Vec<_>, Vec<_>) = sent.iter().partition(|file| is_yaml(file));
    let of_osquery = osquery.into_iter().map(|file| {
        let own = stem(&file.name);
        let pack_name = match (name, own.as_str()) {
            ("", "") => "imported",
            ("", own) => own,
            (name, _) if sent.len() == 1 => name,
            (_, own) => own,
        };
        (file.name.clone(), parse(&file.text, pack_name))
    });
    let mut read: Vec<_> = of_osquery.collect();
    let documents: Vec<YamlFile<'_>> = (yaml.iter())
        .map(|file| YamlFile {
            name: &file.name,
            text: &file.text,
        })
        .collect();
    match (parse_yaml_files(&documents), yaml.as_slice()) {
        (_, []) => {}
        (Ok(file), [only]) => read.push((only.name.clone(), Ok(file))),
        (Ok(file), _) => read.push(("YAML".to_owned(), Ok(file))),
        (Err(errors), yaml) => {
            let errors = errors.into_iter();
            read.extend(errors.map(|(index, error)| (yaml[index].name.clone(), Err(error))));
        }
    }
    read
}

/// osquery's files begin with a brace, once comments are gone; all else is taken for YAML.
fn is_yaml(file: &UploadedFile) -> bool {
    let name = file.name.to_lowercase();
    if name.ends_with(".yml") || name.ends_with(".yaml") {
        return true;
    }
    if name.ends_with(".conf") || name.ends_with(".json") {
        return false;
    }
    let first = (file
        .text
        .trim_start_matches('\u{FEFF}')
        .lines()
        .map(str::trim))
    .find(|line| !line.is_empty() && !line.starts_with('#') && !line.starts_with("//"));
    !first.is_some_and(|line| line.starts_with(['{', '[']))
}

/// How many pieces of SQL a file has.
fn statements_of(file: &ImportedFile) -> usize {
    let free = |extra: &Map<String, Value>| -> usize {
        let each = extra
            .iter()
            .map(|(key, value)| statements(key, value).len());
        each.sum()
    };
    let packs = file
        .packs
        .iter()
        .map(|pack| pack.queries.len() + pack.discovery.len() + free(&pack.extra));
    let paths = file.file_paths.iter().map(|path| path.queries.len());
    let decorators = file.decorators.values().map(|value| match value {
        Value::Object(by_seconds) => by_seconds
            .values()
            .map(|value| value.as_array().map_or(1, Vec::len))
            .sum(),
        value => value.as_array().map_or(1, Vec::len),
    });
    file.schedule.len() + free(&file.extra) + packs.chain(paths).chain(decorators).sum::<usize>()
}

/// What an import would do, without doing it.
///
/// # Errors
/// Postgres failed.
pub async fn dry_run(app: &App, _: &Permit<Edit>, import: &Import) -> Result<Report> {
    let mut tx = app.db.begin().await?;
    Ok(import.steps(app, &mut tx).await?.0)
}

/// Does what was shown. `digest` is that of the report; should the config have moved on meanwhile so that something else would be done,
/// nothing is.
///
/// # Errors
/// `Error::Refused` when the report is another by now, or a config would become too large; `Error::Invalid` when an option could
/// cut nodes off and that was not confirmed.
pub async fn apply(
    app: &App,
    permit: &Permit<Edit>,
    import: &Import,
    digest: &str,
    saving: &Saving,
) -> Result<Report> {
    let mut change = ConfigChange::begin(app).await?;
    let (report, steps) = import.steps(app, &mut change).await?;
    report.confirmed(digest)?;
    carry_out(app, &mut change, steps.writes).await?;
    let name = import.names();
    let after = Some(
        json!({"target": import.target, "replace": import.replace, "files": name, "report": report}),
    );
    let entry = Change {
        action: "config.import",
        kind: "import",
        name: &name,
        after,
        ..Change::default()
    };
    change.finish(app, permit, saving, entry).await?;
    Ok(report)
}

/// Keeps an import for its sender until it is applied, and returns its id.
///
/// # Errors
/// Postgres failed.
pub async fn keep(app: &App, permit: &Permit<Edit>, import: &Import) -> Result<Uuid> {
    kept::keep(app, permit, KIND, import).await
}

/// What a kept import would do now.
///
/// # Errors
/// `Error::NotFound` when it is another's, or its hour is over.
pub async fn report_of_kept(
    app: &App,
    permit: &Permit<Edit>,
    id: Uuid,
) -> Result<(Import, Report)> {
    let import: Import = kept::find(app, permit, KIND, id).await?;
    let report = dry_run(app, permit, &import).await?;
    Ok((import, report))
}

/// Applies a kept import as [`apply`] does, and forgets it.
///
/// # Errors
/// As [`apply`], and `Error::NotFound`.
pub async fn apply_kept(
    app: &App,
    permit: &Permit<Edit>,
    id: Uuid,
    digest: &str,
    saving: &Saving,
) -> Result<Report> {
    let import: Import = kept::find(app, permit, KIND, id).await?;
    let report = apply(app, permit, &import, digest, saving).await?;
    kept::forget(app, permit, id).await?;
    Ok(report)
}

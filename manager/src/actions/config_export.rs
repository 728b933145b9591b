//! Configs go out: files that osqueryd reads, and that come in again without a change. What is switched off is left out.

use ostiary_domain::ids::{NodeId, PackId};
use ostiary_domain::node::NodeFacts;
use ostiary_domain::node_config::{
    Decorator, DecoratorMoment, PACK_DELIMITER, Pack, Parts, Query, section,
};
use ostiary_domain::osquery::pack_file::{
    ImportedFile, ImportedFilePaths, ImportedPack, ImportedQuery, write, write_pack,
};
use ostiary_domain::rollout::position;
use ostiary_domain::target::{Target, TargetText};
use ostiary_store::{Conn, config_parts, node_lists, rollouts, takeovers};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::validate::Check;
use crate::auth::{Permit, View};
use crate::error::{Error, Result};
use crate::state::App;

/// A file.
#[derive(Debug)]
pub struct ExportedFile {
    /// A name for it, of characters that are safe everywhere.
    pub name: String,
    /// Strict JSON.
    pub text: String,
}

/// One pack, as a file of its own.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn pack(app: &App, _: &Permit<View>, id: PackId) -> Result<ExportedFile> {
    let parts = config_parts::load(&mut *app.db.acquire().await?).await?;
    let pack = parts.packs.into_iter().find(|pack| pack.id == id);
    let pack = imported_pack(&pack.ok_or(Error::NotFound)?);
    Ok(file(&pack.name, &write_pack(&pack)))
}

/// One pack by its name.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn pack_named(app: &App, permit: &Permit<View>, name: &str) -> Result<ExportedFile> {
    let id = ostiary_store::packs::find_id(&mut *app.db.acquire().await?, name).await?;
    pack(app, permit, id.ok_or(Error::NotFound)?).await
}

/// What of the config is wanted in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExportDraft {
    /// `exact` or empty: what has exactly this target; this comes in again without a change. `whole`: all that a node reads which has
    /// what the target asks for and nothing else. `node`: all that one node reads.
    pub scope: String,
    /// A tag expression; the empty one is that of every node.
    pub target: String,
    /// A node's id, host name, host identifier or serial.
    pub node: String,
}

/// What is in a file, for people.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Contents {
    /// Names of packs, with how many queries each has.
    pub packs: Vec<(String, usize)>,
    /// Names of queries of the schedule.
    pub queries: Vec<String>,
    /// Names of options; `pack_delimiter` is always among them.
    pub options: Vec<String>,
    /// Statements of decorators.
    pub decorators: usize,
    /// Categories of files to watch.
    pub file_paths: Vec<String>,
    /// Other top-level keys.
    pub sections: Vec<String>,
}

impl Contents {
    fn of(file: &ImportedFile) -> Self {
        let decorators = |value: &Value| match value {
            Value::Array(list) => list.len(),
            Value::Object(by_seconds) => by_seconds
                .values()
                .filter_map(Value::as_array)
                .map(Vec::len)
                .sum(),
            _ => 0,
        };
        let name = |query: &ImportedQuery| query.name.clone();
        Self {
            packs: (file.packs.iter())
                .map(|pack| (pack.name.clone(), pack.queries.len()))
                .collect(),
            queries: file.schedule.iter().map(name).collect(),
            options: file.options.keys().cloned().collect(),
            decorators: file.decorators.values().map(decorators).sum(),
            file_paths: (file.file_paths.iter())
                .map(|path| path.category.clone())
                .collect(),
            sections: file.extra.keys().cloned().collect(),
        }
    }
}

/// Everything that has a target, or everything that a node reads; the built-in pack stays here.
///
/// # Errors
/// [`Error::Invalid`] on `target`, `node` or `scope`.
pub async fn config(
    app: &App,
    _: &Permit<View>,
    draft: &ExportDraft,
) -> Result<(ExportedFile, Contents)> {
    let mut check = Check::default();
    let target = check.target("target", &draft.target);
    check.done()?;
    // Parts and roll-out as of one moment.
    let mut conn = app.db.begin_snapshot().await?;
    let (name, imported) = match draft.scope.as_str() {
        "" | "exact" => {
            let parts = config_parts::load(&mut conn).await?.enabled();
            let of = |other: &TargetText| other.as_str().trim() == target;
            (target.clone(), chosen(&parts, of))
        }
        scope @ ("whole" | "node") => {
            let (name, facts, outside) = if scope == "node" {
                let (id, facts) = node_called(&mut conn, &draft.node).await?;
                let split = rollouts::find_split(&mut conn).await?;
                let outside = split.filter(|split| position(split.rollout, id) > split.threshold);
                (facts.hostname.clone(), facts, outside)
            } else {
                let example = Target::parse(&target)
                    .ok()
                    .and_then(|target| target.example());
                let example = example.ok_or_else(|| {
                    Error::field("target", "No node can be imagined by this: name tags, a platform and a host, joined by \"and\".")
                })?;
                (target.clone(), example, None)
            };
            let parts = match outside {
                Some(split) => split.base,
                None => config_parts::load_for_nodes(&mut conn).await?,
            };
            let parts = parts.enabled();
            (name, chosen(&parts, |other| other.matches(&facts)))
        }
        _ => return Err(Error::field("scope", "There are exact, whole and node.")),
    };
    let name = if name.is_empty() { "osquery" } else { &name };
    let contents = Contents::of(&imported);
    Ok((file(name, &write(&imported)), contents))
}

async fn node_called(conn: &mut Conn, name: &str) -> Result<(NodeId, NodeFacts)> {
    let name = name.trim();
    let found = match name.parse() {
        Ok(id) => vec![NodeId(id)],
        Err(_) => {
            let named = takeovers::nodes_by_names(conn, "", &[name.to_owned()]).await?;
            named.into_iter().map(|node| NodeId(node.id)).collect()
        }
    };
    let found = match found.as_slice() {
        [only] => (node_lists::facts_of(conn, *only).await?).map(|facts| (*only, facts)),
        [] => None,
        _ => {
            return Err(Error::field(
                "node",
                "Several nodes are called so; give its id.",
            ));
        }
    };
    found.ok_or_else(|| Error::field("node", "There is no node of this name or id."))
}

fn file(name: &str, document: &Map<String, Value>) -> ExportedFile {
    let safe = |c: char| {
        if c.is_ascii_alphanumeric() || "-_.".contains(c) {
            c
        } else {
            '-'
        }
    };
    let stem: String = name.chars().map(safe).take(80).collect();
    let text = serde_json::to_string_pretty(document).unwrap_or_default();
    ExportedFile {
        name: format!("{}.conf", stem.trim_matches(['-', '.'])),
        text: format!("{text}\n"),
    }
}

fn chosen(parts: &Parts, chooses: impl Fn(&TargetText) -> bool) -> ImportedFile {
    let mut file = ImportedFile::default();
    for pack in parts
        .packs
        .iter()
        .filter(|pack| !pack.built_in && chooses(&pack.target))
    {
        file.packs.push(imported_pack(pack));
    }
    let queries = parts.queries.iter().filter(|query| chooses(&query.target));
    file.schedule = queries.map(imported_query).collect();
    // Without it, osqueryd would name results otherwise than it does now.
    file.options
        .insert("pack_delimiter".into(), PACK_DELIMITER.into());
    for option in parts
        .options
        .iter()
        .filter(|option| chooses(&option.target))
    {
        file.options
            .insert(option.name.clone(), option.value.clone());
    }
    let decorators = parts
        .decorators
        .iter()
        .filter(|decorator| chooses(&decorator.target));
    file.decorators = decorators_of(decorators);
    for path in parts.file_paths.iter().filter(|path| chooses(&path.target)) {
        file.file_paths.push(ImportedFilePaths {
            category: path.category.clone(),
            globs: path.globs.clone(),
            queries: path.queries.clone(),
            exclude_globs: path.exclude_globs.clone(),
            file_accesses: path.file_accesses,
        });
    }
    // Sorted by key, priority and name: later pieces win, as with a node.
    for piece in parts.sections.iter().filter(|piece| chooses(&piece.target)) {
        match file.extra.get_mut(&piece.key) {
            Some(before) => section::merge(&piece.key, before, &piece.value),
            None => {
                file.extra.insert(piece.key.clone(), piece.value.clone());
            }
        }
    }
    file
}

fn decorators_of<'d>(decorators: impl Iterator<Item = &'d Decorator>) -> Map<String, Value> {
    let mut map = Map::new();
    let push = |list: &mut Value, sql: &str| {
        if let Value::Array(list) = list {
            list.push(sql.into());
        }
    };
    for decorator in decorators {
        let (moment, seconds) = match decorator.moment {
            DecoratorMoment::Load => ("load", None),
            DecoratorMoment::Always => ("always", None),
            DecoratorMoment::Interval(seconds) => ("interval", Some(seconds.to_string())),
        };
        match seconds {
            None => push(
                map.entry(moment).or_insert_with(|| json!([])),
                &decorator.sql,
            ),
            Some(seconds) => {
                if let Value::Object(by_seconds) = map.entry(moment).or_insert_with(|| json!({})) {
                    push(
                        by_seconds.entry(seconds).or_insert_with(|| json!([])),
                        &decorator.sql,
                    );
                }
            }
        }
    }
    map
}

fn imported_pack(pack: &Pack) -> ImportedPack {
    ImportedPack {
        name: pack.name.clone(),
        description: pack.description.clone(),
        target: String::new(),
        platform: pack.platform.clone(),
        version: pack.version.clone(),
        shard: shard(pack.shard),
        discovery: pack.discovery.clone(),
        queries: pack
            .queries
            .iter()
            .filter(|query| query.enabled)
            .map(imported_query)
            .collect(),
        extra: pack.extra.clone(),
    }
}

fn imported_query(query: &Query) -> ImportedQuery {
    ImportedQuery {
        name: query.name.clone(),
        sql: query.sql.clone(),
        interval: u32::try_from(query.interval_seconds).unwrap_or(1),
        snapshot: query.snapshot,
        removed: query.removed,
        denylist: query.denylist,
        startup_priority: query.startup_priority,
        target: String::new(),
        platform: query.platform.clone(),
        version: query.version.clone(),
        shard: shard(query.shard),
        description: query.description.clone(),
        value: query.value.clone(),
        extra: query.extra.clone(),
    }
}

fn shard(shard: Option<i16>) -> Option<u8> {
    shard.and_then(|shard| u8::try_from(shard).ok())
}

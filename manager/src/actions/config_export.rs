//! Configs go out: files that osqueryd reads, and that come in again without a change. What is switched off is left out.

use ostiary_domain::ids::PackId;
use ostiary_domain::node_config::{
    Decorator, DecoratorMoment, PACK_DELIMITER, Pack, Parts, Query, section,
};
use ostiary_domain::osquery::pack_file::{
    ImportedFile, ImportedFilePaths, ImportedPack, ImportedQuery, write, write_pack,
};
use ostiary_store::config_parts;
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

/// Everything that has exactly this target; the empty one is that of every node. The built-in pack stays here.
///
/// # Errors
/// [`Error::Invalid`] on `target`.
pub async fn config(app: &App, _: &Permit<View>, target: &str) -> Result<ExportedFile> {
    let mut check = Check::default();
    let target = check.target("target", target);
    check.done()?;
    let parts = config_parts::load(&mut *app.db.acquire().await?)
        .await?
        .enabled();
    let name = if target.is_empty() {
        "osquery"
    } else {
        &target
    };
    Ok(file(name, &write(&of_target(&parts, &target))))
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

fn of_target(parts: &Parts, target: &str) -> ImportedFile {
    let is_of = |of: &str| of.trim() == target;
    let mut file = ImportedFile::default();
    for pack in parts
        .packs
        .iter()
        .filter(|pack| !pack.built_in && is_of(pack.target.as_str()))
    {
        file.packs.push(imported_pack(pack));
    }
    let queries = parts
        .queries
        .iter()
        .filter(|query| is_of(query.target.as_str()));
    file.schedule = queries.map(imported_query).collect();
    // Without it, osqueryd would name results otherwise than it does now.
    file.options
        .insert("pack_delimiter".into(), PACK_DELIMITER.into());
    for option in parts
        .options
        .iter()
        .filter(|option| is_of(option.target.as_str()))
    {
        file.options
            .insert(option.name.clone(), option.value.clone());
    }
    let decorators = parts
        .decorators
        .iter()
        .filter(|decorator| is_of(decorator.target.as_str()));
    file.decorators = decorators_of(decorators);
    for path in parts
        .file_paths
        .iter()
        .filter(|path| is_of(path.target.as_str()))
    {
        file.file_paths.push(ImportedFilePaths {
            category: path.category.clone(),
            globs: path.globs.clone(),
            queries: path.queries.clone(),
            exclude_globs: path.exclude_globs.clone(),
            file_accesses: path.file_accesses,
        });
    }
    // Sorted by key, priority and name: later pieces win, as with a node.
    for piece in parts
        .sections
        .iter()
        .filter(|piece| is_of(piece.target.as_str()))
    {
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

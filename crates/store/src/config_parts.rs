//! Everything that may be part of a config, as `domain::node_config` wants it.

use ostiary_domain::ids::{DecoratorId, FilePathId, OptionId, PackId, QueryId, SectionId};
use ostiary_domain::node_config::{
    ConfigOption, Decorator, DecoratorMoment, FilePath, Pack, Parts, Query, Section,
};
use ostiary_domain::target::TargetText;
use serde_json::{Map, Value};

use crate::{
    Conn, Error, Result, decorators, file_paths, leftovers, options, packs, queries, sections,
    table_denials,
};

/// Loads all parts of the fleet, disabled ones included, sorted. In a transaction they are as that transaction sees them.
///
/// # Errors
/// A stored target cannot be read, or Postgres failed.
pub async fn load(conn: &mut Conn) -> Result<Parts> {
    let parts = Parts {
        packs: load_packs(conn).await?,
        queries: domain_queries(queries::list(conn, None).await?)?,
        file_paths: load_file_paths(conn).await?,
        decorators: load_decorators(conn).await?,
        options: load_options(conn).await?,
        sections: load_sections(conn).await?,
        leftovers: leftovers::list(conn).await?,
    };
    Ok(parts.sorted())
}

/// The parts as nodes get them: without what nodes may not be asked (`domain::table_denial`). Whatever is assembled for a node, or
/// compared with what it has, is made of these.
///
/// # Errors
/// As of [`load`].
pub async fn load_for_nodes(conn: &mut Conn) -> Result<Parts> {
    let parts = load(conn).await?;
    table_denials::withhold(conn, parts).await
}

/// The packs alone, with their queries, disabled ones included.
///
/// # Errors
/// As of [`load`].
pub async fn load_packs(conn: &mut Conn) -> Result<Vec<Pack>> {
    let mut by_pack = queries::list_packed(conn).await?;
    let packs = packs::list(conn).await?.into_iter().map(|pack| {
        Ok(Pack {
            queries: domain_queries(by_pack.remove(&pack.id).unwrap_or_default())?,
            id: PackId(pack.id),
            target: target(&pack.target)?,
            name: pack.name,
            description: pack.description,
            enabled: pack.enabled,
            built_in: pack.built_in,
            platform: pack.platform,
            version: pack.version,
            shard: pack.shard,
            discovery: pack.discovery,
            extra: object(pack.extra),
        })
    });
    packs.collect()
}

async fn load_file_paths(conn: &mut Conn) -> Result<Vec<FilePath>> {
    let paths = file_paths::list(conn).await?.into_iter().map(|path| {
        Ok(FilePath {
            id: FilePathId(path.id),
            target: target(&path.values.target)?,
            category: path.values.category,
            globs: path.values.globs,
            queries: path.values.queries,
            exclude_globs: path.values.exclude_globs,
            file_accesses: path.values.file_accesses,
            enabled: path.values.enabled,
        })
    });
    paths.collect()
}

async fn load_decorators(conn: &mut Conn) -> Result<Vec<Decorator>> {
    let decorators = decorators::list(conn).await?.into_iter().map(|decorator| {
        let values = decorator.values;
        Ok(Decorator {
            id: DecoratorId(decorator.id),
            target: target(&values.target)?,
            name: values.name,
            moment: match (values.moment.as_str(), values.interval_seconds) {
                ("load", _) => DecoratorMoment::Load,
                ("interval", Some(seconds)) => DecoratorMoment::Interval(seconds),
                _ => DecoratorMoment::Always,
            },
            sql: values.sql,
            enabled: values.enabled,
        })
    });
    decorators.collect()
}

async fn load_options(conn: &mut Conn) -> Result<Vec<ConfigOption>> {
    let options = options::list(conn).await?.into_iter().map(|option| {
        Ok(ConfigOption {
            id: OptionId(option.id),
            target: target(&option.values.target)?,
            name: option.values.name,
            value: option.values.value,
            priority: option.values.priority,
        })
    });
    options.collect()
}

async fn load_sections(conn: &mut Conn) -> Result<Vec<Section>> {
    let sections = sections::list(conn).await?.into_iter().map(|section| {
        let values = section.values;
        Ok(Section {
            id: SectionId(section.id),
            target: target(&values.target)?,
            key: values.key,
            name: values.name,
            description: values.description,
            value: values.value,
            priority: values.priority,
            enabled: values.enabled,
        })
    });
    sections.collect()
}

fn domain_queries(queries: Vec<queries::QueryRecord>) -> Result<Vec<Query>> {
    let queries = queries.into_iter().map(|query| {
        Ok(Query {
            id: QueryId(query.id),
            target: target(&query.target)?,
            name: query.name,
            description: query.description,
            value: query.value,
            sql: query.sql,
            enabled: query.enabled,
            interval_seconds: query.interval_seconds,
            snapshot: query.snapshot,
            removed: query.removed,
            denylist: query.denylist,
            startup_priority: query.startup_priority,
            platform: query.platform,
            version: query.version,
            shard: query.shard,
            extra: object(query.extra),
        })
    });
    queries.collect()
}

fn target(text: &str) -> Result<TargetText> {
    TargetText::parse(text)
        .map_err(|error| Error::Corrupt(format!("the target \"{text}\": {error}")))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

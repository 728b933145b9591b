//! Everything that may be part of a config, as `domain::node_config` wants it: what is enabled, of the whole fleet.

use ostiary_domain::ids::{DecoratorId, FilePathId, OptionId, PackId, QueryId};
use ostiary_domain::node_config::{
    ConfigOption, Decorator, DecoratorMoment, FilePath, Pack, Parts, Query,
};
use ostiary_domain::target::Target;
use serde_json::{Map, Value};

use crate::{Conn, Error, Result, decorators, file_paths, options, packs, queries};

/// Loads all enabled parts, sorted. In a transaction they are as that transaction sees them.
///
/// # Errors
/// A stored target cannot be read, or Postgres failed.
pub async fn load(conn: &mut Conn) -> Result<Parts> {
    let mut parts = Parts::default();
    for pack in packs::list(conn)
        .await?
        .into_iter()
        .filter(|pack| pack.enabled)
    {
        let id = PackId(pack.id);
        let queries = queries::list(conn, Some(id)).await?;
        parts.packs.push(Pack {
            id,
            target: target(&pack.target)?,
            name: pack.name,
            description: pack.description,
            platform: pack.platform,
            version: pack.version,
            shard: pack.shard,
            discovery: pack.discovery,
            extra: object(pack.extra),
            queries: enabled(queries)?,
        });
    }
    parts.queries = enabled(queries::list(conn, None).await?)?;
    for path in file_paths::list(conn)
        .await?
        .into_iter()
        .filter(|path| path.values.enabled)
    {
        parts.file_paths.push(FilePath {
            id: FilePathId(path.id),
            target: target(&path.values.target)?,
            category: path.values.category,
            globs: path.values.globs,
            exclude_globs: path.values.exclude_globs,
            file_accesses: path.values.file_accesses,
        });
    }
    for decorator in decorators::list(conn)
        .await?
        .into_iter()
        .filter(|decorator| decorator.values.enabled)
    {
        let values = decorator.values;
        let moment = match (values.moment.as_str(), values.interval_seconds) {
            ("load", _) => DecoratorMoment::Load,
            ("interval", Some(seconds)) => DecoratorMoment::Interval(seconds),
            _ => DecoratorMoment::Always,
        };
        let target = target(&values.target)?;
        parts.decorators.push(Decorator {
            id: DecoratorId(decorator.id),
            name: values.name,
            moment,
            sql: values.sql,
            target,
        });
    }
    for option in options::list(conn).await? {
        parts.options.push(ConfigOption {
            id: OptionId(option.id),
            target: target(&option.values.target)?,
            name: option.values.name,
            value: option.values.value,
            priority: option.values.priority,
        });
    }
    Ok(parts.sorted())
}

fn enabled(queries: Vec<queries::QueryRecord>) -> Result<Vec<Query>> {
    let domain = queries
        .into_iter()
        .filter(|query| query.enabled)
        .map(|query| {
            Ok(Query {
                id: QueryId(query.id),
                target: target(&query.target)?,
                name: query.name,
                sql: query.sql,
                interval_seconds: query.interval_seconds,
                snapshot: query.snapshot,
                removed: query.removed,
                denylist: query.denylist,
                platform: query.platform,
                version: query.version,
                shard: query.shard,
                extra: object(query.extra),
            })
        });
    domain.collect()
}

fn target(text: &str) -> Result<Target> {
    Target::parse(text).map_err(|error| Error::Corrupt(format!("the target \"{text}\": {error}")))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

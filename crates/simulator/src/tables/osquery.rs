//! osquery's tables about itself.

use super::{Host, KNOWN};
use crate::identity::Platform;
use crate::value::{Row, row};

pub(super) fn info(host: &Host<'_>) -> Vec<Row> {
    let identity = host.identity;
    vec![row! {
        "pid" => 900 + host.constant(1) % 9000,
        "uuid" => &identity.uuid,
        "instance_id" => &identity.instance_id,
        "version" => identity.version().to_string(),
        "config_hash" => &host.config.hash,
        "config_valid" => i64::from(host.config.valid),
        "extensions" => "active",
        "build_platform" => identity.platform.build_name(),
        "build_distro" => match identity.platform {
            Platform::Linux => "centos7",
            Platform::Darwin => "10.14",
            Platform::Windows => "10",
        },
        "start_time" => host.started,
        "watcher" => 800 + host.constant(1) % 9000,
        "platform_mask" => identity.platform.mask(),
    }]
}

pub(super) fn schedule(host: &Host<'_>) -> Vec<Row> {
    let row = |query: &crate::config::ScheduledQuery| {
        let runs = (host.runs)(query);
        let wall = runs.executions * 12;
        let mut row = row! {
            "name" => &query.name,
            "query" => &query.sql,
            "interval" => query.interval,
            "executions" => runs.executions,
            "last_executed" => runs.last_executed,
            "denylisted" => i64::from(runs.denylisted),
            "output_size" => runs.output_size,
            "wall_time" => wall / 1000,
            "wall_time_ms" => wall,
            "last_wall_time_ms" => 12_i64,
            "user_time" => runs.executions * 9,
            "last_user_time" => 9_i64,
            "system_time" => runs.executions * 3,
            "last_system_time" => 3_i64,
            "average_memory" => 65_536_i64,
            "last_memory" => 65_536_i64,
        };
        // The alias still answers today, hidden; before 4.4.0 it was the only name.
        if host.identity.version().denylist_column() == "blacklisted" {
            row.push(("blacklisted".to_owned(), i64::from(runs.denylisted).into()));
        }
        row
    };
    host.config.queries.iter().map(row).collect()
}

pub(super) fn packs(host: &Host<'_>) -> Vec<Row> {
    let row = |pack: &crate::config::Pack| {
        row! {
            "name" => &pack.name,
            "platform" => "",
            "version" => "",
            "shard" => 0_i64,
            "discovery_cache_hits" => 0_i64,
            "discovery_executions" => pack.discovery.len(),
            "active" => 1_i64,
        }
    };
    host.config.packs.iter().map(row).collect()
}

pub(super) fn registry(platform: Platform) -> Vec<Row> {
    KNOWN
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let (name, rest) = line.split_once('\t')?;
            rest.contains(platform.build_name()).then(|| {
                row! {"registry" => "table", "name" => name, "owner_uuid" => 0_i64, "internal" => 0_i64, "active" => 1_i64}
            })
        })
        .collect()
}

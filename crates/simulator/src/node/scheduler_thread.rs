//! Running scheduled queries in their seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::Rng;

use super::Node;
use super::config_thread::decorate;
use super::state::State;
use crate::config::ScheduledQuery;
use crate::counters::add;
use crate::differential::{advance, advance_events};
use crate::schedule::{is_due, splayed_interval};
use crate::select::tables_of;
use crate::tables::is_evented;
use crate::value::{Columns, Row, row};

/// Seconds that a clock may jump ahead and still be caught up.
const MAX_DRIFT: i64 = 60;

impl Node {
    /// Ticks each second.
    pub(super) async fn scheduler_thread(&self) {
        let mut last = self.state().now();
        loop {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let now = self.state().now();
            if self.paused.load(std::sync::atomic::Ordering::Relaxed) {
                last = now;
            }
            if now - last > MAX_DRIFT {
                last = now - 1;
            }
            for second in last + 1..=now {
                self.run_due(second);
            }
            last = last.max(now);
        }
    }

    fn run_due(&self, second: i64) {
        let mut errors = Vec::new();
        let mut guard = self.state();
        let state = &mut *guard;
        decorate(state, second, false);
        let percent = state.number("schedule_splay_percent", 10);
        let denylisted = |name: &str| state.is_denylisted(name, second);
        let denylisted: BTreeSet<String> = (state.config.queries.iter())
            .filter(|query| denylisted(&query.name))
            .map(|query| query.name.clone())
            .collect();
        let due: Vec<ScheduledQuery> = state
            .config
            .queries
            .iter()
            .filter(|query| !denylisted.contains(&query.name))
            .filter(|query| {
                let interval = self.settings.tempo.interval(query.interval);
                let splays = &mut state.database.splays;
                is_due(
                    second,
                    splayed_interval(splays, &query.bare_name, interval, percent, &mut state.dice),
                )
            })
            .cloned()
            .collect();
        let mut packs = BTreeMap::new();
        for query in due {
            let active = query.pack.is_none_or(|pack| {
                *packs
                    .entry(pack)
                    .or_insert_with(|| is_active(state, pack, second))
            });
            if active && self.is_too_costly(&query.sql) {
                // The watchdog ends the process in the middle of it; what the database holds is all that is left.
                state.database.executing = Some(query.name.clone());
                self.restart();
                return;
            }
            if active && let Err(error) = self.run_query(state, &query, second) {
                errors.push(format!(
                    "Error executing scheduled query {}: {error}",
                    query.name
                ));
            }
        }
        drop(guard);
        for error in errors {
            self.log_status(2, "scheduler.cpp", 113, &error);
        }
    }

    pub(super) fn is_too_costly(&self, sql: &str) -> bool {
        let costly = &self.settings.costly_tables;
        tables_of(sql).iter().any(|table| costly.contains(table))
    }

    fn run_query(&self, state: &mut State, query: &ScheduledQuery, now: i64) -> Result<(), String> {
        let evented = tables_of(&query.sql)
            .first()
            .is_some_and(|table| is_evented(table));
        let events = if evented {
            file_events(state, now)
        } else {
            Vec::new()
        };
        add(&self.counters.queries_run, 1);
        let rows = state.with_host(now, &events, |host| host.query(&query.sql))?;
        let rows: Vec<Columns> = rows
            .into_iter()
            .map(|row| row.into_iter().collect())
            .collect();
        if !evented {
            state.last_rows.insert(query.name.clone(), rows.clone());
        }
        let epoch = state.number("schedule_epoch", 0);
        let lines = if query.snapshot {
            self.write(state, now, |writer| {
                writer.snapshot(&query.name, epoch, &rows)
            })
        } else {
            let stored = state.database.stored.entry(query.name.clone()).or_default();
            let changes = if evented {
                advance_events(stored, epoch, &query.sql, rows)
            } else {
                advance(stored, epoch, &query.sql, rows, query.removed, self.version)
            };
            self.write(state, now, |writer| {
                writer.differential(&query.name, &changes)
            })
        };
        let runs = state.runs.entry(query.name.clone()).or_default();
        runs.executions += 1;
        runs.last_executed = now;
        runs.output_size += lines
            .iter()
            .map(|line| line.bytes.len() as u64)
            .sum::<u64>();
        self.buffer(state, lines);
        Ok(())
    }
}

/// Whether all discovery queries of a pack return a row; one with an error does not.
fn is_active(state: &State, pack: usize, now: i64) -> bool {
    let Some(pack) = state.config.packs.get(pack) else {
        return false;
    };
    state.with_host(now, &[], |host| {
        pack.discovery
            .iter()
            .all(|sql| host.query(sql).is_ok_and(|rows| !rows.is_empty()))
    })
}

/// Now and then a change to a watched file.
fn file_events(state: &mut State, now: i64) -> Vec<Row> {
    let categories = state.config.file_paths.len();
    if categories == 0 || state.dice.random_range(0..3) > 0 {
        return Vec::new();
    }
    let (category, globs) = &state.config.file_paths[state.dice.random_range(0..categories)];
    let folder = globs
        .first()
        .map_or("/etc/", String::as_str)
        .trim_end_matches(['%', '*']);
    let number: u64 = state.dice.random_range(0..1000);
    let digest = format!("{:032x}", state.dice.random::<u128>());
    vec![row! {
        "target_path" => format!("{folder}file-{number}.conf"),
        "category" => category,
        "action" => ["CREATED", "UPDATED", "DELETED"][usize::try_from(number % 3).unwrap_or(0)],
        "transaction_id" => 0_i64,
        "inode" => number + 100_000,
        "uid" => 0_i64,
        "gid" => 0_i64,
        "mode" => "0644",
        "size" => number * 13,
        "atime" => now,
        "mtime" => now,
        "ctime" => now,
        "md5" => &digest,
        "sha1" => format!("{digest}{}", &digest[..8]),
        "sha256" => format!("{digest}{digest}"),
        "hashed" => 1_i64,
        "time" => now,
    }]
}

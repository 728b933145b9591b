//! Live queries: taking them, running them, and sending what they said until that worked.

use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use super::Node;
use super::state::State;
use crate::client::Client;
use crate::counters::add;
use crate::value::Row;
use crate::version::Version;

const ATTEMPTS: u64 = 3;
/// Seconds between reads while they are accelerated.
const ACCELERATED: u64 = 5;

/// What the queries of one or more reads said and was not yet sent.
#[derive(Debug, Default)]
struct Unsent {
    queries: Map<String, Json>,
    statuses: Map<String, Json>,
    messages: Map<String, Json>,
    stats: Map<String, Json>,
}

impl Node {
    /// Reads at once, then each interval after all work is done.
    pub(super) async fn distributed_thread(&self) {
        let mut client = self.client();
        let mut unsent = Unsent::default();
        loop {
            self.read_and_answer(&mut client, &mut unsent).await;
            tokio::time::sleep(self.distributed_pause()).await;
        }
    }

    fn distributed_pause(&self) -> Duration {
        let state = self.state();
        if state.now() < state.database.accelerate_until {
            return self.settings.timer(ACCELERATED);
        }
        self.settings
            .timer(state.number("distributed_interval", self.settings.distributed_interval))
    }

    async fn read_and_answer(&self, client: &mut Client, unsent: &mut Unsent) {
        let attempts = u32::try_from(
            self.state()
                .number("distributed_tls_max_attempts", ATTEMPTS),
        )
        .unwrap_or(1);
        let endpoints = &self.settings.endpoints;
        let body = |key: &str| self.written(&json!({"node_key": key}));
        if let Some(document) = self
            .ask_repeatedly(client, &endpoints.read, attempts, body)
            .await
        {
            accept(&mut self.state(), &document, self.version);
        }
        loop {
            match self.run_next(unsent) {
                Ran::Answered => {}
                Ran::NothingLeft => break,
                // The process is about to end, and what it has in memory with it.
                Ran::Killed => return std::future::pending().await,
            }
        }
        if unsent.queries.is_empty() {
            return;
        }
        let body = |key: &str| self.written(&unsent.body(key, self.version));
        if self
            .ask_repeatedly(client, &endpoints.write, attempts, body)
            .await
            .is_some()
        {
            *unsent = Unsent::default();
        }
    }

    /// Runs the first queued query. The others stay queued if it ends the process.
    fn run_next(&self, unsent: &mut Unsent) -> Ran {
        let mut state = self.state();
        let next = state.database.live_queries.pop_first();
        let Some((id, sql)) = next else {
            return Ran::NothingLeft;
        };
        let now = state.now();
        if state.is_live_denylisted(&sql, now) {
            unsent.note_denylisted(id, self.version);
            return Ran::Answered;
        }
        if self.is_too_costly(&sql) {
            state.database.executing_live = Some(sql);
            self.restart();
            return Ran::Killed;
        }
        drop(state);
        self.schedule_carve(&sql);
        let state = self.state();
        let answer = state.with_host(now, &[], |host| host.query(&sql));
        drop(state);
        add(&self.counters.live_queries_run, 1);
        unsent.note(id, answer, self.version);
        Ran::Answered
    }
}

/// What became of the next live query.
enum Ran {
    Answered,
    NothingLeft,
    /// The watchdog ended osqueryd in the middle of it.
    Killed,
}

/// Queues what a read handed out. A document with anything but non-empty texts is given up at that point,
/// and one whose discovery fails in SQL altogether.
fn accept(state: &mut State, document: &Map<String, Json>, version: Version) {
    let now = state.now();
    if let Some(Json::Object(queries)) = document.get("queries") {
        let discovery = document.get("discovery").and_then(Json::as_object);
        let discovery = discovery.filter(|_| version.knows_discovery());
        let Some(matched) = discover(state, discovery, now) else {
            return;
        };
        let any = matched.iter().any(|(_, matched)| *matched);
        for (id, sql) in queries {
            let Some(sql) = sql.as_str().filter(|sql| !sql.is_empty() && !id.is_empty()) else {
                return;
            };
            let own = matched
                .iter()
                .find(|(name, _)| name == id)
                .map(|(_, matched)| *matched);
            let runs = if version.judges_discovery_alone() {
                own.unwrap_or(true)
            } else {
                !any || own == Some(true)
            };
            if runs {
                state
                    .database
                    .live_queries
                    .insert(id.clone(), sql.to_owned());
            }
        }
    }
    let seconds = match document.get("accelerate") {
        Some(Json::Number(number)) => number.as_i64(),
        Some(Json::String(text)) if version.writes_property_tree() => text.parse().ok(),
        _ => None,
    };
    if let Some(seconds) = seconds {
        state.database.accelerate_until = now.saturating_add(seconds);
    }
}

/// Which discovery queries returned a row, or nothing if one of them failed.
fn discover(
    state: &State,
    discovery: Option<&Map<String, Json>>,
    now: i64,
) -> Option<Vec<(String, bool)>> {
    let mut matched = Vec::new();
    for (id, sql) in discovery.into_iter().flatten() {
        let sql = sql.as_str().filter(|sql| !sql.is_empty())?;
        let rows = state.with_host(now, &[], |host| host.query(sql)).ok()?;
        matched.push((id.clone(), !rows.is_empty()));
    }
    Some(matched)
}

impl Unsent {
    /// Refuses to run a query that ended osqueryd before: nothing was measured.
    fn note_denylisted(&mut self, id: String, version: Version) {
        let message = "distributed query is denylisted".to_owned();
        self.note(id.clone(), Err(message), version);
        self.stats.insert(id, json!({}));
    }

    fn note(&mut self, id: String, answer: Result<Vec<Row>, String>, version: Version) {
        let old = version.writes_property_tree();
        let (rows, message) = match answer {
            Ok(rows) => (rows, String::new()),
            Err(message) => (Vec::new(), message),
        };
        let failed = u8::from(!message.is_empty());
        let rows: Vec<Json> = rows
            .into_iter()
            .map(|row| {
                row.into_iter()
                    .map(|(name, value)| (name, value.json(false)))
                    .collect::<Map<_, _>>()
                    .into()
            })
            .collect();
        let rows = if old && rows.is_empty() {
            "".into()
        } else {
            Json::from(rows)
        };
        self.queries.insert(id.clone(), rows);
        self.statuses.insert(
            id.clone(),
            if old {
                failed.to_string().into()
            } else {
                failed.into()
            },
        );
        self.messages.insert(id.clone(), message.into());
        self.stats.insert(
            id,
            json!({"wall_time_ms": 12, "user_time": 9, "system_time": 3, "memory": 65_536}),
        );
    }

    fn body(&self, key: &str, version: Version) -> Json {
        let mut body = json!({"queries": self.queries});
        if version.sends_statuses() {
            body["statuses"] = Json::Object(self.statuses.clone());
        }
        if version.sends_messages() {
            body["messages"] = Json::Object(self.messages.clone());
        }
        if version.sends_stats() {
            body["stats"] = Json::Object(self.stats.clone());
        }
        body["node_key"] = key.into();
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_answers_in_its_own_form() {
        let body = |version| {
            let mut unsent = Unsent::default();
            unsent.note("a".to_owned(), Ok(Vec::new()), version);
            unsent.note(
                "b".to_owned(),
                Err("no such table: foo".to_owned()),
                version,
            );
            unsent.body("k", version)
        };
        let new = body(Version(5, 23, 1));
        assert_eq!(new["queries"], json!({"a": [], "b": []}));
        assert_eq!(new["statuses"], json!({"a": 0, "b": 1}));
        assert_eq!(new["messages"]["b"], "no such table: foo");
        assert!(new["stats"]["a"]["wall_time_ms"].is_number());
        let middle = body(Version(4, 9, 0));
        assert!(middle.get("messages").is_some() && middle.get("stats").is_none());
        assert!(body(Version(4, 0, 2)).get("messages").is_none());
        let old = body(Version(2, 11, 2));
        assert_eq!(old["queries"], json!({"a": "", "b": ""}));
        assert_eq!(old["statuses"], json!({"a": "0", "b": "1"}));
        assert!(body(Version(2, 1, 0)).get("statuses").is_none());
    }
}

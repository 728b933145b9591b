//! Fetching configs and putting them into force.

use serde_json::{Map, Value as Json, json};

use super::Node;
use super::state::State;
use crate::client::Client;
use crate::config::{Reader, config_hash};
use crate::counters::add;
use crate::version::Version;

/// Attempts for each refresh.
const ATTEMPTS: u32 = 3;

/// Flags that a config may not set from 5.4.0 on, of those that this simulator knows.
const COMMAND_LINE_ONLY: [&str; 6] = [
    "config_refresh",
    "config_tls_refresh",
    "config_accelerated_refresh",
    "tls_hostname",
    "disable_carver",
    "config_plugin",
];

impl Node {
    /// Refreshes for ever, first a period after the start.
    pub(super) async fn config_thread(&self, mut client: Client) {
        let mut worked = true;
        loop {
            tokio::time::sleep(self.config_pause(worked)).await;
            worked = self.fetch_config(&mut client).await;
        }
    }

    fn config_pause(&self, worked: bool) -> std::time::Duration {
        let state = self.state();
        let seconds = if worked {
            state.number("config_refresh", self.settings.config_refresh)
        } else {
            state.number(
                "config_accelerated_refresh",
                self.settings.config_accelerated_refresh,
            )
        };
        self.settings.timer(seconds)
    }

    /// Fetches a config and applies it; whether that worked.
    pub(super) async fn fetch_config(&self, client: &mut Client) -> bool {
        let etag = self
            .version
            .sends_etag()
            .then(|| self.state().config_etag.clone());
        let body = |key: &str| match &etag {
            Some(etag) => self.written(&json!({"node_key": key, "etag": etag})),
            None => self.written(&json!({"node_key": key})),
        };
        let path = self.settings.endpoints.config.clone();
        match self.ask_repeatedly(client, &path, ATTEMPTS, body).await {
            Some(document) => {
                let word = document.get("etag").and_then(Json::as_str);
                // Without an etag of its own a node cannot tell this from a config that is empty but for one key.
                if etag.is_some_and(|etag| !etag.is_empty()) && word == Some("ok") {
                    add(&self.counters.configs_unchanged, 1);
                    return true;
                }
                if self.version.sends_etag() {
                    self.state().config_etag = word.unwrap_or_default().to_owned();
                }
                self.apply_config(&document);
                true
            }
            None => false,
        }
    }

    /// Applies a document. The same text as before changes nothing.
    fn apply_config(&self, document: &Map<String, Json>) {
        let compact = Json::Object(document.clone()).to_string();
        let mut state = self.state();
        if state.config.hash == config_hash(&compact) {
            return;
        }
        add(&self.counters.configs_changed, 1);
        let mut warnings = merge_options(&mut state, document, self.version);
        let reader = Reader {
            platform: state.database.identity.platform,
            version: self.version,
            hostname: &state.database.identity.hostname,
            options: &state.options,
        };
        let mut config = reader.read(document, &compact);
        warnings.append(&mut config.warnings);
        state.config = config;
        let now = state.now();
        decorate(&mut state, now, true);
        drop(state);
        for warning in warnings {
            self.log_status(1, "config.cpp", 792, &warning);
        }
    }
}

/// Options add up until the process ends; empty texts are skipped.
fn merge_options(state: &mut State, document: &Map<String, Json>, version: Version) -> Vec<String> {
    let mut warnings = Vec::new();
    for (name, value) in document
        .get("options")
        .and_then(Json::as_object)
        .into_iter()
        .flatten()
    {
        if version >= Version(5, 4, 0) && COMMAND_LINE_ONLY.contains(&name.as_str()) {
            warnings.push(format!("The CLI only flag --{name} set via config file will be ignored, please use a flagfile or pass it to the process at startup"));
        } else if value.as_str() != Some("") {
            state.options.insert(name.clone(), value.clone());
        }
    }
    warnings
}

/// Runs the decorators that run at load (when `load`) and at their seconds.
pub(super) fn decorate(state: &mut State, now: i64, load: bool) {
    let mut fresh = Vec::new();
    if load {
        state.decorations.clear();
    }
    state.with_host(now, &[], |host| {
        for (place, (seconds, sql)) in state.config.decorators.timed.iter().enumerate() {
            let due = *seconds != 0 && crate::schedule::is_due(now, *seconds);
            if (load || due)
                && let Some(row) = host
                    .query(sql)
                    .ok()
                    .and_then(|rows| rows.into_iter().next())
            {
                fresh.push((place, row));
            }
        }
    });
    state.decorations.extend(fresh);
}

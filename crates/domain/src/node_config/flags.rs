//! What is known of osquery's flags: which a config's `options` can set, their kind, default and meaning. Unknown flags are allowed.
//!
//! Facts from osquery's sources (`FLAG` and `CLI_FLAG` in `osquery/**/*.cpp`, 5.23) and its manual (`docs/wiki/installation/cli-flags.md`);
//! the words are ours.

use serde_json::Value;

/// How a flag can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settable {
    /// By `options`, at any time.
    ByOptions,
    /// By `options`, but read once when osqueryd starts: it counts only when the first config of the process brings it.
    AtStart,
    /// On the command line or in the flag file only. In `options` it is ignored with a warning from 5.4.0 on; before it was obeyed.
    CommandLine,
}

/// What a flag's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlagKind {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Number,
    /// Text; empty text is skipped by osqueryd.
    Text,
}

/// A flag of osquery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag {
    /// As in `--name=value`.
    pub name: &'static str,
    /// How it can be set.
    pub settable: Settable,
    /// What its value is.
    pub kind: FlagKind,
    /// Its value when nobody sets it, empty when there is none.
    pub default: &'static str,
    /// The first osquery that knows it, empty when it is older than anybody asks.
    pub since: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

impl Flag {
    /// What is to be sent to take back a value that a node may carry: the default. `None` when that cannot be done by `options`.
    #[must_use]
    pub fn reset_value(&self) -> Option<Value> {
        match (self.settable, self.kind) {
            (Settable::CommandLine, _) => None,
            (_, FlagKind::Bool) => Some(Value::Bool(self.default == "true")),
            (_, FlagKind::Number) => self.default.parse::<i64>().ok().map(Value::from),
            (_, FlagKind::Text) => (!self.default.is_empty()).then(|| self.default.into()),
        }
    }

    /// Says what is wrong with a value for this flag.
    ///
    /// # Errors
    /// The value is of another kind; the message says which is expected.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        let name = self.name;
        let text = match value {
            Value::String(text) => text.trim().to_owned(),
            other => other.to_string(),
        };
        match self.kind {
            FlagKind::Bool if !matches!(text.as_str(), "true" | "false" | "1" | "0") => {
                Err(format!("{name} is true or false."))
            }
            FlagKind::Number if text.parse::<u64>().is_err() => Err(format!(
                "{name} is a whole number, {} by default.",
                self.default
            )),
            _ => Ok(()),
        }
    }
}

/// The flag of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

const fn flag(
    settable: Settable,
    kind: FlagKind,
    (name, default, since): (&'static str, &'static str, &'static str),
    meaning: &'static str,
) -> Flag {
    Flag {
        name,
        settable,
        kind,
        default,
        since,
        meaning,
    }
}

use FlagKind::{Bool, Number, Text};
use Settable::{AtStart, ByOptions, CommandLine};

/// The flags that are worth knowing, in the order of the manual's chapters.
#[rustfmt::skip]
pub const FLAGS: &[Flag] = &[
    flag(CommandLine, Text, ("tls_hostname", "", ""), "Host and port of the server, for everything."),
    flag(CommandLine, Text, ("tls_server_certs", "", ""), "File of the CA certificates that are trusted."),
    flag(CommandLine, Text, ("tls_client_cert", "", ""), "Certificate of the node."),
    flag(CommandLine, Text, ("tls_client_key", "", ""), "Key of the node's certificate."),
    flag(CommandLine, Bool, ("tls_session_reuse", "true", ""), "Keep TLS sessions."),
    flag(CommandLine, Number, ("tls_session_timeout", "3600", ""), "Seconds for which a TLS session is kept."),
    flag(CommandLine, Bool, ("tls_accept_gzip", "false", "5.21"), "Take compressed answers."),
    flag(CommandLine, Text, ("proxy_hostname", "", ""), "Proxy for all requests."),
    flag(ByOptions, Text, ("host_identifier", "hostname", ""), "What a node calls itself. Enrollment comes before the config: set it in the flag file."),
    flag(ByOptions, Text, ("specified_identifier", "", ""), "The identifier when host_identifier is \"specified\"."),
    flag(CommandLine, Text, ("enroll_secret_path", "", ""), "File of the enroll secret."),
    flag(CommandLine, Text, ("enroll_secret_env", "", ""), "Environment variable of the enroll secret."),
    flag(CommandLine, Text, ("enroll_tls_endpoint", "", ""), "Path to enroll at."),
    flag(CommandLine, Number, ("tls_enroll_max_attempts", "12", ""), "Attempts to enroll; 0 never gives up."),
    flag(CommandLine, Number, ("tls_enroll_max_interval", "600", ""), "Most seconds between two attempts to enroll."),
    flag(CommandLine, Bool, ("enroll_always", "false", ""), "Enroll anew at each start."),
    flag(CommandLine, Bool, ("disable_enrollment", "false", ""), "Never enroll."),
    flag(CommandLine, Bool, ("disable_reenrollment", "false", ""), "Do not enroll again when the key is refused."),
    flag(CommandLine, Text, ("config_plugin", "filesystem", ""), "Where the config comes from."),
    flag(CommandLine, Text, ("config_tls_endpoint", "", ""), "Path of the config."),
    flag(CommandLine, Number, ("config_tls_max_attempts", "3", ""), "Attempts to fetch the config."),
    flag(CommandLine, Number, ("config_refresh", "0", ""), "Seconds between two fetches of the config; 0 fetches once."),
    flag(CommandLine, Number, ("config_tls_refresh", "0", ""), "Another name of config_refresh."),
    flag(CommandLine, Number, ("config_accelerated_refresh", "300", ""), "The same after a failure."),
    flag(CommandLine, Bool, ("config_enable_backup", "false", "3.3.1"), "Start with the last config when the first fetch fails."),
    flag(CommandLine, Text, ("logger_plugin", "filesystem", ""), "Where logs go."),
    flag(ByOptions, Text, ("logger_tls_endpoint", "", ""), "Path of the log. A wrong one cuts the node's results off."),
    flag(ByOptions, Number, ("logger_tls_period", "4", ""), "Seconds between two posts of the log."),
    flag(ByOptions, Number, ("logger_tls_max_lines", "1024", "4.1"), "Most lines in a post."),
    flag(ByOptions, Number, ("logger_tls_max_linesize", "1048576", ""), "Most bytes of a line; longer ones are dropped."),
    flag(ByOptions, Number, ("logger_tls_max", "1048576", ""), "Another name of logger_tls_max_linesize."),
    flag(ByOptions, Bool, ("logger_tls_compress", "false", ""), "Compress posts of the log."),
    flag(ByOptions, Number, ("logger_tls_backoff_max", "3600", "5.12"), "Most seconds between two posts while they fail; 0 for no back-off."),
    flag(ByOptions, Bool, ("tls_disable_status_log", "false", "5.3"), "Send no status lines."),
    flag(ByOptions, Number, ("buffered_log_max", "1000000", ""), "Most lines that wait on the node; the oldest are dropped."),
    flag(ByOptions, Number, ("logger_min_status", "0", ""), "Lowest severity of status lines; 1 for warnings and errors."),
    flag(ByOptions, Bool, ("logger_event_type", "true", ""), "A line per row rather than per execution."),
    flag(ByOptions, Bool, ("logger_snapshot_event_type", "false", ""), "The same for snapshots."),
    flag(ByOptions, Bool, ("logger_numerics", "false", "3.4"), "Numbers as numbers rather than as text."),
    flag(ByOptions, Bool, ("decorations_top_level", "false", ""), "Decorations beside the columns of a line, not in a member of their own."),
    flag(ByOptions, Bool, ("disable_decorators", "false", ""), "Run no decorators."),
    flag(AtStart, Bool, ("disable_distributed", "true", ""), "Ask for no live queries."),
    flag(AtStart, Text, ("distributed_plugin", "tls", ""), "Where live queries come from."),
    flag(ByOptions, Number, ("distributed_interval", "60", ""), "Seconds between two questions for live queries."),
    flag(AtStart, Text, ("distributed_tls_read_endpoint", "", ""), "Path to ask for live queries at."),
    flag(AtStart, Text, ("distributed_tls_write_endpoint", "", ""), "Path for results of live queries."),
    flag(ByOptions, Number, ("distributed_tls_max_attempts", "3", ""), "Attempts to ask and to answer."),
    flag(ByOptions, Number, ("distributed_denylist_duration", "86400", "5.5"), "Seconds for which a live query that killed osqueryd is not run."),
    flag(CommandLine, Bool, ("disable_carver", "true", ""), "Carve no files."),
    flag(CommandLine, Text, ("carver_start_endpoint", "", ""), "Path at which a carve begins."),
    flag(CommandLine, Text, ("carver_continue_endpoint", "", ""), "Path for the blocks of a carve."),
    flag(CommandLine, Number, ("carver_block_size", "8192", ""), "Bytes of a block."),
    flag(CommandLine, Bool, ("carver_compression", "false", ""), "Compress carves."),
    flag(CommandLine, Number, ("carver_expiry", "86400", ""), "Seconds after which a carve is forgotten."),
    flag(CommandLine, Bool, ("carver_disable_function", "true", ""), "Have no SQL function carve()."),
    flag(ByOptions, Text, ("pack_delimiter", "_", ""), "Stands between the names of packs and queries. Ostiary sends \"/\"."),
    flag(ByOptions, Number, ("pack_refresh_interval", "3600", ""), "Seconds for which a pack's discovery holds."),
    flag(ByOptions, Number, ("schedule_splay_percent", "10", ""), "By how much intervals are spread; 0 and 1 are taken as 10."),
    flag(ByOptions, Number, ("schedule_default_interval", "3600", ""), "Interval of queries that have none."),
    flag(ByOptions, Number, ("schedule_epoch", "0", ""), "Another number makes nodes send full sets again."),
    flag(ByOptions, Number, ("schedule_max_drift", "60", ""), "Most seconds of missed ticks that are caught up."),
    flag(ByOptions, Number, ("schedule_reload", "3600", ""), "Seconds after which the scheduler reloads."),
    flag(AtStart, Bool, ("disable_events", "false", ""), "Have no event publishers at all."),
    flag(ByOptions, Number, ("events_expiry", "3600", ""), "Seconds for which events wait to be queried."),
    flag(ByOptions, Number, ("events_max", "50000", ""), "Most events that wait, a table."),
    flag(ByOptions, Bool, ("events_optimize", "true", ""), "A scheduled query of events gets only those since its last run."),
    flag(ByOptions, Number, ("read_max", "52428800", ""), "Most bytes that are read of a file."),
    flag(ByOptions, Bool, ("yara_sigurl_authenticate", "false", "5.14"), "Send the node key when YARA rules are fetched."),
    flag(CommandLine, Number, ("watchdog_level", "0", ""), "Strictness of the watchdog."),
    flag(CommandLine, Number, ("watchdog_memory_limit", "0", ""), "Megabytes beyond which the watchdog restarts osqueryd; 0 for the level's own, 200."),
    flag(CommandLine, Number, ("watchdog_utilization_limit", "0", ""), "The same for CPU in percent; 0 for the level's own, 10."),
    flag(CommandLine, Number, ("watchdog_delay", "60", ""), "Seconds of grace after a start."),
    flag(CommandLine, Bool, ("disable_watchdog", "false", ""), "Have no watchdog."),
    flag(CommandLine, Text, ("database_path", "", ""), "Folder of osquery's own database."),
    flag(CommandLine, Text, ("disable_tables", "", ""), "Tables that do not exist."),
    flag(CommandLine, Text, ("enable_tables", "", ""), "The only tables that exist."),
    flag(ByOptions, Bool, ("verbose", "false", ""), "Status lines of all severities."),
    flag(CommandLine, Bool, ("tls_secret_always", "false", ""), "The enroll secret in every URL."),
    flag(CommandLine, Text, ("tls_enroll_override", "enroll_secret", ""), "What the enroll secret is called in requests."),
    flag(CommandLine, Bool, ("tls_node_api", "false", ""), "URLs with the node key."),
    flag(CommandLine, Bool, ("tls_dump", "false", ""), "Print requests and answers."),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    #[test]
    fn each_flag_stands_once_with_a_default_of_its_kind() {
        let names: BTreeSet<&str> = FLAGS.iter().map(|flag| flag.name).collect();
        assert_eq!(names.len(), FLAGS.len());
        for flag in FLAGS {
            let fits = match flag.kind {
                Bool => matches!(flag.default, "true" | "false"),
                Number => flag.default.parse::<u64>().is_ok(),
                Text => true,
            };
            assert!(fits && !flag.meaning.is_empty(), "{}", flag.name);
            if let Some(value) = flag.reset_value() {
                assert_eq!(flag.check(&value), Ok(()), "{}", flag.name);
            }
        }
    }

    #[test]
    fn only_what_options_can_set_is_reset_by_them() {
        let reset = |name| find(name).and_then(Flag::reset_value);
        assert_eq!(reset("logger_tls_period"), Some(json!(4)));
        assert_eq!(reset("logger_event_type"), Some(json!(true)));
        assert_eq!(reset("pack_delimiter"), Some(json!("_")));
        assert_eq!(reset("config_refresh"), None, "command line only");
        assert_eq!(reset("logger_tls_endpoint"), None, "empty text is skipped");
        assert_eq!(reset("unheard_of"), None);
    }

    #[test]
    fn a_value_of_another_kind_is_refused() {
        let check = |name, value| find(name).unwrap().check(&value).is_ok();
        assert!(check("logger_tls_period", json!("10")) && check("logger_tls_period", json!(10)));
        assert!(
            !check("logger_tls_period", json!("often")) && !check("logger_tls_period", json!(true))
        );
        assert!(
            check("logger_event_type", json!("false")) && !check("logger_event_type", json!("no"))
        );
        assert!(check("distributed_plugin", json!("tls")));
    }
}

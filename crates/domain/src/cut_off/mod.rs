//! The cut-off guard: which changed options could sever contact with nodes, or silence them, and must be confirmed before they are
//! saved. Nothing is forbidden here; the manager asks.
//!
//! What a flag is, and whether a config may set it, stands in [`flags`]. Flags of the command line were taken from a config, too,
//! before osquery 5.4 (`osquery/config/parsers/options.cpp`).

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::node::NodeFacts;
use crate::node_config::flags::{self, Settable};
use crate::osquery::OsqueryVersion;
use crate::osquery::aliases::Aliases;
use crate::osquery::endpoint::Endpoint;
use crate::rollout::{Kinds, Move};

/// How sure a person must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Care {
    /// It is to be confirmed.
    Confirm,
    /// It would sever contact, and may be hard to mend from here: to be confirmed by typing.
    Type,
}

/// A change of an option that could sever contact.
#[derive(Debug, Clone, PartialEq)]
pub struct Danger {
    /// The flag.
    pub option: String,
    /// What these nodes are sent now; none: nothing, they use their flag file or osquery's default.
    pub old: Option<Value>,
    /// What they would be sent.
    pub new: Value,
    /// How many nodes.
    pub nodes: usize,
    /// What would happen, a sentence.
    pub consequence: &'static str,
    /// How sure a person must be.
    pub care: Care,
}

/// Which values of a flag are dangerous.
#[derive(Debug, Clone, Copy)]
enum Risk {
    /// Any change.
    Any,
    /// A path by which we do not answer as this endpoint. Another endpoint's answer could be taken for an acknowledgement.
    LeadsElsewhere(Endpoint),
    /// That truth value.
    Is(bool),
    /// Numbers outside of these bounds.
    Outside(i64, i64),
    /// Texts without this word.
    Without(&'static str),
}

/// One line a flag: name, risk, care, consequence. What a flag is otherwise stands in [`flags`].
const FLAGS: &[(&str, Risk, Care, &str)] = &[
    (
        "config_refresh",
        Risk::Outside(10, 3600),
        Care::Type,
        "With 0 a node never asks for a config again until it is restarted; above an hour every later change comes late, below ten \
         seconds it floods the server.",
    ),
    (
        "config_tls_refresh",
        Risk::Outside(10, 3600),
        Care::Type,
        "It is the old name of config_refresh: with 0 a node never asks for a config again until it is restarted.",
    ),
    (
        "config_accelerated_refresh",
        Risk::Outside(10, 3600),
        Care::Confirm,
        "After a failure a node waits this long before it asks for its config again.",
    ),
    (
        "config_tls_max_attempts",
        Risk::Outside(1, 10),
        Care::Confirm,
        "A node without attempts does not fetch its config.",
    ),
    (
        "config_plugin",
        Risk::Without("tls"),
        Care::Type,
        "Nodes would take their config from elsewhere and could not be told anything from here any more.",
    ),
    (
        "config_tls_endpoint",
        Risk::LeadsElsewhere(Endpoint::Config),
        Care::Type,
        "Nodes would ask for their config where this server does not answer with it, and could not be told anything any more.",
    ),
    (
        "enroll_tls_endpoint",
        Risk::LeadsElsewhere(Endpoint::Enroll),
        Care::Type,
        "Nodes could not enroll again after they lose their key.",
    ),
    (
        "tls_hostname",
        Risk::Any,
        Care::Type,
        "Nodes would turn to another server.",
    ),
    (
        "tls_server_certs",
        Risk::Any,
        Care::Type,
        "Nodes that do not trust this server's certificate any more cannot be reached.",
    ),
    (
        "tls_client_cert",
        Risk::Any,
        Care::Type,
        "Nodes without the right certificate may be turned away.",
    ),
    (
        "tls_client_key",
        Risk::Any,
        Care::Type,
        "Nodes without the right certificate may be turned away.",
    ),
    (
        "proxy_hostname",
        Risk::Any,
        Care::Type,
        "Nodes would reach this server only through that proxy.",
    ),
    (
        "disable_enrollment",
        Risk::Is(true),
        Care::Type,
        "Nodes would never enroll again, and those without a key stay turned away.",
    ),
    (
        "disable_reenrollment",
        Risk::Is(true),
        Care::Type,
        "A node whose key is revoked stays turned away until it is restarted.",
    ),
    (
        "tls_enroll_max_attempts",
        Risk::Outside(0, 0),
        Care::Confirm,
        "A node that cannot enroll within these attempts gives up; 0 means that it tries for ever.",
    ),
    (
        "host_identifier",
        Risk::Any,
        Care::Confirm,
        "Results carry another identifier from then on; enrollment happens before the config is read, so it belongs into the flag \
         file.",
    ),
    (
        "specified_identifier",
        Risk::Any,
        Care::Confirm,
        "Every node of this target would name itself alike in its results.",
    ),
    (
        "logger_plugin",
        Risk::Without("tls"),
        Care::Type,
        "Nodes would log elsewhere: no results, no findings, and they count as silent.",
    ),
    (
        "logger_tls_endpoint",
        Risk::LeadsElsewhere(Endpoint::Log),
        Care::Type,
        "Nodes would post their results where this server does not take them: no results, no findings, until another value is sent.",
    ),
    (
        "carver_start_endpoint",
        Risk::LeadsElsewhere(Endpoint::CarveStart),
        Care::Confirm,
        "Nodes would begin carves where this server does not take them.",
    ),
    (
        "carver_continue_endpoint",
        Risk::LeadsElsewhere(Endpoint::CarveContinue),
        Care::Confirm,
        "Nodes would post blocks of carves where this server does not take them.",
    ),
    (
        "logger_tls_period",
        Risk::Outside(1, 600),
        Care::Confirm,
        "Results come only this often; above ten minutes findings and health come late.",
    ),
    (
        "logger_tls_max_lines",
        Risk::Outside(1, 100_000),
        Care::Confirm,
        "With 0 lines in a post nothing is sent.",
    ),
    (
        "logger_tls_max_linesize",
        Risk::Outside(65_536, 8_388_608),
        Care::Confirm,
        "Longer lines are dropped by the node, and large snapshots with them.",
    ),
    (
        "logger_tls_max",
        Risk::Outside(65_536, 8_388_608),
        Care::Confirm,
        "It is the old name of logger_tls_max_linesize: longer lines are dropped by the node.",
    ),
    (
        "logger_tls_backoff_max",
        Risk::Outside(0, 3600),
        Care::Confirm,
        "After failures a node waits up to this long before it posts again.",
    ),
    (
        "buffered_log_max",
        Risk::Outside(10_000, 100_000_000),
        Care::Confirm,
        "Lines beyond it are thrown away while the server cannot be reached; 0 keeps all and may fill the disk.",
    ),
    (
        "logger_min_status",
        Risk::Outside(0, 1),
        Care::Confirm,
        "Warnings and errors of osqueryd would no longer arrive, nor halt a roll-out.",
    ),
    (
        "tls_disable_status_log",
        Risk::Is(true),
        Care::Confirm,
        "Nodes throw their status logs away: errors and denylisted queries are no longer seen.",
    ),
    (
        "disable_distributed",
        Risk::Is(true),
        Care::Confirm,
        "After their next restart nodes do not answer live queries.",
    ),
    (
        "distributed_plugin",
        Risk::Without("tls"),
        Care::Confirm,
        "After their next restart nodes do not answer live queries from here.",
    ),
    (
        "distributed_interval",
        Risk::Outside(5, 600),
        Care::Confirm,
        "Nodes ask for live queries only this often; below five seconds it floods the server.",
    ),
    (
        "distributed_tls_max_attempts",
        Risk::Outside(1, 10),
        Care::Confirm,
        "A node without attempts loses the results of live queries.",
    ),
    (
        "distributed_tls_read_endpoint",
        Risk::LeadsElsewhere(Endpoint::DistributedRead),
        Care::Type,
        "After their next restart nodes ask for live queries where this server does not hand them out.",
    ),
    (
        "distributed_tls_write_endpoint",
        Risk::LeadsElsewhere(Endpoint::DistributedWrite),
        Care::Type,
        "After their next restart nodes post results of live queries where this server does not take them.",
    ),
    (
        "disable_events",
        Risk::Is(true),
        Care::Confirm,
        "After their next restart nodes record no events: queries on evented tables find nothing.",
    ),
    (
        "events_expiry",
        Risk::Outside(60, 604_800),
        Care::Confirm,
        "Events that are older are thrown away before a query has read them.",
    ),
    (
        "events_max",
        Risk::Outside(1000, 10_000_000),
        Care::Confirm,
        "Events beyond this number are thrown away before a query has read them.",
    ),
    (
        "schedule_default_interval",
        Risk::Outside(10, 86_400),
        Care::Confirm,
        "Queries without an interval run this often.",
    ),
    (
        "pack_refresh_interval",
        Risk::Outside(60, 86_400),
        Care::Confirm,
        "Discovery queries are asked only this often.",
    ),
    (
        "disable_watchdog",
        Risk::Is(true),
        Care::Confirm,
        "Nothing stops a query that takes all of a machine.",
    ),
];

/// What of a change could sever contact. Nodes of one old and one new value count together.
#[must_use]
pub fn dangers<'a>(moves: impl IntoIterator<Item = Move<'a>>, aliases: &Aliases) -> Vec<Danger> {
    let mut found: BTreeMap<(&str, String, String), Danger> = BTreeMap::new();
    for (each, count) in alike(moves) {
        let old = each.before.options_of(each.was);
        let new = each.after.options_of(each.becomes);
        let coming = each.coming.map(|parts| parts.options_of(each.was));
        for (name, risk, care, consequence) in FLAGS {
            let Some(value) = new.get(*name) else {
                continue;
            };
            let known = old.get(*name);
            if known == Some(value) || !risk.applies(value, aliases) {
                continue;
            }
            // It was confirmed when the roll-out that brings it began.
            if coming.as_ref().and_then(|coming| coming.get(*name)) == Some(value) {
                continue;
            }
            // From 5.4 on osqueryd ignores it, and says so.
            if is_of_command_line(name) && is_at_least_5_4(each.becomes) {
                continue;
            }
            let key = (
                *name,
                known.map(ToString::to_string).unwrap_or_default(),
                value.to_string(),
            );
            let danger = found.entry(key).or_insert_with(|| Danger {
                option: (*name).to_owned(),
                old: known.cloned(),
                new: value.clone(),
                nodes: 0,
                consequence,
                care: *care,
            });
            danger.nodes += count;
        }
    }
    found.into_values().collect()
}

/// One node of each kind that gets the same options before and after, and how many there are.
fn alike<'a>(moves: impl IntoIterator<Item = Move<'a>>) -> Vec<(Move<'a>, usize)> {
    let mut kinds: HashMap<_, (Move<'a>, usize)> = HashMap::new();
    let mut documents = Kinds::default();
    for each in moves {
        let kind = (
            documents.of(&each),
            each.before.heeds(each.was),
            each.after.heeds(each.becomes),
            each.coming.map(|parts| parts.heeds(each.was)),
            is_at_least_5_4(each.becomes),
        );
        kinds.entry(kind).or_insert((each, 0)).1 += 1;
    }
    kinds.into_values().collect()
}

fn is_of_command_line(name: &str) -> bool {
    flags::find(name).is_some_and(|flag| flag.settable == Settable::CommandLine)
}

/// A node that does not say its version may be an old one.
fn is_at_least_5_4(node: &NodeFacts) -> bool {
    node.osquery_version
        .parse::<OsqueryVersion>()
        .is_ok_and(|version| version >= OsqueryVersion::new(5, 4, 0))
}

impl Risk {
    fn applies(self, value: &Value, aliases: &Aliases) -> bool {
        let text = match value {
            Value::String(text) => text.trim().to_owned(),
            other => other.to_string(),
        };
        match self {
            Self::Any => true,
            Self::LeadsElsewhere(endpoint) => !aliases.lead_to(&text, endpoint),
            // As osquery reads flags (gflags): these words and numbers are true.
            Self::Is(wanted) => {
                let is_true =
                    ["true", "t", "1", "yes", "y"].contains(&text.to_ascii_lowercase().as_str());
                is_true == wanted
            }
            Self::Outside(least, most) => text
                .parse::<i64>()
                .map_or(true, |number| number < least || number > most),
            Self::Without(word) => !text.split(',').any(|each| each.trim() == word),
        }
    }
}

#[cfg(test)]
mod tests;

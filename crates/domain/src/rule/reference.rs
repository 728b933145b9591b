//! The condition engine against a slow, obvious reference: it walks the JSON itself, knows no index, no compilation and no order of
//! cost, and shares no code with the engine (the two libraries for patterns and times aside).

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::LazyLock;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::*;
use crate::finding::Severity;
use crate::ids::RuleId;
use crate::log::Action;
use crate::node::NodeFacts;
use crate::osquery::Columns;

/// Everything that a rule may look at.
#[derive(Debug, Clone)]
struct World {
    query_name: String,
    action: Action,
    at: DateTime<Utc>,
    row: Vec<(String, String)>,
    facts: NodeFacts,
    vitals: Map<String, Value>,
}

fn reference(rule: &Value, world: &World) -> bool {
    if let Some(parts) = rule["rules"].as_array() {
        let outcomes: Vec<bool> = parts.iter().map(|part| reference(part, world)).collect();
        let held = if rule["condition"] == "AND" {
            !outcomes.contains(&false)
        } else {
            outcomes.contains(&true)
        };
        return held != (rule["not"] == true);
    }
    let operator = rule["operator"].as_str().unwrap();
    let operator = operator.strip_prefix("column_").unwrap_or(operator);
    let (positive, negated) = match operator {
        "is_not_empty" => ("is_empty", true),
        other => other
            .strip_prefix("not_")
            .map_or((other, false), |positive| (positive, true)),
    };
    let value = &rule["value"];
    let say = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let list = |value: &Value| match value {
        Value::Array(values) => values.iter().map(say).collect(),
        Value::Null => vec![String::new()],
        other => vec![say(other)],
    };
    let field = rule["field"].as_str().unwrap();
    let known = |text: &str| (!text.is_empty()).then(|| text.to_lowercase());
    let (actual, expected) = match field {
        "column" => {
            let name = value[0].as_str().unwrap();
            let found = world.row.iter().find(|(column, _)| column == name);
            (found.map(|(_, text)| text.clone()), list(&value[1]))
        }
        "vital" => {
            let (query, column) = value[0].as_str().unwrap().split_once('.').unwrap();
            let found = world.vitals.get(query).and_then(|row| row[column].as_str());
            (
                found.filter(|text| !text.is_empty()).map(ToOwned::to_owned),
                list(&value[1]),
            )
        }
        "query_name" => (Some(world.query_name.clone()), list(value)),
        "action" => (Some(world.action.as_str().to_owned()), list(value)),
        "timestamp" => (Some(world.at.timestamp().to_string()), list(value)),
        "osquery_version" => {
            let version = &world.facts.osquery_version;
            (
                Some(version.clone()).filter(|text| !text.is_empty()),
                list(value),
            )
        }
        "platform" => (known(&world.facts.platform), lower(&list(value))),
        "host_name" => (known(&world.facts.hostname), lower(&list(value))),
        "host_identifier" => (known(&world.facts.host_identifier), lower(&list(value))),
        "target" => {
            let wanted = value.as_str().unwrap();
            let chosen = match wanted.strip_prefix("not ") {
                Some(tag) => !world.facts.tags.iter().any(|own| own == tag),
                None => world.facts.tags.iter().any(|own| own == wanted),
            };
            return chosen != negated;
        }
        "tag" => {
            let tags = &world.facts.tags;
            let any = if positive == "is_empty" {
                tags.is_empty()
            } else {
                let expected = lower(&list(value));
                tags.iter().any(|tag| {
                    compares(positive, &tag.to_lowercase(), &expected, world.at) == Some(true)
                })
            };
            return any != negated;
        }
        other => panic!("{other}"),
    };
    match actual.and_then(|actual| compares(positive, &actual, &expected, world.at)) {
        Some(held) => held != negated,
        None => false,
    }
}

fn lower(texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| text.to_lowercase()).collect()
}

/// Whether two values compare so; `None` if they do not compare at all.
fn compares(operator: &str, actual: &str, expected: &[String], at: DateTime<Utc>) -> Option<bool> {
    let first = expected[0].as_str();
    Some(match operator {
        "equal" => same(actual, first),
        "in" => expected.iter().any(|one| same(actual, one)),
        "begins_with" => actual.starts_with(first),
        "ends_with" => actual.ends_with(first),
        "contains" => actual.contains(first),
        "is_empty" => actual.is_empty(),
        "less" => in_order(actual, first) == Some(Ordering::Less),
        "greater" => in_order(actual, first) == Some(Ordering::Greater),
        "less_or_equal" => matches!(
            in_order(actual, first),
            Some(Ordering::Less | Ordering::Equal)
        ),
        "greater_or_equal" => {
            matches!(
                in_order(actual, first),
                Some(Ordering::Greater | Ordering::Equal)
            )
        }
        "matches_regex" => {
            let found = regex::Regex::new(first)
                .unwrap()
                .find(actual)
                .map(|found| found.start());
            found == Some(0)
        }
        "in_network" => {
            let actual = bits(actual)?;
            expected.iter().any(|network| {
                let (base, length) = network.split_once('/').unwrap_or((network, ""));
                let base = bits(base).unwrap();
                let length = length.parse().unwrap_or(base.len());
                base.len() == actual.len() && base[..length] == actual[..length]
            })
        }
        "version_equal"
        | "version_less"
        | "version_greater"
        | "version_less_or_equal"
        | "version_greater_or_equal" => {
            let (mut actual, mut expected) = (numbers(actual)?, numbers(first)?);
            let most = actual.len().max(expected.len());
            actual.resize(most, 0);
            expected.resize(most, 0);
            match operator {
                "version_equal" => actual == expected,
                "version_less" => actual < expected,
                "version_greater" => actual > expected,
                "version_less_or_equal" => actual <= expected,
                _ => actual >= expected,
            }
        }
        "before" => moment(actual, None)? < moment(first, Some(at))?,
        "after" => moment(actual, None)? > moment(first, Some(at))?,
        other => panic!("{other}"),
    })
}

/// Numbers as doorman had them, by the book: digits, at most one dot, a minus. The generator keeps them small.
fn number(text: &str) -> Option<f64> {
    static LOOKS: LazyLock<regex::Regex> =
        LazyLock::new(|| regex::Regex::new(r"^-?([0-9]+\.?[0-9]*|\.[0-9]+)$").unwrap());
    LOOKS.is_match(text).then(|| text.parse().unwrap())
}

fn same(one: &str, other: &str) -> bool {
    match (number(one), number(other)) {
        (Some(one), Some(other)) => one == other,
        (None, None) => one == other,
        _ => false,
    }
}

fn in_order(one: &str, other: &str) -> Option<Ordering> {
    match (number(one), number(other)) {
        (Some(one), Some(other)) => one.partial_cmp(&other),
        (None, None) => Some(one.cmp(other)),
        _ => None,
    }
}

/// An address as ones and zeros.
fn bits(text: &str) -> Option<Vec<bool>> {
    let octets = match text.split('%').next()?.parse().ok()? {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => address.octets().to_vec(),
            None => address.octets().to_vec(),
        },
    };
    let of_octet = |octet: &u8| {
        (0..8)
            .rev()
            .map(|bit| octet >> bit & 1 == 1)
            .collect::<Vec<_>>()
    };
    Some(octets.iter().flat_map(of_octet).collect())
}

/// The generator's versions are numbers and dots.
fn numbers(text: &str) -> Option<Vec<u64>> {
    let text = text.strip_prefix('v').unwrap_or(text);
    text.starts_with(|c: char| c.is_ascii_digit()).then(|| {
        let parts = text.split(|c: char| !c.is_ascii_digit());
        parts.map(|part| part.parse().unwrap_or(0)).collect()
    })
}

/// A date in seconds; a span only where there is an event.
fn moment(text: &str, event: Option<DateTime<Utc>>) -> Option<i64> {
    if let Some(event) = event
        && let Some(days) = text.strip_suffix('d')
    {
        return Some((event + TimeDelta::days(days.parse().unwrap())).timestamp());
    }
    if let Ok(day) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Some(day.and_hms_opt(0, 0, 0).unwrap().and_utc().timestamp());
    }
    number(text)
        .filter(|seconds| *seconds >= 0.0)
        .map(|seconds| {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the generator keeps them small"
            )]
            let whole = seconds as i64;
            whole
        })
}

const AT: i64 = 1_795_219_200;

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec!["a", "b", "ab", "B", "", "/tmp/a"]),
        3 => prop::sample::select(vec!["1", "01", "1.0", "2", "-1", "10", ".5", "1.5"]),
        2 => prop::sample::select(vec!["10.0.0.1", "192.168.7.9", "::1", "::ffff:10.9.9.9", "fe80::1%en0"]),
        2 => prop::sample::select(vec!["1.2.3", "v1.2", "1.10", "5.9.1"]),
        2 => prop::sample::select(vec!["2026-11-20", "2026-11-25", "2026-12-01", "1795219200", "1795219201"]),
    ]
    .prop_map(ToOwned::to_owned)
}

/// An operator with a value that it can use.
fn operator() -> impl Strategy<Value = (String, Value)> {
    let plain = prop::sample::select(vec![
        "equal",
        "equal",
        "equal",
        "not_equal",
        "begins_with",
        "not_begins_with",
        "ends_with",
        "not_ends_with",
        "contains",
        "not_contains",
        "is_empty",
        "is_not_empty",
        "less",
        "less_or_equal",
        "greater",
        "greater_or_equal",
    ]);
    let one_of = |names: &[&'static str]| prop::sample::select(names.to_vec());
    prop_oneof![
        6 => (plain, word()).prop_map(|(name, word)| (name.to_owned(), json!(word))),
        2 => (one_of(&["in", "not_in"]), prop::collection::vec(word(), 1..4))
            .prop_map(|(name, words)| (name.to_owned(), json!(words))),
        1 => (one_of(&["matches_regex", "not_matches_regex"]), one_of(&["a", "^a|b", "[0-9]+$", ".*b", "(?i)AB", ""]))
            .prop_map(|(name, pattern)| (name.to_owned(), json!(pattern))),
        1 => (one_of(&["in_network", "not_in_network"]), prop::collection::vec(one_of(&["10.0.0.0/8", "192.168.0.0/21", "::1", "fe80::/10", "0.0.0.0/0"]), 1..3))
            .prop_map(|(name, networks)| (name.to_owned(), json!(networks))),
        1 => (one_of(&["version_equal", "version_less", "version_less_or_equal", "version_greater", "version_greater_or_equal"]), one_of(&["1.2", "1.2.3", "1.10.0", "2"]))
            .prop_map(|(name, version)| (name.to_owned(), json!(version))),
        1 => (one_of(&["before", "after"]), one_of(&["2026-11-25", "+3d", "-1d", "1795219200"]))
            .prop_map(|(name, date)| (name.to_owned(), json!(date))),
    ]
}

fn test_of() -> impl Strategy<Value = Value> {
    let column = prop::sample::select(vec!["x", "y", "missing"]);
    let vital = prop::sample::select(vec![
        "os_version.name",
        "system_info.nothing",
        "uptime.days",
    ]);
    let field = prop::sample::select(vec![
        "query_name",
        "action",
        "timestamp",
        "platform",
        "host_name",
        "host_identifier",
        "tag",
        "osquery_version",
    ]);
    let test = |field: &str, operator: &str, value: Value| json!({"field": field, "operator": operator, "value": value});
    prop_oneof![
        6 => (column, operator()).prop_map(move |(column, (operator, value))| test("column", &format!("column_{operator}"), json!([column, value]))),
        1 => (vital, operator()).prop_map(move |(vital, (operator, value))| test("vital", &operator, json!([vital, value]))),
        2 => (field, operator()).prop_map(move |(field, (operator, value))| test(field, &operator, value)),
        // A number equals other spellings of itself, so its text is no name to look rules up by.
        2 => prop::sample::select(vec!["q1", "q2", "01"]).prop_map(move |name| test("query_name", "equal", json!(name))),
        1 => prop::sample::select(vec!["added", "removed"]).prop_map(move |action| test("action", "equal", json!(action))),
        1 => (prop::sample::select(vec!["fits", "not_fits"]), prop::sample::select(vec!["a", "b", "not a"]))
            .prop_map(move |(operator, target)| test("target", operator, json!(target))),
    ]
}

fn group() -> impl Strategy<Value = Value> {
    let parts = test_of().prop_recursive(3, 12, 4, |inner| group_of(inner).boxed());
    group_of(parts)
}

fn group_of(part: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    (prop::bool::ANY, prop::bool::weighted(0.2), prop::collection::vec(part, 1..4)).prop_map(
        |(all, not, rules)| {
            json!({"condition": if all { "AND" } else { "OR" }, "not": not, "rules": rules})
        },
    )
}

fn world() -> impl Strategy<Value = World> {
    let columns = (
        prop::option::weighted(0.9, word()),
        prop::option::weighted(0.7, word()),
    );
    let action = prop::sample::select(vec![Action::Added, Action::Removed, Action::Snapshot]);
    let tags = prop::sample::subsequence(vec!["a".to_owned(), "b".into(), "1".into()], 0..=3);
    let node = (
        word(),
        word(),
        prop::sample::select(vec!["linux", "b", ""]),
        tags,
        word(),
    );
    (
        prop::sample::select(vec!["q1", "q2", "1"]),
        action,
        columns,
        node,
        -2_i64..3,
    )
        .prop_map(
            |(query, action, (x, y), (hostname, identifier, platform, tags, vital), days)| World {
                query_name: query.to_owned(),
                action,
                at: DateTime::from_timestamp(AT, 0).unwrap() + TimeDelta::days(days),
                row: [("x", x), ("y", y)]
                    .into_iter()
                    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
                    .collect(),
                facts: NodeFacts {
                    host_identifier: identifier,
                    hostname,
                    name: String::new(),
                    platform: platform.to_owned(),
                    osquery_version: "5.9.1".to_owned(),
                    tags,
                },
                vitals: json!({"os_version": {"name": vital}, "uptime": {"days": "10"}})
                    .as_object()
                    .unwrap()
                    .clone(),
            },
        )
}

fn definition(place: usize, conditions: Value) -> RuleDefinition {
    RuleDefinition {
        id: RuleId(Uuid::from_u128(place as u128)),
        name: String::new(),
        conditions,
        severity: Severity::Info,
        scope: String::new(),
        entity_columns: Vec::new(),
        watch: Watch::Drift,
        on_baseline: false,
        max_age: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_matches_what_the_reference_matches(
        rules in prop::collection::vec(group(), 1..8),
        worlds in prop::collection::vec(world(), 1..5),
    ) {
        let (set, broken) = RuleSet::compile(rules.iter().cloned().enumerate().map(|(place, rule)| definition(place, rule)));
        prop_assert!(broken.is_empty(), "{:?}", broken);
        for world in &worlds {
            let columns = Columns::new(world.row.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            let event = EventView {
                action: world.action, columns: &columns, occurred_at: world.at, received_at: world.at, is_baseline: false,
            };
            let node = NodeView { facts: &world.facts, vitals: Some(&world.vitals), host_details: None };
            let mut matched: Vec<u128> = set.evaluate(&world.query_name, &event, node)
                .iter().map(|found| found.rule.definition.id.0.as_u128()).collect();
            matched.sort_unstable();
            let expected: Vec<u128> = rules.iter().enumerate()
                .filter(|(_, rule)| reference(rule, world)).map(|(place, _)| place as u128).collect();
            prop_assert_eq!(matched, expected, "{:?}", world);
        }
    }
}

#[test]
fn what_is_generated_matches_often_enough_to_prove_something() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut matched, all) = (0, 1_000);
    for _ in 0..all {
        let rule = group().new_tree(&mut runner).unwrap().current();
        let world = world().new_tree(&mut runner).unwrap().current();
        matched += usize::from(reference(&rule, &world));
    }
    assert!(
        (all / 10..all * 9 / 10).contains(&matched),
        "{matched} of {all}"
    );
}

/// The field and the operator of each test of a rule.
fn asked(rule: &Value, fields: &mut BTreeSet<String>, operators: &mut BTreeSet<String>) {
    if let Some(parts) = rule["rules"].as_array() {
        for part in parts {
            asked(part, fields, operators);
        }
        return;
    }
    let operator = rule["operator"].as_str().unwrap();
    fields.insert(rule["field"].as_str().unwrap().to_owned());
    operators.insert(operator.trim_start_matches(COLUMN_PREFIX).to_owned());
}

/// A new operator or field has to be told to the reference.
#[test]
fn every_operator_and_every_field_is_generated() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut fields, mut operators) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..2_000 {
        let rule = group().new_tree(&mut runner).unwrap().current();
        asked(&rule, &mut fields, &mut operators);
    }
    let all = |names: &[&str]| -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    };
    assert_eq!(operators, all(&OPERATORS.each_ref().map(|one| one.name)));
    assert_eq!(fields, all(&FIELDS.each_ref().map(|one| one.name)));
}

//! Rules from JSON to matches.

use chrono::{DateTime, TimeDelta};
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::finding::Severity;
use crate::ids::RuleId;
use crate::log::Action;
use crate::node::NodeFacts;
use crate::osquery::Columns;

fn definition(number: u128, conditions: Value) -> RuleDefinition {
    RuleDefinition {
        id: RuleId(Uuid::from_u128(number)),
        name: format!("rule {number}"),
        conditions,
        severity: Severity::Medium,
        scope: String::new(),
        entity_columns: Vec::new(),
        watch: Watch::Drift,
        on_baseline: false,
        max_age: None,
    }
}

fn leaf(field: &str, operator: &str, value: impl Into<Value>) -> Value {
    json!({"id": field, "field": field, "type": "string", "input": "text", "operator": operator, "value": value.into()})
}

fn column(operator: &str, column: &str, expected: impl Into<Value>) -> Value {
    leaf("column", operator, json!([column, expected.into()]))
}

fn all(rules: Vec<Value>) -> Value {
    json!({"condition": "AND", "rules": Value::Array(rules), "valid": true})
}

fn node() -> NodeFacts {
    NodeFacts {
        host_identifier: "4C4C-01".into(),
        hostname: "web-1".into(),
        name: "web-1".into(),
        platform: "linux".into(),
        osquery_version: "5.23.1".into(),
        tags: vec!["prod".into(), "web".into()],
    }
}

const NOW: i64 = 1_786_096_805;

fn event<'a>(columns: &'a Columns<'a>) -> EventView<'a> {
    let at = DateTime::from_timestamp(NOW, 0).unwrap();
    EventView {
        action: Action::Added,
        columns,
        occurred_at: at,
        received_at: at,
        is_baseline: false,
    }
}

fn row() -> Columns<'static> {
    Columns::new([("path", "/usr/bin/nc"), ("port", "4444"), ("empty", "")])
}

fn matches_on(
    node: &NodeFacts,
    definition: RuleDefinition,
    change: impl Fn(&mut EventView<'_>),
) -> bool {
    let (set, broken) = RuleSet::compile([definition]);
    assert!(broken.is_empty(), "{broken:?}");
    let row = row();
    let mut event = event(&row);
    change(&mut event);
    !set.evaluate("pack/net/ports", &event, NodeView::of(node))
        .is_empty()
}

fn holds(conditions: Value) -> bool {
    matches_on(&node(), definition(1, conditions), |_| {})
}

fn error(conditions: &Value) -> String {
    parse(conditions).unwrap_err().to_string()
}

#[test]
fn groups_combine_and_invert() {
    let yes = || column("column_equal", "port", json!(4444));
    let no = || column("column_equal", "port", json!("22"));
    assert!(holds(all(vec![yes(), yes()])));
    assert!(!holds(all(vec![yes(), no()])));
    assert!(holds(json!({"condition": "OR", "rules": [no(), yes()]})));
    assert!(!holds(json!({"condition": "OR", "rules": [no(), no()]})));
    assert!(holds(
        json!({"condition": "AND", "not": true, "rules": [yes(), no()]})
    ));
    assert!(holds(all(vec![
        yes(),
        json!({"condition": "OR", "not": true, "rules": [no()]})
    ])));
    assert!(!holds(all(vec![
        json!({"condition": "OR", "not": true, "rules": [yes()]})
    ])));
}

#[test]
fn every_operator_exists_for_columns_and_a_missing_column_never_matches() {
    for operator in OPERATORS
        .iter()
        .filter(|one| one.comparison != Comparison::Target)
    {
        let expected = match operator.wants() {
            Wants::Networks => "10.0.0.0/8",
            Wants::Version | Wants::Date => "1",
            _ => "x",
        };
        let name = format!("{COLUMN_PREFIX}{}", operator.name);
        let on = |column_name: &str| all(vec![column(&name, column_name, json!(expected))]);
        assert!(!holds(on("missing")), "{name}");
        let (set, broken) = RuleSet::compile([definition(1, on("path"))]);
        assert_eq!((set.rules().len(), broken.len()), (1, 0), "{name}");
    }
    let not_missing = all(vec![column("column_equal", "missing", json!("x"))]);
    assert!(
        holds(json!({"condition": "AND", "not": true, "rules": [not_missing]})),
        "a group inverts the judgement"
    );
    assert!(holds(all(vec![leaf(
        "column",
        "column_is_empty",
        json!("empty")
    )])));
    assert!(holds(all(vec![leaf(
        "column",
        "column_is_not_empty",
        json!(["port"])
    )])));
}

#[test]
fn fields_of_the_event_and_of_its_node() {
    let cases = [
        ("query_name", "equal", json!("pack/net/ports"), true),
        ("query_name", "matches_regex", json!("pack/net/"), true),
        ("query_name", "equal", json!("ports"), false),
        ("action", "equal", json!("added"), true),
        ("action", "not_equal", json!("removed"), true),
        ("host_identifier", "begins_with", json!("4C4C"), true),
        ("node", "equal", json!("4C4C-01"), true),
        ("host_name", "equal", json!("web-1"), true),
        ("platform", "equal", json!("darwin"), false),
        ("platform", "not_equal", json!("darwin"), true),
        ("timestamp", "greater_or_equal", json!(NOW), true),
        ("timestamp", "less", json!(NOW.to_string()), false),
        ("tag", "equal", json!("prod"), true),
        ("tag", "not_equal", json!("prod"), false),
        ("tag", "not_equal", json!("lab"), true),
        ("tag", "begins_with", json!("we"), true),
        ("tag", "is_empty", json!(null), false),
        ("tag", "is_not_empty", json!(null), true),
        // As targets compare them.
        ("tag", "equal", json!("PROD"), true),
        ("tag", "not_equal", json!("Prod"), false),
        ("tag", "matches_regex", json!("P"), true),
        ("platform", "equal", json!("Linux"), true),
        ("host_name", "ends_with", json!("EB-1"), true),
        ("host_identifier", "begins_with", json!("4c4c"), true),
        ("action", "equal", json!("Added"), false),
    ];
    for (field, operator, value, expected) in cases {
        let case = format!("{field} {operator} {value}");
        assert_eq!(
            holds(all(vec![leaf(field, operator, value)])),
            expected,
            "{case}"
        );
    }
}

#[test]
fn what_is_not_known_of_a_node_matches_nothing_and_no_tags_are_no_tag() {
    let bare = NodeFacts::default();
    let on_bare = |field, operator, value: &str| {
        matches_on(
            &bare,
            definition(1, all(vec![leaf(field, operator, json!(value))])),
            |_| {},
        )
    };
    assert!(!on_bare("platform", "not_equal", "linux"));
    assert!(!on_bare("host_name", "is_empty", ""));
    assert!(on_bare("tag", "not_equal", "prod"));
    assert!(on_bare("tag", "is_empty", ""));
}

#[test]
fn errors_name_the_way_to_the_fault() {
    let nested = |leaf: Value| all(vec![leaf_ok(), json!({"condition": "OR", "rules": [leaf]})]);
    let cases = [
        (
            json!(7),
            "a group with \"condition\" and \"rules\" was expected",
        ),
        (
            leaf_ok(),
            "a group with \"condition\" and \"rules\" was expected",
        ),
        (all(vec![]), "a group contains no rules"),
        (
            json!({"condition": "XOR", "rules": [leaf_ok()]}),
            "unknown condition \"XOR\"",
        ),
        (
            json!({"condition": "AND", "not": "yes", "rules": [leaf_ok()]}),
            "\"not\" is neither true nor false",
        ),
        (
            nested(leaf("action", "x", json!(""))),
            "rules[1].rules[0]: unknown operator \"x\"",
        ),
        (
            nested(json!({"condition": "OR", "rules": []})),
            "rules[1].rules[0]: a group contains no rules",
        ),
        (
            nested(json!([])),
            "rules[1].rules[0]: a group or a test was expected",
        ),
        (
            nested(json!({"operator": "equal"})),
            "rules[1].rules[0]: \"field\" is missing or not a text",
        ),
        (
            nested(leaf("colour", "equal", json!("x"))),
            "rules[1].rules[0]: unknown field \"colour\"",
        ),
        (
            nested(leaf("action", "column_equal", json!("x"))),
            "rules[1].rules[0]: the operator \"column_equal\" does not go with the field \"action\"",
        ),
        (
            nested(leaf("action", "equal", json!(["x"]))),
            "rules[1].rules[0]: the value has to be a text or a number",
        ),
        (
            nested(leaf("column", "column_equal", json!("x"))),
            "rules[1].rules[0]: the value has to be a list of the column and what is expected of it",
        ),
    ];
    for (conditions, expected) in cases {
        assert_eq!(error(&conditions), expected);
    }
    assert!(
        error(&nested(leaf("action", "matches_regex", json!("("))))
            .starts_with("rules[1].rules[0]: the pattern is refused")
    );
    let deep = (0..100).fold(all(vec![leaf_ok()]), |inner, _| all(vec![inner]));
    assert!(error(&deep).ends_with("the groups are nested too deeply"));
}

fn leaf_ok() -> Value {
    leaf("action", "equal", json!("added"))
}

#[test]
fn one_bad_rule_stops_no_other() {
    let bad_scope = RuleDefinition {
        scope: "prod and".into(),
        ..definition(3, all(vec![leaf_ok()]))
    };
    let (set, broken) = RuleSet::compile([
        definition(
            1,
            all(vec![column("column_matches_regex", "path", json!("("))]),
        ),
        definition(2, all(vec![leaf_ok()])),
        bad_scope,
    ]);
    let row = row();
    let node = node();
    let matched = set.evaluate("q", &event(&row), NodeView::of(&node));
    assert_eq!(
        matched
            .iter()
            .map(|found| found.rule.definition.id.0.as_u128())
            .collect::<Vec<_>>(),
        [2]
    );
    let ids: Vec<u128> = broken.iter().map(|broken| broken.id.0.as_u128()).collect();
    assert_eq!(ids, [1, 3]);
    assert!(
        broken[1].reason.to_string().starts_with("scope: "),
        "{}",
        broken[1].reason
    );
}

#[test]
fn baseline_is_seen_only_on_demand_and_what_is_late_not_at_all() {
    let rule = || {
        definition(
            1,
            all(vec![leaf("query_name", "begins_with", json!("pack/"))]),
        )
    };
    let judge = |rule, change: &dyn Fn(&mut EventView<'_>)| matches_on(&node(), rule, change);
    let baseline = |event: &mut EventView<'_>| event.is_baseline = true;
    assert!(!judge(rule(), &baseline));
    assert!(judge(
        RuleDefinition {
            on_baseline: true,
            ..rule()
        },
        &baseline
    ));

    let old = |event: &mut EventView<'_>| event.occurred_at -= TimeDelta::seconds(61);
    let aging = || RuleDefinition {
        max_age: Some(TimeDelta::seconds(60)),
        ..rule()
    };
    assert!(judge(rule(), &old));
    assert!(!judge(aging(), &old));
    assert!(judge(aging(), &|event| event.occurred_at -=
        TimeDelta::seconds(60)));

    let scoped = |scope: &str| RuleDefinition {
        scope: scope.into(),
        ..rule()
    };
    assert!(!judge(scoped("lab or not platform:linux"), &|_| {}));
    assert!(judge(scoped("prod and platform:linux"), &|_| {}));
}

#[test]
fn only_rules_that_may_concern_a_query_become_candidates() {
    let on_query = |number: u128, name: &str| {
        definition(
            number,
            all(vec![
                leaf("query_name", "equal", json!(name)),
                column("column_equal", "port", json!(4444)),
            ]),
        )
    };
    let either = json!({"condition": "OR", "rules": [leaf("query_name", "equal", json!("a")), leaf("query_name", "equal", json!("b"))]});
    let mut definitions: Vec<RuleDefinition> = (0..100)
        .map(|number| on_query(number, &format!("q{number}")))
        .collect();
    definitions.push(definition(100, either));
    definitions.push(definition(
        101,
        all(vec![leaf("tag", "equal", json!("lab"))]),
    ));
    definitions.push(definition(
        102,
        all(vec![leaf("query_name", "equal", json!("007"))]),
    ));
    let (set, broken) = RuleSet::compile(definitions);
    assert!(broken.is_empty());

    let node = node();
    let (q7, b, seven) = (
        set.candidates("q7", NodeView::of(&node)),
        set.candidates("b", NodeView::of(&node)),
        set.candidates("7", NodeView::of(&node)),
    );
    let row = row();
    let ids = |candidates: &Candidates<'_>| {
        candidates
            .matches(&event(&row))
            .map(|found| found.rule.definition.id.0.as_u128())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (ids(&q7), ids(&b), ids(&seven)),
        (vec![7], vec![100], vec![102])
    );
    assert!(
        set.candidates("other", NodeView::of(&node)).is_empty(),
        "the node alone decides against the rule on tags"
    );
}

#[test]
fn rules_on_rarity_learn_what_was_there_and_forget_what_goes_and_others_do_neither() {
    let effects = |watch, change: fn(&mut EventView<'_>)| {
        let rule = RuleDefinition {
            watch,
            max_age: Some(TimeDelta::seconds(60)),
            ..definition(
                1,
                all(vec![
                    leaf("query_name", "equal", "q"),
                    leaf("action", "equal", "added"),
                ]),
            )
        };
        let (set, broken) = RuleSet::compile([rule]);
        assert!(broken.is_empty(), "{broken:?}");
        let row = row();
        let mut event = event(&row);
        change(&mut event);
        let facts = node();
        let found = set.evaluate("q", &event, NodeView::of(&facts));
        found.iter().map(|found| found.effect).collect::<Vec<_>>()
    };
    let baseline: fn(&mut EventView<'_>) = |event| event.is_baseline = true;
    let late: fn(&mut EventView<'_>) = |event| event.occurred_at -= TimeDelta::seconds(61);
    let gone: fn(&mut EventView<'_>) = |event| event.action = Action::Removed;
    let now: fn(&mut EventView<'_>) = |_| {};
    let rare = Watch::Rare { nodes: 2 };
    assert_eq!(effects(rare, now), [Effect::Counts]);
    assert_eq!(effects(rare, baseline), [Effect::Learns]);
    assert_eq!(effects(rare, late), [Effect::Learns]);
    assert_eq!(
        effects(rare, gone),
        [Effect::Forgets],
        "though it asks for added"
    );
    assert_eq!(effects(Watch::FirstSeen, baseline), [Effect::Learns]);
    for (watch, change) in [
        (Watch::FirstSeen, gone),
        (Watch::Present, gone),
        (Watch::Present, baseline),
        (Watch::Drift, late),
        (Watch::Absence, now),
    ] {
        assert_eq!(effects(watch, change), [], "{watch:?}");
    }
}

#[test]
fn a_rule_on_missing_rows_names_its_query() {
    let absence = |conditions| {
        Rule::compile(RuleDefinition {
            watch: Watch::Absence,
            ..definition(1, conditions)
        })
    };
    let named = all(vec![leaf("query_name", "in", json!(["b", "a"])), leaf_ok()]);
    assert_eq!(absence(named).unwrap().query_names(), Some(vec!["a", "b"]));
    let error = absence(all(vec![leaf_ok()])).unwrap_err().to_string();
    assert!(
        error.starts_with("a rule on missing rows has to name its query"),
        "{error}"
    );
}

#[test]
fn vitals_and_tag_expressions_are_asked_of_the_node() {
    let facts = node();
    let object = |value: Value| value.as_object().unwrap().clone();
    let vitals = object(json!({"system_info": {"hardware_model": "", "cpu_brand": "M3"}}));
    let details = object(json!({"system_info": {"hardware_model": "ThinkPad X1"}}));
    let view = NodeView {
        facts: &facts,
        vitals: Some(&vitals),
        host_details: Some(&details),
    };
    let holds = |conditions: Value| {
        let (set, broken) = RuleSet::compile([definition(1, all(vec![conditions]))]);
        assert!(broken.is_empty(), "{broken:?}");
        let row = row();
        !set.evaluate("q", &event(&row), view).is_empty()
    };
    let vital = |operator, name: &str, value: &str| leaf("vital", operator, json!([name, value]));
    assert!(holds(vital("equal", "system_info.cpu_brand", "M3")));
    assert!(holds(vital(
        "begins_with",
        "system_info.hardware_model",
        "ThinkPad"
    )));
    assert!(!holds(vital("not_equal", "system_info.missing", "x")));
    assert!(holds(leaf("target", "fits", "prod and not lab")));
    assert!(holds(leaf("target", "not_fits", "platform:darwin")));
    assert!(holds(leaf("osquery_version", "version_greater", "5.9")));
    assert_eq!(
        error(&all(vec![vital("equal", "hardware_model", "x")])),
        "rules[0]: the value has to be a list of the vital (\"system_info.hardware_model\") and what is expected of it"
    );
    assert_eq!(
        error(&all(vec![leaf("tag", "fits", "prod")])),
        "rules[0]: the operator \"fits\" does not go with the field \"tag\""
    );
}

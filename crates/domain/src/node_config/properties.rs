//! What holds for any parts.

use proptest::prelude::*;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::tests::{file_path, leftover, node, option, pack, query, section};
use super::*;
use crate::ids::OptionId;
use crate::node::NodeFacts;
use crate::target::TargetText;

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~é\"\\\\/]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-d]", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn target() -> impl Strategy<Value = TargetText> {
    prop::sample::select(vec![
        "",
        "prod",
        "lab or prod",
        "not lab",
        "platform:linux",
        "none",
    ])
    .prop_map(|text| TargetText::parse(text).unwrap())
}

fn extra() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::vec(("views|oncall|x|y|interval", json()), 0..3)
        .prop_map(|members| members.into_iter().collect())
}

fn some_query() -> impl Strategy<Value = Query> {
    (
        "[a-e/ .]{1,3}",
        target(),
        extra(),
        any::<(bool, bool, bool, Option<u8>)>(),
    )
        .prop_map(
            |(name, target, extra, (enabled, denylist, snapshot, shard))| Query {
                target,
                extra,
                enabled,
                denylist,
                snapshot,
                startup_priority: shard.map(i32::from),
                shard: shard.map(i16::from),
                ..query(&name, "")
            },
        )
}

fn some_pack() -> impl Strategy<Value = Pack> {
    (
        "[a-c]{1,2}",
        target(),
        extra(),
        prop::collection::vec(some_query(), 0..4),
    )
        .prop_map(|(name, target, extra, queries)| Pack {
            target,
            extra,
            discovery: vec!["SELECT 1".into()],
            ..pack(&name, "", unique(queries, |query| query.name.clone()))
        })
}

/// As the database would have it: names are unique.
fn unique<T>(things: Vec<T>, name: impl Fn(&T) -> String) -> Vec<T> {
    let mut seen = std::collections::HashSet::new();
    things
        .into_iter()
        .filter(|thing| seen.insert(name(thing)))
        .collect()
}

fn some_parts() -> impl Strategy<Value = Parts> {
    let paths = (
        "[a-d]",
        prop::collection::vec("[a-z/%]{1,5}", 0..3),
        target(),
        any::<bool>(),
    );
    let options = (
        "logger_tls_period|custom_x|verbose",
        json(),
        target(),
        -2..3,
    );
    let sections = ("views|yara|new_key", "[a-c]", json(), target(), -1..2);
    let leftovers = (any::<bool>(), "logger_tls_period|verbose|a|b", target());
    let moments = prop::sample::select(vec![
        DecoratorMoment::Load,
        DecoratorMoment::Always,
        DecoratorMoment::Interval(60),
    ]);
    (
        prop::collection::vec(some_pack(), 0..4),
        prop::collection::vec(some_query(), 0..4),
        prop::collection::vec(paths, 0..4),
        prop::collection::vec(("[a-d]", moments, target()), 0..4),
        prop::collection::vec(options, 0..5),
        prop::collection::vec(sections, 0..5),
        prop::collection::vec(leftovers, 0..4),
    )
        .prop_map(
            |(packs, queries, paths, decorators, options, sections, leftovers)| Parts {
                packs: unique(packs, |pack| pack.name.clone()),
                queries: unique(queries, |query| query.name.clone()),
                file_paths: unique(paths, |(category, ..)| category.clone())
                    .into_iter()
                    .map(|(category, exclude_globs, target, enabled)| FilePath {
                        exclude_globs,
                        target,
                        enabled,
                        ..file_path(&category, &[], "")
                    })
                    .collect(),
                decorators: unique(decorators, |(name, ..)| name.clone())
                    .into_iter()
                    .map(|(name, moment, target)| Decorator {
                        id: crate::ids::DecoratorId(Uuid::nil()),
                        sql: format!("SELECT '{name}' AS x"),
                        name,
                        moment,
                        target,
                        enabled: true,
                    })
                    .collect(),
                options: unique(options, |(name, _, target, _)| {
                    format!("{name} {}", target.as_str())
                })
                .into_iter()
                .enumerate()
                .map(|(index, (name, value, target, priority))| ConfigOption {
                    id: OptionId(Uuid::from_u128(index as u128)),
                    target,
                    ..option(&name, value, "", priority)
                })
                .collect(),
                sections: unique(sections, |(key, name, ..)| format!("{key} {name}"))
                    .into_iter()
                    .map(|(key, name, value, target, priority)| Section {
                        target,
                        ..section(&key, &name, value, priority, "")
                    })
                    .collect(),
                leftovers: unique(
                    leftovers
                        .into_iter()
                        .map(|(is_option, name, target)| Leftover {
                            target,
                            ..leftover(
                                if is_option {
                                    LeftoverKind::Option
                                } else {
                                    LeftoverKind::ExcludePaths
                                },
                                &name,
                                "",
                            )
                        })
                        .collect(),
                    |left| format!("{:?} {} {}", left.kind, left.name, left.target.as_str()),
                ),
            },
        )
}

fn nodes() -> Vec<NodeFacts> {
    let mut nodes = Vec::new();
    for tags in [&[][..], &["prod"], &["lab"], &["lab", "prod"]] {
        for version in ["", "4.9.0", "5.23.1"] {
            nodes.push(NodeFacts {
                osquery_version: version.into(),
                platform: "linux".into(),
                ..node(tags)
            });
        }
    }
    nodes
}

/// The members of all objects in another order.
fn turned(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(turned).collect(),
        Value::Object(members) => {
            let turned = members
                .iter()
                .rev()
                .map(|(name, value)| (name.clone(), turned(value)));
            Value::Object(turned.collect())
        }
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn a_snapshot_loses_nothing_and_order_means_nothing(parts in some_parts()) {
        let whole: Parts = serde_json::from_value(serde_json::to_value(&parts).unwrap()).unwrap();
        prop_assert_eq!(&whole, &parts);
        let sorted = parts.clone().sorted();
        let mut shuffled = parts;
        shuffled.packs.reverse();
        shuffled.packs.iter_mut().for_each(|pack| pack.queries.reverse());
        shuffled.queries.reverse();
        shuffled.file_paths.reverse();
        shuffled.decorators.reverse();
        shuffled.options.reverse();
        shuffled.sections.reverse();
        shuffled.leftovers.reverse();
        let text = turned(&serde_json::to_value(&shuffled).unwrap()).to_string();
        let shuffled = serde_json::from_str::<Parts>(&text).unwrap().sorted();
        prop_assert_eq!(serde_json::to_vec(&sorted).unwrap(), serde_json::to_vec(&shuffled).unwrap());
        let selector = sorted.selector();
        for node in nodes() {
            prop_assert_eq!(selector.select(&node), sorted.select(&node));
            let bytes = to_bytes(&sorted.assemble(&node));
            prop_assert_eq!(&bytes, &to_bytes(&shuffled.assemble(&node)));
            let parsed: Value = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(serde_json::to_vec(&parsed).unwrap(), bytes, "compact, no key twice");
        }
    }

    #[test]
    fn equal_selections_are_equal_documents_and_disabled_parts_are_in_none(parts in some_parts()) {
        let parts = parts.sorted();
        let enabled = parts.clone().enabled();
        let mut by_selection = std::collections::HashMap::new();
        for node in nodes() {
            let document = parts.assemble(&node);
            let known = by_selection.entry(parts.select(&node)).or_insert_with(|| document.clone());
            prop_assert_eq!(&*known, &document);
            let mut without = enabled.assemble(&node);
            let mut with = document;
            // Exclusions of what is disabled are reset; that is all that one may see of it.
            without.remove("exclude_paths");
            with.remove("exclude_paths");
            prop_assert_eq!(with, without);
        }
    }

    #[test]
    fn no_document_is_larger_than_the_sum_of_its_parts(parts in some_parts()) {
        let parts = parts.sorted();
        for node in nodes() {
            let written = Written::of(&parts.assemble(&node));
            prop_assert!(written.size() <= parts.most_bytes(&parts.select(&node)));
        }
    }
}

use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::ids::{NodeId, OptionId, PackId};
use crate::node_config::{ConfigOption, Pack, Parts};
use crate::target::TargetText;

fn parts(options: &[(&str, Value, &str)]) -> Parts {
    let options = options.iter().map(|(name, value, target)| ConfigOption {
        id: OptionId(Uuid::nil()),
        name: (*name).into(),
        value: value.clone(),
        target: TargetText::parse(target).unwrap(),
        priority: 0,
    });
    Parts {
        options: options.collect(),
        ..Parts::default()
    }
    .sorted()
}

fn node(version: &str, tag: &str) -> NodeFacts {
    NodeFacts {
        osquery_version: version.into(),
        tags: vec![tag.into()],
        ..NodeFacts::default()
    }
}

fn of(before: &Parts, after: &Parts, nodes: &[NodeFacts]) -> Vec<Danger> {
    let aliases = Aliases {
        paths: [("/alias/log".to_owned(), Endpoint::Log)].into(),
        ..Aliases::default()
    };
    let nodes = nodes.iter().map(|facts| (NodeId(Uuid::nil()), facts));
    dangers(Move::all(before, after, nodes), &aliases)
}

fn asked(before: &Parts, after: &Parts) -> Vec<(String, usize, Care)> {
    let nodes = [
        node("5.23.1", "a"),
        node("5.23.1", "b"),
        node("4.9.0", "a"),
        node("", "a"),
    ];
    of(before, after, &nodes)
        .into_iter()
        .map(|danger| (danger.option, danger.nodes, danger.care))
        .collect()
}

#[test]
fn each_flag_is_asked_about_when_its_value_could_cut_off() {
    let none = parts(&[]);
    let cases = [
        (
            "logger_tls_endpoint",
            json!("/elsewhere"),
            4,
            Some(Care::Type),
        ),
        ("logger_tls_endpoint", json!("/log"), 0, None),
        ("logger_tls_endpoint", json!("/alias/log"), 0, None),
        ("logger_tls_endpoint", json!("/v1/log"), 0, None),
        // The document would be taken for an acknowledgement, and the lines deleted.
        ("logger_tls_endpoint", json!("/config"), 4, Some(Care::Type)),
        (
            "distributed_tls_write_endpoint",
            json!("/distributed/read"),
            4,
            Some(Care::Type),
        ),
        ("config_tls_endpoint", json!("/config"), 0, None),
        ("config_tls_endpoint", json!("/log"), 2, Some(Care::Type)),
        ("logger_tls_period", json!(86_400), 4, Some(Care::Confirm)),
        ("logger_tls_period", json!("10"), 0, None),
        ("logger_tls_period", json!("often"), 4, Some(Care::Confirm)),
        ("distributed_interval", json!(0), 4, Some(Care::Confirm)),
        ("disable_distributed", json!("true"), 4, Some(Care::Confirm)),
        ("disable_distributed", json!(false), 0, None),
        ("disable_events", json!(true), 4, Some(Care::Confirm)),
        ("logger_plugin", json!("filesystem"), 2, Some(Care::Type)),
        ("logger_plugin", json!("filesystem,tls"), 0, None),
        // Only the node of 4.9 and the one that does not say.
        ("config_refresh", json!(0), 2, Some(Care::Type)),
        ("config_refresh", json!(60), 0, None),
        ("tls_hostname", json!("other:443"), 2, Some(Care::Type)),
        ("utc", json!(true), 0, None),
    ];
    for (name, value, nodes, care) in cases {
        let after = parts(&[(name, value.clone(), "")]);
        let expected: Vec<_> = care
            .map(|care| (name.to_owned(), nodes, care))
            .into_iter()
            .collect();
        assert_eq!(asked(&none, &after), expected, "{name} {value}");
    }
}

#[test]
fn every_flag_that_is_guarded_is_a_flag_of_osquery() {
    for (name, ..) in FLAGS {
        assert!(flags::find(name).is_some(), "{name}");
    }
}

#[test]
fn only_what_changes_is_asked_about_and_equal_changes_together() {
    let before = parts(&[("distributed_interval", json!(0), "a")]);
    assert_eq!(asked(&before, &before), []);
    let after = parts(&[("distributed_interval", json!(0), "")]);
    assert_eq!(
        asked(&before, &after),
        [("distributed_interval".to_owned(), 1, Care::Confirm)]
    );
    let after = parts(&[("distributed_interval", json!(9999), "")]);
    let found = of(&before, &after, &[node("5.0.0", "a"), node("5.0.0", "b")]);
    assert_eq!((found.len(), found[0].old.clone()), (2, None));
    assert_eq!(found[1].old, Some(json!(0)));
}

#[test]
fn options_that_come_with_a_pack_are_asked_about_where_the_pack_runs() {
    let of_pack = |platform: &str, options: Value| {
        let pack = Pack {
            id: PackId(Uuid::nil()),
            name: "it".into(),
            description: String::new(),
            target: TargetText::parse("").unwrap(),
            enabled: true,
            built_in: false,
            platform: platform.into(),
            version: String::new(),
            shard: None,
            discovery: Vec::new(),
            extra: [("options".to_owned(), options)].into_iter().collect(),
            queries: Vec::new(),
        };
        Parts {
            packs: vec![pack],
            ..Parts::default()
        }
    };
    let none = Parts::default();
    let zero = json!({"distributed_interval": 0});
    let expected = |nodes| vec![("distributed_interval".to_owned(), nodes, Care::Confirm)];
    assert_eq!(asked(&none, &of_pack("", zero.clone())), expected(4));
    let mut nodes = [node("5.0.0", "a"), node("5.0.0", "b")];
    nodes[0].platform = "linux".into();
    nodes[1].platform = "windows".into();
    let found = of(&none, &of_pack("windows", zero.clone()), &nodes);
    assert_eq!(found[0].nodes, 1, "the other does not run the pack");
    // What stands in the options themselves wins.
    let mut beaten = of_pack("", zero);
    beaten.options = parts(&[("distributed_interval", json!(60), "")]).options;
    assert_eq!(asked(&none, &beaten), []);
}

#[test]
fn a_node_that_gets_a_tag_gets_its_options() {
    let parts = parts(&[("distributed_interval", json!(0), "prod")]);
    let (was, becomes) = (node("5.0.0", ""), node("5.0.0", "prod"));
    let each = Move {
        node: NodeId(Uuid::nil()),
        before: &parts,
        coming: None,
        was: &was,
        after: &parts,
        becomes: &becomes,
    };
    let found = dangers([each], &Aliases::default());
    assert_eq!((found.len(), found[0].nodes), (1, 1));
}

#[test]
fn what_a_roll_out_brings_anyway_is_not_asked_again() {
    let (base, now) = (
        parts(&[]),
        parts(&[("distributed_interval", json!(0), "a")]),
    );
    let after = parts(&[("distributed_interval", json!(0), "")]);
    let nodes = [node("5.0.0", "a"), node("5.0.0", "b")];
    let outside = nodes.iter().map(|facts| Move {
        node: NodeId(Uuid::nil()),
        before: &base,
        coming: Some(&now),
        was: facts,
        after: &after,
        becomes: facts,
    });
    let found = dangers(outside, &Aliases::default());
    assert_eq!((found.len(), found[0].nodes), (1, 1), "{found:?}");
}

//! Tables of parts, and what nodes get.

use uuid::Uuid;

use super::*;
use crate::ids::{OptionId, PackId, QueryId};
use crate::node::NodeFacts;
use crate::target::TargetText;
use serde_json::{Map, Value, json};

fn query(name: &str, target: &str) -> Query {
    Query {
        id: QueryId(Uuid::nil()),
        name: name.into(),
        description: String::new(),
        value: String::new(),
        enabled: true,
        startup_priority: None,
        sql: "SELECT 1".into(),
        interval_seconds: 60,
        snapshot: false,
        removed: true,
        denylist: true,
        platform: String::new(),
        version: String::new(),
        shard: None,
        target: TargetText::parse(target).unwrap(),
        extra: Map::new(),
    }
}

fn pack(name: &str, target: &str, queries: Vec<Query>) -> Pack {
    Pack {
        id: PackId(Uuid::nil()),
        name: name.into(),
        description: String::new(),
        enabled: true,
        built_in: false,
        target: TargetText::parse(target).unwrap(),
        platform: String::new(),
        version: String::new(),
        shard: None,
        discovery: Vec::new(),
        extra: Map::new(),
        queries,
    }
}

fn option(name: &str, value: Value, target: &str, priority: i32) -> ConfigOption {
    let target = TargetText::parse(target).unwrap();
    ConfigOption {
        id: OptionId(Uuid::nil()),
        name: name.into(),
        value,
        target,
        priority,
    }
}

fn node(tags: &[&str]) -> NodeFacts {
    NodeFacts {
        tags: tags.iter().map(ToString::to_string).collect(),
        ..NodeFacts::default()
    }
}

fn parts() -> Parts {
    Parts {
        packs: vec![
            pack("z", "prod", vec![query("b", ""), query("a", "")]),
            pack("a", "lab", vec![]),
        ],
        queries: vec![query("q", ""), query("only_lab", "lab")],
        options: vec![
            option("logger_tls_period", json!(4), "lab", 10),
            option("logger_tls_period", json!(10), "", 0),
            option("pack_delimiter", json!("_"), "", 99),
        ],
        ..Parts::default()
    }
    .sorted()
}

#[test]
fn a_node_gets_what_its_tags_choose() {
    let document = parts().assemble(&node(&["prod"]));
    let expected = json!({
        "options": {"logger_tls_period": 10, "pack_delimiter": "/"},
        "schedule": {"q": {"query": "SELECT 1", "interval": 60}},
        "packs": {"z": {"queries": {
            "a": {"query": "SELECT 1", "interval": 60},
            "b": {"query": "SELECT 1", "interval": 60}}}},
        "views": {}, "auto_table_construction": {}, "prometheus_targets": {}, "feature_vectors": {}, "kafka_topics": {}
    });
    assert_eq!(Value::Object(document), expected);
    let document = parts().assemble(&node(&["lab"]));
    assert_eq!(document["options"]["logger_tls_period"], 4);
    assert_eq!(document["schedule"].as_object().unwrap().len(), 2);
}

#[test]
fn equal_selections_mean_equal_bytes_whatever_the_order_of_the_parts() {
    let forward = parts();
    let mut backward = parts();
    backward.packs.reverse();
    backward.packs[0].queries.reverse();
    backward.queries.reverse();
    backward.options.reverse();
    let backward = backward.sorted();
    for tags in [&[][..], &["prod"], &["lab", "prod"]] {
        let node = node(tags);
        assert_eq!(
            to_bytes(&forward.assemble(&node)),
            to_bytes(&backward.assemble(&node))
        );
    }
    assert_eq!(
        forward.select(&node(&["prod"])),
        forward.select(&node(&["prod", "other"]))
    );
    assert_ne!(
        forward.select(&node(&["prod"])),
        forward.select(&node(&["lab"]))
    );
}

#[test]
fn unknown_keys_are_sent_but_never_over_known_ones() {
    let mut query = query("q", "");
    query.extra = json!({"startup_priority": 1, "interval": 5})
        .as_object()
        .unwrap()
        .clone();
    assert_eq!(
        query.to_json(VersionFamily::FromFive),
        json!({"query": "SELECT 1", "interval": 60, "startup_priority": 1})
    );
}

#[test]
fn the_config_hash_is_the_one_that_osquery_reports() {
    let text = r#"{"schedule":{"tls_proc":{"query":"select * from processes","interval":1}},"node_invalid":false,"node":true}"#;
    assert_eq!(
        config_hash(text.as_bytes()),
        "23a948b13698104a4b1009facfbdf554f2bdce7e"
    );
}

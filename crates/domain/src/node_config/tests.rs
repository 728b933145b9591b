//! Tables of parts, and what nodes get.

use uuid::Uuid;

use super::*;
use crate::ids::{OptionId, PackId, QueryId};
use crate::node::NodeFacts;
use crate::target::TargetText;
use serde_json::{Map, Value, json};

pub(super) fn query(name: &str, target: &str) -> Query {
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

pub(super) fn pack(name: &str, target: &str, queries: Vec<Query>) -> Pack {
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

pub(super) fn option(name: &str, value: Value, target: &str, priority: i32) -> ConfigOption {
    let target = TargetText::parse(target).unwrap();
    ConfigOption {
        id: OptionId(Uuid::nil()),
        name: name.into(),
        value,
        target,
        priority,
    }
}

pub(super) fn node(tags: &[&str]) -> NodeFacts {
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

pub(super) fn file_path(category: &str, exclude_globs: &[&str], target: &str) -> FilePath {
    FilePath {
        id: crate::ids::FilePathId(Uuid::nil()),
        category: category.into(),
        globs: vec![format!("/{category}/%%")],
        queries: Vec::new(),
        exclude_globs: exclude_globs.iter().map(ToString::to_string).collect(),
        file_accesses: false,
        target: TargetText::parse(target).unwrap(),
        enabled: true,
    }
}

pub(super) fn section(key: &str, name: &str, value: Value, priority: i32, target: &str) -> Section {
    Section {
        id: crate::ids::SectionId(Uuid::nil()),
        key: key.into(),
        name: name.into(),
        description: String::new(),
        value,
        target: TargetText::parse(target).unwrap(),
        priority,
        enabled: true,
    }
}

pub(super) fn leftover(kind: LeftoverKind, name: &str, target: &str) -> Leftover {
    Leftover {
        kind,
        name: name.into(),
        target: TargetText::parse(target).unwrap(),
        since: chrono::DateTime::UNIX_EPOCH,
    }
}

#[test]
fn a_query_is_excused_from_denylisting_in_the_words_of_the_nodes_version() {
    let mut excused = query("q", "");
    excused.denylist = false;
    let parts = Parts {
        queries: vec![excused, query("plain", "")],
        ..Parts::default()
    };
    let both = json!({"query": "SELECT 1", "interval": 60, "denylist": false, "blacklist": false});
    let new = json!({"query": "SELECT 1", "interval": 60, "denylist": false});
    let mut documents = std::collections::BTreeSet::new();
    for (version, expected) in [
        ("", &both),
        ("odd", &both),
        ("2.11.2", &both),
        ("3.3.2", &both),
        ("4.3.0", &both),
        ("4.9.0", &both),
        ("5.0.0", &new),
        ("5.17.0-1-g182672a07", &new),
        ("5.23.1", &new),
    ] {
        let node = NodeFacts {
            osquery_version: version.into(),
            ..NodeFacts::default()
        };
        let document = parts.assemble(&node);
        assert_eq!(&document["schedule"]["q"], expected, "{version}");
        documents.insert(to_bytes(&document));
    }
    assert_eq!(documents.len(), 2, "families, not versions");
    let selections: std::collections::HashSet<Selection> = ["2.11.2", "5.23.1"]
        .map(|version| {
            let node = NodeFacts {
                osquery_version: version.into(),
                ..NodeFacts::default()
            };
            self::parts().select(&node)
        })
        .into();
    assert_eq!(
        selections.len(),
        1,
        "nothing in these depends on the version"
    );
}

#[test]
fn sections_are_merged_by_priority_and_unknown_keys_are_sent_as_they_are() {
    let parts = Parts {
        sections: vec![
            section("views", "high", json!({"v": "SELECT 2"}), 5, ""),
            section(
                "views",
                "low",
                json!({"v": "SELECT 1", "w": "SELECT 3"}),
                0,
                "",
            ),
            section("views", "elsewhere", json!({"x": "SELECT 4"}), 9, "lab"),
            section(
                "unheard_of",
                "import",
                json!([1, {"b": null, "a": "é"}]),
                0,
                "",
            ),
            Section {
                enabled: false,
                ..section("yara", "off", json!({"signatures": {}}), 0, "")
            },
            section("options", "never saved", json!({"x": 1}), 0, ""),
        ],
        ..Parts::default()
    }
    .sorted();
    let document = parts.assemble(&node(&["prod"]));
    assert_eq!(document["views"], json!({"v": "SELECT 2", "w": "SELECT 3"}));
    assert_eq!(document["unheard_of"], json!([1, {"a": "é", "b": null}]));
    assert_eq!(
        document["options"],
        json!({"pack_delimiter": "/"}),
        "a part wins over a piece"
    );
    assert!(document.get("yara").is_none());
    for key in [
        "auto_table_construction",
        "prometheus_targets",
        "feature_vectors",
        "kafka_topics",
    ] {
        assert_eq!(document[key], json!({}), "{key} is reset");
    }
}

#[test]
fn views_of_a_pack_are_not_reset_beside_it() {
    let mut with_views = pack("p", "prod", vec![query("q", "")]);
    with_views.extra =
        json!({"views": {"v": "SELECT 1"}, "file_paths": {"c": ["/x"]}, "oncall": "us"})
            .as_object()
            .unwrap()
            .clone();
    let parts = Parts {
        packs: vec![with_views],
        ..Parts::default()
    }
    .sorted();
    let document = parts.assemble(&node(&["prod"]));
    assert!(document.get("views").is_none());
    assert_eq!(document["packs"]["p"]["views"], json!({"v": "SELECT 1"}));
    assert_eq!(document["packs"]["p"]["oncall"], "us");
    assert_eq!(parts.assemble(&node(&[]))["views"], json!({}));
}

#[test]
fn exclusions_that_a_node_may_carry_are_taken_back_by_name() {
    let mut by_query = file_path("q", &[], "prod");
    by_query.globs.clear();
    by_query.queries = vec!["SELECT '/x' AS path".into()];
    let parts = Parts {
        file_paths: vec![
            file_path("etc", &["/etc/mtab"], "prod"),
            file_path("lab", &["/lab/tmp/%%"], "lab"),
            file_path("bare", &[], "lab"),
            by_query,
        ],
        leftovers: vec![leftover(LeftoverKind::ExcludePaths, "gone", "")],
        ..Parts::default()
    }
    .sorted();
    let document = parts.assemble(&node(&["prod"]));
    assert_eq!(document["file_paths"], json!({"etc": ["/etc/%%"]}));
    assert_eq!(
        document["file_paths_query"],
        json!({"q": ["SELECT '/x' AS path"]})
    );
    assert_eq!(
        document["exclude_paths"],
        json!({"etc": ["/etc/mtab"], "gone": [], "lab": [], "q": []})
    );
    assert!(
        parts.assemble(&node(&[])).get("exclude_paths").is_none(),
        "without file paths osqueryd does not look at it"
    );
}

#[test]
fn an_option_that_is_gone_is_reset_until_another_value_takes_its_place() {
    let before = Parts {
        options: vec![
            option("logger_tls_period", json!(60), "lab", 0),
            option("events_max", json!(7), "", 0),
            option("custom_x", json!("y"), "", 0),
        ],
        file_paths: vec![
            file_path("etc", &["/etc/mtab"], "lab"),
            file_path("bare", &[], ""),
        ],
        ..Parts::default()
    };
    let mut after = Parts {
        options: vec![option("events_max", json!(8), "*", 3)],
        ..Parts::default()
    };
    let now = chrono::DateTime::UNIX_EPOCH;
    after.leftovers = before.leftovers_in(&after, now);
    let names: Vec<_> = (after.leftovers.iter())
        .map(|left| format!("{:?} {} {}", left.kind, left.name, left.target.as_str()))
        .collect();
    assert_eq!(
        names,
        [
            "Option logger_tls_period lab",
            "Option custom_x ",
            "ExcludePaths etc lab"
        ],
        "another spelling of the same target is the same"
    );
    let options = |parts: &Parts, tags: &[&str]| parts.assemble(&node(tags))["options"].clone();
    assert_eq!(
        options(&after, &["lab"]),
        json!({"events_max": 8, "logger_tls_period": 4, "pack_delimiter": "/"})
    );
    assert_eq!(
        options(&after, &[]),
        json!({"events_max": 8, "pack_delimiter": "/"})
    );
    after
        .options
        .push(option("logger_tls_period", json!(9), "", -5));
    assert_eq!(options(&after, &["lab"])["logger_tls_period"], 9);
    assert!(
        !after.supersedes(&after.leftovers[0]),
        "it is for all, and for the lab nothing"
    );
    after
        .options
        .push(option("logger_tls_period", json!(60), "lab", 0));
    assert!(after.supersedes(&after.leftovers[0]));
    assert!(before.leftovers_in(&before, now).is_empty());
}

#[test]
fn an_option_is_reset_unless_a_pack_that_takes_the_node_in_sets_it() {
    let mut of_pack = pack("p", "", Vec::new());
    of_pack.platform = "windows".into();
    let options = json!({"options": {"logger_tls_period": 60}});
    of_pack.extra = options.as_object().unwrap().clone();
    let parts = Parts {
        packs: vec![of_pack],
        leftovers: vec![leftover(LeftoverKind::Option, "logger_tls_period", "")],
        ..Parts::default()
    };
    let on = |platform: &str| NodeFacts {
        platform: platform.into(),
        ..node(&[])
    };
    let (linux, windows) = (on("ubuntu"), on("windows"));
    assert_eq!(parts.assemble(&linux)["options"]["logger_tls_period"], 4);
    assert_eq!(parts.options_of(&linux)["logger_tls_period"], 4);
    assert_eq!(
        parts.assemble(&windows)["options"].get("logger_tls_period"),
        None
    );
    assert_eq!(parts.options_of(&windows)["logger_tls_period"], 60);
    for node in [&linux, &windows] {
        assert_eq!(parts.selector().select(node), parts.select(node));
    }
}

#[test]
fn what_is_too_much_is_named() {
    let large = |name: &str, target: &str| {
        let mut query = query(name, target);
        query.sql = format!("SELECT '{}'", "x".repeat(600_000));
        query
    };
    let nodes = [node(&["prod"]), node(&["lab"])];
    let mut parts = Parts {
        queries: vec![large("a", "prod"), large("b", "lab")],
        ..Parts::default()
    }
    .sorted();
    assert_eq!(parts.check_limits(&nodes), Ok(()), "nobody gets both");
    parts.queries[1].target = TargetText::default();
    let error = parts.check_limits(&nodes).unwrap_err();
    assert!(
        matches!(error, TooMuch::Large { bytes, .. } if bytes > MAX_BYTES),
        "{error}"
    );
    parts.queries[0].enabled = false;
    assert_eq!(parts.check_limits(&nodes), Ok(()));
    let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
    for (levels, fits) in [(27, true), (28, false)] {
        let mut deep = query("deep", "");
        deep.extra.insert("x".into(), nested(levels));
        let mut parts = Parts::default();
        parts.packs.push(pack("p", "", vec![]));
        parts.packs[0].queries.push(deep);
        assert_eq!(parts.check_limits([]).is_ok(), fits, "{levels}");
        let document = Value::Object(parts.assemble(&node(&[])));
        assert_eq!(depth(&document) <= MAX_DEPTH, fits, "{levels}");
    }
}

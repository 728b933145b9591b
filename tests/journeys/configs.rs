//! What nodes of every family of versions are sent, and that it is what they run: the hash that a node reports of its config is made
//! by the simulator from the bytes that it got, with an etag or without.

use std::collections::BTreeMap;

use ostiary_domain::node_config::is_run_by;
use ostiary_simulator::Fleet;
use ostiary_simulator::version::Version;
use ostiary_tests::{PATIENCE, World, WorldOptions, eventually};
use serde_json::{Value, json};

/// One of each family that is served differently, and one that speaks of etags.
const VERSIONS: [Version; 5] = [
    Version(2, 11, 2),
    Version(4, 9, 0),
    Version(5, 9, 1),
    Version(5, 23, 1),
    Version(5, 24, 0),
];
const NODES: usize = 15;

/// The query that is in the schedule, an option for all, a piece of a known key and one of a key that nobody knows.
const CHANGE: &str = r#"
    INSERT INTO queries (id, name, sql, interval_seconds, denylist, startup_priority, created_at, updated_at)
    VALUES (gen_random_uuid(), 'boots/of all', 'SELECT * FROM uptime', 5, false, 1, now(), now());
    INSERT INTO options (id, name, value, created_at, updated_at) VALUES (gen_random_uuid(), 'logger_tls_max_lines', '77', now(), now());
    INSERT INTO file_paths (id, category, globs, exclude_globs, target, created_at, updated_at) VALUES
        (gen_random_uuid(), 'etc', '{/etc/%%}', '{/etc/mtab}', 'platform:linux', now(), now()),
        (gen_random_uuid(), 'system', '{/System/%%}', '{}', 'platform:darwin', now(), now());
    INSERT INTO config_sections (id, key, name, value, target, created_at, updated_at) VALUES
        (gen_random_uuid(), 'views', 'ours', '{"awake": "SELECT * FROM uptime"}', 'platform:linux', now(), now()),
        (gen_random_uuid(), 'not_known_to_anybody', 'import', '{"z": [1, null, "é/"], "a": {"b": true}}', '', now(), now());
"#;

/// What a node runs and what it was sent.
#[derive(Debug)]
struct Sent {
    version: String,
    platform: String,
    config_hash: String,
    document: String,
}

impl Sent {
    fn config(&self) -> Value {
        serde_json::from_str(&self.document).unwrap()
    }
}

async fn sent(world: &World) -> Vec<Sent> {
    let rows = world
        .db
        .texts(
            "SELECT json_build_array(osquery_version, platform, config_hash, document)::text FROM nodes n
             JOIN node_configs c ON c.node_id = n.id JOIN config_documents d ON d.hash = c.document_hash ORDER BY n.id",
        )
        .await;
    let rows = rows.iter().map(|row| {
        let [version, platform, config_hash, document] = serde_json::from_str(row).unwrap();
        Sent {
            version,
            platform,
            config_hash,
            document,
        }
    });
    rows.collect()
}

/// Waits until every node was sent a document with this member, and says that it runs it.
async fn all_run(world: &World, what: &str, pointer: &str, value: &Value) -> Vec<Sent> {
    eventually(what, PATIENCE, async || {
        let all = sent(world).await;
        let runs = |sent: &Sent| {
            sent.config().pointer(pointer) == Some(value)
                && is_run_by(sent.document.as_bytes(), &sent.config_hash)
        };
        (all.len() == NODES && all.iter().all(runs)).then_some(all)
    })
    .await
}

#[tokio::test]
async fn nodes_of_all_versions_are_sent_what_they_understand_and_run_it() {
    let options = WorldOptions::demo()
        .set("API__CHECKIN_FLUSH_MS", "500")
        .set("API__FRESHNESS_POLL_MS", "500");
    let world = World::start(options).await;
    let fleet = world
        .fleet(NODES)
        .versions(&VERSIONS)
        .start()
        .await
        .unwrap();
    let before = all_run(
        &world,
        "a first config",
        "/options/pack_delimiter",
        &json!("/"),
    )
    .await;
    assert!(
        before
            .iter()
            .all(|sent| sent.config()["views"] == json!({}))
    );
    unchanged_configs_are_not_sent_again(&world, &fleet).await;

    world.db.execute(CHANGE).await;
    let after = all_run(
        &world,
        "the change",
        "/options/logger_tls_max_lines",
        &json!(77),
    )
    .await;
    assert_families(&after);

    // Gone again: the option is reset, the views are, and exclusions are taken back where files are still watched.
    world
        .db
        .execute(
            "DELETE FROM options WHERE name = 'logger_tls_max_lines';
             INSERT INTO config_leftovers (kind, name, target, since) VALUES ('option', 'logger_tls_max_lines', '', now());
             DELETE FROM config_sections;
             UPDATE file_paths SET enabled = false WHERE category = 'etc';
             UPDATE file_paths SET target = '' WHERE category = 'system'",
        )
        .await;
    let gone = all_run(
        &world,
        "the reset",
        "/options/logger_tls_max_lines",
        &json!(1024),
    )
    .await;
    for sent in &gone {
        let config = sent.config();
        assert_eq!(config["views"], json!({}));
        assert_eq!(config["exclude_paths"], json!({"etc": [], "system": []}));
        assert!(config.get("not_known_to_anybody").is_none());
    }
    restarted_nodes_get_everything_again(&world, &fleet).await;
    assert_eq!(fleet.totals().node_invalid, 0);
    fleet.stop().await;
    world.end().await;
}

/// Only nodes that speak of etags are spared the document; all others change nothing because the bytes are the same.
async fn unchanged_configs_are_not_sent_again(world: &World, fleet: &Fleet) {
    let of = |node: usize| {
        let version = fleet.identity(node).unwrap().version();
        (version, fleet.counts(node).unwrap())
    };
    let changed: Vec<u64> = (0..NODES).map(|node| of(node).1.configs_changed).collect();
    eventually(
        "nodes are told that nothing changed",
        PATIENCE,
        async || {
            let told =
                |node: usize| of(node).0 < Version(5, 24, 0) || of(node).1.configs_unchanged > 2;
            (0..NODES).all(told).then_some(())
        },
    )
    .await;
    for (node, changed) in changed.iter().enumerate() {
        let (version, counts) = of(node);
        assert_eq!(counts.configs_changed, *changed, "{version}: no churn");
        if version < Version(5, 24, 0) {
            assert_eq!(counts.configs_unchanged, 0, "{version}");
        }
    }
    let empty = world
        .scalar("SELECT count(*) FROM config_documents WHERE document NOT LIKE '%\"schedule\"%' OR document LIKE '%\"etag\"%'")
        .await;
    assert_eq!(empty, 0, "whole documents are kept, without etags");
}

fn assert_families(after: &[Sent]) {
    let mut versions = BTreeMap::new();
    for sent in after {
        *versions.entry(sent.version.as_str()).or_insert(0) += 1;
        let config = sent.config();
        let mut query = json!({"query": "SELECT * FROM uptime", "interval": 5, "denylist": false, "startup_priority": 1});
        if !sent.version.starts_with('5') {
            query["blacklist"] = false.into();
        }
        let mut actual = config["schedule"]["boots/of all"].clone();
        actual.sort_all_objects();
        query.sort_all_objects();
        assert_eq!(actual, query, "{}", sent.version);
        assert_eq!(
            config["not_known_to_anybody"],
            json!({"a": {"b": true}, "z": [1, null, "é/"]})
        );
        let (views, file_paths) = match sent.platform.as_str() {
            "linux" => (
                json!({"awake": "SELECT * FROM uptime"}),
                json!({"etc": ["/etc/%%"]}),
            ),
            "darwin" => (json!({}), json!({"system": ["/System/%%"]})),
            _ => (json!({}), Value::Null),
        };
        assert_eq!(config["views"], views);
        assert_eq!(
            config.get("file_paths").unwrap_or(&Value::Null),
            &file_paths
        );
    }
    assert_eq!(versions.len(), VERSIONS.len(), "{versions:?}");
    let of_platform: BTreeMap<(&str, bool), &str> = (after.iter())
        .map(|sent| {
            (
                (sent.platform.as_str(), sent.version.starts_with('5')),
                sent.document.as_str(),
            )
        })
        .collect();
    for sent in after {
        let family = (sent.platform.as_str(), sent.version.starts_with('5'));
        assert_eq!(
            of_platform[&family], sent.document,
            "a document for a family, not for a version"
        );
    }
}

/// The etag is in the memory of the process only.
async fn restarted_nodes_get_everything_again(world: &World, fleet: &Fleet) {
    let node = (0..NODES)
        .find(|node| fleet.identity(*node).unwrap().version() == Version(5, 24, 0))
        .unwrap();
    let before = fleet.counts(node).unwrap();
    fleet.restart(node).unwrap();
    eventually("a node takes its config anew", PATIENCE, async || {
        let now = fleet.counts(node).unwrap();
        (now.configs_changed > before.configs_changed
            && now.configs_unchanged > before.configs_unchanged)
            .then_some(())
    })
    .await;
    all_run(
        world,
        "it runs it",
        "/options/logger_tls_max_lines",
        &json!(1024),
    )
    .await;
}

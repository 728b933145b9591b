//! What rules have counted: values with their nodes, times on a node, and what a merge makes of both.

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_domain::finding::Entity;
use ostiary_domain::ids::{NodeId, RuleId};
use ostiary_domain::osquery::Columns;
use ostiary_domain::present::{PresentRows, RowSet, Series};
use ostiary_domain::rule::COUNTED_NODES;
use ostiary_store::node_merges::{self, Merge};
use ostiary_store::present_rows::{self, Stored};
use ostiary_store::rule_values::{self, Sighting, Times};
use ostiary_store::testing::TestDb;
use ostiary_store::{Conn, Db, pending};
use uuid::Uuid;

const RARE: &str = "01900000-0000-7000-8000-0000000000e1";
const TIMES: &str = "01900000-0000-7000-8000-0000000000e2";
const LAPTOP: &str = "01900000-0000-7000-8000-00000000000a";
const WIPED: &str = "01900000-0000-7000-8000-00000000000b";
const OTHER: &str = "01900000-0000-7000-8000-00000000000c";

fn node(text: &str) -> NodeId {
    NodeId(text.parse::<Uuid>().unwrap())
}

fn rule(text: &str) -> RuleId {
    RuleId(text.parse::<Uuid>().unwrap())
}

/// What a rule with the entity column `name` takes for its matter.
fn value(name: &str) -> [u8; 32] {
    Entity::of(&["name".into()], &Columns::new([("name", name)])).hash
}

async fn a_fleet() -> TestDb {
    let test = TestDb::new().await;
    for (number, node) in [LAPTOP, WIPED, OTHER].into_iter().enumerate() {
        test.execute(&format!(
            "INSERT INTO nodes (id, host_identifier, hostname, enrolled_at, first_enrolled_at) VALUES ('{node}', 'h', 'h', now(), now());
             INSERT INTO node_checkins (node_id, last_seen_at) VALUES ('{node}', now() - interval '{number} hours')"
        ))
        .await;
    }
    for (rule, watch, count, seconds) in [(RARE, "rare", "2", "NULL"), (TIMES, "times", "3", "600")]
    {
        test.execute(&format!(
            "INSERT INTO rules (id, name, conditions, severity, entity_columns, watch, watch_count, watch_seconds, created_at, updated_at)
             VALUES ('{rule}', '{watch}', '{{}}', 'high', '{{name}}', '{watch}', {count}, {seconds}, now(), now())"
        ))
        .await;
    }
    test
}

async fn see(conn: &mut Conn, seen: &[(&str, &str)], at: DateTime<Utc>) {
    let hashes: Vec<[u8; 32]> = seen.iter().map(|(_, name)| value(name)).collect();
    let sightings: Vec<Sighting<'_>> = seen
        .iter()
        .zip(&hashes)
        .map(|((on, _), entity_hash)| Sighting {
            rule_id: rule(RARE),
            entity_hash,
            node_id: node(on),
            seen_at: at,
        })
        .collect();
    rule_values::see(conn, &sightings).await.unwrap();
}

async fn count(conn: &mut Conn, name: &str, since: Option<DateTime<Utc>>) -> Option<i64> {
    rule_values::count_nodes(conn, rule(RARE), &value(name), since)
        .await
        .unwrap()
}

async fn add(conn: &mut Conn, on: &str, times: &[DateTime<Utc>]) -> Vec<DateTime<Utc>> {
    let added = Times {
        rule_id: rule(TIMES),
        node_id: node(on),
        entity_hash: &value("x"),
        times,
        wanted: 3,
    };
    rule_values::add_times(conn, &added).await.unwrap()
}

#[tokio::test]
async fn a_value_is_counted_once_per_node_until_it_is_forgotten() {
    let test = a_fleet().await;
    let worker = test.as_role("ostiary_worker");
    let mut conn = worker.acquire().await.unwrap();
    let now = crate::machine_time();
    let earlier = now - TimeDelta::hours(1);
    see(
        &mut conn,
        &[(LAPTOP, "a"), (LAPTOP, "a"), (WIPED, "a"), (OTHER, "b")],
        earlier,
    )
    .await;
    see(&mut conn, &[(LAPTOP, "a")], now).await;
    assert_eq!(count(&mut conn, "a", None).await, Some(2));
    assert_eq!(
        count(&mut conn, "a", Some(now - TimeDelta::minutes(1))).await,
        Some(1),
        "of a span only what was seen in it"
    );
    let gone = Sighting {
        rule_id: rule(RARE),
        entity_hash: &value("a"),
        node_id: node(LAPTOP),
        seen_at: now,
    };
    rule_values::forget(&mut conn, &[gone]).await.unwrap();
    assert_eq!(count(&mut conn, "a", None).await, Some(1));
    let unknown = Sighting {
        entity_hash: &value("c"),
        ..gone
    };
    assert_eq!(
        rule_values::are_known(&mut conn, &[unknown, gone])
            .await
            .unwrap(),
        [false, true],
        "a value that nobody has any more is known all the same"
    );
    drop(conn);
    worker.close().await;
    test.drop().await;
}

#[tokio::test]
async fn a_value_that_very_many_nodes_had_is_common_for_good() {
    let test = a_fleet().await;
    let worker = test.as_role("ostiary_worker");
    let mut conn = worker.acquire().await.unwrap();
    let now = crate::machine_time();
    let hash = value("everywhere");
    let nodes: Vec<NodeId> = (0..=COUNTED_NODES)
        .map(|n| NodeId(Uuid::from_u128(n.into())))
        .collect();
    let sightings: Vec<Sighting<'_>> = nodes
        .iter()
        .map(|node_id| Sighting {
            rule_id: rule(RARE),
            entity_hash: &hash,
            node_id: *node_id,
            seen_at: now,
        })
        .collect();
    rule_values::see(&mut conn, &sightings[1..]).await.unwrap();
    assert_eq!(
        count(&mut conn, "everywhere", None).await,
        Some(COUNTED_NODES.into())
    );
    rule_values::see(&mut conn, &sightings[..1]).await.unwrap();
    assert_eq!(count(&mut conn, "everywhere", None).await, None);
    rule_values::forget(&mut conn, &sightings).await.unwrap();
    assert_eq!(count(&mut conn, "everywhere", None).await, None);
    drop(conn);
    worker.close().await;
    test.drop().await;
}

#[tokio::test]
async fn of_times_the_latest_stay_and_what_counts_no_more_is_pruned() {
    let test = a_fleet().await;
    let worker = test.as_role("ostiary_worker");
    let mut conn = worker.acquire().await.unwrap();
    let now = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
    let at = |minutes: i64| now + TimeDelta::minutes(minutes);
    assert_eq!(
        add(&mut conn, LAPTOP, &[at(1), at(3)]).await,
        [at(1), at(3)]
    );
    // What comes late stands where it belongs.
    assert_eq!(
        add(&mut conn, LAPTOP, &[at(2), at(4)]).await,
        [at(2), at(3), at(4)]
    );
    let gone_node = Uuid::from_u128(7).to_string();
    see(&mut conn, &[(LAPTOP, "a"), (&gone_node, "a")], now).await;
    let span = TimeDelta::days(30);
    rule_values::prune(&mut conn, at(4) + span, span)
        .await
        .unwrap();
    let left = "SELECT count(*)::text FROM rule_times";
    assert_eq!(test.texts(left).await, ["1"]);
    assert_eq!(
        count(&mut conn, "a", None).await,
        Some(1),
        "rarity knows no span, and a node that is gone has nothing"
    );
    rule_values::prune(&mut conn, at(5) + span, span)
        .await
        .unwrap();
    assert_eq!(test.texts(left).await, ["0"]);
    drop(conn);
    worker.close().await;
    test.drop().await;
}

async fn put_present(conn: &mut Conn, on: &str, query: &str, names: &[&str]) {
    let query_name_id = id_of_query(conn, query).await;
    let mut rows = RowSet::default();
    for name in names {
        rows.insert(Columns::new([("name", *name), ("on", on)]).canonical());
    }
    let stored = Stored {
        node_id: node(on),
        query_name_id,
        present: PresentRows {
            rows,
            series: Some(Series::default()),
            stale: false,
        },
    };
    present_rows::put(conn, &[stored], crate::machine_time())
        .await
        .unwrap();
}

async fn id_of_query(conn: &mut Conn, query: &str) -> i32 {
    let found = ostiary_store::query_names::find(conn, &[query]).await;
    found.unwrap()[query]
}

/// The laptop was seen last; its wiped twin's rows of the query that both ran give way.
#[tokio::test]
async fn nodes_that_were_merged_count_as_one() {
    let test = a_fleet().await;
    test.execute(&format!(
        "INSERT INTO query_names (name, first_node_id, created_at)
         SELECT name, '{LAPTOP}', now() FROM unnest(ARRAY['extensions', 'only of one']) AS name"
    ))
    .await;
    let now = crate::machine_time();
    let minutes = |count: i64| DateTime::from_timestamp(1_790_000_000 + 60 * count, 0).unwrap();
    let mut conn = test.db.acquire().await.unwrap();
    put_present(&mut conn, LAPTOP, "extensions", &["both", "laptop"]).await;
    put_present(&mut conn, WIPED, "extensions", &["both", "went", "moved"]).await;
    put_present(&mut conn, WIPED, "only of one", &["moved", "alone"]).await;
    let of_laptop = ["both", "laptop"].map(|name| (LAPTOP, name));
    let of_wiped = ["both", "went", "moved", "alone", "by an event"].map(|name| (WIPED, name));
    see(&mut conn, &[of_laptop.as_slice(), &of_wiped].concat(), now).await;
    see(&mut conn, &[(OTHER, "both"), (OTHER, "went")], now).await;
    add(&mut conn, LAPTOP, &[minutes(1), minutes(3)]).await;
    add(&mut conn, WIPED, &[minutes(2), minutes(4)]).await;
    drop(conn);

    let manager = test.as_role("ostiary_manager");
    let mut tx = manager.begin().await.unwrap();
    pending::wait_for_nodes(&mut tx, &[node(LAPTOP), node(WIPED)])
        .await
        .unwrap();
    let merge = Merge {
        gone: node(WIPED),
        kept: node(LAPTOP),
        reestablished: false,
        by: None,
        at: now,
    };
    node_merges::merge(&mut tx, &merge).await.unwrap().unwrap();
    Db::commit(tx).await.unwrap();
    manager.close().await;

    let mut conn = test.db.acquire().await.unwrap();
    for (name, nodes, why) in [
        ("both", 2, "two nodes, and no longer three"),
        ("laptop", 1, "it holds"),
        ("went", 1, "its row gave way: only the other node has it"),
        ("moved", 1, "a row of the other query still holds it"),
        ("alone", 1, "its row moved"),
        ("by an event", 1, "no row ever held it"),
    ] {
        assert_eq!(
            count(&mut conn, name, None).await,
            Some(nodes),
            "{name}: {why}"
        );
    }
    let times = "SELECT extract(epoch FROM one)::bigint::text FROM rule_times, unnest(times) AS one ORDER BY 1";
    let latest = [2, 3, 4].map(|count| minutes(count).timestamp().to_string());
    assert_eq!(test.texts(times).await, latest);
    let left = format!(
        "SELECT count(*)::text FROM (SELECT node_id FROM rule_value_nodes UNION ALL SELECT node_id FROM rule_times) x
         WHERE node_id = '{WIPED}'"
    );
    assert_eq!(test.texts(&left).await, ["0"]);
    drop(conn);
    test.drop().await;
}

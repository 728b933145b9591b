//! How long a change of configs takes with many packs and nodes. It measures, so it runs when asked for:
//! `cargo test -p ostiary-manager --test manager many -- --ignored --nocapture`

use std::time::{Duration, Instant};

use axum::http::StatusCode;

use super::world::World;

#[tokio::test]
#[ignore = "it measures; run it alone"]
async fn a_change_among_two_hundred_packs_and_a_thousand_nodes_is_saved_soon() {
    let world = World::new().await;
    world
        .test_db
        .execute(
            "INSERT INTO nodes (id, host_identifier, hostname, platform, osquery_version, enrolled_at, first_enrolled_at)
                SELECT gen_random_uuid(), 'host-' || n, 'host-' || n, 'linux', '5.23.1', now(), now() FROM generate_series(1, 1000) n;
             INSERT INTO node_checkins (node_id, last_seen_at) SELECT id, now() FROM nodes;
             INSERT INTO tags (id, name, created_at) SELECT gen_random_uuid(), 'tag-' || n, now() FROM generate_series(1, 20) n;
             INSERT INTO node_tags (node_id, tag_id) SELECT n.id, t.id FROM nodes n JOIN tags t
                ON right(n.hostname, 1) = right(t.name, 1);
             INSERT INTO packs (id, name, target, created_at, updated_at)
                SELECT gen_random_uuid(), 'pack-' || n, 'tag-' || n % 20 + 1 || ' and linux', now(), now() FROM generate_series(1, 200) n;
             INSERT INTO queries (id, pack_id, name, sql, interval_seconds, created_at, updated_at)
                SELECT gen_random_uuid(), p.id, 'query-' || n, 'SELECT name, path, pid FROM processes WHERE pid > ' || n, 3600, now(), now()
                FROM packs p, generate_series(1, 10) n WHERE NOT built_in;",
        )
        .await;
    let mut browser = world.browser_as("editor").await;
    let mut longest = Duration::ZERO;
    for (round, saving) in ["once", "stages", "stages", "once"].into_iter().enumerate() {
        let target = format!("tag-{}", round + 1);
        let fields = [
            ("name", "read_max"),
            ("value", "70000"),
            ("target", target.as_str()),
            ("saving", saving),
        ];
        let begun = Instant::now();
        let answer = browser.post("/options", &fields).await;
        let took = begun.elapsed();
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
        println!("saved ({saving}, round {round}) in {took:?}");
        longest = longest.max(took);
    }
    // Optimised it is to be a second; without, several times that.
    let most = Duration::from_secs(if cfg!(debug_assertions) { 5 } else { 1 });
    assert!(longest < most, "{longest:?}");
    world.end().await;
}

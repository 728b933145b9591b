//! What is done when work fails: nothing is lost, nothing is done twice, and what is to blame is set aside alone.

use ostiary_store::log_batches::compress;
use ostiary_store::testing::execute;
use serde_json::json;

use crate::support::{Stage, line, seconds, snapshot, when};

/// A worker that waits for a lock of ours.
const WAITING: &str =
    "pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";

/// A node that a worker works.
const HELD: &str = "pg_locks JOIN pg_database d ON d.oid = database WHERE locktype = 'advisory' AND d.datname = current_database()";

/// Makes Postgres refuse events with 13 rows, as no constraint of ours does: a defect nobody foresaw.
const REFUSE_13: &str = "CREATE FUNCTION refuse_13() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN IF NEW.row_count = 13 THEN RAISE EXCEPTION 'thirteen'; END IF; RETURN NEW; END $$;
    CREATE TRIGGER refuse_13 BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION refuse_13();";

#[tokio::test]
async fn a_poison_post_is_set_aside_alone_after_some_attempts() {
    let stage = Stage::new().await;
    stage.test.execute(REFUSE_13).await;
    let (node, other) = (stage.node("web-1").await, stage.node("web-2").await);
    let t = stage.unix_now();
    let rows = |count: usize| vec![json!({"a": "1"}); count];
    for (at, count) in [1, 13, 2].into_iter().enumerate() {
        stage
            .results(
                node,
                &[snapshot(
                    "q",
                    t + i64::try_from(at).unwrap(),
                    json!(rows(count)),
                )],
            )
            .await;
    }
    for n in 0..5 {
        stage
            .results(
                other,
                &[line("q", "added", n, t, json!({"n": n.to_string()}))],
            )
            .await;
    }
    stage.work().await;
    assert_eq!(
        stage.events(other).await.len(),
        5,
        "another node does not wait"
    );
    assert_eq!(
        stage.events(node).await.len(),
        1,
        "what came after waits for its turn"
    );
    assert_eq!(
        stage
            .texts("SELECT attempts || ' ' || last_error FROM pending WHERE attempts > 0")
            .await
            .len(),
        1
    );
    for _ in 0..2 {
        assert_eq!(stage.count("unreadable").await, 0);
        stage.clock.advance(seconds(60));
        stage.work().await;
    }
    let reasons = stage.texts("SELECT reason FROM unreadable").await;
    assert_eq!(reasons.len(), 1);
    assert!(
        reasons[0].starts_with("could not be processed: database error"),
        "{reasons:?}"
    );
    assert!(reasons[0].contains("thirteen"), "{reasons:?}");
    assert_eq!(
        stage
            .texts("SELECT row_count::text FROM events WHERE snapshot ORDER BY id")
            .await,
        ["1", "2"]
    );
    assert_eq!(stage.present(node).await, [r#"q [{"a":"1"},{"a":"1"}]"#]);
    assert_eq!(stage.count("pending").await, 0);
    stage.end().await;
}

#[tokio::test]
async fn a_post_on_which_processes_die_is_set_aside_and_no_other() {
    let stage = Stage::new().await;
    let (node, other) = (stage.node("web-1").await, stage.node("web-2").await);
    stage
        .test
        .execute(
            "CREATE FUNCTION hold_13() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN IF NEW.row_count = 13 THEN PERFORM pg_sleep(3600); END IF; RETURN NEW; END $$;
             CREATE TRIGGER hold_13 BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION hold_13();",
        )
        .await;
    let t = stage.unix_now();
    for (at, count) in [(0, 1), (1, 13), (2, 2)] {
        let rows = json!(vec![json!({"a": "1"}); count]);
        stage.results(node, &[snapshot("q", t + at, rows)]).await;
    }
    stage
        .results(other, &[line("q", "added", 1, t, json!({"a": "1"}))])
        .await;
    for _ in 0..3 {
        let dying = stage.another_worker();
        let task = tokio::spawn({
            let dying = dying.clone();
            async move { dying.run_until_idle().await }
        });
        let sleeping =
            "pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
        stage.until_there_is(sleeping).await;
        assert_eq!(stage.count("unreadable").await, 0);
        task.abort();
        let _ = task.await;
        stage
            .texts(&format!(
                "SELECT pg_terminate_backend(pid, 10000)::text FROM {sleeping}"
            ))
            .await;
        dying.db.close().await;
        stage.until_there_is_no(HELD).await;
    }
    stage.work().await;
    assert_eq!(
        stage.texts("SELECT reason FROM unreadable").await,
        ["the worker died whenever it was processed"]
    );
    assert_eq!(stage.present(node).await, [r#"q [{"a":"1"},{"a":"1"}]"#]);
    assert_eq!(stage.events(other).await.len(), 1);
    assert_eq!(stage.count("pending").await, 0);
    stage.end().await;
}

#[tokio::test]
async fn a_post_that_takes_too_long_again_and_again_is_set_aside() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    stage
        .test
        .execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'too slow' USING ERRCODE = '57014'; END $$;
             CREATE TRIGGER slow BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION slow();",
        )
        .await;
    let row = line("q", "added", 1, stage.unix_now(), json!({"a": "1"}));
    stage.results(node, &[row]).await;
    for _ in 0..19 {
        stage.work().await;
        stage.clock.advance(seconds(400));
    }
    assert_eq!(stage.count("unreadable").await, 0);
    stage.work().await;
    assert_eq!(
        stage
            .count("unreadable WHERE reason LIKE '%too slow%'")
            .await,
        1
    );
    assert_eq!(stage.count("pending").await, 0);
    stage.end().await;
}

#[tokio::test]
async fn a_post_of_a_day_too_far_away_for_a_partition_is_set_aside() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    let row = line("q", "added", 1, stage.unix_now(), json!({"a": "1"}));
    stage.results(node, &[row]).await;
    stage
        .test
        .execute(
            "CREATE TABLE log_batches_20200101 PARTITION OF log_batches
                FOR VALUES FROM ('2020-01-01 00:00:00+00') TO ('2020-01-02 00:00:00+00');
             UPDATE log_batches SET received_at = '2020-01-01 12:00:00+00';
             UPDATE pending SET received_at = '2020-01-01 12:00:00+00';",
        )
        .await;
    for _ in 0..3 {
        assert_eq!(stage.count("unreadable").await, 0);
        stage.work().await;
        stage.clock.advance(seconds(400));
    }
    assert_eq!(
        stage
            .count("unreadable WHERE reason LIKE '%no partition%'")
            .await,
        1
    );
    assert_eq!(stage.count("pending").await, 0);
    stage.end().await;
}

#[tokio::test]
async fn trouble_with_postgres_never_sets_a_post_aside() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    stage
        .test
        .execute(
            "CREATE FUNCTION deadlock() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01'; END $$;
             CREATE TRIGGER deadlock BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION deadlock();",
        )
        .await;
    stage
        .results(
            node,
            &[line("q", "added", 1, stage.unix_now(), json!({"a": "1"}))],
        )
        .await;
    for _ in 0..6 {
        stage.work().await;
        stage.clock.advance(seconds(400));
    }
    assert_eq!(stage.count("unreadable").await, 0);
    assert_eq!(
        stage.texts("SELECT attempts::text FROM pending").await,
        ["6"]
    );
    stage.test.execute("DROP TRIGGER deadlock ON events").await;
    stage.work().await;
    assert_eq!(stage.events(node).await, [r#"q added {"a":"1"}"#]);
    stage.end().await;
}

#[tokio::test]
async fn a_worker_that_dies_in_the_middle_loses_nothing_and_doubles_nothing() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    stage.rule("r", &when("q", "a", "1"), "").await;
    let t = stage.unix_now();
    for n in 1..=5 {
        stage
            .results(node, &[line("q", "added", n, t, json!({"a": "1"}))])
            .await;
    }
    // Held back at its very last writes, and killed there.
    let mut lock = stage.test.db.begin().await.unwrap();
    execute(&mut lock, "LOCK TABLE alerts IN ACCESS EXCLUSIVE MODE").await;
    let dying = stage.another_worker();
    let task = tokio::spawn({
        let dying = dying.clone();
        async move { dying.run_until_idle().await }
    });
    stage.until_there_is(WAITING).await;
    task.abort();
    let _ = task.await;
    lock.rollback().await.unwrap();
    dying.db.close().await;
    // Its session is torn down in its own time, and holds the node until then.
    stage.until_there_is_no(HELD).await;
    assert_eq!(stage.count("events").await, 0);
    assert_eq!(stage.count("pending").await, 5);
    stage.work().await;
    assert_eq!(stage.events(node).await.len(), 5);
    assert_eq!(
        stage.texts("SELECT match_count::text FROM findings").await,
        ["5"]
    );
    assert_eq!(stage.count("deliveries").await, 1);
    stage.end().await;
}

#[tokio::test]
async fn two_workers_at_once_keep_the_order_of_a_node_and_lose_nothing() {
    let stage = Stage::with(|settings| settings.worker.group_posts = 3).await;
    let other = stage.another_worker();
    let mut nodes = Vec::new();
    for n in 0..6 {
        nodes.push(stage.node(&format!("web-{n}")).await);
    }
    let t = stage.unix_now();
    for n in 1..=20_u64 {
        for node in &nodes {
            let action = if n % 2 == 1 { "added" } else { "removed" };
            stage
                .results(*node, &[line("q", action, n, t, json!({"a": "1"}))])
                .await;
        }
    }
    let (one, two) = tokio::join!(stage.app.run_until_idle(), other.run_until_idle());
    one.unwrap();
    two.unwrap();
    stage.work().await;
    for node in nodes {
        let counters = stage
            .texts(&format!(
                "SELECT counter::text FROM events WHERE node_id = '{node}' ORDER BY id"
            ))
            .await;
        let wanted: Vec<String> = (1..=20).map(|n| n.to_string()).collect();
        assert_eq!(counters, wanted);
        assert_eq!(
            stage.present(node).await,
            ["q []"],
            "each addition was taken back after it was made"
        );
    }
    assert_eq!(stage.count("pending").await, 0);
    other.db.close().await;
    stage.end().await;
}

#[tokio::test]
async fn a_row_that_somebody_has_locked_for_a_moment_is_waited_for_and_not_passed_over() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    let status = |n: u8| {
        format!(r#"[{{"severity":0,"filename":"a","line":{n},"message":"m","version":"5"}}]"#)
    };
    let first = stage.post(node, 's', &status(1)).await;
    stage.post(node, 's', &status(2)).await;
    let mut lock = stage.test.db.begin().await.unwrap();
    let first = format!("UPDATE pending SET claims = claims WHERE id = {first}");
    execute(&mut lock, &first).await;
    let worker = stage.another_worker();
    let working = tokio::spawn(async move {
        worker.run_until_idle().await.unwrap();
        worker
    });
    stage.until_there_is(WAITING).await;
    assert_eq!(stage.count("status_logs").await, 0);
    lock.rollback().await.unwrap();
    working.await.unwrap().db.close().await;
    let lines = stage
        .texts("SELECT line::text FROM status_logs ORDER BY id")
        .await;
    assert_eq!(lines, ["1", "2"]);
    stage.end().await;
}

#[tokio::test]
async fn a_missing_partition_is_made_by_whoever_needs_it() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    let day = stage.now().format("%Y%m%d").to_string();
    stage
        .test
        .execute(&format!("DROP TABLE events_{day}, status_logs_{day}"))
        .await;
    stage
        .results(
            node,
            &[line("q", "added", 1, stage.unix_now(), json!({"a": "1"}))],
        )
        .await;
    stage
        .post(
            node,
            's',
            r#"[{"severity":0,"filename":"a","line":1,"message":"m","version":"5"}]"#,
        )
        .await;
    stage.work().await;
    assert_eq!(
        (
            stage.count("events").await,
            stage.count("status_logs").await
        ),
        (1, 1)
    );
    assert_eq!(
        stage.texts("SELECT attempts::text FROM pending").await,
        [""; 0]
    );
    stage.end().await;
}

#[tokio::test]
async fn a_post_too_large_to_be_opened_is_set_aside_and_the_next_is_worked() {
    let stage = Stage::with(|settings| settings.worker.post_mib = 1).await;
    let node = stage.node("web-1").await;
    let bomb = compress(&vec![b' '; 8 * 1024 * 1024]);
    stage.post_bytes(node, 'r', bomb, "").await;
    stage
        .results(
            node,
            &[line("q", "added", 1, stage.unix_now(), json!({"a": "1"}))],
        )
        .await;
    stage.work().await;
    assert_eq!(
        stage
            .count("unreadable WHERE reason LIKE '%more than 1048576 bytes%'")
            .await,
        1
    );
    assert_eq!(stage.events(node).await.len(), 1);
    stage.end().await;
}

#[tokio::test]
async fn posts_that_are_small_only_while_compressed_are_worked_group_by_group() {
    let stage = Stage::with(|settings| settings.worker.group_kib = 1).await;
    let node = stage.node("web-1").await;
    for counter in 1..=5 {
        let long = "x".repeat(12_000);
        let row = line(
            "q",
            "added",
            counter,
            stage.unix_now(),
            json!({"a": long, "n": counter.to_string()}),
        );
        stage.results(node, &[row]).await;
    }
    stage.work().await;
    assert_eq!(stage.events(node).await.len(), 5);
    assert_eq!(stage.count("pending").await, 0);
    stage.end().await;
}

#[tokio::test]
async fn upkeep_makes_and_drops_partitions_and_prunes() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    stage
        .test
        .execute(&format!(
            "CREATE TABLE events_20200101 PARTITION OF events FOR VALUES FROM ('2020-01-01 00:00:00+00') TO ('2020-01-02 00:00:00+00');
             INSERT INTO unreadable (id, node_id, received_at, reason, data) VALUES
                (gen_random_uuid(), '{node}', now() - interval '31 days', 'old', ''), (gen_random_uuid(), '{node}', now(), 'new', '');
             INSERT INTO config_documents (hash, document, created_at) VALUES ('a', '{{}}', now() - interval '2 days'), ('b', '{{}}', now());
             INSERT INTO live_queries (id, wire_id, sql, created_at, expires_at) VALUES
                (gen_random_uuid(), 'lq-old', 'SELECT 1', now() - interval '92 days', now() - interval '91 days'),
                (gen_random_uuid(), 'lq-new', 'SELECT 1', now() - interval '90 days', now() - interval '89 days');
             INSERT INTO live_query_tasks (live_query_id, node_id, state) SELECT id, '{node}', 'done' FROM live_queries;"
        ))
        .await;
    let ahead = (stage.now() + seconds(7 * 86_400))
        .format("%Y%m%d")
        .to_string();
    stage
        .test
        .execute(&format!("DROP TABLE IF EXISTS events_{ahead}"))
        .await;
    stage.app.keep_up().await.unwrap();
    assert_eq!(
        stage
            .count("pg_class WHERE relname = 'events_20200101'")
            .await,
        0
    );
    assert_eq!(
        stage
            .count(&format!("pg_class WHERE relname = 'events_{ahead}'"))
            .await,
        1
    );
    assert_eq!(stage.texts("SELECT reason FROM unreadable").await, ["new"]);
    assert_eq!(stage.count("config_documents").await, 1);
    let left = stage.texts("SELECT wire_id FROM live_queries").await;
    assert_eq!(left, ["lq-new"]);
    assert_eq!(stage.count("live_query_tasks").await, 1);
    stage.end().await;
}

//! Roll-outs: on to the next stage, or halted.

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_boot::clock::new_id;
use ostiary_domain::ids::NodeId;
use ostiary_domain::node_config::{config_hash, to_bytes};
use ostiary_domain::rollout::inside;
use ostiary_store::config_revisions::{self, NewRevision};
use ostiary_store::rollouts::{self, NewRollout};
use ostiary_store::{Db, config_parts, configs, node_lists, rollout_nodes};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::support::{PATIENCE, Stage};

const NODES: usize = 30;

/// A roll-out of one more option to so many nodes, as the manager begins it with these stages.
async fn begin(stage: &Stage, count: usize, shares: &[i16]) -> Uuid {
    for index in 0..count {
        stage.node(&format!("n{index:02}")).await;
    }
    begin_with_those_there(stage, shares).await
}

async fn begin_with_those_there(stage: &Stage, shares: &[i16]) -> Uuid {
    let now = stage.now();
    let mut tx = stage.test.db.begin().await.unwrap();
    let base = config_parts::load(&mut tx).await.unwrap();
    let objects = config_revisions::objects(&mut tx).await.unwrap();
    for what in ["before", "after"] {
        let revision = NewRevision {
            user_id: None,
            user_name: "x",
            what,
            objects: &objects,
        };
        config_revisions::insert(&mut tx, &revision, now)
            .await
            .unwrap();
    }
    let seen = rollout_nodes::list_seen_since(&mut tx, now - TimeDelta::hours(1))
        .await
        .unwrap();
    let concerned: Vec<NodeId> = (node_lists::facts(&mut tx).await.unwrap().into_iter())
        .map(|(id, _)| id)
        .collect();
    let id = new_id();
    let first = inside(id, &concerned, &seen, shares[0], 0);
    let new = NewRollout {
        id,
        base_revision: 1,
        revision: 2,
        base: &base,
        shares,
        threshold: first.threshold,
        user_name: "x",
    };
    rollouts::insert(&mut tx, &new, now).await.unwrap();
    rollout_nodes::add(&mut tx, id, 0, &first.nodes, now)
        .await
        .unwrap();
    Db::commit(tx).await.unwrap();
    stage
        .test
        .execute(
            "INSERT INTO options (id, name, value, created_at, updated_at) VALUES (gen_random_uuid(), 'read_max', '7', now(), now())",
        )
        .await;
    id
}

async fn inside_now(stage: &Stage) -> Vec<NodeId> {
    let texts = stage
        .texts("SELECT node_id::text FROM rollout_nodes ORDER BY 1")
        .await;
    texts.iter().map(|id| id.parse().unwrap()).collect()
}

/// These nodes fetch what they should, say that they run it, and are well.
async fn take_up(stage: &Stage, nodes: &[NodeId]) {
    let now = stage.now();
    let mut tx = stage.test.db.begin().await.unwrap();
    let parts = config_parts::load(&mut tx).await.unwrap();
    for node in nodes {
        let facts = node_lists::facts_of(&mut tx, *node).await.unwrap().unwrap();
        let bytes = to_bytes(&parts.assemble(&facts));
        let hash = Sha256::digest(&bytes).into();
        let text = std::str::from_utf8(&bytes).unwrap();
        configs::put_document(&mut tx, &hash, text, now)
            .await
            .unwrap();
        configs::put_fetched(&mut tx, &[(*node, hash, now)])
            .await
            .unwrap();
        let sql = format!(
            "UPDATE nodes SET config_hash = '{}' WHERE id = '{node}'",
            config_hash(&bytes)
        );
        ostiary_store::testing::execute(&mut tx, &sql).await;
    }
    Db::commit(tx).await.unwrap();
}

/// All nodes are heard of now.
async fn hear(stage: &Stage) {
    let now = stage.now().to_rfc3339();
    let sql = format!("UPDATE node_checkins SET last_seen_at = '{now}', results_at = '{now}'");
    stage.test.execute(&sql).await;
}

async fn state(stage: &Stage) -> String {
    let sql = "SELECT state || ' ' || stage || ' ' || reason FROM rollouts";
    stage.texts(sql).await.concat().trim_end().to_owned()
}

async fn stage_with_rollout() -> (Stage, Uuid) {
    let stage = Stage::with(|settings| settings.rollouts.stage_seconds = 600).await;
    let id = begin(&stage, NODES, &[10, 100]).await;
    assert_eq!(inside_now(&stage).await.len(), NODES / 10);
    (stage, id)
}

#[tokio::test]
async fn a_change_that_is_borne_goes_to_all() {
    let (stage, _) = stage_with_rollout().await;
    let first = inside_now(&stage).await;
    stage.clock.advance(TimeDelta::seconds(60));
    hear(&stage).await;
    take_up(&stage, &first).await;
    stage.app.keep_up().await.unwrap();
    assert_eq!(state(&stage).await, "running 0", "its time is not over");
    assert_eq!(
        stage
            .count("rollout_nodes WHERE fetched_at IS NOT NULL")
            .await,
        3
    );
    stage.clock.advance(TimeDelta::seconds(600));
    hear(&stage).await;
    stage.app.keep_up().await.unwrap();
    assert_eq!(state(&stage).await, "running 1");
    assert_eq!(inside_now(&stage).await.len(), NODES);
    stage.clock.advance(TimeDelta::seconds(700));
    hear(&stage).await;
    stage.app.keep_up().await.unwrap();
    assert_eq!(
        state(&stage).await,
        "running 1",
        "they have not taken it up"
    );
    take_up(&stage, &inside_now(&stage).await).await;
    stage.app.keep_up().await.unwrap();
    assert_eq!(state(&stage).await, "finished 1");
    stage.test.drop().await;
}

#[tokio::test]
async fn a_denylisted_query_halts_it_and_rules_hear_of_the_node() {
    let (stage, _) = stage_with_rollout().await;
    let first = inside_now(&stage).await;
    // One had something denylisted before: that is no news.
    let before = r#"{"osquery_schedule": {"denylisted": ["old"]}}"#;
    stage
        .test
        .execute(&format!(
            "UPDATE nodes SET vitals = '{before}' WHERE id = '{}';
             UPDATE rollout_nodes SET denylisted_before = '{{old}}' WHERE node_id = '{0}'",
            first[0]
        ))
        .await;
    stage.clock.advance(TimeDelta::seconds(60));
    hear(&stage).await;
    take_up(&stage, &first).await;
    stage.app.keep_up().await.unwrap();
    assert_eq!(state(&stage).await, "running 0");
    let now = r#"{"osquery_schedule": {"denylisted": ["old", "pack/it/slow"]}}"#;
    stage
        .test
        .execute(&format!(
            "UPDATE nodes SET vitals = '{now}' WHERE id = '{}'",
            first[0]
        ))
        .await;
    stage.app.keep_up().await.unwrap();
    let name = stage
        .texts(&format!(
            "SELECT hostname FROM nodes WHERE id = '{}'",
            first[0]
        ))
        .await
        .concat();
    assert_eq!(
        state(&stage).await,
        format!("halted 0 {name}: it denylisted the query pack/it/slow")
    );
    let facts = "SELECT fact ->> 'name' || ' ' || node_id FROM pending WHERE fact IS NOT NULL";
    assert_eq!(
        stage.texts(facts).await,
        [format!("rollout_halted {}", first[0])]
    );
    stage.clock.advance(TimeDelta::days(1));
    hear(&stage).await;
    stage.app.keep_up().await.unwrap();
    assert_eq!(inside_now(&stage).await, first, "nobody else got it");
    stage.test.drop().await;
}

#[tokio::test]
async fn complaints_about_a_query_halt_it_but_not_those_it_had_before() {
    let (stage, _) = stage_with_rollout().await;
    let first = inside_now(&stage).await;
    let known = "Error executing scheduled query pack/it/old: no such table: x";
    // A query that runs every few hours, and always fails.
    say(&stage, first[0], known, stage.now() - TimeDelta::hours(20)).await;
    stage.clock.advance(TimeDelta::seconds(60));
    hear(&stage).await;
    take_up(&stage, &first).await;
    stage.app.keep_up().await.unwrap();
    stage.clock.advance(TimeDelta::seconds(60));
    hear(&stage).await;
    say(&stage, first[0], known, stage.now()).await;
    stage.app.keep_up().await.unwrap();
    assert_eq!(state(&stage).await, "running 0");
    let new = "Error executing scheduled query pack/it/new: no such table: y";
    say(&stage, first[0], new, stage.now()).await;
    stage.app.keep_up().await.unwrap();
    assert!(
        state(&stage).await.starts_with("halted 0 "),
        "{}",
        state(&stage).await
    );
    assert!(state(&stage).await.contains(new), "{}", state(&stage).await);
    stage.test.drop().await;
}

/// A node logs an error.
async fn say(stage: &Stage, node: NodeId, message: &str, at: DateTime<Utc>) {
    let sql = format!(
        "SELECT ensure_partition('status_logs', '{}');
         INSERT INTO status_logs (node_id, batch_id, received_at, occurred_at, severity, message)
         VALUES ('{node}', 1, '{}', '{1}', 2, '{message}')",
        at.date_naive(),
        at.to_rfc3339()
    );
    stage.test.execute(&sql).await;
}

#[tokio::test]
async fn what_a_node_says_between_its_fetch_and_the_next_look_counts() {
    let (stage, _) = stage_with_rollout().await;
    let first = inside_now(&stage).await;
    stage.clock.advance(TimeDelta::seconds(60));
    let message = "Error executing scheduled query q: no such table: x";
    let before = stage.now() - TimeDelta::seconds(1);
    say(&stage, first[1], message, before).await;
    hear(&stage).await;
    take_up(&stage, &first).await;
    stage.clock.advance(TimeDelta::seconds(5));
    say(&stage, first[0], message, stage.now()).await;
    say(&stage, first[1], message, stage.now()).await;
    stage.clock.advance(TimeDelta::seconds(5));
    stage.app.keep_up().await.unwrap();
    assert!(state(&stage).await.contains(message));
    let troubled = "SELECT node_id::text FROM rollout_nodes WHERE trouble <> ''";
    assert_eq!(stage.texts(troubled).await, [first[0].to_string()]);
    stage.test.drop().await;
}

#[tokio::test]
async fn a_small_fleet_passes_stages_that_add_no_node() {
    let stage = Stage::with(|settings| settings.rollouts.stage_seconds = 600).await;
    begin(&stage, 5, &[1, 10, 100]).await;
    assert_eq!(inside_now(&stage).await.len(), 1);
    for expected in ["running 1", "running 2"] {
        stage.clock.advance(TimeDelta::seconds(601));
        hear(&stage).await;
        take_up(&stage, &inside_now(&stage).await).await;
        stage.app.keep_up().await.unwrap();
        assert_eq!(state(&stage).await, expected);
    }
    assert_eq!(inside_now(&stage).await.len(), 5);
    stage.clock.advance(TimeDelta::seconds(601));
    hear(&stage).await;
    take_up(&stage, &inside_now(&stage).await).await;
    stage.app.keep_up().await.unwrap();
    assert_eq!(state(&stage).await, "finished 2");
    stage.test.drop().await;
}

#[tokio::test]
async fn a_stage_of_absent_nodes_is_measured_again_when_others_come() {
    let stage = Stage::with(|settings| settings.rollouts.stage_seconds = 600).await;
    for index in 0..20 {
        stage.node(&format!("n{index:02}")).await;
    }
    stage.clock.advance(TimeDelta::days(2));
    begin_with_those_there(&stage, &[5, 100]).await;
    assert_eq!(stage.count("rollout_nodes WHERE counted").await, 0);
    stage.app.keep_up().await.unwrap();
    assert_eq!(state(&stage).await, "running 0", "nobody is there");
    // Those whom the first positions leave out.
    let now = stage.now().to_rfc3339();
    let others = "node_id NOT IN (SELECT node_id FROM rollout_nodes)";
    let come = format!("UPDATE node_checkins SET last_seen_at = '{now}' WHERE {others}");
    stage.test.execute(&come).await;
    stage.app.keep_up().await.unwrap();
    assert_eq!(stage.count("rollout_nodes WHERE counted").await, 1);
    assert_eq!(state(&stage).await, "running 0");
    stage.test.drop().await;
}

#[tokio::test]
async fn who_comes_into_a_stage_that_is_under_way_is_watched() {
    let (stage, _) = stage_with_rollout().await;
    let open = "UPDATE rollouts SET threshold = 9223372036854775807, stage = 1";
    stage.test.execute(open).await;
    let late = stage.node("late").await;
    stage.app.keep_up().await.unwrap();
    let watched = format!("rollout_nodes WHERE node_id = '{late}' AND NOT counted AND stage = 1");
    assert_eq!(stage.count(&watched).await, 1);
    take_up(&stage, &[late]).await;
    let denylists = r#"{"osquery_schedule": {"denylisted": ["pack/it/slow"]}}"#;
    let sql = format!("UPDATE nodes SET vitals = '{denylists}' WHERE id = '{late}'");
    stage.test.execute(&sql).await;
    stage.app.keep_up().await.unwrap();
    assert!(state(&stage).await.starts_with("halted 1 late"));
    stage.test.drop().await;
}

#[tokio::test]
async fn what_a_node_logs_that_has_just_enrolled_does_not_halt_it() {
    let (stage, _) = stage_with_rollout().await;
    let open = "UPDATE rollouts SET threshold = 9223372036854775807, stage = 1";
    stage.test.execute(open).await;
    stage.clock.advance(TimeDelta::seconds(60));
    let late = stage.node("late").await;
    hear(&stage).await;
    stage.app.keep_up().await.unwrap();
    take_up(&stage, &[late]).await;
    stage.clock.advance(TimeDelta::seconds(5));
    let old = "Error executing scheduled query pack/it/old: no such table: x";
    for _ in 0..10 {
        say(&stage, late, old, stage.now()).await;
    }
    stage.clock.advance(TimeDelta::seconds(5));
    stage.app.keep_up().await.unwrap();
    let watched = format!("rollout_nodes WHERE node_id = '{late}' AND fetched_at IS NOT NULL");
    assert_eq!(stage.count(&watched).await, 1);
    assert_eq!(state(&stage).await, "running 1");
    stage.test.drop().await;
}

#[tokio::test]
async fn a_look_without_news_waits_for_nobody() {
    let (stage, _) = stage_with_rollout().await;
    let mut saving = stage.test.db.begin().await.unwrap();
    config_revisions::lock(&mut saving).await.unwrap();
    hear(&stage).await;
    let look = tokio::time::timeout(PATIENCE, stage.app.keep_up());
    look.await.expect("it takes no lock").unwrap();
    Db::roll_back(saving).await.unwrap();
    stage.test.drop().await;
}

#[tokio::test]
async fn nodes_that_fall_silent_or_do_not_take_it_up_halt_it() {
    let (stage, _) = stage_with_rollout().await;
    let first = inside_now(&stage).await;
    stage.clock.advance(TimeDelta::seconds(60));
    hear(&stage).await;
    take_up(&stage, &first).await;
    stage.app.keep_up().await.unwrap();
    // They are not heard of again.
    stage.clock.advance(TimeDelta::seconds(2000));
    stage.app.keep_up().await.unwrap();
    let said = state(&stage).await;
    assert!(said.contains("not been heard of since"), "{said}");
    stage.test.drop().await;

    let (stage, _) = stage_with_rollout().await;
    stage.clock.advance(TimeDelta::hours(3));
    hear(&stage).await;
    stage.app.keep_up().await.unwrap();
    let said = state(&stage).await;
    assert!(said.contains("has not fetched the config"), "{said}");
    let facts = "SELECT count(*)::text FROM pending WHERE fact ->> 'name' = 'config_not_taken_up'";
    assert_eq!(stage.texts(facts).await, ["3"]);
    stage.test.drop().await;
}

//! Staged roll-outs with nodes that run what they get: one that halts by itself, one that goes through, and the cut-off guard.

use ostiary_simulator::Fleet;
use ostiary_tests::{Forms, PATIENCE, World, WorldOptions, eventually, run_browser};
use serde_json::json;

const NODES: usize = 12;

/// Stages of seconds rather than hours: 1 node, 2 nodes, all.
async fn world() -> World {
    let options = WorldOptions::default()
        .set("ROLLOUTS__STAGE_SECONDS", "3")
        .set("ROLLOUTS__TAKE_UP_SECONDS", "600")
        .set("WORKER__SWEEP_SECONDS", "1")
        .set("API__CHECKIN_FLUSH_MS", "500");
    World::start(options).await
}

/// Writes down each stage that a roll-out comes to: one lasts for seconds, and a busy test might never look in between.
const STAGES: &str = "CREATE TABLE stages (number bigint GENERATED ALWAYS AS IDENTITY, stage bigint NOT NULL);
    CREATE FUNCTION note_stage() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
    BEGIN
        IF TG_OP = 'INSERT' OR NEW.stage <> OLD.stage THEN INSERT INTO stages (stage) VALUES (NEW.stage); END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER note_stage AFTER INSERT OR UPDATE ON rollouts FOR EACH ROW EXECUTE FUNCTION note_stage()";

/// All nodes are there and say that they run what they fetched.
async fn settled(world: &World, fleet: &Fleet) {
    eventually("all nodes enroll", PATIENCE, async || {
        (fleet.enrolled() == NODES).then_some(())
    })
    .await;
    eventually("all nodes say what they run", PATIENCE, async || {
        let sql = "SELECT count(*) FROM nodes JOIN node_checkins ON node_id = id WHERE config_hash <> '' AND results_at IS NOT NULL";
        (world.scalar(sql).await >= i64::try_from(NODES).unwrap()).then_some(())
    })
    .await;
}

/// Nodes that have fetched a config with a query of this name.
async fn nodes_with(world: &World, query: &str) -> i64 {
    let sql = format!(
        "SELECT count(*) FROM node_configs JOIN config_documents ON hash = document_hash WHERE document LIKE '%\"{query}\"%'"
    );
    world.scalar(&sql).await
}

async fn save_in_stages(forms: &mut Forms, name: &str, sql: &str) {
    let fields = [
        ("name", name),
        ("sql", sql),
        ("interval_seconds", "60"),
        ("kind", "snapshot"),
        ("denylist", "on"),
        ("enabled", "on"),
        ("saving", "stages"),
    ];
    let page = forms.post("/queries", &fields).await;
    assert_eq!(page.status, 303, "{}", page.body);
}

async fn rollout(world: &World, column: &str) -> String {
    let sql = format!("SELECT {column}::text FROM rollouts ORDER BY id DESC LIMIT 1");
    world.db.texts(&sql).await.concat()
}

#[tokio::test]
async fn a_roll_out_whose_first_node_denylists_a_query_halts_and_nobody_else_gets_it() {
    let world = world().await;
    let fleet = world.fleet(NODES).costly_tables(&["processes"]);
    let fleet = fleet.start().await.unwrap();
    settled(&world, &fleet).await;
    let mut forms = Forms::sign_in(&world).await;
    save_in_stages(&mut forms, "too_costly", "SELECT * FROM processes").await;
    eventually("the roll-out halts", PATIENCE, async || {
        (rollout(&world, "state").await == "halted").then_some(())
    })
    .await;
    let reason = rollout(&world, "reason").await;
    assert!(
        reason.contains("it denylisted the query too_costly")
            || reason.contains("Scheduled query may have failed: too_costly"),
        "{reason}"
    );
    assert_eq!(rollout(&world, "stage").await, "0");
    // Long enough for every node to have asked for its config again, and more than a stage.
    world.another_look(&fleet, PATIENCE).await;
    world.another_look(&fleet, PATIENCE).await;
    assert_eq!(nodes_with(&world, "too_costly").await, 1);
    let id = rollout(&world, "id").await;
    let page = forms.get(&format!("/rollouts/{id}")).await;
    assert!(page.body.contains("It is halted"), "{}", page.body);
    assert!(page.body.contains("too_costly"), "{}", page.body);
    // One click takes it back.
    let page = forms.post(&format!("/rollouts/{id}/return"), &[]).await;
    assert_eq!(page.status, 303, "{}", page.body);
    eventually("nobody has it any more", PATIENCE, async || {
        (nodes_with(&world, "too_costly").await == 0).then_some(())
    })
    .await;
    assert_eq!(rollout(&world, "state").await, "returned");
    fleet.stop().await;
    world.end().await;
}

#[tokio::test]
async fn a_change_that_nodes_bear_goes_through_its_stages_to_all_and_back() {
    let world = world().await;
    let fleet = world.fleet(NODES).start().await.unwrap();
    settled(&world, &fleet).await;
    let mut forms = Forms::sign_in(&world).await;
    let before = world
        .db
        .texts("SELECT coalesce(max(number), 0)::text FROM config_revisions")
        .await
        .concat();
    assert_eq!(before, "0");
    world.db.execute(STAGES).await;
    save_in_stages(&mut forms, "borne", "SELECT * FROM users").await;
    eventually("all nodes have it", PATIENCE, async || {
        let stage = rollout(&world, "stage").await;
        // Asked after the stage, so there may be more, but not before the next stage has begun.
        let have = nodes_with(&world, "borne").await;
        if stage == "0" && rollout(&world, "stage").await == "0" {
            assert!(have <= 1, "{have} in the first stage");
        }
        (rollout(&world, "state").await == "finished").then_some(())
    })
    .await;
    let stages = "SELECT string_agg(stage::text, '' ORDER BY number) FROM stages";
    assert_eq!(world.db.texts(stages).await, ["012"]);
    assert_eq!(
        nodes_with(&world, "borne").await,
        i64::try_from(NODES).unwrap()
    );
    let node = world
        .db
        .texts("SELECT id::text FROM nodes LIMIT 1")
        .await
        .concat();
    let page = forms.get(&format!("/nodes/{node}/config")).await;
    assert!(page.body.contains("running"), "{}", page.body);
    assert!(page.body.contains("borne"), "{}", page.body);
    // Back to how it was before all of this, at once.
    let page = forms.post("/revisions/1/return", &[]).await;
    assert_eq!(page.status, 303, "{}", page.body);
    eventually("nobody has it any more", PATIENCE, async || {
        (nodes_with(&world, "borne").await == 0).then_some(())
    })
    .await;
    fleet.stop().await;
    world.end().await;
}

#[tokio::test]
async fn a_person_who_would_cut_nodes_off_is_asked_in_the_browser() {
    if std::env::var_os("OSTIARY_SKIP_BROWSER").is_some() {
        println!("OSTIARY_SKIP_BROWSER is set: nobody looks at the pages");
        return;
    }
    let world = world().await;
    let fleet = world.fleet(3).start().await.unwrap();
    eventually("all nodes enroll", PATIENCE, async || {
        (fleet.enrolled() == 3).then_some(())
    })
    .await;
    let (user, password) = world.admin();
    let input = json!({"manager_url": format!("http://{}", world.manager), "user": user, "password": password});
    let seen = run_browser("cut_off.mjs", &input).await;
    let preview = seen["preview"].as_str().unwrap();
    assert!(
        preview.contains("3 of 3 nodes would get another config"),
        "{preview}"
    );
    let asked = seen["asked"].as_str().unwrap();
    assert!(asked.contains("logger_tls_endpoint"), "{asked}");
    assert!(asked.contains("on 3 nodes"), "{asked}");
    assert_eq!(seen["saved"], true, "{seen}");
    assert_eq!(seen["console"], json!([]), "nothing is wrong on any page");
    assert_eq!(world.scalar("SELECT count(*) FROM options").await, 1);
    fleet.stop().await;
    world.end().await;
}

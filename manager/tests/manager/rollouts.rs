//! Changes of configs: revisions and the way back, the cut-off guard, previews, roll-outs in stages.

use axum::http::StatusCode;
use ostiary_domain::osquery::aliases::AliasSet;
use serde_json::{Value, json};

use super::world::{Answer, Browser, World};

/// The values of the field `cut_off` that a form asks to be confirmed.
fn digest(answer: &Answer) -> String {
    let (_, rest) = answer
        .body
        .split_once("name=\"cut_off\" value=\"")
        .unwrap_or_else(|| panic!("nothing is asked: {}", answer.body));
    rest.split('"').next().unwrap().to_owned()
}

async fn nodes(world: &World, count: usize) {
    world
        .test_db
        .execute(&format!(
            "INSERT INTO nodes (id, host_identifier, hostname, platform, osquery_version, enrolled_at, first_enrolled_at)
             SELECT gen_random_uuid(), 'host-' || n, 'host-' || n, 'linux', '5.23.1', now(), now() FROM generate_series(1, {count}) n;
             INSERT INTO node_checkins (node_id, last_seen_at) SELECT id, now() FROM nodes;"
        ))
        .await;
}

async fn number(world: &World, sql: &str) -> i64 {
    let sql = format!("SELECT coalesce(({sql}), 0)::text");
    world.test_db.texts(&sql).await[0].parse().unwrap()
}

async fn add_option(
    browser: &mut Browser<'_>,
    name: &str,
    value: &str,
    more: &[(&str, &str)],
) -> Answer {
    let mut fields = vec![("name", name), ("value", value)];
    fields.extend(more);
    browser.post("/options", &fields).await
}

#[tokio::test]
async fn every_change_makes_a_revision_and_one_click_returns_to_it() {
    let world = World::new().await;
    nodes(&world, 2).await;
    let mut browser = world.browser_as("editor").await;
    let pack = [("name", "it"), ("enabled", "on")];
    assert_eq!(
        browser.post("/packs", &pack).await.status,
        StatusCode::SEE_OTHER
    );
    let id = world
        .test_db
        .texts("SELECT id::text FROM packs WHERE name = 'it'")
        .await
        .concat();
    let edit = format!("/packs/{id}");
    let changed = [("name", "it"), ("target", "prod"), ("enabled", "on")];
    for _ in 0..2 {
        // The second time nothing changes, so it makes no revision.
        let answer = browser.post(&edit, &changed).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER);
    }
    let delete = format!("/packs/{id}/delete");
    browser.post(&delete, &[("confirm", "it")]).await;
    let what =
        "SELECT number || ' ' || user_name || ' ' || what FROM config_revisions ORDER BY number";
    assert_eq!(
        world.test_db.texts(what).await,
        [
            "1 Ostiary As it was when Ostiary began to keep revisions",
            "2 editor Made the pack it",
            "3 editor Changed the pack it",
            "4 editor Deleted the pack it"
        ]
    );
    let list = browser.get("/revisions").await;
    assert!(list.body.contains("Deleted the pack it"), "{}", list.body);
    let page = browser.get("/revisions/3").await;
    assert!(page.body.contains("<ins>prod</ins>"), "{}", page.body);
    let answer = browser.post("/revisions/3/return", &[]).await;
    assert_eq!(answer.location, "/revisions/5", "{}", answer.body);
    let back = world
        .test_db
        .texts("SELECT id || ' ' || target FROM packs WHERE name = 'it'")
        .await;
    assert_eq!(back, [format!("{id} prod")]);
    let audited = "SELECT count(*) FROM audit_entries WHERE action = 'revisions.return'";
    assert_eq!(number(&world, audited).await, 1);
    world.end().await;
}

#[tokio::test]
async fn what_could_cut_nodes_off_is_named_and_confirmed() {
    let world = World::new().await;
    nodes(&world, 3).await;
    let mut browser = world.browser_as("editor").await;
    let asked = add_option(&mut browser, "distributed_interval", "0", &[]).await;
    assert_eq!(asked.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(asked.body.contains("on 3 nodes"), "{}", asked.body);
    assert!(!asked.body.contains("cut_off_typed"));
    let confirmed = [("cut_off", &*digest(&asked))];
    let answer = add_option(&mut browser, "distributed_interval", "0", &confirmed).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    // What is worse must be typed, and what was confirmed before confirms nothing else.
    let other = add_option(&mut browser, "logger_tls_endpoint", "/nowhere", &confirmed).await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    let digest = digest(&other);
    let only_checked = [("cut_off", digest.as_str())];
    let again = add_option(
        &mut browser,
        "logger_tls_endpoint",
        "/nowhere",
        &only_checked,
    )
    .await;
    assert_eq!(again.status, StatusCode::UNPROCESSABLE_ENTITY);
    let typed = [
        ("cut_off", digest.as_str()),
        ("cut_off_typed", "logger_tls_endpoint"),
    ];
    let answer = add_option(&mut browser, "logger_tls_endpoint", "/nowhere", &typed).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    // A way back that cuts off is asked about, too; this one does not.
    let answer = browser.post("/revisions/1/return", &[]).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    assert_eq!(number(&world, "SELECT count(*) FROM options").await, 0);
    let answer = browser.post("/revisions/3/return", &[]).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.body.contains("logger_tls_endpoint"));
    world.end().await;
}

#[tokio::test]
async fn a_path_is_safe_for_its_own_endpoint_only_aliases_included() {
    let world = World::with(|settings| settings.api.aliases.sets = vec![AliasSet::Fleet]).await;
    nodes(&world, 3).await;
    let mut browser = world.browser_as("editor").await;
    for (path, expected) in [
        ("/config", StatusCode::UNPROCESSABLE_ENTITY),
        ("/api/osquery/config", StatusCode::UNPROCESSABLE_ENTITY),
        ("/api/osquery/log", StatusCode::SEE_OTHER),
    ] {
        let answer = add_option(&mut browser, "logger_tls_endpoint", path, &[]).await;
        assert_eq!(answer.status, expected, "{path}: {}", answer.body);
    }
    world.end().await;
}

#[tokio::test]
async fn a_tag_whose_options_could_cut_off_is_asked_about() {
    let world = World::new().await;
    nodes(&world, 3).await;
    let mut browser = world.browser_as("editor").await;
    let target = [("target", "quiet")];
    let answer = add_option(&mut browser, "distributed_interval", "0", &target).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "nobody has the tag");
    let ids = world.test_db.texts("SELECT id::text FROM nodes").await;
    let mut fields = vec![("do", "add"), ("tag", "quiet"), ("back", "q=x")];
    fields.extend(ids.iter().map(|id| ("node", id.as_str())));
    let asked = browser.post("/nodes/tags", &fields).await;
    assert_eq!(asked.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(asked.body.contains("on 3 nodes"), "{}", asked.body);
    let tagged = "SELECT count(*) FROM node_tags";
    assert_eq!(number(&world, tagged).await, 0);
    for id in &ids {
        let sent_again = format!("name=\"node\" value=\"{id}\"");
        assert!(asked.body.contains(&sent_again), "{}", asked.body);
    }
    let confirmed = digest(&asked);
    fields.push(("cut_off", &confirmed));
    let answer = browser.post("/nodes/tags", &fields).await;
    assert_eq!(answer.location, "/nodes?q=x", "{}", answer.body);
    assert_eq!(number(&world, tagged).await, 3);
    // Of one node on its own page, and the other way: the option is for those without the tag now.
    let id = world
        .test_db
        .texts("SELECT id::text FROM options")
        .await
        .concat();
    let edit = [
        ("name", "distributed_interval"),
        ("value", "0"),
        ("target", "not quiet"),
    ];
    let answer = browser.post(&format!("/options/{id}"), &edit).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    let path = format!("/nodes/{}/tags", ids[0]);
    let asked = browser.post(&path, &[("remove", "quiet")]).await;
    assert!(asked.body.contains("on 1 node."), "{}", asked.body);
    let confirmed = digest(&asked);
    let fields = [("remove", "quiet"), ("cut_off", confirmed.as_str())];
    let answer = browser.post(&path, &fields).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    let audited = "SELECT count(*) FROM audit_entries WHERE action LIKE 'nodes.%_tag'";
    assert_eq!(
        (number(&world, tagged).await, number(&world, audited).await),
        (2, 4)
    );
    let revisions = "SELECT count(*) FROM config_revisions";
    assert_eq!(number(&world, revisions).await, 3, "tags are no revision");
    world.end().await;
}

#[tokio::test]
async fn deleting_what_keeps_contact_is_confirmed_too() {
    let world = World::new().await;
    nodes(&world, 3).await;
    let mut browser = world.browser_as("editor").await;
    let answer = add_option(&mut browser, "disable_distributed", "false", &[]).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    let id = world
        .test_db
        .texts("SELECT id::text FROM options")
        .await
        .concat();
    // Nodes would be sent osquery's default, true.
    let delete = format!("/options/{id}/delete");
    let name = ("confirm", "disable_distributed");
    browser.post(&delete, &[name]).await;
    let page = browser.get("/options").await;
    assert!(
        page.body.contains("do not answer live queries"),
        "{}",
        page.body
    );
    assert_eq!(number(&world, "SELECT count(*) FROM options").await, 1);
    browser
        .post(&delete, &[name, ("cut_off", "deletion")])
        .await;
    assert_eq!(number(&world, "SELECT count(*) FROM options").await, 0);
    world.end().await;
}

#[tokio::test]
async fn a_preview_says_how_many_nodes_get_another_config_and_saves_nothing() {
    let world = World::new().await;
    nodes(&world, 3).await;
    let mut browser = world.browser_as("editor").await;
    let answer = add_option(
        &mut browser,
        "read_max",
        "1000",
        &[("preview", "on"), ("saving", "stages")],
    )
    .await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        answer
            .body
            .contains("3 of 3 nodes would get another config"),
        "{}",
        answer.body
    );
    assert!(
        answer.body.contains("value=\"stages\" checked"),
        "the choice stays"
    );
    assert!(
        answer.body.contains("value=\"1000\""),
        "what was typed stays"
    );
    let nobody = [("preview", "on"), ("target", "lab")];
    let answer = add_option(&mut browser, "read_max", "1000", &nobody).await;
    assert!(
        answer.body.contains("None of the 3 nodes"),
        "{}",
        answer.body
    );
    assert_eq!(number(&world, "SELECT count(*) FROM options").await, 0);
    assert_eq!(
        number(&world, "SELECT count(*) FROM config_revisions").await,
        0
    );
    world.end().await;
}

#[tokio::test]
async fn a_change_in_stages_reaches_one_node_first_and_the_next_change_joins_it() {
    let world = World::new().await;
    nodes(&world, 20).await;
    let mut browser = world.browser_as("editor").await;
    let stages = [("saving", "stages")];
    add_option(&mut browser, "read_max", "1000", &stages).await;
    let rollout = world
        .test_db
        .texts("SELECT id || ' ' || state || ' ' || base_revision || ' ' || revision || ' ' || stage FROM rollouts")
        .await;
    assert_eq!(rollout.len(), 1);
    let (id, rest) = rollout[0].split_once(' ').unwrap();
    assert_eq!(rest, "running 1 2 0");
    let counted = "SELECT count(*) FROM rollout_nodes WHERE counted AND stage = 0";
    assert_eq!(number(&world, counted).await, 1);
    let page = browser.get(&format!("/rollouts/{id}")).await;
    assert!(
        page.body.contains("20, of which 19 still have"),
        "{}",
        page.body
    );
    let form = browser.get("/options/new").await;
    assert!(form.body.contains("this change joins it"), "{}", form.body);
    add_option(&mut browser, "events_max", "60000", &[("saving", "once")]).await;
    assert_eq!(
        number(&world, "SELECT count(*) FROM rollouts WHERE revision = 3").await,
        1
    );
    assert_eq!(number(&world, counted).await, 1);
    // Of the node inside the page says so, of another that it waits.
    let inside = world
        .test_db
        .texts("SELECT node_id::text FROM rollout_nodes")
        .await
        .concat();
    let outside = world
        .test_db
        .texts(&format!(
            "SELECT id::text FROM nodes WHERE id <> '{inside}' LIMIT 1"
        ))
        .await
        .concat();
    let page = browser.get(&format!("/nodes/{inside}/config")).await;
    assert!(page.body.contains("This node is inside"), "{}", page.body);
    assert!(
        page.body.contains("&quot;read_max&quot;: 1000"),
        "{}",
        page.body
    );
    let page = browser.get(&format!("/nodes/{outside}/config")).await;
    assert!(page.body.contains("This node is outside"), "{}", page.body);
    assert!(
        !page.body.contains("&quot;read_max&quot;: 1000"),
        "{}",
        page.body
    );
    // Taken back by one click, all is as before, and over; what that undoes is said before.
    let page = browser.get(&format!("/rollouts/{id}")).await;
    for what in ["Made the option read_max", "Made the option events_max"] {
        assert!(page.body.contains(what), "{}", page.body);
    }
    let answer = browser.post(&format!("/rollouts/{id}/return"), &[]).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    assert_eq!(number(&world, "SELECT count(*) FROM options").await, 0);
    let over = "SELECT count(*) FROM rollouts WHERE state = 'returned' AND ended_at IS NOT NULL";
    assert_eq!(number(&world, over).await, 1);
    world.end().await;
}

/// Of all nodes, which get a config with this text?
async fn nodes_that_get(browser: &mut Browser<'_>, world: &World, text: &str) -> usize {
    let mut count = 0;
    for id in world.test_db.texts("SELECT id::text FROM nodes").await {
        let page = browser.get(&format!("/nodes/{id}/config")).await;
        count += usize::from(page.body.contains(text));
    }
    count
}

#[tokio::test]
async fn taking_back_gives_a_bad_change_to_nobody_who_was_spared() {
    let world = World::with(|settings| settings.rollouts.save_in_stages = true).await;
    nodes(&world, 6).await;
    let mut browser = world.browser_as("editor").await;
    let active = "SELECT count(*) FROM rollouts WHERE ended_at IS NULL";
    // By the settings and by the form, from the roll-out's page and from the revision's.
    for (round, saving) in [[].as_slice(), &[("saving", "stages")]]
        .into_iter()
        .enumerate()
    {
        for from in ["rollouts", "revisions"] {
            add_option(&mut browser, "read_max", "1000", &[("saving", "stages")]).await;
            assert_eq!(number(&world, active).await, 1);
            let sql = match from {
                "rollouts" => "SELECT id::text FROM rollouts WHERE ended_at IS NULL",
                _ => "SELECT base_revision::text FROM rollouts WHERE ended_at IS NULL",
            };
            let of = world.test_db.texts(sql).await.concat();
            let answer = browser.post(&format!("/{from}/{of}/return"), saving).await;
            assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
            assert_eq!(number(&world, active).await, 0, "round {round}, {from}");
        }
    }
    let bad = "&quot;read_max&quot;: 1000";
    assert_eq!(nodes_that_get(&mut browser, &world, bad).await, 0);
    world.end().await;
}

#[tokio::test]
async fn a_return_in_stages_keeps_what_the_nodes_outside_have() {
    let world = World::new().await;
    nodes(&world, 6).await;
    let mut browser = world.browser_as("editor").await;
    add_option(&mut browser, "events_max", "60000", &[("saving", "once")]).await;
    add_option(&mut browser, "read_max", "1000", &[("saving", "stages")]).await;
    let stages = [("saving", "stages")];
    let answer = browser.post("/revisions/1/return", &stages).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    let kept = "SELECT base_revision FROM rollouts WHERE ended_at IS NULL";
    assert_eq!(number(&world, kept).await, 2);
    assert_eq!(
        nodes_that_get(&mut browser, &world, "&quot;read_max&quot;: 1000").await,
        0
    );
    assert_eq!(
        nodes_that_get(&mut browser, &world, "&quot;events_max&quot;: 60000").await,
        5
    );
    // At once it is for all, and over.
    let answer = browser
        .post("/revisions/2/return", &[("saving", "once")])
        .await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    assert_eq!(
        nodes_that_get(&mut browser, &world, "&quot;events_max&quot;: 60000").await,
        6
    );
    assert_eq!(
        number(
            &world,
            "SELECT count(*) FROM rollouts WHERE ended_at IS NULL"
        )
        .await,
        0
    );
    world.end().await;
}

#[tokio::test]
async fn a_roll_out_that_is_over_is_not_taken_back_and_one_under_way_not_finished_by_a_return() {
    let world = World::new().await;
    nodes(&world, 6).await;
    let mut browser = world.browser_as("editor").await;
    add_option(&mut browser, "read_max", "1000", &[("saving", "stages")]).await;
    let active = "SELECT id::text FROM rollouts WHERE ended_at IS NULL";
    let id = world.test_db.texts(active).await.concat();
    // A return to what is being tried would give it to all.
    let answer = browser
        .post("/revisions/2/return", &[("saving", "once")])
        .await;
    assert!(answer.body.contains("Nothing differs"), "{}", answer.body);
    assert_eq!(world.test_db.texts(active).await, [id.as_str()]);
    // What a node outside reads is exported of it, too.
    let token = world.token("editor").await;
    let mut exported = 0;
    for node in world.test_db.texts("SELECT id::text FROM nodes").await {
        let path = format!("/api/v1/config/export?scope=node&node={node}");
        let answer = world.get_json(&path, &token).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        exported += usize::from(answer.json()["options"]["read_max"] == 1000);
    }
    assert_eq!(exported, 1);
    browser.post(&format!("/rollouts/{id}/finish"), &[]).await;
    add_option(&mut browser, "events_max", "60000", &[]).await;
    let answer = browser.post(&format!("/rollouts/{id}/return"), &[]).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        answer.body.contains("This roll-out is over."),
        "{}",
        answer.body
    );
    assert_eq!(number(&world, "SELECT count(*) FROM options").await, 2);
    world.end().await;
}

#[tokio::test]
async fn who_is_inside_stays_inside_when_a_change_joins() {
    let world = World::new().await;
    nodes(&world, 20).await;
    let mut browser = world.browser_as("editor").await;
    let stages = [("saving", "stages")];
    add_option(&mut browser, "read_max", "1000", &stages).await;
    // The second of three stages, with every second position.
    let half = 1_i64 << 61;
    let go_on = format!("UPDATE rollouts SET stage = 1, threshold = {half}");
    world.test_db.execute(&go_on).await;
    let inside = nodes_that_get(&mut browser, &world, "&quot;read_max&quot;: 1000").await;
    add_option(&mut browser, "events_max", "60000", &stages).await;
    let now = world
        .test_db
        .texts("SELECT stage || ' ' || threshold FROM rollouts")
        .await;
    assert_eq!(now, [format!("1 {half}")]);
    let watched = "SELECT count(*) FROM rollout_nodes WHERE stage = 1";
    assert_eq!(usize::try_from(number(&world, watched).await), Ok(inside));
    assert_eq!(
        nodes_that_get(&mut browser, &world, "&quot;events_max&quot;: 60000").await,
        inside
    );
    world.end().await;
}

#[tokio::test]
async fn a_change_after_the_last_stage_begins_a_roll_out_of_its_own() {
    let world = World::new().await;
    nodes(&world, 20).await;
    let mut browser = world.browser_as("editor").await;
    let stages = [("saving", "stages")];
    add_option(&mut browser, "read_max", "1000", &stages).await;
    let last = format!("UPDATE rollouts SET stage = 2, threshold = {}", i64::MAX);
    world.test_db.execute(&last).await;
    add_option(&mut browser, "events_max", "60000", &stages).await;
    let states =
        "SELECT state || ' ' || base_revision || ' ' || revision FROM rollouts ORDER BY id";
    assert_eq!(
        world.test_db.texts(states).await,
        ["finished 1 2", "running 2 3"]
    );
    assert_eq!(
        nodes_that_get(&mut browser, &world, "&quot;read_max&quot;: 1000").await,
        20
    );
    assert_eq!(
        nodes_that_get(&mut browser, &world, "&quot;events_max&quot;: 60000").await,
        1
    );
    world.end().await;
}

#[tokio::test]
async fn a_preview_during_a_roll_out_compares_with_what_each_node_gets() {
    let world = World::new().await;
    nodes(&world, 20).await;
    let mut browser = world.browser_as("editor").await;
    add_option(
        &mut browser,
        "distributed_interval",
        "0",
        &[("preview", "on")],
    )
    .await;
    let asked = add_option(
        &mut browser,
        "distributed_interval",
        "0",
        &[("saving", "stages")],
    )
    .await;
    let confirmed = [("cut_off", &*digest(&asked)), ("saving", "stages")];
    add_option(&mut browser, "distributed_interval", "0", &confirmed).await;
    assert_eq!(number(&world, "SELECT count(*) FROM rollouts").await, 1);
    // What the roll-out brings anyway was confirmed, and is not asked again; but everybody would get another config than now.
    let answer = add_option(&mut browser, "read_max", "1000", &[("preview", "on")]).await;
    let expected = "It joins the roll-out that is under way: 1 of them are inside and get it at once, 19 as it goes on.";
    assert!(answer.body.contains("20 of 20 nodes"), "{}", answer.body);
    assert!(answer.body.contains(expected), "{}", answer.body);
    assert!(!answer.body.contains("cut_off_digest") && !answer.body.contains("name=\"cut_off\""));
    world.end().await;
}

#[tokio::test]
async fn a_halted_roll_out_can_go_on_or_be_given_to_all() {
    let world = World::new().await;
    nodes(&world, 20).await;
    let mut browser = world.browser_as("editor").await;
    add_option(&mut browser, "read_max", "1000", &[("saving", "stages")]).await;
    let id = world
        .test_db
        .texts("SELECT id::text FROM rollouts")
        .await
        .concat();
    world
        .test_db
        .execute(
            "UPDATE rollouts SET state = 'halted', reason = 'host-1: it denylisted the query <b>'",
        )
        .await;
    let page = browser.get(&format!("/rollouts/{id}")).await;
    assert!(
        page.body.contains("it denylisted the query &lt;b&gt;"),
        "{}",
        page.body
    );
    browser.post(&format!("/rollouts/{id}/resume"), &[]).await;
    assert_eq!(
        number(
            &world,
            "SELECT count(*) FROM rollouts WHERE state = 'running'"
        )
        .await,
        1
    );
    browser.post(&format!("/rollouts/{id}/finish"), &[]).await;
    assert_eq!(
        number(
            &world,
            "SELECT count(*) FROM rollouts WHERE state = 'finished'"
        )
        .await,
        1
    );
    let again = browser.post(&format!("/rollouts/{id}/finish"), &[]).await;
    assert_eq!(again.status, StatusCode::SEE_OTHER);
    let page = browser.get(&format!("/rollouts/{id}")).await;
    assert!(
        page.body.contains("This roll-out is over."),
        "{}",
        page.body
    );
    let steps =
        "SELECT count(*) FROM audit_entries WHERE action IN ('rollouts.resume', 'rollouts.finish')";
    assert_eq!(number(&world, steps).await, 2);
    world.end().await;
}

#[tokio::test]
async fn a_program_reads_revisions_and_roll_outs_and_steers_them() {
    let world = World::new().await;
    nodes(&world, 20).await;
    let mut browser = world.browser_as("editor").await;
    let token = world.token("editor").await;
    let get = async |path: &str| world.get_json(path, &token).await.json();
    let post = async |path: &str, body: Value| world.post_json(path, &token, &body).await;
    add_option(&mut browser, "read_max", "1000", &[("saving", "stages")]).await;
    let revisions = get("/api/v1/revisions?limit=1").await;
    assert_eq!(revisions["items"][0]["what"], "Made the option read_max");
    assert!(revisions["next"].is_string());
    let revision = get("/api/v1/revisions/2").await;
    assert_eq!(revision["changes"][0]["change"], "added");
    assert_eq!(revision["objects"]["options"].as_object().unwrap().len(), 1);
    let back = get("/api/v1/revisions/1/diff").await;
    assert_eq!(back["changes"][0]["change"], "removed");
    let forth = get("/api/v1/revisions/2/diff?from=1").await;
    assert_eq!(forth["changes"][0]["name"], "read_max");
    let missing = world.get_json("/api/v1/revisions/99", &token).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);

    let rollouts = get("/api/v1/rollouts").await;
    let path = format!(
        "/api/v1/rollouts/{}",
        rollouts["items"][0]["id"].as_str().unwrap()
    );
    let shown = get(&path).await;
    assert_eq!(
        (&shown["state"], shown["nodes"].as_array().unwrap().len()),
        (&json!("running"), 1)
    );
    for (step, state) in [("halt", "halted"), ("resume", "running")] {
        let answer = post(&format!("{path}/{step}"), json!({})).await;
        assert_eq!(answer.json()["state"], state, "{}", answer.body);
        assert_eq!(get(&path).await["state"], state);
    }
    let again = post(&format!("{path}/resume"), json!({})).await;
    assert_eq!(again.status, StatusCode::UNPROCESSABLE_ENTITY);
    let taken = post(&format!("{path}/return"), json!({"saving": "stages"})).await;
    assert_eq!(taken.json()["revision"], 3, "{}", taken.body);
    assert_eq!(get(&path).await["state"], "returned");
    let returned = post("/api/v1/revisions/2/return", json!({"saving": "stages"})).await;
    assert_eq!(returned.json()["revision"], 4, "{}", returned.body);
    let rollouts = get("/api/v1/rollouts").await;
    let path = format!(
        "/api/v1/rollouts/{}",
        rollouts["items"][0]["id"].as_str().unwrap()
    );
    let answer = post(&format!("{path}/finish"), json!({})).await;
    assert_eq!(answer.json()["state"], "finished", "{}", answer.body);
    world.user("ann", "viewer").await;
    let token = world.token("ann").await;
    let refused = world
        .post_json("/api/v1/revisions/1/return", &token, &json!({}))
        .await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    world.end().await;
}

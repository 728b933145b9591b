//! Taking over: Doorman's database, and node keys of any other manager.

use std::fmt::Write as _;
use std::time::Instant;

use axum::http::StatusCode;
use ostiary_manager::actions::config_import::Report;
use ostiary_manager::actions::takeover::{self, DoormanImport, KeyFile};
use ostiary_manager::auth::{Admin, Permit};
use ostiary_store::testing::TestDb;
use sha2::{Digest as _, Sha256};

use super::moving::digest;
use super::sample;
use super::world::World;

const DOORMAN: &str = include_str!("../../../tests/fixtures/moving/doorman.sql");

#[tokio::test]
async fn a_doorman_is_taken_over_once() {
    let doorman = TestDb::new().await;
    doorman
        .execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        .await;
    doorman.execute(DOORMAN).await;
    let world = World::new().await;
    let permit = Permit::<Admin>::for_command();
    let import = DoormanImport::read(&doorman.url(None)).await.unwrap();
    let report = takeover::plan_doorman(&world.app, &permit, &import)
        .await
        .unwrap();
    let said = report.as_text();
    for words in [
        "It is called web-server here",
        "was prepared and never came",
        "comes in switched off",
        "Old rows",
        "bcrypt",
        "no destination called email",
        "several queries of this name",
        "Turned around: It comes switched off",
        "placeholders",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(
        !said.contains("0b7f6f6e") && !said.contains("of-its-own"),
        "a key is shown"
    );
    assert_eq!(
        world.test_db.texts("SELECT 'x' FROM nodes").await,
        [""; 0],
        "looking changes nothing"
    );
    takeover::apply_doorman(&world.app, &permit, &import, &report.digest)
        .await
        .unwrap();
    let texts = async |sql: &str| world.test_db.texts(sql).await;
    let nodes = "SELECT concat_ws(' ', coalesce(display_name, hostname), host_identifier, hardware_uuid <> '', disabled_at IS NOT NULL, \
        (SELECT string_agg(t.name, ',' ORDER BY t.name) FROM node_tags nt JOIN tags t ON t.id = nt.tag_id WHERE nt.node_id = nodes.id)) FROM nodes ORDER BY host_identifier";
    assert_eq!(
        texts(nodes).await,
        [
            "web-1 4C4C4544-0043-4410-8051-B7C04F4D3132 t f prod,web-server",
            "lab-1 lab-1.example.com f f lab",
            " retired-1 f t prod",
            "The untagged untagged-1 f f",
        ]
    );
    let hash = "SELECT encode(key_sha256, 'hex') FROM node_keys k JOIN nodes n ON n.id = k.node_id WHERE n.hostname = 'web-1'";
    let expected = hex::encode(Sha256::digest(b"0b7f6f6e-5d0a-4c52-9a53-0c6f6b1f0a01"));
    assert_eq!(texts(hash).await, [expected]);
    let packs = "SELECT concat_ws(' ', name, target, array_length(discovery, 1)) FROM packs WHERE NOT built_in ORDER BY name";
    assert_eq!(
        texts(packs).await,
        ["it lab or prod 1", "lonely none", "rootkit web-server"]
    );
    let schedule = "SELECT concat_ws(' ', name, target, enabled) FROM queries WHERE pack_id IS NULL ORDER BY name";
    assert_eq!(
        texts(schedule).await,
        [
            "bad prod f",
            "has users discovery t",
            "orphan none t",
            "processes prod t",
            "processes (5) spare t"
        ]
    );
    assert_eq!(
        texts("SELECT category || globs::text || target FROM file_paths").await,
        ["etc{/etc/%%,/root/.ssh/%%}prod"]
    );
    assert_eq!(
        texts("SELECT name || ' ' || enabled FROM rules ORDER BY name").await,
        ["New user true", "Turned around false"]
    );
    assert_eq!(
        texts("SELECT concat_ws(' ', name, role, email, password_hash) FROM users").await,
        ["alice viewer alice@example.com"]
    );
    let tables = "SELECT (SELECT count(*) FROM audit_entries)::text";
    let before = texts(tables).await;
    let again = takeover::plan_doorman(&world.app, &permit, &import)
        .await
        .unwrap();
    assert!(again.is_empty(), "{}", again.as_text());
    assert_eq!(texts(tables).await, before);
    world.end().await;
    doorman.drop().await;
}

#[tokio::test]
async fn node_keys_come_from_csv_and_are_shown_nowhere() {
    let world = World::new().await;
    let mut browser = world.browser_as("admin").await;
    sample::one_of_everything(&world).await;
    let csv = "host_identifier,node_key,hardware_serial,hostname,platform,tags,colour\n\
        moved-1,fleet-Key/+==,SER-9,moved-1.example.com,darwin,prod laptop,red\n\
        moved-2,\"!\"\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\",,,,,\n\
        short,1234567,,,,,\n\
        ,no-identifier-here,,,,,\n\
        twice,fleet-Key/+==,,,,,\n\
        spaced,a key with blanks,,,,,\n\
        cut-off\n";
    let uploaded = browser
        .upload("/enroll/node-keys", &[], ("keys.csv", csv))
        .await;
    assert_eq!(uploaded.status, StatusCode::SEE_OTHER, "{}", uploaded.body);
    let page = browser.get(&uploaded.location).await;
    for words in [
        "moved-1",
        "moved-2",
        "line 4",
        "line 5",
        "line 6",
        "line 7",
        "line 8",
        "column colour",
    ] {
        assert!(page.body.contains(words), "{words}: {}", page.body);
    }
    let kept = world
        .test_db
        .texts("SELECT content::text FROM uploads")
        .await
        .join("");
    for secret in ["fleet-Key", "&'()*", "1234567", "with blanks"] {
        assert!(
            !page.body.contains(secret) && !kept.contains(secret),
            "{secret} is shown or kept"
        );
    }
    let applied = browser
        .post(
            &format!("{}/apply", uploaded.location),
            &[("digest", &digest(&page))],
        )
        .await;
    assert_eq!(applied.status, StatusCode::SEE_OTHER, "{}", applied.body);
    let nodes = "SELECT concat_ws(' ', host_identifier, platform, (SELECT count(*) FROM node_keys k WHERE k.node_id = n.id)) FROM nodes n WHERE host_identifier LIKE 'moved%' ORDER BY 1";
    assert_eq!(
        world.test_db.texts(nodes).await,
        ["moved-1 darwin 1", "moved-2  1"]
    );
    // Pages live with nodes of which nothing is known yet.
    let id = world
        .test_db
        .texts("SELECT id::text FROM nodes WHERE host_identifier = 'moved-2'")
        .await
        .remove(0);
    for path in [
        "",
        "/present",
        "/events",
        "/findings",
        "/status-logs",
        "/live-queries",
        "/config",
    ] {
        let page = browser.get(&format!("/nodes/{id}{path}")).await;
        assert_eq!(page.status, StatusCode::OK, "{path}: {}", page.body);
    }
    assert!(browser.get("/nodes").await.body.contains("moved-2"));
    let uploaded = browser
        .upload("/enroll/node-keys", &[], ("keys.csv", csv))
        .await;
    assert!(
        browser
            .get(&uploaded.location)
            .await
            .body
            .contains("All these keys are here already")
    );
    let wrong = browser
        .upload("/enroll/node-keys", &[], ("keys.csv", "uuid,key\na,b\n"))
        .await;
    assert!(
        wrong.status == StatusCode::UNPROCESSABLE_ENTITY
            && wrong.body.contains("host_identifier and node_key")
    );
    world.user("editor", "editor").await;
    assert_eq!(
        world
            .browser("editor")
            .await
            .get("/enroll/node-keys")
            .await
            .status,
        StatusCode::FORBIDDEN
    );
    world.end().await;
}

/// A Doorman with its sample fleet and what these statements add.
async fn doorman_with(statements: &str) -> (TestDb, DoormanImport) {
    let doorman = TestDb::new().await;
    doorman
        .execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        .await;
    doorman.execute(DOORMAN).await;
    doorman.execute(statements).await;
    let import = DoormanImport::read(&doorman.url(None)).await.unwrap();
    (doorman, import)
}

async fn take_over(world: &World, import: &DoormanImport) -> Report {
    let permit = Permit::<Admin>::for_command();
    let report = takeover::plan_doorman(&world.app, &permit, import)
        .await
        .unwrap();
    takeover::apply_doorman(&world.app, &permit, import, &report.digest)
        .await
        .unwrap();
    report
}

#[tokio::test]
async fn users_that_differ_by_case_are_one_and_numbers_that_are_none_are_said() {
    let (doorman, import) = doorman_with(
        "INSERT INTO \"user\" (username) VALUES ('Bob'), ('ALICE'); INSERT INTO \"user\" (username, email) VALUES ('bob', 'bob@example.com'); \
         UPDATE query SET shard = 400, interval = 0 WHERE id = 1; UPDATE pack SET shard = -3 WHERE id = 2;",
    )
    .await;
    let world = World::new().await;
    let said = take_over(&world, &import).await.as_text();
    for words in [
        "user alice: It differs from ALICE by case only",
        "user bob: It differs from Bob by case only",
        "users: Its shard is 400",
        "rootkit: Its shard is -3",
        "Its interval is 0 seconds",
        "rules: They do not look at baselines",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let users = "SELECT concat_ws(' ', name, email) FROM users ORDER BY name";
    let users = world.test_db.texts(users).await;
    assert_eq!(users, ["ALICE alice@example.com", "Bob bob@example.com"]);
    let permit = Permit::<Admin>::for_command();
    let again = takeover::plan_doorman(&world.app, &permit, &import).await;
    assert!(again.unwrap().is_empty());
    world.end().await;
    doorman.drop().await;
}

#[tokio::test]
async fn rules_ask_for_what_things_are_called_here() {
    let (doorman, import) = doorman_with(
        "UPDATE pack SET name = 'it/mac' WHERE id = 1; \
         UPDATE rule SET conditions = replace(conditions::text, 'pack/it/users', 'pack/it/mac/users')::jsonb WHERE id = 1; \
         INSERT INTO rule (id, name, alerters, conditions) VALUES (4, 'Processes', '{email}', \
            '{\"condition\": \"AND\", \"rules\": [{\"field\": \"query_name\", \"operator\": \"equal\", \"value\": \"processes\"}]}')",
    )
    .await;
    let world = World::new().await;
    let said = take_over(&world, &import).await.as_text();
    for words in [
        "rule New user: It asks for results of pack/it/mac/users, which are those of pack/it-mac/users here",
        "rule Processes: It asks for results of processes, which are those of processes, processes (5) here",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let asked = "SELECT string_agg(DISTINCT v #>> '{}', ' ') FROM rules, \
        jsonb_path_query(conditions::jsonb, '$.**?(@.field == \"query_name\").value') v GROUP BY name ORDER BY name";
    assert_eq!(
        world.test_db.texts(asked).await,
        ["pack/it-mac/users", "processes processes (5)"]
    );
    world.end().await;
    doorman.drop().await;
}

/// Nodes as `host_identifier enabled keys conflict`.
async fn nodes(world: &World) -> Vec<String> {
    let sql = "SELECT concat_ws(' ', host_identifier, disabled_at IS NULL, (SELECT count(*) FROM node_keys k WHERE k.node_id = n.id), \
        (SELECT reason FROM node_conflicts c WHERE c.node_id = n.id AND n.conflict_with = c.other_id)) FROM nodes n ORDER BY host_identifier, id";
    world.test_db.texts(sql).await
}

#[tokio::test]
async fn a_key_is_given_to_a_node_that_is_here_only_by_its_hardware_or_two_facts() {
    let (doorman, import) = doorman_with("DELETE FROM node WHERE id = 4").await;
    let world = World::new().await;
    // web-1 by its hardware, lab-1 by nothing but its name, retired-1 in force here and switched off there.
    let enrolled = "INSERT INTO nodes (id, host_identifier, hostname, hardware_uuid, enrolled_at, first_enrolled_at) VALUES \
        ('00000000-0000-7000-8000-000000000001', 'web', 'web-1', '4c4c4544-0043-4410-8051-b7c04f4d3132', now(), now()), \
        ('00000000-0000-7000-8000-000000000002', 'lab-1.example.com', 'lab-1.example.com', '', now(), now()), \
        ('00000000-0000-7000-8000-000000000003', 'retired-1', 'old', '', now(), now()); \
        INSERT INTO node_identifiers (node_id, kind, value) VALUES \
        ('00000000-0000-7000-8000-000000000001', 'hardware_uuid', '4c4c4544-0043-4410-8051-b7c04f4d3132'), \
        ('00000000-0000-7000-8000-000000000002', 'host_identifier', 'lab-1.example.com'), \
        ('00000000-0000-7000-8000-000000000003', 'serial', 'ser-3')";
    world.test_db.execute(enrolled).await;
    doorman
        .execute("UPDATE node SET node_info = '{\"hardware_serial\": \"SER-3\"}' WHERE id = 3")
        .await;
    let import = match DoormanImport::read(&doorman.url(None)).await {
        Ok(newer) => newer,
        Err(_) => import,
    };
    let said = take_over(&world, &import).await.as_text();
    for words in [
        "gets this key besides its own",
        "same host identifier and nothing else that agrees",
        "It is switched off there, and a node here with these identifiers is not",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(
        nodes(&world).await,
        [
            "lab-1.example.com t 0",
            "lab-1.example.com t 1 host_identifier",
            "retired-1 t 0",
            "untagged-1 t 1",
            "web t 1",
        ]
    );
    world.end().await;
    doorman.drop().await;
}

#[tokio::test]
async fn a_switched_off_record_does_not_stand_before_its_live_twin() {
    let twin = "UPDATE node SET node_info = '{\"hardware_serial\": \"SER-3\"}' WHERE id = 3; \
        INSERT INTO node (id, node_key, enrolled_on, host_identifier, node_info, is_active) VALUES \
        (6, '0b7f6f6e-5d0a-4c52-9a53-0c6f6b1f0a06', '2019-03-05 10:00:00', 'reborn-1', '{\"hardware_serial\": \"SER-3\"}', true)";
    let (doorman, import) = doorman_with(twin).await;
    let world = World::new().await;
    let enrolled = "INSERT INTO nodes (id, host_identifier, hostname, enrolled_at, first_enrolled_at) VALUES \
        ('00000000-0000-7000-8000-000000000003', 'here-1', 'here-1', now(), now()); \
        INSERT INTO node_identifiers (node_id, kind, value) VALUES ('00000000-0000-7000-8000-000000000003', 'serial', 'ser-3')";
    world.test_db.execute(enrolled).await;
    let said = take_over(&world, &import).await.as_text();
    assert!(said.contains("its key is left out"), "{said}");
    let nodes = nodes(&world).await;
    assert!(nodes.contains(&"here-1 t 1".to_owned()), "{nodes:?}");
    assert!(
        !nodes.iter().any(|node| node.starts_with("reborn-1")),
        "{nodes:?}"
    );
    world.end().await;
    doorman.drop().await;
}

#[tokio::test]
async fn machines_that_share_their_hardware_become_nodes_of_their_own() {
    let world = World::new().await;
    let permit = Permit::<Admin>::for_command();
    let file = "host_identifier,node_key,hardware_uuid,hardware_serial\n\
        a,key-of-a-1,11111111-2222-3333-4444-555555555555,\n\
        b,key-of-b-1,11111111-2222-3333-4444-555555555555,\n\
        c,key-of-c-1,,To be filled by O.E.M.\n\
        d,key-of-d-1,,To be filled by O.E.M.\n";
    let file = KeyFile::read(file).unwrap();
    let shown = takeover::dry_run_keys(&world.app, &permit, &file).await;
    let shown = shown.unwrap();
    takeover::apply_keys(&world.app, &permit, &file, &shown.digest)
        .await
        .unwrap();
    assert_eq!(
        nodes(&world).await,
        ["a t 1", "b t 1 hardware", "c t 1", "d t 1"]
    );
    world.end().await;
}

#[tokio::test]
async fn five_thousand_nodes_come_in_seconds() {
    let world = World::new().await;
    let permit = Permit::<Admin>::for_command();
    let mut csv = "host_identifier,node_key,hardware_uuid,hardware_serial,hostname,platform,tags\n"
        .to_owned();
    for number in 0..5_000 {
        let uuid = uuid::Uuid::from_u128(0x1000_0000 + number);
        writeln!(
            csv,
            "{uuid},a-key-of-node-{number},{uuid},SER-{number},node-{number},linux,prod all"
        )
        .unwrap();
    }
    let file = KeyFile::read(&csv).unwrap();
    for round in ["new", "again"] {
        let begun = Instant::now();
        let shown = takeover::dry_run_keys(&world.app, &permit, &file).await;
        let shown = shown.unwrap();
        let looked = begun.elapsed();
        takeover::apply_keys(&world.app, &permit, &file, &shown.digest)
            .await
            .unwrap();
        let took = begun.elapsed();
        println!(
            "5,000 nodes, {round}: shown in {looked:?}, applied in {:?}",
            took - looked
        );
        // Optimised some seconds; quadratic would be many minutes, on a busy machine, too.
        assert!(took.as_secs() < 180, "{took:?}");
    }
    let counts = "SELECT concat_ws(' ', (SELECT count(*) FROM nodes), (SELECT count(*) FROM node_keys), (SELECT count(*) FROM node_tags))";
    assert_eq!(world.test_db.texts(counts).await, ["5000 5000 10000"]);
    world.end().await;
}

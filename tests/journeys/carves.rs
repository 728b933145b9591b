//! Files collected from nodes: asked for by a person, sent block by block while programs die, kept in a bucket or a folder, listed and
//! downloaded as they were.

use std::path::PathBuf;
use std::time::Duration;

use ostiary_dev::s3::S3;
use ostiary_simulator::carver::{archive, sha256};
use ostiary_simulator::version::Version;
use ostiary_simulator::{Carve, Carver, Fleet, Misbehaviour};
use ostiary_store::testing::execute;
use ostiary_tests::{PATIENCE, Program, World, WorldOptions, eventually};
use serde_json::{Value, json};

const BUCKET: &str = "carves";

/// A node whose api is away tries a block again for some 90 s.
const A_LONG_WHILE: Duration = Duration::from_secs(3);

/// From the thirtieth block on, all wait until a lock is let go: so that what is to happen in the middle does.
const NO_MORE_BLOCKS: &str = "CREATE FUNCTION wait_for_us() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.block_id >= 30 THEN PERFORM pg_advisory_xact_lock_shared(30); END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER wait_for_us BEFORE INSERT ON carve_blocks FOR EACH ROW EXECUTE FUNCTION wait_for_us()";

/// A fleet of nodes that carve: a file of some 2 MB in blocks of 32 KiB.
async fn carving_fleet(
    world: &World,
    versions: &[Version],
    compression: bool,
    retry_unit: Duration,
) -> (Fleet, Carver) {
    let carver = Carver {
        block_size: 32 * 1024,
        compression,
        file_bytes: 2_000_000,
    };
    let fleet = world
        .fleet(versions.len())
        .versions(versions)
        .carver(carver.clone())
        .retry_unit(retry_unit)
        .start()
        .await
        .unwrap();
    eventually("all nodes enroll", PATIENCE, async || {
        (fleet.enrolled() == versions.len()).then_some(())
    })
    .await;
    (fleet, carver)
}

/// A new folder, of nobody else's.
fn folder(name: &str) -> PathBuf {
    let name = format!("ostiary-{name}-{}", ostiary_dev::random_hex(8));
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

async fn id_of(world: &World, fleet: &Fleet, node: usize) -> String {
    let host = fleet.host_identifier(node).unwrap();
    world.find_nodes(&host).await[0].id.to_string()
}

async fn ended(fleet: &Fleet, node: usize) -> Carve {
    eventually("the node ends its carve", PATIENCE, async || {
        let carve = fleet.carves(node).unwrap().pop()?;
        ["SUCCESS", "DATA POST FAILED"]
            .contains(&carve.status)
            .then_some(carve)
    })
    .await
}

/// Waits until the manager shows the only carve of this node in this state.
async fn shown(world: &World, node: &str, state: &str) -> Value {
    let rest = world.rest();
    let id = eventually(&format!("the carve is {state}"), PATIENCE, async || {
        let carves = rest.all(&format!("carves?node={node}")).await;
        assert!(carves.len() <= 1, "{carves:?}");
        carves
            .into_iter()
            .find(|carve| carve["state"] == state)
            .map(|carve| carve["id"].as_str().unwrap().to_owned())
    })
    .await;
    rest.get(&format!("carves/{id}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_carve_comes_through_kills_of_api_and_worker_and_is_downloaded_as_it_was() {
    let temporary = folder("s3");
    let s3 = S3::start(&temporary).await.unwrap();
    s3.make_bucket(BUCKET).await.unwrap();
    let options = WorldOptions::default()
        .set("CARVES__ENABLED", "true")
        .set("BLOBS__KIND", "s3")
        .set("BLOBS__S3__ENDPOINT", &s3.endpoint)
        .set("BLOBS__S3__BUCKET", BUCKET)
        .set("BLOBS__S3__ACCESS_KEY_ID", "id")
        .set("BLOBS__S3__SECRET_ACCESS_KEY", "not-in-any-log")
        .set("BLOBS__S3__PATH_STYLE", "true")
        .set("BLOBS__S3__ALLOW_HTTP", "true");
    let mut world = World::start(options).await;
    let (fleet, carver) = carving_fleet(&world, &[Version(5, 23, 1)], false, A_LONG_WHILE).await;
    let node = id_of(&world, &fleet, 0).await;
    world.db.execute(NO_MORE_BLOCKS).await;
    let mut held = world.db.db.begin().await.unwrap();
    execute(&mut held, "SELECT pg_advisory_xact_lock(30)").await;
    let asked = world
        .rest()
        .post(
            &format!("nodes/{node}/carves"),
            &json!({"path": "/etc/it's"}),
        )
        .await;

    let blocks = "SELECT coalesce(max(received_blocks), 0)::bigint FROM carves";
    eventually("some blocks are there", PATIENCE, async || {
        (world.scalar(blocks).await >= 30).then_some(())
    })
    .await;
    world.kill(Program::Worker).await;
    world.kill(Program::Api).await;
    let before = world.scalar(blocks).await;
    held.rollback().await.unwrap();
    world.launch(Program::Api).await;
    world.ready().await;
    let carve = ended(&fleet, 0).await;
    assert_eq!(carve.status, "SUCCESS", "{carve:?}");
    assert!(before < 61, "it was killed in the middle: {before}");
    world.launch(Program::Worker).await;
    world.kill(Program::Worker).await;
    world.launch(Program::Worker).await;

    let told = shown(&world, &node, "stored").await;
    let expected = archive(&carve.guid, "/etc/it's", &carver);
    assert_eq!(told["sha256"], sha256(&expected));
    assert_eq!(told["sha256"], carve.sha256, "the node's own");
    assert_eq!(
        (told["format"].as_str(), told["problem"].as_str()),
        (Some("tar"), Some(""))
    );
    let file = &told["files"]["items"][0];
    assert_eq!(
        (file["path"].as_str(), file["size"].as_i64()),
        (Some("/etc/it's"), Some(2_000_000))
    );
    let (name, bytes) = world
        .rest()
        .download(&format!("carves/{}/archive", told["id"].as_str().unwrap()))
        .await;
    assert!(bytes == expected, "the bytes are those that the node sent");
    assert!(
        name.starts_with("carve-") && name.ends_with(".tar"),
        "{name}"
    );
    let told = eventually("it is known who asked", PATIENCE, async || {
        let told = shown(&world, &node, "stored").await;
        told["live_query_id"].is_string().then_some(told)
    })
    .await;
    assert_eq!(told["live_query_id"], asked["live_query_id"]);
    assert_eq!(told["path"], "/etc/it's");
    let audited = "SELECT count(*) FROM audit_entries WHERE action = 'carves.download'";
    assert_eq!(world.scalar(audited).await, 1);
    for program in [Program::Api, Program::Worker, Program::Manager] {
        assert!(!world.log(program).contains("not-in-any-log"));
    }
    fleet.stop().await;
    world.end().await;
    s3.stop().await;
    let _ = std::fs::remove_dir_all(&temporary);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_orders_are_borne_rubbish_is_refused_and_holes_are_given_up() {
    let folder = folder("carves");
    let options = WorldOptions::default()
        .set("CARVES__ENABLED", "true")
        .set("BLOBS__FOLDER", &folder.to_string_lossy());
    let world = World::start(options).await;
    // The second one is so old that it skips a block that fails, and still calls its carve a success.
    let versions = [Version(5, 23, 1), Version(2, 11, 2)];
    let (fleet, carver) = carving_fleet(&world, &versions, true, Duration::from_secs(1)).await;
    let mut nodes = Vec::new();
    for number in 0..versions.len() {
        fleet.misbehave(number, Misbehaviour::OddCarves).unwrap();
        let node = id_of(&world, &fleet, number).await;
        let path = format!("/var/log/{number}");
        let asked = json!({"path": path});
        world
            .rest()
            .post(&format!("nodes/{node}/carves"), &asked)
            .await;
        nodes.push(node);
    }
    let (backwards, holes) = (ended(&fleet, 0).await, ended(&fleet, 1).await);
    assert_eq!((backwards.status, holes.status), ("SUCCESS", "SUCCESS"));
    assert_eq!(fleet.totals().rubbish_taken, 0, "nothing odd was taken");

    let told = shown(&world, &nodes[0], "stored").await;
    let expected = archive(&backwards.guid, "/var/log/0", &carver);
    let (name, bytes) = world
        .rest()
        .download(&format!("carves/{}/archive", told["id"].as_str().unwrap()))
        .await;
    assert!(bytes == expected && name.ends_with(".tar.zst"), "{name}");
    assert_eq!(told["files"]["items"][0]["path"], "/var/log/0");

    // Hours later.
    world
        .db
        .execute("UPDATE carves SET last_block_at = last_block_at - interval '4 hours' WHERE state = 'receiving'")
        .await;
    let told = shown(&world, &nodes[1], "expired").await;
    let last = told["block_count"].as_i64().unwrap() - 1;
    assert_eq!(told["problem"], format!("Blocks never came: {last}."));
    assert_eq!(world.scalar("SELECT count(*) FROM carve_blocks").await, 0);
    let kept = std::fs::read_dir(&folder).unwrap().count();
    assert_eq!(kept, 1, "one object, and nothing left over");
    fleet.stop().await;
    world.end().await;
    let _ = std::fs::remove_dir_all(&folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_collected_unless_it_is_switched_on() {
    let world = World::start(WorldOptions::default()).await;
    let (fleet, _) =
        carving_fleet(&world, &[Version(5, 23, 1)], false, Duration::from_secs(1)).await;
    let node = id_of(&world, &fleet, 0).await;
    // Whoever asks past the page, or a schedule of another's making: the node carves, and may not send.
    let id = node.parse().unwrap();
    let sql = "SELECT * FROM carves WHERE carve = 1 AND path = '/etc/shadow'";
    world.ask(&[id], "lq-carve", sql).await;
    let carve = ended(&fleet, 0).await;
    assert_eq!(carve.status, "DATA POST FAILED");
    assert_eq!(world.scalar("SELECT count(*) FROM carves").await, 0);
    fleet.stop().await;
    world.end().await;
}

//! The drill: yesterday's backup is restored under a fleet that has lived on. The simulator is the oracle: it knows what each node's
//! tables hold, what each node was told, and every line that it deleted because an answer said so.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use ostiary_simulator::{Drift, Fleet};
use ostiary_tests::{PATIENCE, Program, World, WorldOptions, eventually, rule_of};

const NODES: usize = 40;
const NEWCOMERS: usize = 4;

const PROGRAMS: [Program; 3] = [Program::Api, Program::Worker, Program::Manager];

/// Keeps its rows out of every load: its set is empty unless a stick is plugged in, and an empty first set says nothing.
const STICKS: &str = r#"{"queries": {"sticks": {"query": "SELECT vendor, serial FROM usb_devices WHERE removable = 1;", "interval": 10}}}"#;

/// Not kept as present rows: `removed: false`.
const NOT_KEPT: &str = "pack/load/time";

#[tokio::test]
async fn yesterdays_backup_comes_back_under_a_live_fleet_without_a_storm_or_a_false_finding() {
    let options = WorldOptions::demo()
        .set("API__CHECKIN_FLUSH_MS", "500")
        .set("WORKER__SWEEP_SECONDS", "1");
    let mut world = World::start(options).await;
    import_packs(&world).await;
    let fleet = world.fleet(NODES).start().await.unwrap();
    all_enrolled(&fleet).await;
    world.another_look(&fleet, PATIENCE).await;
    let (old, recovered, new) = choose(&world, &fleet).await;
    fleet.drift(old, Drift::ListeningPort).unwrap();
    fleet.drift(recovered, Drift::Usb).unwrap();
    world.another_look(&fleet, PATIENCE).await;

    // What waits in a backup would be sent again after the restore.
    world.delivered().await;
    let known = findings(&world).await;
    let sticks = "SELECT count(*) FROM present_rows JOIN query_names ON id = query_name_id WHERE name = 'pack/sticks/sticks' AND row_count > 0";
    assert_eq!(
        world.scalar(sticks).await,
        1,
        "the stick that will be gone is in the backup"
    );
    let backup = make_backup(&world).await;

    // The fleet lives on: a drift comes and is told, another goes, machines come.
    fleet.drift(new, Drift::ListeningPort).unwrap();
    fleet.recover(recovered, Drift::Usb).unwrap();
    let newcomers = newcomers(&world).await;
    world.another_look(&fleet, PATIENCE).await;
    world.another_look(&newcomers, PATIENCE).await;
    assert_eq!(
        findings(&world).await.len(),
        known.len() + 1,
        "the lost day had a finding of its own"
    );
    world.delivered().await;
    let mails = world.mail.messages().unwrap().len();

    let refused = world
        .owner_command(&["restore", "--replace", &backup])
        .await;
    assert!(
        refused.unwrap_err().contains("stop them first"),
        "programs run"
    );
    for program in PROGRAMS {
        world.stop(program).await;
    }
    let refused = world.owner_command(&["restore", &backup]).await;
    assert!(
        refused.unwrap_err().contains("--replace"),
        "the database is not empty"
    );
    let tried = world
        .owner_command(&["restore", "--replace", "--dry-run", &backup])
        .await
        .unwrap();
    assert!(tried.contains("Nothing was done"), "{tried}");
    let before = fleet.totals();
    let said = world
        .owner_command(&["restore", "--replace", &backup])
        .await
        .unwrap();
    let epoch = epoch_in(&said);
    let mark = fleet.ledger().len();
    for program in PROGRAMS {
        world.launch(program).await;
    }
    world.ready().await;

    eventually("the newcomers enroll again", PATIENCE, async || {
        (newcomers.totals().enrollments >= 2 * newcomers.len() as u64).then_some(())
    })
    .await;
    told_anew(&world, epoch).await;
    world.another_look(&fleet, PATIENCE).await;
    world.another_look(&newcomers, PATIENCE).await;

    let after = fleet.totals();
    assert_eq!(
        after.enrollments, before.enrollments,
        "a node of the backup keeps its key"
    );
    assert_eq!(
        after.node_invalid, before.node_invalid,
        "and is never told that it has none"
    );
    // Three threads of one osqueryd may each be told that the key is unknown; a later one throws the new key away, and enrolls again.
    let enrollments = newcomers.totals().enrollments;
    assert!(
        enrollments <= 4 * newcomers.len() as u64,
        "each newcomer enrolls once more, or with each thread: {enrollments}"
    );
    let nodes = world.scalar("SELECT count(*) FROM nodes").await;
    assert_eq!(nodes, i64::try_from(NODES + NEWCOMERS).unwrap());
    assert_eq!(
        findings(&world).await,
        known,
        "the restore opens no finding, and forgets those of the lost day"
    );
    world.delivered().await;
    assert_eq!(
        world.mail.messages().unwrap().len(),
        mails,
        "and tells nobody anything"
    );

    // What still works: a drift is told again.
    fleet.drift(recovered, Drift::ListeningPort).unwrap();
    let opened = format!(
        "SELECT count(*) FROM findings WHERE rule_name = '{}'",
        rule_of(Drift::ListeningPort)
    );
    let expected = world.scalar(&opened).await + 1;
    eventually("a drift after the restore is told", PATIENCE, async || {
        (world.scalar(&opened).await == expected).then_some(())
    })
    .await;

    for fleet in [&fleet, &newcomers] {
        assert!(fleet.drain(PATIENCE).await, "buffers empty");
    }
    world.worked_off().await;
    let faults = [
        row_faults(&world, &fleet).await,
        row_faults(&world, &newcomers).await,
    ]
    .concat();
    assert!(
        faults.is_empty(),
        "{} sets of rows are off, the first: {:?}",
        faults.len(),
        faults.first()
    );
    let verdict = world.verdict_since(&fleet, mark).await;
    assert!(
        verdict.is_clean(),
        "{verdict}: {:?} {:?}",
        verdict.missing.first(),
        verdict.doubled.first()
    );
    assert!(verdict.stored_exactly_once > 500, "{verdict}");
    fleet.stop().await;
    newcomers.stop().await;
    world.end().await;
}

async fn import_packs(world: &World) {
    let load = concat!(env!("CARGO_MANIFEST_DIR"), "/soak/load.conf");
    world.command(&["import-pack", load], "").await;
    let sticks = world.folder().join("sticks.conf");
    std::fs::write(&sticks, STICKS).unwrap();
    world
        .command(&["import-pack", &sticks.display().to_string()], "")
        .await;
}

async fn all_enrolled(fleet: &Fleet) {
    eventually("all nodes enroll", PATIENCE, async || {
        (fleet.enrolled() == fleet.len()).then_some(())
    })
    .await;
}

/// Three nodes on which drifts can be seen; the second one has `usb_devices`.
async fn choose(world: &World, fleet: &Fleet) -> (usize, usize, usize) {
    let (mut ports, mut usb) = (Vec::new(), None);
    for node in 0..fleet.len() {
        let sees_usb = usb.is_none()
            && world.can_see(fleet, node, Drift::Usb).await
            && fleet
                .last_rows(node)
                .unwrap()
                .contains_key("pack/sticks/sticks");
        if !world.can_see(fleet, node, Drift::ListeningPort).await {
            continue;
        }
        if sees_usb {
            usb = Some(node);
        } else {
            ports.push(node);
        }
    }
    (ports[0], usb.expect("some node has sticks"), ports[1])
}

/// A second fleet, of other machines.
async fn newcomers(world: &World) -> Fleet {
    let fleet = world.fleet(NEWCOMERS).seed(2).start().await.unwrap();
    all_enrolled(&fleet).await;
    fleet
}

/// Makes a backup, looks at it, and gives its file.
async fn make_backup(world: &World) -> String {
    let folder = world.folder().join("backups");
    std::fs::create_dir(&folder).unwrap();
    let said = world
        .owner_command(&["backup", &folder.display().to_string()])
        .await
        .unwrap();
    assert!(
        said.contains("not encrypted") && said.contains("server.key"),
        "{said}"
    );
    let files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let [file] = files.as_slice() else {
        panic!("one file is left: {files:?}")
    };
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let name = file.display().to_string();
    let said = world
        .owner_command(&["verify-backup", &name])
        .await
        .unwrap();
    assert!(said.contains("whole"), "{said}");
    unpacked(world, &name).await;
    name
}

/// Keys and certificates come out as they were.
async fn unpacked(world: &World, backup: &str) {
    let folder = world.folder().join("unpacked");
    world
        .owner_command(&["unpack-backup", backup, &folder.display().to_string()])
        .await
        .unwrap();
    let keys = std::fs::read_to_string(folder.join("keys.toml")).unwrap();
    assert!(keys.contains(&"11".repeat(32)) && keys.contains(&"22".repeat(32)));
    let key = &world.certificates.private_key;
    let copy = folder
        .join("files")
        .join(key.strip_prefix("/").unwrap_or(Path::new(key)));
    assert_eq!(std::fs::read(copy).unwrap(), std::fs::read(key).unwrap());
}

async fn findings(world: &World) -> Vec<String> {
    let sql = "SELECT rule_name || ' on ' || node_name || ': ' || entity || ', ' || match_count || ' times' FROM findings ORDER BY 1";
    world.db.texts(sql).await
}

fn epoch_in(said: &str) -> u64 {
    let rest = said
        .split("schedule_epoch is ")
        .nth(1)
        .expect("it says the epoch");
    rest.split(':').next().unwrap().parse().unwrap()
}

/// Waits until no set is left of before: each was told anew in the new epoch, or is gone.
async fn told_anew(world: &World, epoch: u64) {
    let old = format!("SELECT count(*) FROM present_rows WHERE stale OR epoch <> {epoch}");
    eventually(
        "every node has told everything anew",
        PATIENCE,
        async || (world.scalar(&old).await == 0).then_some(()),
    )
    .await;
    let sets = world.scalar("SELECT count(*) FROM present_rows").await;
    assert!(sets > i64::try_from(NODES).unwrap(), "{sets} sets");
}

/// Compares what is stored of each node with what its latest run found.
async fn row_faults(world: &World, fleet: &Fleet) -> Vec<String> {
    let mut faults = Vec::new();
    for node in 0..fleet.len() {
        let identity = fleet.identity(node).unwrap();
        let hostname = identity.hostname;
        let mut stored = world.present_rows(&identity.instance_id).await;
        for (query, mut rows) in fleet.last_rows(node).unwrap() {
            let held = stored.remove(&query).unwrap_or_default();
            rows.sort();
            if query != NOT_KEPT && !alike(&held, &rows) {
                faults.push(format!(
                    "{hostname} {query}: stored {held:?}, true {rows:?}"
                ));
            }
        }
        faults.extend(
            stored
                .into_iter()
                .filter(|(_, rows)| !rows.is_empty())
                .map(|(query, _)| format!("{hostname} {query}: the node does not run it")),
        );
    }
    faults
}

type Row = BTreeMap<String, String>;

/// Old versions escape bytes that are not ASCII, so of rows with such only the number is compared.
fn alike(held: &[Row], rows: &[Row]) -> bool {
    let plain = |rows: &[Row]| {
        rows.iter().all(|row| {
            row.values().all(|value| {
                value
                    .bytes()
                    .all(|byte| (b' '..=b'~').contains(&byte) && byte != b'\\')
            })
        })
    };
    held.len() == rows.len() && (!plain(rows) || held == rows)
}

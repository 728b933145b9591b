//! Carves after their last block: joined, listed, explained, given up, deleted.

use std::path::PathBuf;

use chrono::{SubsecRound as _, TimeDelta};
use ostiary_domain::carve::CarveOptions;
use ostiary_domain::ids::NodeId;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::support::{Stage, seconds};

const GUID: &str = "0f2e4c1d-1111-4222-8333-444455556666";

/// A stage whose worker keeps blobs in a folder of its own.
struct CarveStage {
    stage: Stage,
    folder: PathBuf,
}

impl CarveStage {
    async fn new() -> Self {
        let folder =
            std::env::temp_dir().join(format!("ostiary-carves-{}", ostiary_boot::clock::new_id()));
        let blobs = folder.clone();
        let stage = Stage::with(move |settings| {
            settings.carves = CarveOptions {
                enabled: true,
                ..CarveOptions::default()
            };
            settings.blobs.folder = blobs;
        })
        .await;
        Self { stage, folder }
    }

    /// Stores a carve as the api does, but for the blocks in `missing`.
    async fn carve(
        &self,
        node: NodeId,
        content: &[u8],
        block_size: usize,
        missing: &[usize],
    ) -> Uuid {
        let id = ostiary_boot::clock::new_id();
        let blocks: Vec<&[u8]> = content.chunks(block_size).collect();
        let there = blocks.len() - missing.len();
        let state = if missing.is_empty() {
            "received"
        } else {
            "receiving"
        };
        self.stage
            .test
            .execute(&format!(
                "INSERT INTO carves (id, node_id, carve_id, state, block_count, block_size, carve_size, received_blocks, started_at,
                    last_block_at, due_at)
                 VALUES ('{id}', '{node}', '{GUID}', '{state}', {}, {block_size}, {}, {there}, '{now}', '{now}', '{now}');
                 INSERT INTO carve_sessions (session_sha256, carve_id, created_at) VALUES ('\\x{}', '{id}', '{now}')",
                blocks.len(),
                content.len(),
                hex(&Sha256::digest(id.as_bytes())),
                // Whole: Postgres would round, and the carve might be due a microsecond too late.
                now = self.stage.now().trunc_subsecs(0),
            ))
            .await;
        for (number, block) in blocks.iter().enumerate().rev() {
            if !missing.contains(&number) {
                self.stage
                    .test
                    .execute(&format!(
                        "INSERT INTO carve_blocks (carve_id, block_id, block_sha256, data)
                         VALUES ('{id}', {number}, '\\x{}', '\\x{}')",
                        hex(&Sha256::digest(block)),
                        hex(block)
                    ))
                    .await;
            }
        }
        id
    }

    fn object(&self, id: Uuid) -> PathBuf {
        self.folder.join(id.simple().to_string())
    }

    async fn told(&self, columns: &str) -> String {
        self.stage
            .texts(&format!(
                "SELECT concat_ws('|', {columns}) FROM carves ORDER BY id"
            ))
            .await
            .join("\n")
    }

    async fn end(self) {
        self.stage.end().await;
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A tar as the carver makes it.
fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mtime(1_700_000_000);
        let name = format!("var/tmp/osquery_carve_{GUID}/{path}");
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

#[tokio::test]
async fn a_complete_carve_becomes_one_object_with_a_listing() {
    let carves = CarveStage::new().await;
    let node = carves.stage.node("web-1").await;
    let content = tar(&[
        ("etc/hosts", b"127.0.0.1 localhost"),
        ("etc/it's", &[7; 3000]),
    ]);
    let done = json!({"condition": "AND", "rules": [
        {"field": "query_name", "operator": "equal", "value": "ostiary/carve_done"},
        {"field": "column", "operator": "column_equal", "value": ["state", "stored"]},
    ]});
    carves.stage.rule("a carve is here", &done, "").await;
    let id = carves.carve(node, &content, 1000, &[]).await;
    carves.stage.work().await;
    assert_eq!(std::fs::read(carves.object(id)).unwrap(), content);
    assert_eq!(
        carves
            .stage
            .texts("SELECT concat_ws(' ', rule_name, node_name, columns ->> 'files') FROM findings f JOIN finding_matches ON finding_id = f.id")
            .await,
        ["a carve is here web-1 2"]
    );
    let sha256 = hex(&Sha256::digest(&content));
    assert_eq!(
        carves
            .told("state, format, file_count, sha256, problem")
            .await,
        format!("stored|tar|2|{sha256}|")
    );
    let files = carves
        .stage
        .texts("SELECT concat_ws(' ', position, path, size, extract(epoch FROM modified_at)::bigint) FROM carve_files ORDER BY position")
        .await;
    assert_eq!(
        files,
        ["1 /etc/hosts 19 1700000000", "2 /etc/it's 3000 1700000000"]
    );
    let blocks = carves
        .stage
        .texts("SELECT count(*)::text FROM carve_blocks")
        .await;
    assert_eq!(blocks, ["0"]);
    carves.stage.work().await;
    carves.end().await;
}

#[tokio::test]
async fn k8_zstd_is_kept_as_it_came_and_what_is_neither_is_kept_too() {
    let carves = CarveStage::new().await;
    let node = carves.stage.node("web-1").await;
    let plain = tar(&[("a", &[1; 200_000])]);
    let packed = zstd::encode_all(&plain[..], 1).unwrap();
    for (content, told) in [
        (packed, "stored|tar.zst|1|"),
        (
            b"neither of both".to_vec(),
            "stored|unknown|This is neither a tar nor zstd; it is kept as it came.",
        ),
        (plain[..700].to_vec(), "stored|tar|0|"),
    ] {
        let id = carves.carve(node, &content, 100, &[]).await;
        carves.stage.work().await;
        assert_eq!(std::fs::read(carves.object(id)).unwrap(), content);
        let said = carves.told("state, format, file_count, problem").await;
        assert!(
            said.starts_with(told) || told == "stored|tar|0|" && said.starts_with("stored|tar|"),
            "{said}"
        );
        carves.stage.test.execute("DELETE FROM carves").await;
    }
    carves.end().await;
}

#[tokio::test]
async fn a_carve_with_holes_is_given_up_and_says_which() {
    let carves = CarveStage::new().await;
    let node = carves.stage.node("old-1").await;
    carves.carve(node, &[5; 950], 100, &[2, 4, 5, 6, 9]).await;
    carves.stage.clock.advance(seconds(179 * 60));
    carves.stage.app.keep_up().await.unwrap();
    assert_eq!(carves.told("state, received_blocks").await, "receiving|5");
    carves.stage.clock.advance(seconds(2 * 60));
    carves.stage.app.keep_up().await.unwrap();
    assert_eq!(
        carves.told("state, problem").await,
        "expired|Blocks never came: 2, 4–6, 9."
    );
    let left = "SELECT ((SELECT count(*) FROM carve_blocks) || ' ' || (SELECT count(*) FROM carve_sessions))::text";
    assert_eq!(
        carves.stage.texts(left).await,
        ["0 1"],
        "it may be told that it has ended"
    );
    carves.stage.clock.advance(seconds(181 * 60));
    carves.stage.app.keep_up().await.unwrap();
    assert_eq!(carves.stage.texts(left).await, ["0 0"]);
    carves.end().await;
}

#[tokio::test]
async fn a_storage_that_fails_is_tried_again_and_nothing_is_lost() {
    let carves = CarveStage::new().await;
    let node = carves.stage.node("web-1").await;
    let content = tar(&[("a", b"x")]);
    let id = carves.carve(node, &content, 1000, &[]).await;
    // The folder is gone, and a file stands in its place.
    std::fs::remove_dir_all(&carves.folder).unwrap();
    std::fs::write(&carves.folder, b"").unwrap();
    carves.stage.work().await;
    let said = carves.told("state, attempts, problem").await;
    assert!(
        said.starts_with("received|1|It cannot be stored yet"),
        "{said}"
    );
    carves.stage.work().await;
    assert!(
        carves
            .told("state, attempts")
            .await
            .starts_with("received|1")
    );
    std::fs::remove_file(&carves.folder).unwrap();
    std::fs::create_dir(&carves.folder).unwrap();
    carves.stage.clock.advance(seconds(6));
    carves.stage.work().await;
    assert_eq!(carves.told("state, problem").await, "stored|");
    assert_eq!(std::fs::read(carves.object(id)).unwrap(), content);
    carves.end().await;
}

#[tokio::test]
async fn a_carve_whose_worker_died_is_taken_up_again_after_its_lease() {
    let carves = CarveStage::new().await;
    let node = carves.stage.node("web-1").await;
    let content = tar(&[("a", b"x")]);
    carves.carve(node, &content, 100, &[]).await;
    let mut conn = carves.stage.test.db.acquire().await.unwrap();
    let now = carves.stage.now();
    let taken = ostiary_store::carve_upkeep::take_received(
        &mut conn,
        Uuid::from_u128(1),
        now,
        now + seconds(30),
    )
    .await;
    assert!(taken.unwrap().is_some());
    drop(conn);
    carves.stage.work().await;
    assert_eq!(carves.told("state").await, "received");
    carves.stage.clock.advance(seconds(31));
    carves.stage.work().await;
    assert_eq!(carves.told("state").await, "stored");
    carves.end().await;
}

#[tokio::test]
async fn who_joins_a_carve_for_long_holds_it_anew() {
    let carves = CarveStage::new().await;
    let node = carves.stage.node("web-1").await;
    carves.carve(node, &tar(&[("a", b"x")]), 100, &[]).await;
    let held_for = |seconds: i64| {
        let until = (carves.stage.now() + crate::support::seconds(seconds)).to_rfc3339();
        format!("carves WHERE lease IS NOT NULL AND due_at >= '{until}'")
    };
    // Nobody reads a block meanwhile.
    let mut hindered = carves.stage.test.db.begin().await.unwrap();
    let lock = "LOCK TABLE carve_blocks IN ACCESS EXCLUSIVE MODE";
    ostiary_store::testing::execute(&mut hindered, lock).await;
    let app = carves.stage.app.clone();
    let working = tokio::spawn(async move { app.run_until_idle().await });
    carves.stage.until_there_is(&held_for(29)).await;
    carves.stage.clock.advance(seconds(25));
    assert_eq!(carves.stage.count(&held_for(29)).await, 0);
    carves.stage.until_there_is(&held_for(29)).await;
    ostiary_store::Db::commit(hindered).await.unwrap();
    working.await.unwrap().unwrap();
    assert_eq!(carves.told("state").await, "stored");
    carves.end().await;
}

#[tokio::test]
async fn who_lost_a_carve_to_another_worker_has_no_say_in_it_any_more() {
    use ostiary_store::carve_upkeep::{Joined, fail, hold, put_joined, put_off, take_received};
    let carves = CarveStage::new().await;
    let node = carves.stage.node("web-1").await;
    let content = tar(&[("a", b"x")]);
    let id = carves.carve(node, &content, 100, &[]).await;
    let mut conn = carves.stage.test.db.acquire().await.unwrap();
    let now = carves.stage.now();
    let lost = take_received(&mut conn, Uuid::from_u128(1), now, now + seconds(30))
        .await
        .unwrap()
        .unwrap();
    assert!(hold(&mut conn, &lost, now + seconds(30)).await.unwrap());
    carves.stage.clock.advance(seconds(31));
    // Another one has it, and later has stored it.
    for state in ["received", "stored"] {
        if state == "received" {
            let now = carves.stage.now();
            let taken = take_received(&mut conn, Uuid::from_u128(2), now, now + seconds(30)).await;
            assert!(taken.unwrap().is_some());
        } else {
            carves.stage.clock.advance(seconds(31));
            carves.stage.work().await;
        }
        let joined = Joined {
            sha256: "0".repeat(64),
            format: "tar",
            files: Vec::new(),
            file_count: None,
            problem: String::new(),
        };
        assert!(!hold(&mut conn, &lost, now + seconds(900)).await.unwrap());
        assert!(!put_joined(&mut conn, &lost, &joined, now).await.unwrap());
        assert!(!put_off(&mut conn, &lost, "slow", now).await.unwrap());
        assert!(
            !fail(&mut conn, &lost, "block 0 is gone", now)
                .await
                .unwrap()
        );
        assert_eq!(
            carves.told("state, problem, attempts").await,
            format!("{state}||0")
        );
    }
    drop(conn);
    assert_eq!(std::fs::read(carves.object(id)).unwrap(), content);
    assert_eq!(carves.told("file_count").await, "1");
    carves.end().await;
}

#[tokio::test]
async fn a_carve_is_searched_for_again_only_when_its_node_has_answered() {
    let carves = CarveStage::new().await;
    let node = carves.stage.node("web-1").await;
    carves.carve(node, &tar(&[("a", b"x")]), 1000, &[]).await;
    let looked = "extract(epoch FROM looked_at)::bigint";
    carves.stage.app.keep_up().await.unwrap();
    let first = carves.told(looked).await;
    carves.stage.clock.advance(seconds(600));
    carves.stage.app.keep_up().await.unwrap();
    assert_eq!(carves.told(looked).await, first, "nothing has come");
    let now = carves.stage.now();
    carves
        .stage
        .test
        .execute(&format!(
            "INSERT INTO live_queries (id, wire_id, sql, created_at, expires_at)
             VALUES ('00000000-0000-7000-8000-000000000001', 'lq-1', 'SELECT * FROM carves', now(), now());
             INSERT INTO live_query_tasks (live_query_id, node_id, state, finished_at, row_count, rows)
             VALUES ('00000000-0000-7000-8000-000000000001', '{node}', 'done', '{now}', 1,
                '[{{\"carve_guid\":\"{GUID}\",\"path\":\"/a\",\"status\":\"SCHEDULED\"}}]')"
        ))
        .await;
    carves.stage.app.keep_up().await.unwrap();
    assert_eq!(carves.told("path").await, "/a");
    carves.end().await;
}

#[tokio::test]
async fn results_of_live_queries_tell_who_asked_and_what_the_node_says_of_it() {
    let carves = CarveStage::new().await;
    let node = carves.stage.node("web-1").await;
    let other = carves.stage.node("web-2").await;
    let content = tar(&[("a", b"x")]);
    let sha256 = hex(&Sha256::digest(&content));
    carves.carve(node, &content, 1000, &[]).await;
    let mentions = [
        (1, other, "SELECT * FROM carves", 1, "/not/ours", ""),
        (2, node, "SELECT 1", 1, "/no/carve/query", ""),
        // It was asked before the other one, and answered after it.
        (3, node, "SELECT * FROM carves", 0, "/etc/hosts", ""),
        (
            4,
            node,
            "SELECT * FROM carves WHERE carve = 1",
            1,
            "/etc/hosts",
            "",
        ),
        (5, node, "SELECT * FROM carves", 0, "/etc/hosts", &sha256),
    ];
    for (n, node, sql, carve, path, sha256) in mentions {
        carves
            .stage
            .test
            .execute(&format!(
                "INSERT INTO live_queries (id, wire_id, sql, created_at, expires_at)
                 VALUES ('00000000-0000-7000-8000-00000000000{n}', 'lq-{n}', $q${sql}$q$, now(), now());
                 INSERT INTO live_query_tasks (live_query_id, node_id, state, rows)
                 VALUES ('00000000-0000-7000-8000-00000000000{n}', '{node}', 'done',
                    '[{{\"carve_guid\":\"{GUID}\",\"carve\":\"{carve}\",\"path\":\"{path}\",\"sha256\":\"{sha256}\"}}]')"
            ))
            .await;
    }
    carves.stage.app.keep_up().await.unwrap();
    assert_eq!(
        carves
            .told("right(live_query_id::text, 1), path, node_sha256")
            .await,
        format!("4|/etc/hosts|{sha256}")
    );
    carves.end().await;
}

#[tokio::test]
async fn carves_past_their_time_or_without_a_node_are_deleted_with_their_objects() {
    let carves = CarveStage::new().await;
    let (node, gone) = (
        carves.stage.node("web-1").await,
        carves.stage.node("web-2").await,
    );
    let content = tar(&[("a", b"x")]);
    let kept = carves.carve(node, &content, 1000, &[]).await;
    let orphan = carves.carve(gone, &content, 1000, &[]).await;
    carves.stage.work().await;
    carves
        .stage
        .test
        .execute(&format!("DELETE FROM nodes WHERE id = '{gone}'"))
        .await;
    carves.stage.app.keep_up().await.unwrap();
    assert!(carves.object(kept).exists() && !carves.object(orphan).exists());
    assert_eq!(carves.told("id").await, kept.to_string());
    carves
        .stage
        .test
        .execute("UPDATE carves SET started_at = started_at - interval '31 days'")
        .await;
    carves.stage.app.keep_up().await.unwrap();
    assert!(!carves.object(kept).exists());
    assert_eq!(carves.told("id").await, "");
    let files = carves
        .stage
        .texts("SELECT count(*)::text FROM carve_files")
        .await;
    assert_eq!(files, ["0"]);
    carves.end().await;
}

#[tokio::test]
async fn objects_that_a_restored_database_does_not_know_go_a_week_later_if_that_was_asked_for() {
    let carves = CarveStage::new().await;
    let node = carves.stage.node("web-1").await;
    let known = carves.carve(node, &tar(&[("a", b"x")]), 1000, &[]).await;
    carves.stage.work().await;
    let [before, after] = [(); 2].map(|()| ostiary_boot::clock::new_id());
    let there = || [known, before, after].map(|id| carves.object(id).exists());
    // Nobody asked for it after the first restore.
    for (cleared_at, left) in [("now()", [true; 3]), ("NULL", [true, false, true])] {
        let now = carves.stage.now();
        for (id, minutes) in [(before, -60), (after, 60)] {
            let file = std::fs::File::create(carves.object(id)).unwrap();
            let written = now + TimeDelta::minutes(minutes);
            file.set_modified(written.into()).unwrap();
        }
        let at = now.to_rfc3339();
        let restore = format!(
            "INSERT INTO restores (id, restored_at, backup_made_at, schedule_epoch, orphans_cleared_at)
             VALUES (gen_random_uuid(), '{at}', '{at}', 1, {cleared_at})"
        );
        carves.stage.test.execute(&restore).await;
        carves.stage.app.keep_up().await.unwrap();
        assert_eq!(there(), [true; 3], "no week has gone");
        let week = TimeDelta::days(7) + TimeDelta::seconds(1);
        carves.stage.clock.advance(week);
        carves.stage.app.keep_up().await.unwrap();
        assert_eq!(there(), left, "{cleared_at}");
    }
    let waiting = "restores WHERE orphans_cleared_at IS NULL";
    assert_eq!(carves.stage.count(waiting).await, 0);
    carves.end().await;
}

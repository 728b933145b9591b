//! A real osqueryd, if there is one: `OSQUERYD=/usr/bin/osqueryd script/test`.

use std::path::{Path, PathBuf};

use ostiary_dev::process::{Process, Recipe};
use ostiary_tests::{PATIENCE, Program, StoredRow, World, WorldOptions, eventually};
use rustix::process::Signal;
use serde_json::json;
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread")]
async fn a_real_osqueryd_does_its_work_by_name_and_by_address() {
    let Some(osqueryd) = std::env::var_os("OSQUERYD").filter(|path| !path.is_empty()) else {
        println!("skipped: OSQUERYD names no osqueryd");
        return;
    };
    let options =
        WorldOptions::only(&[Program::Api, Program::Worker]).set("API__CHECKIN_FLUSH_MS", "500");
    let world = World::start(options).await;
    let pack = world.folder().join("journey.conf");
    let queries = json!({"queries": {
        "osquery": {"query": "SELECT version, instance_id FROM osquery_info", "interval": 1, "snapshot": true},
        "ticks": {"query": "SELECT unix_time FROM time", "interval": 1}
    }});
    std::fs::write(&pack, queries.to_string()).unwrap();
    world
        .command(&["import-pack", &pack.display().to_string()], "")
        .await;

    let mut known = Vec::new();
    for host in ["localhost", "127.0.0.1"] {
        let mut daemon = Daemon::start(&world, Path::new(&osqueryd), host);
        let node = daemon.eventually("it enrolls", async || {
            world
                .find_nodes("")
                .await
                .into_iter()
                .map(|node| node.id)
                .find(|node| !known.contains(node))
        });
        let node = node.await;
        known.push(node);
        daemon.does_its_work(&world, node, host).await;
        daemon.process.stop(Signal::TERM, PATIENCE).await;
    }
    world.end().await;
}

/// A running osqueryd.
struct Daemon {
    process: Process,
}

impl Daemon {
    fn start(world: &World, osqueryd: &Path, host: &str) -> Self {
        let folder = world.folder().join(format!("osqueryd-{host}"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(
            folder.join("secret"),
            format!("{}\n", world.enroll_secret()),
        )
        .unwrap();
        let flags = flagfile(
            &format!("{host}:{}", world.api.port()),
            &world.certificates.ca,
            &folder,
        );
        let file = folder.join("osquery.flags");
        std::fs::write(&file, flags).unwrap();
        let program = PathBuf::from(osqueryd).display().to_string();
        let command = vec![program, format!("--flagfile={}", file.display())];
        let mut recipe = Recipe::new("osqueryd", command, &folder.join("osqueryd.log"));
        recipe.folder = Some(folder);
        Self {
            process: recipe.start().expect("OSQUERYD names a program"),
        }
    }

    /// Asks until there is an answer, and says what the daemon said if it ends before.
    async fn eventually<T>(&mut self, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
        let process = &mut self.process;
        eventually(what, PATIENCE, async || {
            if let Ok(Some(status)) = process.ended() {
                panic!(
                    "{what}: osqueryd ended ({status}):\n{}",
                    process.last_words()
                );
            }
            ask().await
        })
        .await
    }

    async fn does_its_work(&mut self, world: &World, node: Uuid, host: &str) {
        let record = self.eventually("it fetches its config", async || {
            let nodes = world.find_nodes("").await.into_iter();
            nodes
                .filter(|record| record.id == node)
                .find(|record| record.config_at.is_some())
        });
        let record = record.await;
        assert!(
            !record.osquery_version.is_empty() && !record.instance_id.is_empty(),
            "{record:?}"
        );

        // All rows each time, and differences: a row of the time is removed when the next one is added.
        let instance = self.eventually("rows of a snapshot arrive", async || {
            let stored = world.stored(node).await;
            let mut snapshots = stored
                .executions
                .into_iter()
                .filter(|execution| execution.query == "pack/journey/osquery");
            snapshots.find_map(|execution| match execution.rows.into_iter().next()? {
                StoredRow::Snapshot(columns) => columns.get("instance_id").cloned(),
                other => panic!("{other:?}"),
            })
        });
        assert_eq!(instance.await, record.instance_id);
        self.eventually("differences arrive", async || {
            let stored = world.stored(node).await;
            let mut ticks = stored
                .executions
                .iter()
                .filter(|execution| execution.query == "pack/journey/ticks");
            let changed = |row: &StoredRow| matches!(row, StoredRow::Removed(_));
            ticks
                .any(|execution| execution.rows.iter().any(changed))
                .then_some(())
        })
        .await;

        let (right, wrong) = (
            format!("right-{host}").replace('.', "-"),
            format!("wrong-{host}").replace('.', "-"),
        );
        let asked = world
            .ask(&[node], &right, "SELECT 6 * 7 AS answer, 'é' AS text")
            .await;
        let failing = world
            .ask(&[node], &wrong, "SELECT * FROM no_such_table")
            .await;
        let answer = self.eventually("a live query is answered", async || {
            world
                .task(asked, node)
                .await
                .filter(|task| task.state != "offered")
        });
        let answer = answer.await;
        assert_eq!(
            (answer.state.as_str(), json!(answer.rows)),
            ("done", json!([{"answer": "42", "text": "é"}]))
        );
        let answer = self.eventually("a live query fails", async || {
            world
                .task(failing, node)
                .await
                .filter(|task| task.state != "offered")
        });
        let answer = answer.await;
        assert_eq!(answer.state, "failed");
        assert!(
            answer.message.contains("no_such_table"),
            "{}",
            answer.message
        );
        let unreadable = world.stored(node).await.unreadable;
        assert!(unreadable.is_empty(), "{unreadable:?}");
    }
}

/// The flags of the enroll page, quicker, and kept apart from an osqueryd that this machine may run for itself.
fn flagfile(tls_hostname: &str, ca: &Path, folder: &Path) -> String {
    let (ca, folder) = (ca.display(), folder.display());
    format!(
        "--tls_hostname={tls_hostname}
--tls_server_certs={ca}
--host_identifier=instance
--enroll_secret_path={folder}/secret
--enroll_tls_endpoint=/enroll
--tls_enroll_max_attempts=0
--config_plugin=tls
--config_tls_endpoint=/config
--config_refresh=5
--config_accelerated_refresh=5
--logger_plugin=tls
--logger_tls_endpoint=/log
--logger_tls_period=1
--logger_tls_compress=true
--logger_min_status=1
--disable_distributed=false
--distributed_plugin=tls
--distributed_interval=1
--distributed_tls_read_endpoint=/distributed/read
--distributed_tls_write_endpoint=/distributed/write
--database_path={folder}/osquery.db
--pidfile={folder}/osqueryd.pid
--extensions_socket={folder}/osquery.em
--disable_extensions=true
--disable_watchdog=true
"
    )
}

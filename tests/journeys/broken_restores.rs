//! Backups and restores that do not end well: nothing that holds keys is left, and the programs are let in again.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use ostiary_tests::{Program, World, WorldOptions};

/// Roles that may connect to the database.
const ADMITTED: &str = "SELECT count(*) FROM pg_roles WHERE rolname IN ('ostiary_api', 'ostiary_manager', 'ostiary_worker') \
    AND has_database_privilege(rolname, current_database(), 'CONNECT')";

/// A folder of Postgres' programs, some of which can be replaced by a script.
struct Programs {
    folder: PathBuf,
    real: PathBuf,
}

impl Programs {
    fn new() -> Self {
        let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
            .unwrap()
            .map(|entry| entry.unwrap().path().join("bin"))
            .filter(|path| path.join("pg_dump").is_file())
            .collect();
        versions.sort();
        let folder = std::env::temp_dir().join(format!("ostiary-programs-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let programs = Self {
            folder,
            real: versions.pop().unwrap(),
        };
        for name in ["psql", "pg_dump", "pg_restore"] {
            programs.put(name, "exec REAL \"$@\"");
        }
        programs
    }

    /// What a program does when it is not asked for its version.
    fn put(&self, name: &str, does: &str) {
        let real = self.real.join(name).display().to_string();
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = --version ] && exec {real} --version\n{}\n",
            does.replace("REAL", &real)
        );
        let path = self.folder.join(name);
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn entries(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap();
    names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// As an operator presses Ctrl-C while the program runs.
const INTERRUPTS: &str = "kill -INT $PPID; exec sleep 20";

#[tokio::test]
async fn what_is_stopped_or_fails_leaves_no_keys_behind_and_lets_the_programs_in_again() {
    let programs = Programs::new();
    let options = WorldOptions::only(&[Program::Manager]).set(
        "BACKUP__POSTGRES_PROGRAMS",
        &programs.folder.display().to_string(),
    );
    let mut world = World::start(options).await;
    let folder = world.folder().join("backups");
    std::fs::create_dir(&folder).unwrap();
    let name = folder.display().to_string();

    programs.put("pg_dump", INTERRUPTS);
    let stopped = world.owner_command(&["backup", &name]).await;
    assert!(stopped.is_err(), "{stopped:?}");
    assert_eq!(entries(&folder), [""; 0], "a stopped backup leaves nothing");
    programs.put("pg_dump", "exec REAL \"$@\"");
    world.owner_command(&["backup", &name]).await.unwrap();
    let [file] = &entries(&folder)[..] else {
        panic!("one file: {:?}", entries(&folder));
    };
    let backup = folder.join(file).display().to_string();

    let restore = ["restore", "--replace", "--wait", "1", &backup];
    let refused = world.owner_command(&restore).await.unwrap_err();
    assert!(
        refused.contains("stop them first: ostiary-manager"),
        "{refused}"
    );
    world.stop(Program::Manager).await;
    let users = world.scalar("SELECT count(*) FROM users").await;
    for (does, said) in [
        ("exit 3", "pg_restore cannot read the dump"),
        (
            "REAL \"$@\" | head -c 20000; exit 1",
            "the restore has failed",
        ),
        (INTERRUPTS, "it was stopped"),
    ] {
        programs.put("pg_restore", does);
        let failed = world.owner_command(&restore).await.unwrap_err();
        assert!(
            failed.contains(said) && failed.contains("is as it was before"),
            "{failed}"
        );
        assert_eq!(world.scalar(ADMITTED).await, 3, "{does}");
        assert_eq!(world.scalar("SELECT count(*) FROM users").await, users);
    }

    // Committed, but not set right: a later migration fails. Nobody may work with it until a restore has ended well.
    programs.put("pg_restore", "exec REAL \"$@\"");
    programs.put("psql", "REAL \"$@\" && REAL -d \"$(printf %s \"$*\" | sed 's/.*--dbname=//')\" -c 'ALTER TABLE restores RENAME TO gone'");
    let failed = world.owner_command(&restore).await.unwrap_err();
    assert!(failed.contains("are kept out until"), "{failed}");
    assert_eq!(world.scalar(ADMITTED).await, 0);
    programs.put("psql", "exec REAL \"$@\"");
    let restored = world.owner_command(&restore).await.unwrap();
    assert!(restored.contains("Restored."), "{restored}");
    assert_eq!(world.scalar(ADMITTED).await, 3);
    let unknown = world
        .scalar(
            "SELECT count(*) FROM checked_sql WHERE problem = '' AND tables @> '{osquery_info}'",
        )
        .await;
    assert!(unknown > 0, "all SQL is looked at");
    world.launch(Program::Manager).await;
    world.end().await;
}

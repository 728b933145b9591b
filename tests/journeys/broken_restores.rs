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
        let folder =
            std::env::temp_dir().join(format!("ostiary-programs-{}", ostiary_dev::random_hex(8)));
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

/// As Ctrl-C reaches psql, too, when all of the dump is in its pipe and nothing of it is committed.
const LOSES_ALL: &str = "cat > /dev/null; kill -INT $PPID; sleep 1; exit 3";

/// An object in the storage of carves that no database knows.
const ORPHAN: &str = "018f0000-0000-7000-8000-000000000007";

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
    for (program, does, said) in [
        ("pg_restore", "exit 3", "pg_restore cannot read the dump"),
        (
            "pg_restore",
            "REAL \"$@\" | head -c 20000; exit 1",
            "the restore has failed",
        ),
        ("pg_restore", INTERRUPTS, "it was stopped"),
        ("psql", LOSES_ALL, "it was stopped"),
        ("psql", "cat > /dev/null", "the dump was not committed"),
    ] {
        programs.put(program, does);
        let failed = world.owner_command(&restore).await.unwrap_err();
        assert!(
            failed.contains(said) && failed.contains("is as it was before"),
            "{failed}"
        );
        assert_eq!(world.scalar(ADMITTED).await, 3, "{does}");
        assert_eq!(world.scalar("SELECT count(*) FROM users").await, users);
        programs.put(program, "exec REAL \"$@\"");
    }

    // Committed, but not set right: a later migration fails. Nobody may work with it until a restore has ended well.
    programs.put("psql", "REAL \"$@\" && REAL -d \"$(printf %s \"$*\" | sed 's/.*--dbname=//')\" -c 'ALTER TABLE restores RENAME TO gone'");
    let failed = world.owner_command(&restore).await.unwrap_err();
    assert!(failed.contains("are kept out until"), "{failed}");
    assert_eq!(world.scalar(ADMITTED).await, 0);
    programs.put("psql", "exec REAL \"$@\"");
    let object = world.folder().join("blobs").join(ORPHAN.replace('-', ""));
    std::fs::create_dir_all(object.parent().unwrap()).unwrap();
    std::fs::write(&object, "of a later carve").unwrap();
    let restored = world.owner_command(&restore).await.unwrap();
    assert!(restored.contains("Restored."), "{restored}");
    assert!(
        restored.contains("they stay") && restored.contains(ORPHAN),
        "{restored}"
    );
    let to_clear = "SELECT count(*) FROM restores WHERE orphans_cleared_at IS NULL";
    assert_eq!(world.scalar(to_clear).await, 0, "nobody said so");
    let cleared = ["restore", "--replace", "--clear-orphans", &backup];
    let restored = world.owner_command(&cleared).await.unwrap();
    assert!(restored.contains("the worker deletes them"), "{restored}");
    assert_eq!(world.scalar(to_clear).await, 1);
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

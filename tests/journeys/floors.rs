//! The floors of the house: an edge between our crates may only go down, and the map in ARCHITECTURE.md is true.

use std::path::Path;

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Every crate with its floor. A crate may use those of lower floors only; the simulator and the tools of development none of ours.
const FLOORS: &[(&str, u8)] = &[
    ("ostiary-domain", 0),
    ("ostiary-store", 1),
    ("ostiary-queue", 1),
    ("ostiary-outputs", 1),
    ("ostiary-boot", 1),
    ("ostiary-simulator", 1),
    ("ostiary-dev", 1),
    ("ostiary-sql-check", 1),
    ("ostiary-blobs", 1),
    ("ostiary-archives", 1),
    ("ostiary-api", 2),
    ("ostiary-manager", 2),
    ("ostiary-worker", 2),
    ("ostiary-tests", 3),
];

/// Outside crates that only one of ours may name, or a few.
const OWNERS: &[(&str, &str)] = &[
    ("sqlx", "ostiary-store"),
    ("deadpool-redis", "ostiary-queue"),
    ("lettre", "ostiary-outputs"),
    ("rusqlite", "ostiary-sql-check"),
    ("object_store", "ostiary-blobs"),
    ("object_store", "ostiary-outputs"),
    ("minijinja-contrib", "ostiary-manager"),
];

fn floor(name: &str) -> u8 {
    let found = FLOORS.iter().find(|(known, _)| *known == name);
    found
        .unwrap_or_else(|| panic!("{name} has no floor: give it one here and in ARCHITECTURE.md"))
        .1
}

#[test]
fn no_edge_between_our_crates_goes_up() {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    assert_eq!(
        metadata.workspace_members.len(),
        FLOORS.len(),
        "a crate is missing in FLOORS, or gone"
    );
    for package in metadata.workspace_packages() {
        let edges = package
            .dependencies
            .iter()
            .filter(|edge| edge.kind == DependencyKind::Normal);
        for edge in edges {
            if edge.name.starts_with("ostiary-") {
                assert!(
                    floor(&edge.name) < floor(&package.name),
                    "{} may not use {}",
                    package.name,
                    edge.name
                );
                let alone = ["ostiary-simulator", "ostiary-dev"];
                assert!(
                    !alone.contains(&package.name.as_str()),
                    "{} uses {}",
                    package.name,
                    edge.name
                );
            }
            let owners: Vec<&str> = OWNERS
                .iter()
                .filter(|(name, _)| *name == edge.name)
                .map(|(_, owner)| *owner)
                .collect();
            assert!(
                owners.is_empty() || owners.contains(&package.name.as_str()),
                "only {owners:?} may name {}",
                edge.name
            );
        }
    }
}

#[test]
fn the_map_names_every_crate_and_no_path_that_is_gone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let map = std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    for package in metadata.workspace_packages() {
        let folder = package.manifest_path.parent().unwrap();
        let folder = folder.strip_prefix(&metadata.workspace_root).unwrap();
        assert!(
            map.contains(&format!("`{folder}`")),
            "ARCHITECTURE.md does not name `{folder}`"
        );
    }
    // Whatever stands in back quotes and looks like a path of ours must exist.
    let tops = [
        "api/",
        "manager/",
        "worker/",
        "crates/",
        "migrations/",
        "templates/",
        "deploy/",
        "tests/",
        "web/",
        "script/",
        "docs/",
    ];
    for quoted in map.split('`').skip(1).step_by(2) {
        if tops.iter().any(|top| quoted.starts_with(top)) && !quoted.contains(['*', '<', '{', ' '])
        {
            assert!(
                root.join(quoted).exists(),
                "ARCHITECTURE.md names {quoted}, which is gone"
            );
        }
    }
}

/// The table says what osqueryd is answered; whoever changes an answer changes it in both places.
#[test]
fn the_map_has_the_table_of_answers_that_the_code_has() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let rows = |text: &str| -> Vec<String> {
        text.lines()
            .skip_while(|line| !line.contains("| trouble | status | `/enroll` |"))
            .take_while(|line| !line.starts_with("## "))
            .map(|line| line.trim_start_matches("//! "))
            .filter(|line| line.starts_with('|'))
            .map(str::to_owned)
            .collect()
    };
    let code = rows(&std::fs::read_to_string(root.join("api/src/error.rs")).unwrap());
    let map = rows(&std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap());
    assert!(code.len() > 20, "the head of api/src/error.rs has no table");
    assert_eq!(map, code);
}

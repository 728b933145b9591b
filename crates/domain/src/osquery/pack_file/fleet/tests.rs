//! Fleet's files as a whole.

use super::super::{ImportedFile, ImportedQuery, PackFileError};
use super::parse_yaml;

const FLEETCTL: &str = include_str!("../../../../../../tests/fixtures/moving/fleetctl.yml");
const GITOPS: &str = include_str!("../../../../../../tests/fixtures/moving/gitops.yml");

fn names(queries: &[ImportedQuery]) -> Vec<&str> {
    queries.iter().map(|query| query.name.as_str()).collect()
}

fn said(file: &ImportedFile, words: &str) -> bool {
    file.problems
        .iter()
        .any(|problem| format!("{}: {}", problem.entry, problem.what).contains(words))
}

#[test]
fn documents_of_fleetctl_become_queries_packs_and_tags() {
    let file = parse_yaml(FLEETCTL, "all.yml").unwrap();
    assert_eq!(
        names(&file.schedule),
        ["USB drives", "Failed logins of the lab"]
    );
    let usb = &file.schedule[0];
    assert!(
        !usb.snapshot && usb.removed && usb.interval == 86_400,
        "{usb:?}"
    );
    assert_eq!(
        (usb.platform.as_str(), usb.version.as_str()),
        ("darwin,windows", "5.4.0")
    );
    assert!(
        usb.sql.starts_with("SELECT action") && usb.extra.is_empty(),
        "{usb:?}"
    );
    assert_eq!(file.schedule[1].target, "Lab-machines");
    assert!(file.schedule[1].snapshot);
    let packs: Vec<&str> = file.packs.iter().map(|pack| pack.name.as_str()).collect();
    assert_eq!(packs, ["it", "Fleet policies"]);
    assert_eq!(file.packs[0].target, "servers or Lab-machines");
    assert_eq!(names(&file.packs[0].queries), ["serials", "USB drives"]);
    assert_eq!(file.packs[0].queries[0].interval, 600);
    let policy = &file.packs[1].queries[0];
    assert!(
        policy.snapshot
            && policy
                .description
                .ends_with("Resolution: Turn on FileVault.")
    );
    assert!(
        policy.value.contains("critical") && policy.extra.is_empty(),
        "{policy:?}"
    );
    let tags: Vec<_> = file
        .tags
        .iter()
        .map(|tag| (tag.name.as_str(), tag.hosts.len()))
        .collect();
    assert_eq!(
        tags,
        [
            ("servers", 2),
            ("slack-not-running", 0),
            ("Lab-machines", 0)
        ]
    );
    for words in [
        "Its SQL: SELECT 1",
        "on demand only",
        "enroll secrets",
        "no query called \"nowhere\"",
        "overrides",
        "user_roles",
    ] {
        assert!(said(&file, words), "{words}: {:?}", file.problems);
    }
    assert_eq!(file.options["logger_tls_period"], 10);
    assert_eq!(
        file.decorators["load"][0],
        "SELECT uuid AS host_uuid FROM system_info;"
    );
    assert!(
        !format!("{file:?}").contains("not-to-be-kept"),
        "a secret was kept"
    );
}

#[test]
fn gitops_files_become_queries_for_the_nodes_they_are_for() {
    let file = parse_yaml(GITOPS, "workstations.yml").unwrap();
    let targets: Vec<_> = file
        .schedule
        .iter()
        .map(|query| (query.name.as_str(), query.target.as_str()))
        .collect();
    assert_eq!(
        targets,
        [
            (
                "Failed logins",
                "Workstations and (Engineering or Customer-Support)"
            ),
            ("Sockets", "Workstations and not Kiosks"),
            ("Disk encryption", "Workstations"),
        ]
    );
    for words in [
        "another file, \"../lib/more.queries.yml\"",
        "the team Workstations becomes the tag",
        "software",
    ] {
        assert!(said(&file, words), "{words}: {:?}", file.problems);
    }
    assert_eq!(
        file.tags
            .iter()
            .find(|tag| tag.name == "Kiosks")
            .unwrap()
            .hosts,
        ["kiosk-1"]
    );
}

#[test]
fn bare_lists_are_told_by_the_name_of_their_file() {
    let text = "- name: a\n  query: SELECT 1\n  interval: 60\n";
    assert_eq!(
        names(&parse_yaml(text, "x.queries.yml").unwrap().schedule),
        ["a"]
    );
    assert_eq!(
        names(&parse_yaml(text, "x.policies.yml").unwrap().packs[0].queries),
        ["a"]
    );
    assert_eq!(
        parse_yaml(
            "config:\n  options:\n    read_max: 5\n",
            "agent-options.yml"
        )
        .unwrap()
        .options["read_max"],
        5
    );
}

#[test]
fn what_is_no_yaml_or_too_much_of_it_is_refused_with_its_line() {
    let bomb: String = (1..9)
        .map(|n| {
            format!(
                "l{n}: &l{n} [{}]\n",
                vec![format!("*l{}", n - 1); 9].join(",")
            )
        })
        .collect();
    for (text, line) in [
        ("a:\n\t- b", 2),
        ("kind: query\nspec: [", 2),
        ("a: 1\na: 2\n", 2),
        (&format!("l0: &l0 [x]\n{bomb}") as &str, 7),
        (&"[".repeat(5000) as &str, 1),
    ] {
        match parse_yaml(text, "x.yml") {
            Err(PackFileError::Syntax { line: at, reason }) => {
                assert!(
                    at <= line && !reason.is_empty() && !reason.contains('\n'),
                    "{at} {reason}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        parse_yaml("---\n---\n", "x.yml"),
        Err(PackFileError::Nothing)
    );
    assert_eq!(
        parse_yaml("just words", "x.yml"),
        Err(PackFileError::NotAnObject)
    );
}

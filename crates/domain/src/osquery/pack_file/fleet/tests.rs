//! Fleet's files as a whole.

use super::super::{ImportedFile, ImportedQuery, PackFileError};
use super::{YamlFile, parse_yaml, parse_yaml_files};

const FLEETCTL: &str = include_str!("../../../../../../tests/fixtures/moving/fleetctl.yml");
const GITOPS: &str = include_str!("../../../../../../tests/fixtures/moving/gitops.yml");

fn names(queries: &[ImportedQuery]) -> Vec<&str> {
    queries.iter().map(|query| query.name.as_str()).collect()
}

/// Is it said in the problems? Nothing is always said.
fn said(file: &ImportedFile, words: &str) -> bool {
    words.is_empty()
        || file
            .problems
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

/// A pack with these targets, and a query in it.
fn pack_for(targets: &str) -> ImportedFile {
    let text = format!(
        "kind: query\nspec: {{name: q, query: SELECT 1}}\n---\nkind: pack\nspec: {{name: p, {targets} queries: [{{query: q, interval: 60}}]}}\n"
    );
    parse_yaml(&text, "p.yml").unwrap()
}

#[test]
fn a_pack_reaches_whom_fleet_gives_it_to_and_never_more() {
    for (targets, expected, words) in [
        ("", "none", "it has no targets"),
        ("targets: {},", "none", "it has no targets"),
        (
            "targets: {labels: [], teams: null},",
            "none",
            "it has no targets",
        ),
        ("targets: {hosts: [web-1]},", "none", "single hosts"),
        ("targets: {host_ids: [7]},", "none", "single hosts"),
        (
            "targets: {labels: [a], hosts: [web-1]},",
            "a",
            "single hosts",
        ),
        (
            "targets: {labels: [{name: a}]},",
            "none",
            "no list of names",
        ),
        ("targets: {labels: [\"\"]},", "none", "no list of names"),
        ("targets: {labels: servers},", "servers", ""),
        ("targets: {labels: [All Hosts]},", "", ""),
        (
            "targets: {labels: [All Hosts, servers], teams: [lab]},",
            "",
            "",
        ),
        (
            "targets: {labels: [servers], teams: [The Lab]},",
            "servers or The-Lab",
            "",
        ),
        (
            "targets: {labels: [macOS, MS Windows]},",
            "\"platform:darwin\" or \"platform:windows\"",
            "",
        ),
        ("targets: {labels: [All Linux]},", "\"platform:linux\"", ""),
        (
            "targets: {labels: [Ubuntu Linux]},",
            "Ubuntu-Linux",
            "label Ubuntu Linux: targets choose by tag",
        ),
        (
            "targets: {labels: [chrome]},",
            "none",
            "no osqueryd runs there",
        ),
        ("targets: {labels: [none]},", "none-3eb416", ""),
        ("targets: {labels: [???]},", "tag-", ""),
    ] {
        let file = pack_for(targets);
        let target = file.packs[0].target.as_str();
        if expected.ends_with('-') || expected.starts_with("none-") {
            assert!(
                target.starts_with(&expected[..4]) && target != "none" && !target.is_empty(),
                "{targets} {target}"
            );
            assert!(said(&file, target), "{targets}: {:?}", file.problems);
        } else {
            assert_eq!(target, expected, "{targets}");
        }
        assert!(said(&file, words), "{targets}: {:?}", file.problems);
    }
}

#[test]
fn a_query_reaches_whom_fleet_asks_and_never_more() {
    for (keys, expected, words) in [
        ("", "", ""),
        ("labels_include_any: [], team: \"\",", "", ""),
        ("labels_include_any: [All Hosts, a],", "", ""),
        (
            "labels_include_any: [🚀],",
            "tag-",
            "label 🚀: it is not described in these files; nodes that carry the tag tag-",
        ),
        (
            "labels_include_any: [a, 7],",
            "none",
            "labels_include_any is no list of names; the query reaches no node",
        ),
        ("labels_include_any: {a: b},", "none", "no list of names"),
        (
            "labels_include_all: [All Hosts, a, macOS],",
            "a and \"platform:darwin\"",
            "",
        ),
        (
            "labels_exclude_any: [MS Windows, a],",
            "not (\"platform:windows\" or a)",
            "label a: it is excluded; as long as no node carries the tag a, nobody is",
        ),
        ("labels_exclude_any: [All Hosts],", "none", ""),
        ("labels_exclude_any: [[a]],", "none", "no list of names"),
        ("team: lab, labels_exclude_any: [iPadOS],", "lab", ""),
        ("team: {name: lab},", "none", "team is no name"),
    ] {
        let text =
            format!("kind: query\nspec: {{name: q, query: SELECT 1, {keys} interval: 60}}\n");
        let file = parse_yaml(&text, "q.yml").unwrap();
        let target = &file.schedule[0].target;
        if expected == "tag-" {
            assert!(target.starts_with(expected), "{keys}");
        } else {
            assert_eq!(target, expected, "{keys}");
        }
        assert!(said(&file, words), "{keys}: {:?}", file.problems);
    }
    let file = parse_yaml(
        "kind: query\nspec: {name: q, query: SELECT 1, labels_include_any: [a b, a/b], interval: 60}\n",
        "q.yml",
    )
    .unwrap();
    assert!(
        said(&file, "label a b, a/b: these become one tag"),
        "{:?}",
        file.problems
    );
}

#[test]
fn numbers_that_osquery_would_not_take_are_said() {
    for (keys, of_pack, expected, words) in [
        (
            "interval: 9999999",
            "interval: 60",
            60,
            "9999999, at which osqueryd skips the query; it is 604800",
        ),
        ("interval: -5", "interval: 60", 60, "below 0"),
        (
            "interval: 1h",
            "interval: 60",
            60,
            "no whole number; the query is taken for one without",
        ),
        (
            "interval: 0",
            "interval: often",
            3600,
            "no whole number; it is 3600 here",
        ),
        ("interval: 0", "name: q", 3600, ""),
        (
            "interval: 300",
            "interval: 700000",
            604_800,
            "700000, at which",
        ),
        (
            "interval: 300",
            "interval: 60, shard: 101",
            60,
            "shard is not a number from 1 to 100",
        ),
    ] {
        let text = format!(
            "kind: query\nspec: {{name: q, query: SELECT 1, {keys}}}\n---\nkind: pack\nspec: {{name: p, targets: {{labels: [All Hosts]}}, queries: [{{query: q, {of_pack}}}]}}\n"
        );
        let file = parse_yaml(&text, "p.yml").unwrap();
        assert_eq!(
            file.packs[0].queries[0].interval, expected,
            "{keys} {of_pack}"
        );
        assert!(said(&file, words), "{keys} {of_pack}: {:?}", file.problems);
    }
}

fn together(files: &[(&str, &str)]) -> ImportedFile {
    let files: Vec<YamlFile<'_>> = files
        .iter()
        .map(|(name, text)| YamlFile { name, text })
        .collect();
    parse_yaml_files(&files).unwrap()
}

/// Scheduled queries as `name: target`; an empty target is every node.
fn whom(file: &ImportedFile) -> Vec<String> {
    let queries = file.schedule.iter();
    queries
        .map(|query| format!("{}: {}", query.name, query.target))
        .collect()
}

const QUERY_A: &str = "- name: a\n  query: SELECT 1\n  interval: 60\n";

#[test]
fn files_of_no_team_reach_only_those_who_belong_to_none() {
    let text = "name: No team\nqueries:\n  - {name: a, query: SELECT 1, interval: 60}\npolicies:\n  - {name: b, query: SELECT 1}\nagent_options:\n  config:\n    options: {read_max: 5}\n";
    let file = parse_yaml(text, "no-team.yml").unwrap();
    assert_eq!(whom(&file), ["a: No-team", "b: No-team"]);
    assert!(file.packs.is_empty() && file.options.is_empty(), "{file:?}");
    assert!(
        said(&file, "agent_options of a team are left out"),
        "{:?}",
        file.problems
    );
    let nameless = format!("team_settings:\nqueries:\n{QUERY_A}");
    for text in [&nameless, &format!("name:\nqueries:\n{QUERY_A}")] {
        let file = parse_yaml(text, "x.yml").unwrap();
        assert_eq!(whom(&file), ["a: none"], "{text}");
    }
    let global = format!("org_settings: {{}}\nqueries:\n{QUERY_A}");
    assert_eq!(whom(&parse_yaml(&global, "default.yml").unwrap()), ["a: "]);
}

#[test]
fn a_list_that_a_team_names_by_its_path_is_for_that_team() {
    let team = |name: &str, path: &str| format!("name: {name}\nqueries:\n  - {path}\n");
    let lab = team("Lab", "path: ../lib/x.queries.yml");
    let ops = team("Ops", "path: ../lib/x.queries.yml");
    let all = "org_settings: {}\nqueries:\n  - path: ./lib/x.queries.yml\n";
    let wild = team("Lab", "paths: ../lib/*.queries.yml");
    let other = team("Ops", "path: ../lib/ops/x.queries.yml");
    for (files, expected, words) in [
        (vec![&lab as &str], "a: Lab", "it is for Lab"),
        (vec![&wild], "a: Lab", "it is for Lab"),
        (vec![&lab, &ops], "a: Lab or Ops", "it is for Lab or Ops"),
        (vec![&lab, all], "a: ", ""),
        (vec![&lab, &other], "a: none", "files of several folders"),
        (vec!["name: Lab\nqueries: []\n"], "a: ", ""),
        (vec!["- path: x.queries.yml\n"], "a: none", "cannot be told"),
    ] {
        let mut sent = vec![("x.queries.yml", QUERY_A)];
        sent.extend(files.iter().map(|text| ("other.yml", *text)));
        let file = together(&sent);
        assert_eq!(whom(&file), [expected], "{files:?}");
        assert!(said(&file, words), "{files:?}: {:?}", file.problems);
        assert!(!said(&file, "another file"), "{:?}", file.problems);
    }
    let file = together(&[
        ("lib/one/x.queries.yml", QUERY_A),
        (
            "lib/two/x.queries.yml",
            "- {name: b, query: SELECT 2, interval: 60}",
        ),
        ("lab.yml", &lab),
    ]);
    assert_eq!(whom(&file), ["a: none", "b: none"]);
}

#[test]
fn agent_options_that_a_team_names_by_their_path_become_nobodys() {
    let options = ("agent.yml", "config:\n  options: {read_max: 5}\n");
    let team = "name: Lab\nagent_options:\n  path: ../lib/agent.yml\n";
    let file = together(&[options, ("lab.yml", team)]);
    assert!(file.options.is_empty(), "{:?}", file.options);
    let global = "org_settings: {}\nagent_options:\n  path: ./lib/agent.yml\n";
    let file = together(&[options, ("lab.yml", team), ("default.yml", global)]);
    assert_eq!(file.options["read_max"], 5);
}

#[test]
fn packs_take_their_queries_from_other_files_of_the_import() {
    let packs = "kind: pack\nspec: {name: p, targets: {labels: [All Hosts]}, queries: [{query: q, interval: 60}]}\n";
    let queries = "kind: query\nspec: {name: q, query: SELECT 1, interval: 0}\n";
    let decorator = |sql: &str| format!("config:\n  decorators:\n    load: [{sql}]\n");
    let file = together(&[
        ("packs.yml", packs),
        ("queries.yml", queries),
        ("one.yml", &decorator("SELECT 1")),
        ("two.yml", &decorator("SELECT 2")),
    ]);
    assert_eq!(names(&file.packs[0].queries), ["q"]);
    assert_eq!(file.problems, []);
    assert_eq!(file.decorators["load"].as_array().unwrap().len(), 2);
    let alone = parse_yaml(packs, "packs.yml").unwrap();
    assert!(alone.packs[0].queries.is_empty() && said(&alone, "no query called"));
    let files = [("good.yml", packs), ("bad.yml", "kind: [")];
    let files = files.map(|(name, text)| YamlFile { name, text });
    let errors = parse_yaml_files(&files).unwrap_err();
    assert_eq!((errors.len(), errors[0].0), (1, 1));
}

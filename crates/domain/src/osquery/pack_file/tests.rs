//! Files as they are found in the field.

use serde_json::json;

use super::*;

fn import(text: &str) -> ImportedFile {
    parse(text, "uploaded").unwrap()
}

/// `entry: what` of all problems.
fn problems(file: &ImportedFile) -> Vec<String> {
    file.problems
        .iter()
        .map(|problem| format!("{}: {}", problem.entry, problem.what))
        .collect()
}

#[test]
fn a_pack_file_with_everything_osquery_takes() {
    let text = "\u{FEFF}# a pack\r\n{\r\n  // whose name is that of the file\r\n  \"platform\": \"darwin\",\r\n  \"version\": \"1.4.5\", \"shard\": \"50\", \"oncall\": \"secops\",\r\n  \"discovery\": [\"SELECT 1;\", 7, null],\r\n  \"queries\": {\r\n    \"mithra`s/root.kit \": {\r\n      \"query\": \"select * from file \\\r\n        where path = '\\\\\\\\tmp' and b = \\\"c\\\";\",\r\n      \"interval\": \"3600\", \"removed\": \"false\", \"snapshot\": \"t\", \"blacklist\": false,\r\n      \"description\": \"d\", \"value\": \"v\", \"startup_priority\": 3\r\n    },\r\n    # plain\r\n    \"b\": {\"query\": \"select 1\", \"interval\": 60}\r\n  },\r\n  \"file_paths\": {\"etc\": [\"/etc/%%\"]}\r\n}\r\n";
    let file = import(text);
    assert_eq!(problems(&file), [""; 0]);
    let [pack] = file.packs.as_slice() else {
        panic!("one pack")
    };
    assert_eq!(
        (
            pack.name.as_str(),
            pack.platform.as_str(),
            pack.version.as_str()
        ),
        ("uploaded", "darwin", "1.4.5")
    );
    assert_eq!(
        (pack.shard, pack.discovery.as_slice()),
        (Some(50), &["SELECT 1;".to_owned()][..])
    );
    assert_eq!(
        serde_json::to_value(&pack.extra).unwrap(),
        json!({"oncall": "secops", "file_paths": {"etc": ["/etc/%%"]}})
    );
    let [odd, plain] = pack.queries.as_slice() else {
        panic!("two queries")
    };
    assert_eq!(odd.name, "mithra`s/root.kit ");
    assert_eq!(
        odd.sql,
        r#"select * from file         where path = '\\tmp' and b = "c";"#
    );
    assert_eq!(
        (odd.interval, odd.removed, odd.snapshot, odd.denylist),
        (3600, false, true, false)
    );
    assert_eq!((odd.description.as_str(), odd.value.as_str()), ("d", "v"));
    assert_eq!((odd.startup_priority, odd.extra.len()), (Some(3), 0));
    assert_eq!(
        (
            plain.interval,
            plain.removed,
            plain.snapshot,
            plain.denylist
        ),
        (60, true, false, true)
    );
}

#[test]
fn a_whole_config_is_taken_apart() {
    let file = import(
        r#"{
        "options": {"logger_tls_period": 10},
        "schedule": {"usb": {"query": "select * from usb_devices", "interval": 300}, "d": {"query": "select 1"}},
        "packs": {
            "it": {"queries": {"q": {"query": "select 2", "interval": 1}}},
            "empty": {},
            "*": {"one": {"queries": {}}, "two": {"queries": {}}},
            "elsewhere": "/etc/osquery/packs/x.conf",
            "odd": 7
        },
        "decorators": {"load": ["select 3"]},
        "file_paths": {"etc": ["/etc/%%"], "tmp": ["/tmp/%"], "bad": "x"},
        "exclude_paths": {"etc": ["/etc/mtab"], "nowhere": ["/x"]},
        "file_accesses": ["tmp"],
        "yara": {"signatures": {}}
    }"#,
    );
    assert_eq!(
        file.packs
            .iter()
            .map(|pack| pack.name.as_str())
            .collect::<Vec<_>>(),
        ["it", "empty", "one", "two"]
    );
    assert_eq!(
        file.schedule
            .iter()
            .map(|query| (query.name.as_str(), query.interval))
            .collect::<Vec<_>>(),
        [("usb", 300), ("d", 3600)]
    );
    assert_eq!(file.options["logger_tls_period"], json!(10));
    assert_eq!(file.decorators["load"], json!(["select 3"]));
    let paths = |category: &str, globs: &str, excluded: &[&str], file_accesses| ImportedFilePaths {
        category: category.into(),
        globs: vec![globs.into()],
        exclude_globs: excluded.iter().map(ToString::to_string).collect(),
        file_accesses,
        ..ImportedFilePaths::default()
    };
    assert_eq!(
        file.file_paths,
        [
            paths("etc", "/etc/%%", &["/etc/mtab"], false),
            paths("tmp", "/tmp/%", &[], true)
        ]
    );
    assert_eq!(
        serde_json::to_value(&file.extra).unwrap(),
        json!({"yara": {"signatures": {}}, "exclude_paths": {"nowhere": ["/x"]}})
    );
    assert_eq!(
        problems(&file),
        [
            "packs.elsewhere: the pack lies in another file, \"/etc/osquery/packs/x.conf\"; import that file too",
            "packs.odd: a pack has to be an object; it is left out",
            "file_paths.bad: a category has to be a list of paths; it is left out",
        ]
    );
}

#[test]
fn entries_that_osquery_would_skip_are_named_and_the_rest_is_imported() {
    let file = import(
        r#"{"queries": {
        "a": {"query": "", "interval": 60},
        "b": {"query": "select 1", "interval": 0},
        "c": {"query": "select 1", "interval": "1h"},
        "d": {"query": "select 1", "interval": 1.5},
        "e": {"query": "select 1", "interval": 604801},
        "f": "select 1",
        "g": {"query": "select 1", "interval": 604800, "shard": 101, "platform": ["x"], "removed": "1", "snapshot": 2}
    }}"#,
    );
    let [good] = file.packs[0].queries.as_slice() else {
        panic!("one query")
    };
    assert_eq!(
        (good.name.as_str(), good.interval, good.shard),
        ("g", 604_800, None)
    );
    assert!(!good.removed, "to osqueryd the text 1 is false");
    assert!(good.snapshot);
    assert_eq!(good.extra["platform"], json!(["x"]));
    let named: Vec<&str> = file
        .problems
        .iter()
        .map(|problem| problem.entry.as_str())
        .collect();
    assert_eq!(
        named,
        [
            "queries.a",
            "queries.b",
            "queries.c",
            "queries.d",
            "queries.e",
            "queries.f",
            "queries.g",
            "queries.g"
        ]
    );
}

#[test]
fn errors_name_the_line_of_the_file() {
    let syntax = |text: &str| match parse(text, "p") {
        Err(PackFileError::Syntax { line, reason }) => (line, reason),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        syntax("{\n# comment\n\"a\": 1,\n}"),
        (4, "trailing comma".to_owned())
    );
    assert_eq!(
        syntax("{\"a\": \"x \\\n y\",\n// c\n \"b\": }"),
        (4, "expected value".to_owned())
    );
    assert_eq!(syntax("{\"a\": 1 /* no */}").0, 1);
    assert_eq!(syntax("").0, 1);
    assert_eq!(
        syntax("{\"a\": \"x\ty\"}").0,
        1,
        "raw control characters are no JSON"
    );
    assert_eq!(parse("[]", "p"), Err(PackFileError::NotAnObject));
    assert_eq!(parse("{}", "p"), Err(PackFileError::Nothing));
}

#[test]
fn comments_are_whole_lines_only() {
    let file = import(
        "{\"schedule\": {\"a\": {\"query\": \"select '# // not a comment' -- x\"}}\n  #, \"b\": \\\n still the comment\n}",
    );
    assert_eq!(file.schedule[0].sql, "select '# // not a comment' -- x");
}

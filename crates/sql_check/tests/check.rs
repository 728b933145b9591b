//! The check as its callers see it.

use std::collections::BTreeMap;

use ostiary_sql_check::{
    Checked, Checker, Column, Extras, Platforms, Problem, Question, Table, View,
};

fn ask(checker: &Checker, platforms: Platforms, sql: &str) -> Result<Checked, Problem> {
    let denied = BTreeMap::new();
    let question = Question {
        platforms,
        version: "",
        denied: &denied,
        pragmas: false,
        foreign_tables: false,
    };
    checker.check(&question, sql)
}

fn refused(platforms: Platforms, sql: &str) -> String {
    let checker = Checker::new(Extras::default());
    let problem = ask(&checker, platforms, sql).expect_err(sql);
    match problem.position {
        Some(at) => format!("{}:{} {}", at.line, at.column, problem.message),
        None => problem.message,
    }
}

#[test]
fn sql_that_osquery_runs_is_accepted() {
    let checker = Checker::new(Extras::default());
    for sql in [
        "SELECT * FROM processes",
        "select p.name, u.username from processes p join users u using (uid) where p.on_disk = 0;",
        "SELECT path, sha256 FROM hash WHERE path LIKE '/etc/%%' -- a comment; with a semicolon\n",
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x < 5) SELECT x FROM n",
        "SELECT split(path, '/', 0), regex_match(path, 'a(b)', 1), sha256(path), in_cidr_block('10.0.0.0/8', '10.1.1.1') FROM file WHERE path = '/x'",
        "SELECT concat_ws('/', 'a', name), to_base64(name), community_id_v1('a','b',1,2,3), version_compare('1','2') FROM programs ORDER BY version COLLATE version_dpkg",
        "SELECT sqrt(1), log(2), power(2, 3), pi(), json_extract('{}', '$.a') WHERE 1 IS NOT 2",
        "SELECT e.eid, c.cmdline FROM docker_container_processes c CROSS JOIN process_events e USING (pid)",
        "SELECT * FROM hash UNION SELECT * FROM hash",
        "VALUES (1)",
        "SELECT 1",
        "SELECT carve(path) FROM file WHERE path LIKE '/tmp/%'",
    ] {
        let checked = ask(&checker, Platforms::ALL, sql);
        assert!(checked.is_ok(), "{sql}: {checked:?}");
    }
    let checked = ask(
        &checker,
        Platforms::LINUX,
        "SELECT uid, name AS n, 1+1 FROM processes",
    )
    .unwrap();
    assert_eq!(checked.columns, ["uid", "n", "1+1"]);
    assert_eq!(
        checked.tables.into_iter().collect::<Vec<_>>(),
        ["processes"]
    );
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let all = Platforms::ALL;
    assert_eq!(
        refused(all, "SELECT *\nFROM proceses"),
        "2:6 There is no table proceses. Did you mean processes?"
    );
    assert_eq!(
        refused(all, "SELECT pidd FROM processes"),
        "1:8 None of these tables has a column pidd. Did you mean pid?"
    );
    assert_eq!(
        refused(all, "SELECT 'é', p.nme FROM processes p"),
        "1:13 p has no column nme. Did you mean name?"
    );
    assert_eq!(
        refused(all, "SELECT FROM users"),
        "1:8 \"FROM\" cannot stand here."
    );
    assert_eq!(
        refused(all, "SELECT * FROM users WHERE ("),
        "1:28 The statement ends too early."
    );
    assert_eq!(
        refused(all, "SELECT regex_mach(username, 'x', 0) FROM users"),
        "1:8 osquery has no function regex_mach(). Did you mean regex_match()?"
            .replace("match()?", "match?")
    );
    assert_eq!(
        refused(all, "SELECT uid FROM users, processes"),
        "1:8 uid is a column of more than one of these tables: say which, as in table.uid."
    );
    assert_eq!(
        refused(all, "SELECT * FROM users; SELECT 2"),
        "1:22 There are several statements: osquery keeps the columns of the first only. Use one."
    );
    assert_eq!(
        refused(Platforms::LINUX, "SELECT * FROM alf"),
        "1:15 osquery has the table alf on macOS only, and this is for Linux."
    );
    assert_eq!(
        refused(all, "SELECT # FROM users"),
        "1:8 \"#\" is not understood."
    );
    assert_eq!(refused(all, " -- nothing"), "There is no statement.");
}

#[test]
fn nothing_that_writes_or_looks_elsewhere_passes() {
    for sql in [
        "DELETE FROM users",
        "INSERT INTO users VALUES (1)",
        "UPDATE users SET uid = 1",
        "DROP TABLE users",
        "CREATE TABLE x (a)",
        "CREATE TEMP VIEW x AS SELECT 1",
        "ATTACH '/etc/passwd' AS x",
        "PRAGMA table_info(users)",
        "PRAGMA journal_mode = WAL",
        "EXPLAIN SELECT 1",
        "BEGIN",
        "VACUUM",
        "REINDEX",
        "WITH x AS (SELECT 1) DELETE FROM users",
        "WITH x AS (SELECT 1) INSERT INTO users SELECT 1",
        "SELECT load_extension('x')",
        "SELECT * FROM dbstat",
        "SELECT 1\0",
    ] {
        refused(Platforms::ALL, sql);
    }
    let checker = Checker::new(Extras::default());
    let denied = BTreeMap::new();
    let question = Question {
        platforms: Platforms::ALL,
        version: "",
        denied: &denied,
        pragmas: true,
        foreign_tables: false,
    };
    checker
        .check(&question, "PRAGMA table_xinfo(processes)")
        .unwrap();
    checker
        .check(&question, "SELECT m.name AS t, p.name AS c, p.type, p.pk, p.hidden FROM sqlite_temp_master m JOIN pragma_table_xinfo(m.name) p")
        .unwrap();
    assert!(
        checker
            .check(&question, "PRAGMA hard_heap_limit = 0")
            .is_err()
    );
    assert!(checker.check(&question, "PRAGMA journal_mode").is_err());
}

#[test]
fn a_denied_table_is_refused_with_its_reason_however_it_is_reached() {
    let extras = Extras {
        tables: vec![],
        views: vec![View {
            name: "peek".to_owned(),
            sql: "SELECT path, size FROM file".to_owned(),
        }],
    };
    let checker = Checker::new(extras);
    let denied = BTreeMap::from([
        ("file".to_owned(), "laptops are private.".to_owned()),
        ("carves".to_owned(), "no files leave laptops.".to_owned()),
    ]);
    let question = Question {
        platforms: Platforms::ALL,
        version: "",
        denied: &denied,
        pragmas: false,
        foreign_tables: false,
    };
    let refused = |sql: &str| checker.check(&question, sql).expect_err(sql).message;
    let reason = "The table file cannot be used here: laptops are private.";
    assert_eq!(refused("SELECT * FROM file WHERE path = '/x'"), reason);
    assert_eq!(refused("SELECT count(*) FROM FILE"), reason);
    assert_eq!(refused("SELECT size FROM peek"), reason);
    assert_eq!(
        refused("SELECT 1 WHERE EXISTS (SELECT 1 FROM \"file\")"),
        reason
    );
    assert_eq!(
        refused("WITH f AS (SELECT * FROM file) SELECT 1 FROM f"),
        reason
    );
    assert!(refused("SELECT * FROM carves").contains("no files leave"));
    assert!(refused("SELECT carve('/etc/passwd')").contains("no files leave"));
    checker
        .check(&question, "SELECT * FROM hash WHERE path = '/x'")
        .unwrap();
}

#[test]
fn tables_and_views_of_the_config_and_of_extensions_are_known() {
    let extras = Extras {
        tables: vec![Table {
            name: "it's".to_owned(),
            platforms: Platforms::LINUX,
            columns: vec![
                Column {
                    name: "a".to_owned(),
                    hidden: false,
                },
                Column {
                    name: "order".to_owned(),
                    hidden: true,
                },
            ],
        }],
        views: vec![
            View {
                name: "mine".to_owned(),
                sql: "SELECT a FROM \"it's\"".to_owned(),
            },
            View {
                name: "broken".to_owned(),
                sql: "SELECT nonsense FROM nowhere".to_owned(),
            },
            View {
                name: "evil".to_owned(),
                sql: "SELECT 1; DROP TABLE users".to_owned(),
            },
        ],
    };
    let checker = Checker::new(extras);
    ask(
        &checker,
        Platforms::LINUX,
        "SELECT a, \"order\" FROM \"it's\"",
    )
    .unwrap();
    ask(&checker, Platforms::LINUX, "SELECT a FROM mine").unwrap();
    ask(&checker, Platforms::LINUX, "SELECT uid FROM users").unwrap();
    assert!(ask(&checker, Platforms::LINUX, "SELECT * FROM broken").is_err());
    assert!(ask(&checker, Platforms::WINDOWS, "SELECT a FROM \"it's\"").is_err());
}

#[test]
fn what_some_nodes_lack_is_a_warning() {
    let checker = Checker::new(Extras::default());
    let checked = ask(&checker, Platforms::ALL, "SELECT * FROM alf").unwrap();
    assert_eq!(
        checked.warnings,
        ["alf is missing on Linux and Windows: there the query fails."]
    );
    let denied = BTreeMap::new();
    let question = Question {
        platforms: Platforms::LINUX,
        version: "4.0.0",
        denied: &denied,
        pragmas: false,
        foreign_tables: false,
    };
    let checked = checker
        .check(&question, "SELECT sha256 FROM apparmor_profiles")
        .unwrap();
    assert_eq!(
        checked.warnings,
        ["apparmor_profiles exists from osquery 4.2.0 on."]
    );
    let newer = Question {
        version: "5.0.0",
        ..question
    };
    let checked = checker
        .check(&newer, "SELECT sha256 FROM apparmor_profiles")
        .unwrap();
    assert_eq!(
        checked.warnings,
        ["apparmor_profiles.sha256 exists from osquery 5.13.1 on."]
    );
    assert_eq!(checked.since, "5.13.1");
    assert!(!checked.reads_extras);
}

#[test]
fn of_an_automatic_table_only_the_form_is_checked() {
    let checker = Checker::new(Extras::default());
    let denied = BTreeMap::new();
    let question = Question {
        platforms: Platforms::DARWIN,
        version: "",
        denied: &denied,
        pragmas: false,
        foreign_tables: true,
    };
    checker
        .check(
            &question,
            "SELECT service, client FROM access WHERE allowed",
        )
        .unwrap();
    assert!(
        checker
            .check(&question, "SELECT service, FROM access")
            .is_err()
    );
    assert!(checker.check(&question, "DELETE FROM access").is_err());
}

#[test]
fn a_table_or_view_that_sqlite_cannot_make_spoils_nothing_else() {
    let column = |name: &str, hidden| Column {
        name: name.to_owned(),
        hidden,
    };
    let table = |name: &str, columns: &[(&str, bool)]| Table {
        name: name.to_owned(),
        platforms: Platforms::ALL,
        columns: columns
            .iter()
            .map(|(name, hidden)| column(name, *hidden))
            .collect(),
    };
    let view = |name: &str, sql: &str| View {
        name: name.to_owned(),
        sql: sql.to_owned(),
    };
    let checker = Checker::new(Extras {
        tables: vec![
            table("sqlite_odd", &[("a", false)]),
            table("twice", &[("a", false), ("A", false)]),
            table("hidden_path", &[("path", true), ("Path", false)]),
            table("fine", &[("a", false)]),
        ],
        views: vec![
            view("sqlite_view", "SELECT 1"),
            view("two", "SELECT 1; SELECT 2"),
            view("fine", "SELECT 1"),
            view(
                "deep",
                &format!("SELECT {}1{}", "(".repeat(500), ")".repeat(500)),
            ),
            view("seen", "SELECT a FROM fine"),
        ],
    });
    for sql in [
        "SELECT pid FROM processes",
        "SELECT a FROM fine JOIN seen USING (a)",
    ] {
        ask(&checker, Platforms::ALL, sql).unwrap();
    }
    let problem = ask(&checker, Platforms::ALL, "SELECT a FROM twice").unwrap_err();
    assert_eq!(
        problem.message,
        "There is no table twice: SQLite cannot make it: duplicate column name: A."
    );
    let odd = checker.odd();
    let names: Vec<&str> = odd.iter().map(|odd| odd.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "sqlite_odd",
            "twice",
            "hidden_path",
            "sqlite_view",
            "two",
            "fine",
            "deep"
        ]
    );
}

/// Each in a thread with the stack of a worker of tokio, which is 2 MiB.
#[test]
fn monstrous_sql_is_refused_soon_and_overflows_nothing() {
    let monsters = [
        format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000)),
        format!("SELECT {}1", "NOT ".repeat(50_000)),
        format!("SELECT {}1", "-".repeat(60_000).replace("--", "- ")),
        format!("SELECT 1{}", " + 1".repeat(50_000)),
        format!("SELECT 1{}", " UNION SELECT 1".repeat(10_000)),
        "SELECT 1;".repeat(20_000),
        format!(
            "SELECT {}1{}",
            "CASE WHEN 1 THEN ".repeat(8_000),
            " END".repeat(8_000)
        ),
        format!(
            "SELECT * FROM {}users{}",
            "(SELECT * FROM ".repeat(90),
            ")".repeat(90)
        ),
        format!("SELECT * FROM users{}", ", users".repeat(30_000)),
        format!(
            "WITH a0 AS (SELECT 1 x){} SELECT count(*) FROM a30",
            (1..=30)
                .map(|n| format!(", a{n} AS (SELECT a.x FROM a{0} a, a{0} b)", n - 1))
                .collect::<String>()
        ),
        "SELECT '".to_owned() + &"x".repeat(2_000_000),
        format!("SELECT {}", "'a' || ".repeat(30_000)),
        "[".repeat(100_000),
    ];
    for sql in monsters {
        let begin = sql.chars().take(40).collect::<String>();
        let checking = std::thread::Builder::new()
            .stack_size(2 * 1024 * 1024)
            .spawn(move || {
                let checker = Checker::new(Extras::default());
                let _ = ask(&checker, Platforms::ALL, &sql);
                worked()
            });
        let took = checking.unwrap().join().unwrap();
        assert!(took.as_secs() < 10, "{begin} took {took:?}");
    }
}

#[test]
fn a_check_is_quick_once_the_tables_are_made() {
    let checker = Checker::new(Extras::default());
    let sql = "SELECT p.name, u.username, h.sha256 FROM processes p JOIN users u USING (uid) JOIN hash h ON h.path = p.path WHERE p.on_disk = 0";
    ask(&checker, Platforms::ALL, sql).unwrap();
    let before = worked();
    for _ in 0..100 {
        ask(&checker, Platforms::ALL, sql).unwrap();
    }
    // Under 1 ms each when optimised; this is the unoptimised build.
    let took = worked() - before;
    assert!(took.as_millis() < 2000, "{took:?}");
}

/// How long this thread has been at work, which a busy machine does not change.
fn worked() -> std::time::Duration {
    // proc(5): utime and stime are the 12th and 13th words behind the name, in hundredths of a second.
    let told = std::fs::read_to_string("/proc/thread-self/stat").expect("Linux");
    let words = told
        .rsplit_once(") ")
        .expect("a name in brackets")
        .1
        .split(' ');
    let ticks: u64 = (words.skip(11).take(2))
        .map(|ticks| ticks.parse::<u64>().expect("a number"))
        .sum();
    std::time::Duration::from_millis(10 * ticks)
}

//! SQL that people type and files bring, and names that nodes report: there is a verdict, soon and within bounds.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use ostiary_sql_check::{Checker, Column, Extras, Platforms, Question, Table, View, is_shipped};

/// The first byte chooses how it is asked. A verdict is the same again, and points into the text.
pub(super) fn sql_check(bytes: &[u8]) {
    static CHECKER: LazyLock<Checker> = LazyLock::new(|| Checker::new(few_extras()));
    let Some((how, sql)) = bytes.split_first() else {
        return;
    };
    let sql = String::from_utf8_lossy(sql);
    let denied = BTreeMap::from([("file".to_owned(), "private.".to_owned())]);
    let none = BTreeMap::new();
    let question = Question {
        platforms: [Platforms::ALL, Platforms::LINUX][usize::from(how & 1)],
        version: if how & 2 == 0 { "" } else { "5.0.0" },
        denied: if how & 4 == 0 { &none } else { &denied },
        pragmas: how & 8 != 0,
        foreign_tables: how & 16 != 0,
    };
    let verdict = CHECKER.check(&question, &sql);
    assert_eq!(verdict, CHECKER.check(&question, &sql));
    match verdict {
        Ok(checked) => {
            let extras = &CHECKER.extras().tables;
            let is_known = |table: &String| {
                is_shipped(table) || extras.iter().any(|extra| extra.name == *table)
            };
            assert!(checked.tables.iter().all(is_known));
            assert!(question.denied.is_empty() || !checked.tables.contains("file"));
        }
        Err(problem) => {
            assert!(!problem.message.is_empty());
            if let Some(at) = problem.position {
                assert!(sql.is_char_boundary(at.byte) && at.line >= 1 && at.column >= 1);
            }
        }
    }
}

fn few_extras() -> Extras {
    let column = |name: &str, hidden| Column {
        name: name.to_owned(),
        hidden,
    };
    Extras {
        tables: vec![Table {
            name: "kolide_thing".to_owned(),
            platforms: Platforms::ALL,
            columns: vec![column("a", false), column("b", true)],
        }],
        views: vec![View {
            name: "listening".to_owned(),
            sql: "SELECT * FROM listening_ports JOIN file USING (path)".to_owned(),
        }],
    }
}

/// A line each: `table column …`, or `name=SQL` for a view. Whatever they are called, the tables of osquery stay.
pub(super) fn sql_extras(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut extras = Extras::default();
    for line in text.lines().take(50) {
        if let Some((name, sql)) = line.split_once('=') {
            extras.views.push(View {
                name: name.to_owned(),
                sql: sql.to_owned(),
            });
            continue;
        }
        let mut words = line.split(' ').map(str::to_owned);
        let name = words.next().unwrap_or_default();
        let columns = words.map(|name| Column {
            hidden: name.starts_with('h'),
            name,
        });
        extras.tables.push(Table {
            name,
            platforms: Platforms::ALL,
            columns: columns.collect(),
        });
    }
    let checker = Checker::new(extras);
    let denied = BTreeMap::new();
    let question = Question {
        platforms: Platforms::LINUX,
        version: "",
        denied: &denied,
        pragmas: false,
        foreign_tables: false,
    };
    let checked = checker.check(&question, "SELECT pid FROM processes");
    assert!(checked.is_ok_and(|checked| checked.tables.contains("processes")));
    for name in text
        .lines()
        .filter_map(|line| line.split(['=', ' ']).next())
    {
        let _ = checker.check(&question, &format!("SELECT * FROM \"{name}\""));
    }
}

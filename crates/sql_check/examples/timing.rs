//! How long a check takes: `cargo run --release -p ostiary-sql-check --example timing`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ostiary_sql_check::{Checker, Extras, Platforms, Problem, Question};

const ROUNDS: u32 = 2_000;

const TEXTS: [(&str, &str); 5] = [
    ("one table", "SELECT * FROM processes"),
    (
        "a join of three",
        "SELECT p.name, u.username, h.sha256 FROM processes p JOIN users u USING (uid) JOIN hash h ON h.path = p.path \
         WHERE p.on_disk = 0",
    ),
    (
        "a recursive expression",
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 5) SELECT x FROM n JOIN users ON uid = x",
    ),
    ("a slip of the fingers", "SELECT * FROM proceses"),
    (
        "a column that nobody has",
        "SELECT nme FROM processes JOIN users USING (uid)",
    ),
];

fn main() {
    let checker = Checker::new(Extras::default());
    let denied = BTreeMap::new();
    let question = Question {
        platforms: Platforms::ALL,
        version: "5.0.0",
        denied: &denied,
        pragmas: false,
        foreign_tables: false,
    };
    let started = Instant::now();
    let _ = checker.check(&question, "SELECT nothing FROM nowhere");
    println!("the databases are made: {:?}", started.elapsed());
    for (name, sql) in TEXTS {
        let mut each: Vec<Duration> = (0..ROUNDS)
            .map(|_| time(&checker, &question, sql))
            .collect();
        each.sort_unstable();
        let at = |share: usize| each[each.len() * share / 100];
        println!(
            "{name}: median {:?}, of 99 in 100 at most {:?}",
            at(50),
            at(99)
        );
    }
}

fn time(checker: &Checker, question: &Question<'_>, sql: &str) -> Duration {
    let started = Instant::now();
    let _: Result<_, Problem> = checker.check(question, sql);
    started.elapsed()
}

//! What rules cost: compiling them, and judging rows by them.
//!
//! `cargo run --release -p ostiary-domain --example rule_speed` prints microseconds. Three fleets of rules: spread over queries (as most
//! are), all on one query with a value each, and all on one query with nothing to look them up by, which is the worst that people write.

#![expect(clippy::print_stdout, reason = "it is what this program is for")]

use std::hint::black_box;
use std::time::Instant;

use chrono::{DateTime, TimeDelta};
use ostiary_domain::finding::Severity;
use ostiary_domain::ids::RuleId;
use ostiary_domain::log::Action;
use ostiary_domain::node::NodeFacts;
use ostiary_domain::osquery::Columns;
use ostiary_domain::rule::{EventView, NodeView, RuleDefinition, RuleSet, Watch};
use serde_json::{Value, json};
use uuid::Uuid;

/// Rows that are judged in a round.
const ROWS: u32 = 4_000;
/// Rounds, of which the quickest counts: the others had to share the machine.
const ROUNDS: u32 = 7;
/// Rows of one execution.
const ROWS_OF_AN_EXECUTION: u32 = 20;

fn test(field: &str, operator: &str, value: &Value) -> Value {
    json!({"field": field, "operator": operator, "value": value})
}

fn conditions(kind: &str, number: usize) -> Value {
    let query = match kind {
        "spread over queries" => format!("pack/p/q{}", number % 100),
        _ => "pack/p/q0".to_owned(),
    };
    let last = match kind {
        "nothing to look up" => test(
            "column",
            "column_matches_regex",
            &json!(["path", format!("/opt/.*/{number}$")]),
        ),
        _ => test(
            "column",
            "column_equal",
            &json!(["name", format!("process-{number}")]),
        ),
    };
    let tests = [
        test("query_name", "equal", &json!(query)),
        test("action", "equal", &json!("added")),
        test(
            "column",
            "column_not_contains",
            &json!(["path", "/System/"]),
        ),
        last,
    ];
    json!({"condition": "AND", "rules": tests})
}

fn main() {
    let facts = NodeFacts {
        platform: "linux".into(),
        tags: vec!["prod".into(), "web".into()],
        ..NodeFacts::default()
    };
    let at = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
    let rows: Vec<Columns<'_>> = (0..100)
        .map(|number| {
            Columns::new([
                (
                    "cmdline",
                    format!("/usr/bin/process-{number} --flag --another=value"),
                ),
                ("name", format!("process-{number}")),
                ("path", format!("/usr/bin/process-{number}")),
                ("pid", number.to_string()),
                ("uid", "0".to_owned()),
            ])
        })
        .collect();
    println!(
        "{:<22} {:>6} {:>14} {:>12} {:>9}",
        "rules", "number", "compile ms all", "µs a row", "matches"
    );
    for kind in ["spread over queries", "a value each", "nothing to look up"] {
        for count in [10, 100, 1_000] {
            let definitions = (0..count).map(|number| RuleDefinition {
                id: RuleId(Uuid::from_u128(number as u128)),
                name: String::new(),
                conditions: conditions(kind, number),
                severity: Severity::Low,
                scope: "prod and not lab".to_owned(),
                entity_columns: Vec::new(),
                watch: Watch::Drift,
                on_baseline: false,
                max_age: Some(TimeDelta::days(1)),
            });
            let began = Instant::now();
            let (set, broken) = RuleSet::compile(definitions);
            let compiled = began.elapsed();
            assert!(broken.is_empty(), "{broken:?}");
            let mut matches = 0;
            let mut round = || {
                let began = Instant::now();
                matches = 0;
                for execution in 0..ROWS / ROWS_OF_AN_EXECUTION {
                    let candidates = set.candidates("pack/p/q0", NodeView::of(&facts));
                    for row in 0..ROWS_OF_AN_EXECUTION {
                        let row = (execution * ROWS_OF_AN_EXECUTION + row) % 100;
                        let event = EventView {
                            action: Action::Added,
                            columns: &rows[row as usize],
                            occurred_at: at,
                            received_at: at,
                            is_baseline: false,
                        };
                        matches += black_box(candidates.matches(&event)).count();
                    }
                }
                began.elapsed()
            };
            let quickest = (0..ROUNDS).map(|_| round()).min().unwrap_or_default();
            let a_row = quickest.as_secs_f64() * 1e6 / f64::from(ROWS);
            let compiled = compiled.as_secs_f64() * 1e3;
            println!("{kind:<22} {count:>6} {compiled:>14.1} {a_row:>12.3} {matches:>9}");
        }
    }
}

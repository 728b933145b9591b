//! A thousand rules: how long a worker needs to take them up, and what they cost a row. Prints figures and judges none, since the machine
//! decides; `cargo test -p ostiary-worker --test worker a_thousand_rules -- --ignored --nocapture` runs it.

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{Stage, line};

/// Posts of 100 rows each.
const POSTS: u32 = 100;
const NODES: u32 = 20;

fn post(number: u32, t: i64) -> Vec<Value> {
    let row = |row: u32| {
        json!({"pid": (number * 100 + row).to_string(), "name": format!("process-{row}"), "path": format!("/usr/bin/process-{row}"),
            "cmdline": "/usr/bin/process --flag --another=value"})
    };
    (0..100)
        .map(|one| {
            line(
                &format!("pack/p/q{}", number % 20),
                "added",
                u64::from(number) + 1,
                t,
                row(one),
            )
        })
        .collect()
}

#[tokio::test]
#[ignore = "it measures, which says nothing on a busy machine"]
async fn a_thousand_rules_cost_little_a_row() {
    for rules in [0, 10, 100, 1_000_u32] {
        let stage = Stage::new().await;
        let t = stage.unix_now() - 600;
        for number in 0..rules {
            let conditions = json!({"condition": "AND", "rules": [
                {"field": "query_name", "operator": "equal", "value": format!("pack/p/q{}", number % 100)},
                {"field": "column", "operator": "column_not_contains", "value": ["path", "/System/"]},
                {"field": "column", "operator": "column_matches_regex", "value": ["cmdline", format!(".*--evil={number}$")]},
            ]});
            stage
                .test
                .execute(&format!(
                    "INSERT INTO rules (id, name, conditions, severity, created_at, updated_at)
                     VALUES (gen_random_uuid(), 'rule {number}', $json${conditions}$json$, 'high', now(), now())"
                ))
                .await;
        }
        let mut nodes = Vec::new();
        for number in 0..NODES {
            nodes.push(stage.node(&format!("n{number}")).await);
        }
        // The first work compiles the rules, and makes query names and baselines.
        for (number, node) in (0..20).zip(nodes.iter().cycle()) {
            stage.results(*node, &post(number, t)).await;
        }
        let began = Instant::now();
        stage.work().await;
        let first = began.elapsed();
        for (number, node) in (20..20 + POSTS).zip(nodes.iter().cycle()) {
            stage.results(*node, &post(number, t + 60)).await;
        }
        let began = Instant::now();
        stage.work().await;
        let took = began.elapsed();
        let a_row = took.as_secs_f64() * 1e6 / f64::from(POSTS * 100);
        println!(
            "{rules:>5} rules: first group {first:>8.0?}, then {a_row:>7.2} µs a row to the end"
        );
        assert_eq!(stage.count("pending").await, 0);
        stage.end().await;
    }
}

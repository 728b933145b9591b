//! Telling people how the fleet is doing: a live line on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use ostiary_simulator::Fleet;

/// Between plain lines.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// The fleet in one line.
pub(crate) fn summary(fleet: &Fleet) -> String {
    let totals = fleet.totals();
    let (connections, reposts) = fleet.traffic();
    let trouble = fleet.last_trouble();
    let trouble = trouble.map(|trouble| format!(" · last trouble: {trouble}"));
    format!(
        "{}/{} nodes enrolled · {} configs · {} queries run · {} live queries · lines {} sent, {} deleted, {} waiting · {} posts on {} connections, {} failed, {} repeated, {} node_invalid{}",
        fleet.enrolled(),
        fleet.len(),
        totals.configs_changed,
        totals.queries_run,
        totals.live_queries_run,
        totals.lines_sent,
        totals.lines_deleted,
        fleet.undelivered(),
        totals.posts,
        connections,
        totals.failures,
        reposts,
        totals.node_invalid,
        trouble.unwrap_or_default(),
    )
}

/// Shows the fleet's progress on stderr until dropped.
pub(crate) async fn show(fleet: &Fleet) {
    if !std::io::stderr().is_terminal() {
        loop {
            tokio::time::sleep(PLAIN_EVERY).await;
            eprintln!("{}", summary(fleet));
        }
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed_precise} {wide_msg}") {
        bar.set_style(style);
    }
    loop {
        bar.set_message(summary(fleet));
        bar.tick();
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

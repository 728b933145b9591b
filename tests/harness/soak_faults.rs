//! What must not be when a soak has ended: findings that were not told or doubled, mails that are missing, what could not be read, panics.

use std::collections::{BTreeMap, BTreeSet};

use ostiary_simulator::{Drift, Fleet};

use crate::{Program, World, rule_of};

/// What must not stand in the store or in a log.
pub(crate) async fn store_faults(world: &World) -> Vec<String> {
    let mut faults = Vec::new();
    for reason in world
        .db
        .texts("SELECT reason || ': ' || encode(data, 'escape') FROM unreadable")
        .await
    {
        faults.push(format!("unreadable: {reason}"));
    }
    let dead =
        "SELECT destination_name || ': ' || last_answer FROM deliveries WHERE state <> 'delivered'";
    for dead in world.db.texts(dead).await {
        faults.push(format!("not delivered: {dead}"));
    }
    for program in [Program::Api, Program::Worker, Program::Manager] {
        let log = world.log(program);
        let panics = log.lines().filter(|line| line.contains("panicked at"));
        faults.extend(panics.map(|line| format!("{}: {line}", program.name())));
    }
    faults
}

/// Each drift must be one finding, and nothing else a finding.
pub(crate) async fn finding_faults(
    world: &World,
    fleet: &Fleet,
    made: &[(usize, Drift)],
) -> Vec<String> {
    let mut expected: BTreeMap<String, i64> = BTreeMap::new();
    for (node, drift) in made {
        let hostname = fleet.identity(*node).expect("a node of the fleet").hostname;
        *expected
            .entry(format!("{} on {hostname}", rule_of(*drift)))
            .or_default() -= 1;
    }
    let opened = "SELECT rule_name || ' on ' || node_name FROM alerts JOIN findings ON findings.id = finding_id
        WHERE alerts.kind = 'opened'";
    for opened in world.db.texts(opened).await {
        *expected.entry(opened).or_default() += 1;
    }
    let off = expected.into_iter().filter(|(_, balance)| *balance != 0);
    let mut faults: Vec<String> = off
        .map(|(what, balance)| match balance {
            ..0 => format!("never told: {what}"),
            _ => format!("told {balance} times too often: {what}"),
        })
        .collect();
    let doubled = "SELECT rule_name || ' on ' || node_name FROM findings GROUP BY rule_name, node_name, entity_hash HAVING count(*) > 1";
    for doubled in world.db.texts(doubled).await {
        faults.push(format!("found twice: {doubled}"));
    }
    let missed = "SELECT rule_name || ' on ' || node_name FROM findings f
        WHERE NOT EXISTS (SELECT FROM deliveries d WHERE d.finding_id = f.id)";
    for missed in world.db.texts(missed).await {
        faults.push(format!("no delivery: {missed}"));
    }
    faults
}

/// Every delivery must lie in the mailbox, at least once, under its own id.
pub(crate) async fn mail_faults(world: &World) -> (usize, Vec<String>) {
    let mails = world
        .mail
        .messages()
        .expect("the world's folder can be read");
    let id = |mail: &String| {
        let line = mail
            .lines()
            .find_map(|line| line.strip_prefix("Message-ID: <"))?;
        line.split('@').next().map(str::to_owned)
    };
    let caught: Vec<String> = mails.iter().filter_map(id).collect();
    let distinct: BTreeSet<&str> = caught.iter().map(String::as_str).collect();
    let deliveries = world.db.texts("SELECT id::text FROM deliveries").await;
    let missing = deliveries
        .iter()
        .filter(|id| !distinct.contains(id.as_str()));
    let mut faults: Vec<String> = missing
        .map(|id| format!("no mail of delivery {id}"))
        .collect();
    if distinct.len() != deliveries.len() || caught.len() != mails.len() {
        faults.push(format!(
            "{} mails of {} kinds for {} deliveries",
            mails.len(),
            distinct.len(),
            deliveries.len()
        ));
    }
    (caught.len() - distinct.len(), faults)
}

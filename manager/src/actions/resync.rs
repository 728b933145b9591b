//! Asking nodes to send everything again: after they moved here from another manager, or after a backup was restored.
//!
//! osqueryd keeps what it has already told in its own database and sends differences only. What another manager has heard, or what
//! came after a backup was made, never comes again by itself. A new `schedule_epoch` makes every differential query send all its
//! rows once more, with counter 0 (`osquery/core/query.cpp::addNewResults`). The worker takes them for a baseline: present rows come
//! right, and only their difference from what is known already is an event (`domain::present`).

use chrono::{DateTime, Utc};
use ostiary_domain::ids::OptionId;
use ostiary_domain::target::Target;
use ostiary_store::options::{self, OptionRecord, OptionValues};
use ostiary_store::{Conn, node_lists};
use serde_json::{Value, json};

use super::audit::Change;
use super::config_change::{ConfigChange, Saving};
use super::validate::Check;
use crate::auth::{Edit, Permit};
use crate::error::{Error, Result};
use crate::state::App;

/// The option of osquery that says with which epoch results are told apart; unsigned, 64 bits.
pub const OPTION: &str = "schedule_epoch";

/// How many nodes a resynchronisation reaches, for the question that is asked before it.
///
/// # Errors
/// [`Error::Invalid`] on `target`, or Postgres failed.
pub async fn reach(app: &App, target: &str) -> Result<usize> {
    let mut check = Check::default();
    let text = check.target("target", target);
    check.done()?;
    let target = Target::parse(&text).map_err(|error| Error::field("target", error.to_string()))?;
    let nodes = node_lists::facts(&mut *app.db.acquire().await?).await?;
    Ok(nodes
        .iter()
        .filter(|(_, node)| target.matches(node))
        .count())
}

/// Has the nodes of a target send all rows of all queries again, from their next config on. `confirmed` is the number of nodes that
/// the person was told of: should it have changed meanwhile, they are asked again.
///
/// # Errors
/// [`Error::Invalid`] on `target` or `confirm`, [`Error::Refused`] when a config would become too large.
pub async fn resync(
    app: &App,
    permit: &Permit<Edit>,
    target: &str,
    confirmed: &str,
) -> Result<u64> {
    let nodes = reach(app, target).await?;
    if confirmed.trim() != nodes.to_string() {
        let sentence = format!("It reaches {nodes} nodes now. Confirm that number.");
        return Err(Error::field("confirm", sentence));
    }
    let mut tx = ConfigChange::begin(app).await?;
    let epoch = bump_schedule_epoch(&mut tx, target, app.now()).await?;
    let change = Change {
        action: "options.resync",
        kind: "option",
        name: OPTION,
        after: Some(json!({"target": target.trim(), "schedule_epoch": epoch, "nodes": nodes})),
        ..Change::default()
    };
    tx.finish(app, permit, &Saving::at_once(), change).await?;
    Ok(epoch)
}

/// Sets a `schedule_epoch` for a target (`""` is every node) that is new to each of its nodes, and returns it. Nodes outside of the
/// target keep theirs. The caller owns the transaction and writes the audit entry.
///
/// It is the time in Unix seconds, or one more than the highest that is set: an epoch that a node had before would let it go on
/// with differences. The option gets a priority above all others of its name, for a node has one epoch only.
///
/// # Errors
/// The target cannot be read ([`Error::Invalid`]), or Postgres failed.
pub async fn bump_schedule_epoch(conn: &mut Conn, target: &str, now: DateTime<Utc>) -> Result<u64> {
    let mut check = Check::default();
    let target = check.target("target", target);
    check.done()?;
    let all = options::list(conn).await?;
    let set: Vec<&OptionRecord> = all
        .iter()
        .filter(|each| each.values.name == OPTION)
        .collect();
    let highest = set
        .iter()
        .filter_map(|each| epoch_of(&each.values.value))
        .max();
    let epoch = u64::try_from(now.timestamp())
        .unwrap_or_default()
        .max(highest.map_or(0, |highest| highest.saturating_add(1)));
    let (own, others): (Vec<&OptionRecord>, Vec<&OptionRecord>) = set
        .into_iter()
        .partition(|each| each.values.target.trim() == target);
    let least = own.first().map_or(0, |own| own.values.priority);
    let priority = others
        .iter()
        .map(|other| other.values.priority.saturating_add(1))
        .fold(least, i32::max);
    let values = OptionValues {
        name: OPTION.to_owned(),
        value: Value::from(epoch),
        target,
        priority,
    };
    match own.first() {
        Some(own) => {
            options::update(conn, OptionId(own.id), &values, now).await?;
        }
        None => {
            let id = OptionId(ostiary_boot::clock::new_id());
            options::insert(conn, id, &values, now).await?;
        }
    }
    Ok(epoch)
}

fn epoch_of(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

//! Silences: who is not told of what for a while.

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use ostiary_boot::clock::new_id;
use ostiary_domain::ids::{NodeId, RuleId, SilenceId};
use ostiary_store::Db;
use ostiary_store::silences::{self, NewSilence};
use serde::Serialize;
use serde_json::json;

use super::audit::{Change, record};
use super::validate::Check;
use crate::auth::{Edit, Permit};
use crate::error::{Error, Result};
use crate::state::App;

/// The longest silence: what is to be quiet for ever is a rule to be switched off.
const LONGEST: TimeDelta = TimeDelta::days(366);

/// What is typed about a silence.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SilenceDraft {
    /// Id of a rule; empty for any.
    pub rule: String,
    /// Id of a node; empty for any.
    pub node: String,
    /// Tag expression; empty for any node.
    pub target: String,
    /// Why.
    pub reason: String,
    /// The end: `2026-11-22T09:00`, or in RFC 3339; in UTC.
    pub ends_at: String,
}

/// `2026-11-22T09:00` as browsers write it, or RFC 3339.
fn time(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Some(at.with_timezone(&Utc));
    }
    ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M"]
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
        .map(|at| at.and_utc())
}

fn optional_id<T: std::str::FromStr>(check: &mut Check, field: &str, text: &str) -> Option<T> {
    if text.is_empty() {
        return None;
    }
    let id = text.parse().ok();
    if id.is_none() {
        check.wrong(field, format!("This is not the id of a {field}."));
    }
    id
}

/// Makes a silence; gives its id.
///
/// # Errors
/// [`Error::Invalid`] for `rule`, `node`, `target`, `reason`, `ends_at`.
pub async fn create(app: &App, permit: &Permit<Edit>, draft: &SilenceDraft) -> Result<SilenceId> {
    let mut check = Check::default();
    let rule_id: Option<RuleId> = optional_id(&mut check, "rule", draft.rule.trim());
    let node_id: Option<NodeId> = optional_id(&mut check, "node", draft.node.trim());
    let target = check.target("target", &draft.target);
    let reason = check.name("reason", &draft.reason, 500);
    if draft.rule.trim().is_empty() && draft.node.trim().is_empty() && target.is_empty() {
        check.wrong(
            "rule",
            "Name a rule, a node or a tag expression: a silence about everything would hide everything.",
        );
    }
    let now = app.now();
    let ends_at = time(&draft.ends_at);
    match ends_at {
        None => check.wrong(
            "ends_at",
            "Say when it ends (UTC), like 2026-11-22T09:00: every silence ends.",
        ),
        Some(at) if at <= now => check.wrong("ends_at", "This is in the past."),
        Some(at) if at > now + LONGEST => check.wrong(
            "ends_at",
            "A year is the longest. What is to be quiet for ever is a rule to be switched off.",
        ),
        Some(_) => {}
    }
    check.done()?;
    let actor = permit.actor();
    let silence = NewSilence {
        id: SilenceId(new_id()),
        rule_id,
        node_id,
        target,
        reason,
        ends_at: ends_at.expect("checked above"),
        by: actor.user_id,
        by_name: actor.name.clone(),
        at: now,
    };
    let mut tx = app.db.begin().await?;
    silences::insert(&mut tx, &silence)
        .await
        .map_err(|error| match error {
            error if error.is_constraint("silences_rule_id_fkey") => {
                Error::field("rule", "There is no such rule (any more).")
            }
            error if error.is_constraint("silences_node_id_fkey") => {
                Error::field("node", "There is no such node (any more).")
            }
            error => error.into(),
        })?;
    let change = Change {
        action: "silences.create",
        kind: "silence",
        id: silence.id.to_string(),
        name: &silence.reason,
        before: None,
        after: Some(json!({
            "rule": silence.rule_id, "node": silence.node_id, "target": silence.target, "ends_at": silence.ends_at,
        })),
    };
    record(app, &mut tx, permit, change).await?;
    Db::commit(tx).await?;
    Ok(silence.id)
}

/// Ends a silence now. Of what was silenced nobody is told afterwards, unless it matches again.
///
/// # Errors
/// [`Error::NotFound`]: there is none, or it has ended.
pub async fn end(app: &App, permit: &Permit<Edit>, id: SilenceId) -> Result<()> {
    let mut tx = app.db.begin().await?;
    if !silences::end(&mut tx, id, &permit.actor().name, app.now()).await? {
        return Err(Error::NotFound);
    }
    let change = Change {
        action: "silences.end",
        kind: "silence",
        id: id.to_string(),
        ..Change::default()
    };
    record(app, &mut tx, permit, change).await?;
    Ok(Db::commit(tx).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_read_as_browsers_and_programs_write_it() {
        let wanted = time("2026-11-22T09:00").unwrap();
        for text in [
            "2026-11-22T09:00:00Z",
            "2026-11-22T10:00:00+01:00",
            " 2026-11-22 09:00 ",
        ] {
            assert_eq!(time(text), Some(wanted), "{text}");
        }
        assert_eq!(time("tomorrow"), None);
    }
}

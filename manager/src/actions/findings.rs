//! What people decide about findings, and what they write about them.

use ostiary_boot::clock::new_id;
use ostiary_domain::ids::FindingId;
use ostiary_store::finding_lists::{self, FindingRecord};
use ostiary_store::findings::{self, By, Decision, FollowUp, Stated};
use ostiary_store::{Conn, Db};
use serde_json::json;

use super::audit::{Change, record};
use super::validate::Check;
use crate::auth::{Actor, Edit, Permit};
use crate::error::{Error, Result};
use crate::state::App;

/// Longest comment, in characters.
const LONGEST_COMMENT: usize = 4000;

/// Findings that are decided about in one go: a page of the list.
pub const MOST_AT_ONCE: usize = 500;

/// What came of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decided {
    /// It was put down.
    Changed,
    /// It had been decided so before; says by whom and when.
    Already(String),
}

/// Acknowledges, resolves or reopens a finding, and tells those who were told of it. What is written with it stands in the timeline. A
/// decision about a finding of the fleet holds for all that it took in.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`] for `comment`, [`Error::Refused`] when a newer finding of the same matter is open.
pub async fn decide(
    app: &App,
    permit: &Permit<Edit>,
    id: FindingId,
    decision: Decision,
    comment: &str,
) -> Result<Decided> {
    let mut check = Check::default();
    let comment = check.text("comment", comment, LONGEST_COMMENT);
    check.done()?;
    let mut tx = app.db.begin().await?;
    let before = finding_lists::find(&mut tx, id)
        .await?
        .ok_or(Error::NotFound)?;
    let stated = stated(app, permit.actor(), &comment);
    let changed = findings::decide(&mut tx, id, decision, stated)
        .await
        .map_err(newer_is_open)?;
    if !changed {
        // Read again: somebody may have been faster by a moment.
        let now = finding_lists::find(&mut tx, id)
            .await?
            .ok_or(Error::NotFound)?;
        return Ok(Decided::Already(already(&now)));
    }
    tell(&mut tx, id, decision, stated).await?;
    audit(app, &mut tx, permit, &before, decision, &comment).await?;
    Db::commit(tx).await?;
    Ok(Decided::Changed)
}

fn stated<'a>(app: &App, actor: &'a Actor, comment: &'a str) -> Stated<'a> {
    Stated {
        by: By {
            user_id: actor.user_id,
            name: &actor.name,
        },
        text: comment,
        at: app.now(),
    }
}

fn newer_is_open(error: ostiary_store::Error) -> Error {
    if error.is_constraint("findings_open_key") || error.is_constraint("findings_fleet_key") {
        return Error::Refused(
            "The same matter was found again since and is open: work on the newer finding."
                .to_owned(),
        );
    }
    error.into()
}

/// Who has decided so, as people say it.
fn already(finding: &FindingRecord) -> String {
    let (by, at) = match finding.state.as_str() {
        "acknowledged" => (&finding.acknowledged_by, finding.acknowledged_at),
        "resolved" => (&finding.resolved_by, finding.resolved_at),
        _ => return "It is open already.".to_owned(),
    };
    let who = by.as_deref().unwrap_or("The rule itself");
    let when = at.map_or_else(String::new, |at| {
        format!(", on {}", at.format("%Y-%m-%d at %H:%M UTC"))
    });
    format!("{who} {} it already{when}.", finding.state)
}

/// Workers find the deliveries by their sweep, some seconds later.
async fn tell(
    conn: &mut Conn,
    finding_id: FindingId,
    decision: Decision,
    stated: Stated<'_>,
) -> Result<()> {
    let change = FollowUp {
        finding_id,
        kind: match decision {
            Decision::Acknowledge => "acknowledged",
            Decision::Resolve => "resolved",
            Decision::Reopen => "opened",
        },
        by: stated.by,
        reason: stated.text,
        at: stated.at,
    };
    findings::follow_up(conn, &change, new_id).await?;
    // Decided with a finding of the fleet, and told before the storm was one.
    if decision != Decision::Reopen {
        for member in findings::list_told_members(conn, finding_id, stated.at).await? {
            let with_it = FollowUp {
                finding_id: member,
                ..change
            };
            findings::follow_up(conn, &with_it, new_id).await?;
        }
    }
    Ok(())
}

async fn audit(
    app: &App,
    conn: &mut Conn,
    permit: &Permit<Edit>,
    before: &FindingRecord,
    decision: Decision,
    comment: &str,
) -> Result<()> {
    let mut after = json!({"state": decision.state()});
    if !comment.is_empty() {
        after["comment"] = json!(comment);
    }
    let change = Change {
        action: match decision {
            Decision::Acknowledge => "findings.acknowledge",
            Decision::Resolve => "findings.resolve",
            Decision::Reopen => "findings.reopen",
        },
        kind: "finding",
        id: before.id.to_string(),
        name: &title(before),
        before: Some(json!({"state": before.state})),
        after: Some(after),
    };
    Ok(record(app, conn, permit, change).await?)
}

fn title(finding: &FindingRecord) -> String {
    format!("{} · {}", finding.rule_name, finding.node_name)
}

/// Writes something about a finding.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`] for `comment`.
pub async fn comment(app: &App, permit: &Permit<Edit>, id: FindingId, comment: &str) -> Result<()> {
    let mut check = Check::default();
    let comment = check.text("comment", comment, LONGEST_COMMENT);
    if comment.is_empty() {
        check.wrong("comment", "Write something.");
    }
    check.done()?;
    let mut tx = app.db.begin().await?;
    let finding = finding_lists::find(&mut tx, id)
        .await?
        .ok_or(Error::NotFound)?;
    if !findings::comment(&mut tx, id, stated(app, permit.actor(), &comment)).await? {
        return Err(Error::NotFound);
    }
    let change = Change {
        action: "findings.comment",
        kind: "finding",
        id: id.to_string(),
        name: &title(&finding),
        before: None,
        after: Some(json!({"comment": comment})),
    };
    record(app, &mut tx, permit, change).await?;
    Ok(Db::commit(tx).await?)
}

/// What came of a decision about several findings.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    /// It was put down for so many.
    pub changed: usize,
    /// So many had been decided so before.
    pub already: usize,
    /// For these it could not be; why.
    pub refused: Vec<String>,
}

/// Decides the same about several findings, each by itself: one that cannot be decided so does not keep the others from it.
///
/// # Errors
/// [`Error::Invalid`] for `comment`, or `ids` when there are none or too many; [`Error::Store`].
pub async fn decide_all(
    app: &App,
    permit: &Permit<Edit>,
    ids: &[FindingId],
    decision: Decision,
    comment: &str,
) -> Result<Tally> {
    if ids.is_empty() {
        return Err(Error::field("ids", "Choose at least one finding."));
    }
    if ids.len() > MOST_AT_ONCE {
        return Err(Error::field(
            "ids",
            format!("At most {MOST_AT_ONCE} findings at once."),
        ));
    }
    let mut tally = Tally::default();
    for id in ids {
        match decide(app, permit, *id, decision, comment).await {
            Ok(Decided::Changed) => tally.changed += 1,
            Ok(Decided::Already(_)) => tally.already += 1,
            Err(Error::NotFound) => tally.refused.push(format!("There is no finding {id}.")),
            Err(Error::Refused(why)) => tally.refused.push(why),
            Err(error) => return Err(error),
        }
    }
    Ok(tally)
}

//! May a roll-out go on? Judged from what its nodes did since they got the change.

use chrono::{DateTime, TimeDelta, Utc};

use crate::ids::NodeId;

/// When a stage is over, and what is trouble.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A stage lasts at least this long.
    pub stage_seconds: i64,
    /// After this long without enough nodes having taken it up the roll-out halts.
    pub take_up_seconds: i64,
    /// In percent of the nodes waited for.
    pub enough_percent: usize,
    /// A node not heard of for this long is quiet.
    pub quiet_seconds: i64,
    /// In percent of the nodes that have the change.
    pub quiet_percent: usize,
}

/// The stage that is under way.
#[derive(Debug, Clone, Copy)]
pub struct Present {
    /// From 0.
    pub number: i16,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// Nodes that check in and would come in if the stage were measured again now.
    pub others: usize,
}

/// A node inside, and what is known of it.
#[derive(Debug, Clone)]
pub struct Watched {
    /// Which.
    pub node: NodeId,
    /// The stage in which it came in.
    pub stage: i16,
    /// It was checking in then, so it is waited for.
    pub counted: bool,
    /// It has enrolled since the roll-out began: what it logs cannot be compared with what it logged before.
    pub is_new: bool,
    /// When it first fetched the new config, as far as that is known.
    pub fetched_at: Option<DateTime<Utc>>,
    /// By its `config_hash` it runs the new config.
    pub runs: bool,
    /// Its last request.
    pub last_seen_at: Option<DateTime<Utc>>,
    /// When it last proved that its schedule runs.
    pub results_at: Option<DateTime<Utc>>,
    /// Queries that its osqueryd has denylisted, and had not before.
    pub newly_denylisted: Vec<String>,
    /// Error lines in the hour before its stage.
    pub errors_before: u32,
    /// Error lines since it fetched the new config, or in the last hour if that is longer ago.
    pub errors_after: u32,
    /// Messages about queries or the config since then that it had not sent for a long time before.
    pub complaints: Vec<String>,
}

/// What goes wrong on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The watchdog killed a query.
    Denylisted,
    /// It complains about a query or its config.
    Complains,
    /// It logs more errors than before.
    Errors,
    /// It was not heard of since.
    Offline,
    /// It checks in, but its schedule does not run.
    Silent,
    /// It does not run what it should.
    NotTakenUp,
}

/// Trouble on one node, in a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Where.
    pub node: NodeId,
    /// What.
    pub kind: Kind,
    /// In words, without the node's name. Parts of it may come from the node.
    pub text: String,
}

/// What is to be done with the roll-out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet.
    Wait,
    /// Those waited for have left, or there were none, and others are there: the stage is to be measured again.
    Widen,
    /// On to the next stage, or, after the last, done.
    Go,
    /// No further nodes; here is why.
    Halt(Vec<Trouble>),
}

/// Judges the present stage.
#[must_use]
pub fn judge(
    watched: &[Watched],
    present: &Present,
    limits: &Limits,
    now: DateTime<Utc>,
) -> Verdict {
    let elapsed = (now - present.started_at).num_seconds();
    let fresh = now - TimeDelta::seconds(limits.quiet_seconds);
    // One that left before it got anything tells nothing.
    let waited_for: Vec<&Watched> = watched
        .iter()
        .filter(|node| node.stage == present.number && node.counted)
        .filter(|node| node.fetched_at.is_some() || node.last_seen_at.is_some_and(|at| at >= fresh))
        .collect();
    let running = waited_for.iter().filter(|node| node.runs).count();
    let is_enough = running >= (waited_for.len() * limits.enough_percent).div_ceil(100);
    let mut troubles: Vec<Trouble> = watched.iter().filter_map(complaint_of).collect();
    troubles.extend(too_quiet(watched, limits, now));
    if !is_enough && elapsed >= limits.take_up_seconds {
        let late = waited_for.iter().filter(|node| !node.runs);
        troubles.extend(late.map(|node| not_taken_up(node)));
    }
    if !troubles.is_empty() {
        return Verdict::Halt(troubles);
    }
    if waited_for.is_empty() {
        let of_stage = |node: &&Watched| node.stage == present.number;
        if present.others > 0 && !watched.iter().filter(of_stage).any(|node| node.runs) {
            return Verdict::Widen;
        }
        // A small fleet has stages without a node of their own: what was seen so far has to do. Without anybody it is not gone on:
        // those who are away would all get together what nobody has tried.
        if !watched.iter().any(|node| node.runs) {
            return Verdict::Wait;
        }
    }
    if is_enough && elapsed >= limits.stage_seconds {
        Verdict::Go
    } else {
        Verdict::Wait
    }
}

/// The quiet nodes, if they are more than may be.
fn too_quiet(watched: &[Watched], limits: &Limits, now: DateTime<Utc>) -> Vec<Trouble> {
    let having = watched
        .iter()
        .filter(|node| node.fetched_at.is_some())
        .count();
    let quiet: Vec<Trouble> = watched
        .iter()
        .filter_map(|node| quiet(node, limits, now))
        .collect();
    if quiet.len() > having * limits.quiet_percent / 100 {
        quiet
    } else {
        Vec::new()
    }
}

fn complaint_of(node: &Watched) -> Option<Trouble> {
    // What it did before it got the config says nothing about the config.
    node.fetched_at?;
    let trouble = |kind, text| {
        Some(Trouble {
            node: node.node,
            kind,
            text,
        })
    };
    if let Some(query) = node.newly_denylisted.first() {
        let more = node.newly_denylisted.len() - 1;
        let others = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        return trouble(
            Kind::Denylisted,
            format!("it denylisted the query {query}{others}"),
        );
    }
    // An old query that always fails is news on a node that has just come, and so are the errors of a first start.
    if node.is_new {
        return None;
    }
    if let Some(message) = node.complaints.first() {
        return trouble(Kind::Complains, format!("it says: {message}"));
    }
    // Its own rate before, doubled, with some room for chance.
    if node.errors_after > node.errors_before * 2 + 5 {
        return trouble(
            Kind::Errors,
            format!(
                "it logs more errors than before: {} since, in the last hour at most, and {} in the hour before",
                node.errors_after, node.errors_before
            ),
        );
    }
    None
}

fn quiet(node: &Watched, limits: &Limits, now: DateTime<Utc>) -> Option<Trouble> {
    let fetched_at = node.fetched_at?;
    let before = now - TimeDelta::seconds(limits.quiet_seconds);
    let is_old = |at: Option<DateTime<Utc>>| at.unwrap_or(fetched_at).max(fetched_at) < before;
    let (kind, text) = if is_old(node.last_seen_at) {
        (
            Kind::Offline,
            "it has not been heard of since it got the config",
        )
    } else if is_old(node.results_at) {
        (
            Kind::Silent,
            "it checks in, but reports no results since it got the config",
        )
    } else {
        return None;
    };
    Some(Trouble {
        node: node.node,
        kind,
        text: text.to_owned(),
    })
}

fn not_taken_up(node: &Watched) -> Trouble {
    let text = if node.fetched_at.is_some() {
        "it fetched the config, but does not say that it runs it"
    } else {
        "it checks in, but has not fetched the config"
    };
    Trouble {
        node: node.node,
        kind: Kind::NotTakenUp,
        text: text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const LIMITS: Limits = Limits {
        stage_seconds: 100,
        take_up_seconds: 200,
        enough_percent: 80,
        quiet_seconds: 50,
        quiet_percent: 10,
    };

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    /// A node that is well at that second.
    fn well(id: u128, now: i64) -> Watched {
        Watched {
            node: NodeId(Uuid::from_u128(id)),
            stage: 0,
            counted: true,
            is_new: false,
            fetched_at: Some(at(10)),
            runs: true,
            last_seen_at: Some(at(now - 1)),
            results_at: Some(at(now - 2)),
            newly_denylisted: Vec::new(),
            errors_before: 0,
            errors_after: 0,
            complaints: Vec::new(),
        }
    }

    fn present(number: i16, others: usize) -> Present {
        Present {
            number,
            started_at: at(0),
            others,
        }
    }

    fn at_second(now: i64, watched: &[Watched]) -> Verdict {
        judge(watched, &present(0, 0), &LIMITS, at(now))
    }

    fn kinds(verdict: Verdict) -> Vec<Kind> {
        match verdict {
            Verdict::Halt(troubles) => troubles.into_iter().map(|trouble| trouble.kind).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_stage_goes_on_when_its_time_is_over_and_enough_run_it() {
        let mut nodes = vec![well(1, 99), well(2, 99)];
        assert_eq!(at_second(99, &nodes), Verdict::Wait);
        nodes = vec![well(1, 100), well(2, 100)];
        assert_eq!(at_second(100, &nodes), Verdict::Go);
        nodes[1].runs = false;
        assert_eq!(at_second(100, &nodes), Verdict::Wait);
    }

    #[test]
    fn what_nobody_has_tried_waits_for_somebody() {
        assert_eq!(at_second(5000, &[]), Verdict::Wait);
        let mut absent = well(1, 5000);
        (absent.counted, absent.runs, absent.fetched_at) = (false, false, None);
        assert_eq!(
            at_second(5000, std::slice::from_ref(&absent)),
            Verdict::Wait
        );
        let others = judge(&[absent], &present(0, 3), &LIMITS, at(1));
        assert_eq!(others, Verdict::Widen);
        let mut back = well(1, 5000);
        back.counted = false;
        assert_eq!(at_second(5000, &[back]), Verdict::Go);
    }

    #[test]
    fn a_stage_without_a_node_of_its_own_is_over_in_its_time() {
        // Of ten nodes the first stage holds one, and a tenth of them is that one again.
        let second = |now, others| judge(&[well(1, now)], &present(1, others), &LIMITS, at(now));
        assert_eq!(second(99, 0), Verdict::Wait);
        assert_eq!(second(100, 0), Verdict::Go);
        // Its nodes have left, but there are others.
        assert_eq!(second(100, 1), Verdict::Widen);
        let mut left = well(2, 100);
        (left.stage, left.runs, left.fetched_at) = (1, false, None);
        left.last_seen_at = Some(at(5));
        let nodes = [well(1, 100), left];
        assert_eq!(judge(&nodes, &present(1, 0), &LIMITS, at(100)), Verdict::Go);
    }

    #[test]
    fn trouble_halts_at_once() {
        let mut denylists = well(1, 20);
        denylists.newly_denylisted = vec!["pack/a/b".into(), "c".into()];
        let Verdict::Halt(troubles) = at_second(20, &[denylists.clone(), well(2, 20)]) else {
            panic!("it goes on");
        };
        assert_eq!(
            troubles[0].text,
            "it denylisted the query pack/a/b and 1 more"
        );
        let mut complains = well(1, 20);
        complains.complaints = vec!["Error executing scheduled query q".into()];
        assert_eq!(kinds(at_second(20, &[complains])), [Kind::Complains]);
        let mut errors = well(1, 20);
        (errors.errors_before, errors.errors_after) = (3, 11);
        assert_eq!(at_second(20, std::slice::from_ref(&errors)), Verdict::Wait);
        errors.errors_after = 12;
        assert_eq!(kinds(at_second(20, &[errors])), [Kind::Errors]);
        // What a node did before it got the config says nothing about the config.
        denylists.fetched_at = None;
        assert_eq!(at_second(20, &[denylists]), Verdict::Wait);
    }

    #[test]
    fn what_a_node_logs_that_came_after_the_beginning_is_not_heeded() {
        let mut new = well(1, 20);
        (new.is_new, new.errors_after) = (true, 40);
        new.complaints = vec!["Error executing scheduled query old".into()];
        assert_eq!(at_second(20, std::slice::from_ref(&new)), Verdict::Wait);
        let mut silent = new.clone();
        silent.results_at = None;
        assert_eq!(kinds(at_second(150, &[silent])), [Kind::Offline]);
        new.newly_denylisted = vec!["q".into()];
        assert_eq!(kinds(at_second(20, &[new])), [Kind::Denylisted]);
    }

    #[test]
    fn quiet_nodes_halt_it_when_they_are_more_than_a_few() {
        let mut offline = well(1, 150);
        offline.last_seen_at = Some(at(12));
        offline.results_at = Some(at(12));
        assert_eq!(
            kinds(at_second(150, std::slice::from_ref(&offline))),
            [Kind::Offline]
        );
        let mut silent = well(1, 150);
        silent.results_at = Some(at(3));
        assert_eq!(kinds(at_second(150, &[silent])), [Kind::Silent]);
        let mut many: Vec<_> = (2..20).map(|id| well(id, 150)).collect();
        many.push(offline);
        assert_eq!(at_second(150, &many), Verdict::Go);
    }

    #[test]
    fn what_is_not_taken_up_in_time_halts() {
        let mut fetched = well(1, 199);
        fetched.runs = false;
        assert_eq!(at_second(199, &[fetched]), Verdict::Wait);
        let mut fetched = well(1, 200);
        fetched.runs = false;
        let mut refuses = well(2, 200);
        (refuses.runs, refuses.fetched_at) = (false, None);
        let troubles = kinds(at_second(200, &[fetched, refuses]));
        assert_eq!(troubles, [Kind::NotTakenUp, Kind::NotTakenUp]);
    }

    #[test]
    fn one_that_left_before_it_got_anything_is_not_waited_for() {
        let mut left = well(1, 300);
        (left.runs, left.fetched_at, left.last_seen_at) = (false, None, Some(at(5)));
        assert_eq!(at_second(300, &[left, well(2, 300)]), Verdict::Go);
    }

    #[test]
    fn earlier_stages_stay_watched() {
        let mut first = well(1, 150);
        first.newly_denylisted = vec!["q".into()];
        let mut second = well(2, 150);
        second.stage = 1;
        let verdict = judge(&[first, second], &present(1, 0), &LIMITS, at(150));
        assert_eq!(kinds(verdict), [Kind::Denylisted]);
    }
}

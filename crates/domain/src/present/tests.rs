//! Present rows against stories told by hand, and against a node whose true rows are known.

use std::borrow::Cow;

use chrono::DateTime;
use proptest::prelude::*;

use super::*;
use crate::log::{Action, Execution, Kind, Row};
use crate::osquery::{Columns, OsqueryVersion};

const NEW: OsqueryVersion = OsqueryVersion::new(5, 23, 1);
const OLD: OsqueryVersion = OsqueryVersion::new(5, 10, 0);

/// `+a +a -b` of one execution; `=a` is a row of a snapshot.
fn execution(epoch: u64, counter: u64, unix_time: i64, rows: &str) -> Execution<'static> {
    let row = |word: &str| {
        let action = match &word[..1] {
            "+" => Action::Added,
            "-" => Action::Removed,
            _ => Action::Snapshot,
        };
        Row::new(action, Columns::new([("v", word[1..].to_owned())]))
    };
    Execution {
        query_name: Cow::Borrowed("q"),
        host_identifier: Cow::Borrowed("h"),
        kind: Kind::Differential,
        epoch: Some(epoch),
        counter: Some(counter),
        unix_time,
        occurred_at: DateTime::from_timestamp(unix_time, 0).unwrap(),
        decorations: Columns::default(),
        line_per_row: true,
        lossy: false,
        rows: rows.split_whitespace().map(row).collect(),
    }
}

fn batch(epoch: u64, counter: u64, unix_time: i64, rows: &str) -> Execution<'static> {
    Execution {
        line_per_row: false,
        ..execution(epoch, counter, unix_time, rows)
    }
}

fn snapshot(unix_time: i64, rows: &str) -> Execution<'static> {
    Execution {
        kind: Kind::Snapshot,
        line_per_row: false,
        ..execution(0, 0, unix_time, rows)
    }
}

fn reporter(version: OsqueryVersion) -> Reporter<'static> {
    Reporter {
        instance_id: "i",
        version: Some(version),
        keeping: Keeping::Kept,
    }
}

/// Standings as letters, and what is gone: `DBK -a`.
fn told(change: &Change) -> String {
    let letters = change.standings.iter().map(|standing| match standing {
        Standing::Drift => 'D',
        Standing::Baseline => 'B',
        Standing::Known => 'K',
    });
    let gone = change
        .removed
        .iter()
        .map(|row| format!(" -{}", value_of(row)));
    letters.collect::<String>() + &gone.collect::<String>()
}

fn value_of(row: &str) -> String {
    serde_json::from_str::<Columns<'_>>(row)
        .unwrap()
        .get("v")
        .unwrap()
        .to_owned()
}

fn held(present: &PresentRows) -> String {
    present
        .rows
        .iter()
        .map(value_of)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Applies executions one after the other: what each is told to be, and what is held at the end.
fn story(version: OsqueryVersion, executions: &[Execution<'_>]) -> (Vec<String>, String) {
    let mut present = PresentRows::default();
    let told = executions
        .iter()
        .map(|each| told(&present.apply(each, &reporter(version))))
        .collect();
    (told, held(&present))
}

#[test]
fn the_first_set_ever_is_a_baseline_even_over_two_posts_and_changes_after_it_drift() {
    let (told, held) = story(
        NEW,
        &[
            execution(1, 0, 100, "+a +a +b"),
            execution(1, 0, 100, "+c"),
            execution(1, 1, 200, "-a +d"),
            execution(1, 1, 200, "+e"),
        ],
    );
    assert_eq!(told, ["BBB", "B", "DD", "D"]);
    assert_eq!(held, "a b c d e");
}

#[test]
fn a_set_that_comes_again_drifts_only_where_it_differs() {
    for (case, epoch, time) in [
        ("a new epoch", 2, 300),
        ("a wiped database", 1, 300),
        ("a clock gone back", 1, 50),
    ] {
        let (told, held) = story(
            NEW,
            &[
                execution(1, 0, 100, "+a +b +b"),
                execution(1, 1, 200, "+c"),
                batch(epoch, 0, time, "+b +c +d"),
            ],
        );
        assert_eq!(told[2], "KKD -a -b", "{case}");
        assert_eq!(held, "b c d", "{case}");
    }
}

#[test]
fn a_set_that_comes_again_row_by_row_removes_only_when_it_is_settled() {
    let mut present = PresentRows::default();
    let new = reporter(NEW);
    present.apply(&execution(1, 0, 100, "+a +b +c +d"), &new);
    assert_eq!(
        told(&present.apply(&execution(2, 0, 300, "+a +e"), &new)),
        "KD"
    );
    assert_eq!(
        held(&present),
        "a b c d e",
        "the rest may come in the next post"
    );
    assert!(!present.is_settled());
    assert_eq!(told(&present.apply(&execution(2, 0, 300, "+b"), &new)), "K");
    let mut by_hand = present.clone();
    assert_eq!(told(&by_hand.settle()), " -c -d");
    assert_eq!(held(&by_hand), "a b e");
    assert!(by_hand.is_settled());
    assert_eq!(
        told(&present.apply(&execution(2, 1, 400, "+f"), &new)),
        "D -c -d"
    );
    assert_eq!(held(&present), "a b e f");
    assert_eq!(
        told(&present.apply(&execution(2, 0, 300, "+c"), &new)),
        "D",
        "a part that comes late"
    );
    assert_eq!(present.series.as_ref().unwrap().counter, 1);
}

#[test]
fn a_new_instance_starts_a_new_series_whatever_its_counter() {
    let mut present = PresentRows::default();
    present.apply(&execution(1, 0, 100, "+a +b"), &reporter(NEW));
    let other = Reporter {
        instance_id: "j",
        ..reporter(NEW)
    };
    assert_eq!(
        told(&present.apply(&execution(1, 5, 200, "+a +c"), &other)),
        "KD"
    );
    assert_eq!(held(&present), "a b c");
    assert_eq!(
        told(&present.apply(&batch(1, 0, 300, "+a"), &other)),
        "K -b -c"
    );
}

#[test]
fn a_counter_that_fell_without_a_set_merges_until_one_comes() {
    let (told, held) = story(
        NEW,
        &[
            execution(1, 0, 100, "+a +a"),
            execution(1, 7, 200, "+b"),
            execution(1, 1, 300, "+a +b +c"),
            execution(1, 2, 400, "+a -c"),
            batch(1, 0, 500, "+a +a"),
            execution(1, 1, 600, "+a"),
        ],
    );
    assert_eq!(told, ["BB", "D", "KKD", "KD", "KK -b", "D"]);
    assert_eq!(held, "a a a");
}

#[test]
fn before_5_19_counter_0_is_a_hint_for_the_first_set_and_no_more() {
    let (told, held) = story(
        OLD,
        &[
            execution(1, 0, 100, "+a +b"),
            execution(1, 0, 100, "+c"),
            execution(1, 1, 200, "+d"),
            execution(1, 0, 300, "+a +e"),
        ],
    );
    assert_eq!(
        told,
        ["BB", "B", "D", "KD"],
        "a reset counter may carry nothing but a change"
    );
    assert_eq!(held, "a b c d e");
}

#[test]
fn without_counters_the_first_rows_are_the_baseline() {
    let ancient = |unix_time, rows: &str| Execution {
        epoch: None,
        counter: None,
        ..execution(0, 0, unix_time, rows)
    };
    let (told, held) = story(
        OLD,
        &[
            ancient(100, "+a +b"),
            ancient(100, "+c"),
            ancient(200, "-a +d +d"),
        ],
    );
    assert_eq!(told, ["BB", "B", "DDD"]);
    assert_eq!(held, "b c d d");
}

#[test]
fn a_change_is_no_baseline_though_it_is_the_first_we_hear() {
    let (told, held) = story(
        NEW,
        &[execution(1, 1, 100, "+a -b"), batch(1, 0, 200, "+a +c")],
    );
    assert_eq!(
        told,
        ["DD", "KB"],
        "an empty first set says nothing in the event format; a real one follows"
    );
    assert_eq!(held, "a c");
}

#[test]
fn an_empty_set_takes_everything_away() {
    let (told, held) = story(NEW, &[batch(1, 0, 100, "+a"), batch(2, 0, 200, "")]);
    assert_eq!(told, ["B", " -a"]);
    assert_eq!(held, "");
}

#[test]
fn a_snapshot_replaces_and_an_equal_one_changes_nothing() {
    let mut present = PresentRows::default();
    let new = reporter(NEW);
    let first = present.apply(&snapshot(100, "=a =b =b"), &new);
    assert_eq!(
        (
            told(&first).as_str(),
            first.is_baseline,
            first.content_changed
        ),
        ("BBB", true, true)
    );
    let hash = present.rows.content_hash();
    let same = present.apply(&snapshot(200, "=b =a =b"), &new);
    assert_eq!(
        (told(&same).as_str(), same.is_baseline, same.content_changed),
        ("KKK", false, false)
    );
    assert_eq!(present.rows.content_hash(), hash);
    let other = present.apply(&snapshot(300, "=b =c"), &new);
    assert_eq!(
        (told(&other).as_str(), other.content_changed),
        ("KD -a -b", true)
    );
    assert_ne!(present.rows.content_hash(), hash);
    assert_eq!(told(&present.apply(&snapshot(400, ""), &new)), " -b -c");
}

#[test]
fn r6_a_snapshot_sent_as_events_may_span_posts() {
    let mut present = PresentRows::default();
    let events = |unix_time, rows: &str| Execution {
        line_per_row: true,
        ..snapshot(unix_time, rows)
    };
    let mut tell = |each: Execution<'_>| told(&present.apply(&each, &reporter(NEW)));
    assert_eq!(tell(events(100, "=a =b")), "BB");
    assert_eq!(tell(events(100, "=c")), "B");
    assert_eq!(tell(events(200, "=a")), "K");
    assert_eq!(tell(events(200, "=c =d")), "KD");
    assert_eq!(tell(events(300, "=a =c =d")), "KKK -b");
}

#[test]
fn evented_tables_and_queries_without_removed_rows_keep_nothing() {
    let mut present = PresentRows::default();
    let evented = Reporter {
        keeping: Keeping::Evented,
        ..reporter(NEW)
    };
    assert_eq!(
        told(&present.apply(&execution(1, 0, 100, "+a"), &evented)),
        "D"
    );
    assert_eq!(present, PresentRows::default());

    let growing = Reporter {
        keeping: Keeping::RemovedOff,
        ..reporter(NEW)
    };
    let mut tell = |each: Execution<'_>| told(&present.apply(&each, &growing));
    assert_eq!(tell(execution(1, 0, 100, "+a +b")), "BB");
    assert_eq!(tell(execution(1, 1, 200, "+c")), "D");
    assert_eq!(
        tell(execution(2, 0, 300, "+a +b +c")),
        "BBB",
        "it cannot be compared"
    );
    assert_eq!(held(&present), "");
}

#[test]
fn rows_and_series_are_stored_as_json() {
    let mut present = PresentRows::default();
    present.apply(&execution(1, 0, 100, "+a +b +b"), &reporter(NEW));
    present.apply(&execution(2, 0, 200, "+b"), &reporter(NEW));
    assert_eq!(present.rows.to_json(), r#"[{"v":"a"},{"v":"b"},{"v":"b"}]"#);
    assert_eq!(
        RowSet::from_json(&present.rows.to_json()).unwrap(),
        present.rows
    );
    let series = present.series.unwrap();
    let json = serde_json::to_string(&series).unwrap();
    assert_eq!(serde_json::from_str::<Series>(&json).unwrap(), series);
    assert!(RowSet::from_json("{}").is_err());
}

/// What a node does next.
#[derive(Debug, Clone)]
enum Step {
    /// Rows come and go; what is gone was there.
    Change { add: Vec<u8>, remove: usize },
    /// The epoch is changed: all rows are sent again.
    NewEpoch,
    /// The database is wiped while rows come and go: the same epoch starts again at counter 0.
    Wipe { add: Vec<u8>, remove: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let add = || proptest::collection::vec(0u8..6, 0..4);
    let step = prop_oneof![
        4 => (add(), 0usize..3).prop_map(|(add, remove)| Step::Change { add, remove }),
        1 => Just(Step::NewEpoch),
        1 => (add(), 0usize..3).prop_map(|(add, remove)| Step::Wipe { add, remove }),
    ];
    proptest::collection::vec(step, 1..20)
}

fn words(sign: char, values: &[u8]) -> String {
    values
        .iter()
        .map(|value| format!("{sign}{value} "))
        .collect()
}

/// Rows as a restore leaves them: old, and of their history only epoch and counter.
fn from_a_backup(epoch: u64, counter: u64, rows: &str) -> PresentRows {
    let mut present = PresentRows::default();
    present.apply(&execution(epoch, 0, 100, rows), &reporter(NEW));
    let series = present.series.take().unwrap();
    present.series = Some(Series {
        counter,
        knowledge: Knowledge::ChangesOnly,
        set: None,
        ..series
    });
    present.stale = true;
    present
}

#[test]
fn after_a_restore_the_set_of_a_new_epoch_is_no_drift_whatever_it_differs_in() {
    for version in [NEW, OLD] {
        let mut present = from_a_backup(1, 7, "+a +b");
        let change = present.apply(&execution(9, 0, 200, "+b +c"), &reporter(version));
        assert_eq!((told(&change).as_str(), change.is_baseline), ("BB", true));
        assert_eq!(held(&present), "b c");
        assert!(!present.stale);
        let change = present.apply(&execution(9, 1, 210, "-c +d"), &reporter(version));
        assert_eq!(told(&change), "DD");
    }
    let mut present = from_a_backup(1, 7, "+a");
    let change = present.apply(&snapshot(200, "=x"), &reporter(NEW));
    assert_eq!(
        (told(&change).as_str(), held(&present).as_str()),
        ("B", "x")
    );
}

#[test]
fn after_a_restore_changes_of_the_old_epoch_are_drift_until_the_new_one_begins() {
    let mut present = from_a_backup(1, 7, "+a +b");
    // The counter has moved on further than the backup knows.
    let change = present.apply(&execution(1, 30, 200, "-a +c"), &reporter(NEW));
    assert_eq!(
        (told(&change).as_str(), held(&present).as_str()),
        ("DD", "b c")
    );
    assert!(present.stale);
    let change = present.apply(&execution(9, 0, 210, "+c +d"), &reporter(NEW));
    assert_eq!(
        (told(&change).as_str(), held(&present).as_str()),
        ("BB", "c d")
    );
}

#[test]
fn a_later_epoch_begins_with_a_full_set_in_old_versions_too() {
    let mut present = PresentRows::default();
    // Only a change is known, e.g. because the node had told its set to somebody else.
    present.apply(&execution(1, 57, 100, "+y"), &reporter(OLD));
    let change = present.apply(&execution(9, 0, 110, "+a"), &reporter(OLD));
    assert_eq!(told(&change), "B");
    let more = present.apply(&execution(9, 0, 110, "+b"), &reporter(OLD));
    assert_eq!(told(&more), "B");
    present.apply(&execution(9, 1, 120, "-a +c"), &reporter(OLD));
    assert_eq!(held(&present), "b c");
}

#[test]
fn after_a_restore_a_query_whose_first_set_was_empty_shows_only_what_came_then() {
    let mut present = from_a_backup(1, 7, "+a");
    // An empty set says nothing in the event format; the first line of the epoch is a change.
    let change = present.apply(&execution(9, 1, 200, "+z"), &reporter(NEW));
    assert_eq!(
        (told(&change).as_str(), held(&present).as_str()),
        ("D", "z")
    );
}

proptest! {
    /// A node from 5.19 on: what we hold is what it holds, and a copy that is fed with nothing but the baseline and the
    /// drift we tell of holds the same, however the executions are cut into posts.
    #[test]
    fn what_is_held_is_what_the_node_has(
        start in proptest::collection::vec(0u8..6, 1..6),
        steps in steps(),
        one_line in any::<bool>(),
        cut in 1usize..4,
    ) {
        let (mut truth, mut epoch, mut counter, mut time) = (start.clone(), 1, 0, 100);
        let mut sent = vec![(epoch, counter, time, words('+', &start))];
        for step in steps {
            time += 10;
            let change = |truth: &mut Vec<u8>, add: Vec<u8>, remove: usize| {
                let gone: Vec<u8> = truth.drain(..remove.min(truth.len())).collect();
                truth.extend(&add);
                words('-', &gone) + &words('+', &add)
            };
            match step {
                Step::Change { add, remove } => {
                    let words = change(&mut truth, add, remove);
                    if !words.is_empty() {
                        counter += 1;
                        sent.push((epoch, counter, time, words));
                    }
                }
                // In the event format an empty set says nothing: there we could not know.
                Step::NewEpoch if truth.is_empty() && !one_line => {}
                Step::NewEpoch => {
                    (epoch, counter) = (epoch + 1, 0);
                    sent.push((epoch, counter, time, words('+', &truth)));
                }
                Step::Wipe { add, remove } => {
                    change(&mut truth, add, remove);
                    if truth.is_empty() {
                        truth.push(0);
                    }
                    counter = 0;
                    sent.push((epoch, counter, time, words('+', &truth)));
                }
            }
        }

        let (mut present, mut copy) = (PresentRows::default(), RowSet::default());
        let mut feed = |change: &Change, rows: &[Row<'_>]| {
            for (row, standing) in rows.iter().zip(&change.standings) {
                match (row.action, standing) {
                    (_, Standing::Known) => {}
                    (Action::Removed, _) => assert!(copy.remove(&row.columns.canonical())),
                    _ => copy.insert(row.columns.canonical()),
                }
            }
            assert!(change.removed.iter().all(|row| copy.remove(row)));
            copy.clone()
        };
        for (epoch, counter, time, words) in sent {
            let whole = if one_line { batch(epoch, counter, time, &words) } else { execution(epoch, counter, time, &words) };
            let mut parts = vec![whole.clone()];
            if !one_line {
                parts = whole.rows.chunks(cut).map(|rows| Execution { rows: rows.to_vec(), ..whole.clone() }).collect();
            }
            for part in parts {
                let change = present.apply(&part, &reporter(NEW));
                feed(&change, &part.rows);
            }
        }
        let change = present.settle();
        let copy = feed(&change, &[]);
        truth.sort_unstable();
        prop_assert_eq!(held(&present), truth.iter().map(u8::to_string).collect::<Vec<_>>().join(" "));
        prop_assert_eq!(copy, present.rows);
    }

    /// The same for a node before 5.19, whose database is never wiped.
    #[test]
    fn an_old_node_that_is_never_wiped_is_followed_too(
        start in proptest::collection::vec(0u8..6, 1..6),
        changes in proptest::collection::vec((proptest::collection::vec(0u8..6, 1..4), 0usize..3), 0..12),
    ) {
        let mut truth = start.clone();
        let mut present = PresentRows::default();
        let first = present.apply(&execution(1, 0, 100, &words('+', &start)), &reporter(OLD));
        prop_assert!(first.is_baseline);
        for (counter, (add, remove)) in (1u64..).zip(changes) {
            let gone: Vec<u8> = truth.drain(..remove.min(truth.len())).collect();
            truth.extend(&add);
            let words = words('-', &gone) + &words('+', &add);
            let change = present.apply(&execution(1, counter, 100 + 10 * i64::try_from(counter).unwrap(), &words), &reporter(OLD));
            prop_assert!(change.standings.iter().all(|standing| *standing == Standing::Drift));
        }
        truth.sort_unstable();
        prop_assert_eq!(held(&present), truth.iter().map(u8::to_string).collect::<Vec<_>>().join(" "));
    }

    #[test]
    fn the_content_hash_does_not_depend_on_the_order_of_rows(values in proptest::collection::vec(0u8..6, 0..8)) {
        let rows = |values: &[u8]| values.iter().map(|value| format!("{{\"v\":\"{value}\"}}")).collect::<RowSet>();
        let mut reversed = values.clone();
        reversed.reverse();
        prop_assert_eq!(rows(&values).content_hash(), rows(&reversed).content_hash());
    }
}

//! What sinks read: never past a transaction that is open, and each by one worker.

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_domain::ids::SinkId;
use ostiary_store::sinks::edits::{self, SinkValues};
use ostiary_store::sinks::runs::{self, Sent};
use ostiary_store::sinks::sources::{self, Slice};
use ostiary_store::sinks::{Horizons, Position, Source, cursors};
use ostiary_store::testing::{TestDb, execute};
use ostiary_store::{Conn, Db, findings, partitions};
use uuid::Uuid;

use crate::machine_time;

const SINK: SinkId = SinkId(Uuid::from_u128(7));

fn insert_status(message: &str) -> String {
    format!(
        "INSERT INTO status_logs (node_id, batch_id, received_at, occurred_at, severity, message)
         VALUES ('00000000-0000-0000-0000-000000000001', 1, now(), now(), 0, '{message}')"
    )
}

async fn make_sink(test: &TestDb, now: DateTime<Utc>) {
    let values = SinkValues {
        name: "siem",
        kind: "http",
        settings_sealed: b"sealed",
        summary: "",
        enabled: true,
        types: &["status".to_owned(), "result".to_owned()],
        queries: &[],
        target: "",
    };
    let manager = test.as_role("ostiary_manager");
    let mut tx = manager.begin().await.unwrap();
    edits::insert(&mut tx, SINK, &values, now).await.unwrap();
    cursors::set_sources(&mut tx, SINK, &[Source::StatusLogs, Source::Events])
        .await
        .unwrap();
    Db::commit(tx).await.unwrap();
}

/// What is read of the status logs up to the horizon.
async fn messages(conn: &mut Conn, up_to: i64) -> Vec<String> {
    let slice = Slice {
        after: 0,
        up_to,
        rows: 100,
        bytes: 1000,
    };
    let lines = sources::list_status_logs(conn, slice).await.unwrap();
    lines.into_iter().map(|line| line.message).collect()
}

#[tokio::test]
async fn a_row_that_is_committed_late_is_read_and_in_its_place() {
    let test = TestDb::new().await;
    let worker = test.as_role("ostiary_worker");
    let mut reader = worker.acquire().await.unwrap();
    let mut horizons = Horizons::default();
    assert_eq!(
        horizons
            .look(&mut reader, Source::StatusLogs)
            .await
            .unwrap(),
        0
    );
    let mut late = worker.begin().await.unwrap();
    execute(&mut late, &insert_status("late")).await;
    let mut early = worker.begin().await.unwrap();
    execute(&mut early, &insert_status("early")).await;
    Db::commit(early).await.unwrap();
    // "early" is visible, and would move a mark of the highest id past "late".
    for _ in 0..3 {
        let settled = horizons
            .look(&mut reader, Source::StatusLogs)
            .await
            .unwrap();
        assert!(messages(&mut reader, settled).await.is_empty());
    }
    assert_eq!(messages(&mut reader, i64::MAX).await, ["early"]);
    // Whoever comes while it waits does not make it wait for longer.
    let mut later = worker.begin().await.unwrap();
    execute(&mut later, &insert_status("later")).await;
    horizons
        .look(&mut reader, Source::StatusLogs)
        .await
        .unwrap();
    Db::commit(late).await.unwrap();
    let settled = horizons
        .look(&mut reader, Source::StatusLogs)
        .await
        .unwrap();
    assert_eq!(messages(&mut reader, settled).await, ["late", "early"]);
    Db::roll_back(later).await.unwrap();
    horizons
        .look(&mut reader, Source::StatusLogs)
        .await
        .unwrap();
    let settled = horizons
        .look(&mut reader, Source::StatusLogs)
        .await
        .unwrap();
    assert_eq!(settled, 3, "an id that came to nothing is settled, too");
    test.drop().await;
}

#[tokio::test]
async fn who_only_reads_holds_no_horizon_up() {
    let test = TestDb::new().await;
    let worker = test.as_role("ostiary_worker");
    let mut dump = test.db.begin_snapshot().await.unwrap();
    execute(&mut dump, "SELECT count(*) FROM status_logs").await;
    test.execute(&insert_status("one")).await;
    let mut reader = worker.acquire().await.unwrap();
    let settled = Horizons::default()
        .look(&mut reader, Source::StatusLogs)
        .await;
    assert_eq!(settled.unwrap(), 1);
    Db::roll_back(dump).await.unwrap();
    test.drop().await;
}

#[tokio::test]
async fn a_sink_is_held_by_one_and_whoever_lost_it_is_not_heard() {
    let (test, now) = (TestDb::new().await, machine_time());
    make_sink(&test, now).await;
    let worker = test.as_role("ostiary_worker");
    let mut conn = worker.acquire().await.unwrap();
    let (first, second, until) = (
        Uuid::from_u128(1),
        Uuid::from_u128(2),
        now + TimeDelta::seconds(30),
    );
    assert_eq!(runs::list_free(&mut conn, now).await.unwrap(), [SINK]);
    assert!(
        runs::take(&mut conn, SINK, first, now, until)
            .await
            .unwrap()
    );
    assert!(
        !runs::take(&mut conn, SINK, second, now, until)
            .await
            .unwrap()
    );
    assert!(runs::list_free(&mut conn, now).await.unwrap().is_empty());
    let held = runs::hold(&mut conn, SINK, first, until)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((held.name.as_str(), held.kind.as_str()), ("siem", "http"));
    // Its worker died.
    assert!(
        runs::take(&mut conn, SINK, second, until, until)
            .await
            .unwrap()
    );
    assert!(
        runs::hold(&mut conn, SINK, first, until)
            .await
            .unwrap()
            .is_none()
    );
    let sent = Sent {
        lines: 3,
        ..Sent::default()
    };
    assert!(
        !runs::note_sent(&mut conn, SINK, first, &sent, now)
            .await
            .unwrap()
    );
    assert!(
        runs::note_sent(&mut conn, SINK, second, &sent, now)
            .await
            .unwrap()
    );
    runs::release(&mut conn, SINK, second).await.unwrap();
    let line = edits::find(&mut conn, SINK).await.unwrap().unwrap();
    assert_eq!(line.sent_lines, 3);
    assert_eq!(runs::list_free(&mut conn, now).await.unwrap(), [SINK]);
    test.drop().await;
}

#[tokio::test]
async fn a_cursor_that_was_set_back_meanwhile_stays_there() {
    let (test, now) = (TestDb::new().await, machine_time());
    test.execute(&insert_status("before")).await;
    make_sink(&test, now).await;
    let manager = test.as_role("ostiary_manager");
    let mut conn = manager.acquire().await.unwrap();
    let place = async |conn: &mut Conn| {
        let all = cursors::list(conn, SINK).await.unwrap();
        *all.iter()
            .find(|one| one.source == Source::StatusLogs)
            .unwrap()
    };
    let begun = place(&mut conn).await;
    assert_eq!(begun.position.after_id, 1, "a new sink begins at the end");
    assert_eq!(cursors::lag(&mut conn, &begun).await.unwrap().rows, 0);
    let since = now - TimeDelta::hours(1);
    cursors::replay(&mut conn, SINK, since).await.unwrap();
    let replayed = place(&mut conn).await;
    assert_eq!(replayed.position.after_id, 0);
    let lag = cursors::lag(&mut conn, &replayed).await.unwrap();
    assert!(lag.rows == 1 && lag.oldest_at.is_some(), "{lag:?}");
    let worker = test.as_role("ostiary_worker");
    let mut worker = worker.acquire().await.unwrap();
    let on = Position {
        after_id: 2,
        after_row: 0,
    };
    let moved = cursors::advance(&mut worker, SINK, Source::StatusLogs, begun.position, on).await;
    assert!(
        !moved.unwrap(),
        "what was sent before the replay moves nothing"
    );
    let moved =
        cursors::advance(&mut worker, SINK, Source::StatusLogs, replayed.position, on).await;
    assert!(moved.unwrap());
    test.drop().await;
}

#[tokio::test]
async fn what_retention_takes_before_a_sink_read_it_is_counted() {
    let (test, now) = (TestDb::new().await, machine_time());
    make_sink(&test, now).await;
    test.execute(
        "CREATE TABLE status_logs_20200101 PARTITION OF status_logs FOR VALUES FROM ('2020-01-01 00:00Z') TO ('2020-01-02 00:00Z');
         CREATE TABLE events_20200101 PARTITION OF events FOR VALUES FROM ('2020-01-01 00:00Z') TO ('2020-01-02 00:00Z');
         INSERT INTO status_logs (node_id, batch_id, received_at, occurred_at, severity, message)
            SELECT '00000000-0000-0000-0000-000000000001', 1, '2020-01-01 12:00Z', now(), 0, 'x' FROM generate_series(1, 5);
         INSERT INTO events (node_id, query_name_id, batch_id, received_at, occurred_at, unix_time, row_count, rows)
            SELECT '00000000-0000-0000-0000-000000000001', 1, 1, '2020-01-01 12:00Z', now(), 1, 10, '' FROM generate_series(1, 2);
         UPDATE sink_cursors SET after_id = 2 WHERE source = 'status_logs';",
    )
    .await;
    let worker = test.as_role("ostiary_worker");
    let mut conn = worker.acquire().await.unwrap();
    let dropped = partitions::drop_old(&mut conn).await.unwrap();
    assert_eq!(dropped, ["events_20200101", "status_logs_20200101"]);
    let lost = cursors::list(&mut conn, SINK).await.unwrap();
    let lost: Vec<_> = lost.iter().map(|one| (one.source, one.lost)).collect();
    assert_eq!(lost, [(Source::Events, 20), (Source::StatusLogs, 3)]);
    let line = edits::find(&mut conn, SINK).await.unwrap().unwrap();
    assert_eq!(line.lost_lines, 23);
    test.drop().await;
}

#[tokio::test]
async fn every_change_of_a_finding_is_noted_once_whoever_makes_it() {
    let test = TestDb::new().await;
    test.execute(
        "INSERT INTO findings (id, rule_name, node_name, entity_hash, entity, severity, state, opened_at, last_matched_at)
         VALUES ('00000000-0000-0000-0000-000000000009', 'usb', 'web-1', '', 'sdb', 'high', 'open', now(), now());
         UPDATE findings SET match_count = 2;
         UPDATE findings SET state = 'acknowledged';
         UPDATE findings SET state = 'acknowledged';
         UPDATE findings SET state = 'resolved';
         INSERT INTO finding_matches (finding_id, matched_at, occurred_at, query_name, action, columns)
         VALUES ('00000000-0000-0000-0000-000000000009', now(), now(), 'usb_devices', 'added', '{\"model\": \"stick\"}');",
    )
    .await;
    let worker = test.as_role("ostiary_worker");
    let mut conn = worker.acquire().await.unwrap();
    let slice = Slice {
        after: 0,
        up_to: i64::MAX,
        rows: 10,
        bytes: 0,
    };
    let changes = sources::list_finding_changes(&mut conn, slice)
        .await
        .unwrap();
    let told: Vec<_> = changes.iter().map(|one| one.change.as_str()).collect();
    assert_eq!(told, ["opened", "acknowledged", "resolved"]);
    assert_eq!(changes[1].finding["state"], "acknowledged");
    assert_eq!(changes[0].finding["entity"], "sdb");
    let first = changes[0].first_match.as_ref().unwrap();
    assert_eq!(first["columns"]["model"], "stick");
    test.drop().await;
}

#[tokio::test]
async fn what_is_noted_of_a_finding_is_kept_as_long_as_the_finding() {
    let (test, now) = (TestDb::new().await, machine_time());
    make_sink(&test, now).await;
    let worker = test.as_role("ostiary_worker");
    let mut manager = test.as_role("ostiary_manager").acquire().await.unwrap();
    cursors::set_sources(&mut manager, SINK, &[Source::FindingChanges])
        .await
        .unwrap();
    test.execute(
        "INSERT INTO findings (id, rule_name, node_name, entity_hash, entity, severity, state, opened_at, last_matched_at, resolved_at)
         SELECT ('00000000-0000-0000-0000-00000000000' || n)::uuid, 'usb', 'web-1', n::text::bytea, 'sdb', 'high', 'resolved', now(),
            now(), now() - n * interval '10 days' FROM generate_series(1, 3) n;
         UPDATE sink_cursors SET after_id = 2 WHERE source = 'finding_changes';",
    )
    .await;
    let mut conn = worker.acquire().await.unwrap();
    let before = now - TimeDelta::days(15);
    let deleted = findings::delete_old(&mut conn, before, 10).await;
    assert_eq!(deleted.unwrap(), 2);
    let slice = Slice {
        after: 0,
        up_to: i64::MAX,
        rows: 10,
        bytes: 0,
    };
    let left = sources::list_finding_changes(&mut conn, slice)
        .await
        .unwrap();
    assert_eq!(left.len(), 1);
    let line = edits::find(&mut conn, SINK).await.unwrap().unwrap();
    assert_eq!(line.lost_lines, 1, "the third was not read yet");
    test.drop().await;
}

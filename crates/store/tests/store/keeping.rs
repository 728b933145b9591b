//! What is kept: present rows, fingerprints, names, partitions.

use chrono::{DateTime, Days, Utc};
use ostiary_domain::fingerprint::PostFingerprints;
use ostiary_domain::ids::NodeId;
use ostiary_domain::present::{FullSet, Knowledge, PresentRows, RowSet, Series};
use ostiary_store::post_fingerprints::{self, Remembered};
use ostiary_store::present_rows::{self, Stored};
use ostiary_store::testing::TestDb;
use ostiary_store::{Error, partitions, query_names};
use uuid::Uuid;

fn node(n: u128) -> NodeId {
    NodeId(Uuid::from_u128(n))
}

/// Now, to the second, by the clock of Postgres.
async fn now(test: &TestDb) -> DateTime<Utc> {
    let sql = "SELECT floor(extract(epoch FROM now()))::bigint::text";
    let seconds = test.texts(sql).await[0].parse().unwrap();
    DateTime::from_timestamp(seconds, 0).unwrap()
}

fn rows(texts: &[&str]) -> RowSet {
    texts
        .iter()
        .map(|text| format!("{{\"a\":\"{text}\"}}"))
        .collect()
}

#[tokio::test]
async fn present_rows_come_back_as_they_were_put() {
    let test = TestDb::new().await;
    let (worker, at) = (test.as_role("ostiary_worker"), now(&test).await);
    let mut conn = worker.acquire().await.unwrap();
    let series = Series {
        epoch: u64::MAX,
        counter: u64::MAX,
        unix_time: -5,
        instance_id: "i".into(),
        snapshot: true,
        knowledge: Knowledge::Complete,
        merging: true,
        set: Some(FullSet {
            unix_time: 7,
            baseline: true,
            unseen: rows(&["é\u{FFFD}", "2"]),
        }),
    };
    let present = PresentRows {
        rows: rows(&["2", "2", "é\u{FFFD}"]),
        series: Some(series),
        stale: true,
    };
    let mut stored = Stored {
        node_id: node(1),
        query_name_id: 7,
        present,
    };
    present_rows::put(&mut conn, std::slice::from_ref(&stored), at)
        .await
        .unwrap();
    let found = present_rows::find(&mut conn, &[(node(1), 7), (node(1), 8), (node(2), 7)])
        .await
        .unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].present, stored.present);
    assert_eq!(
        test.texts("SELECT row_count || ' ' || complete FROM present_rows")
            .await,
        ["3 true"]
    );

    // Only where it stands has changed: the rows and their time stay.
    let later = at + chrono::TimeDelta::seconds(9);
    stored.present.series.as_mut().unwrap().counter = 8;
    present_rows::put(&mut conn, std::slice::from_ref(&stored), later)
        .await
        .unwrap();
    let same = format!("SELECT (changed_at = '{at}')::text FROM present_rows");
    assert_eq!(test.texts(&same).await, ["true"]);
    stored.present.rows.insert("{\"a\":\"3\"}".into());
    present_rows::put(&mut conn, &[stored], later)
        .await
        .unwrap();
    assert_eq!(test.texts(&same).await, ["false"]);
    test.drop().await;
}

#[tokio::test]
async fn the_last_few_posts_of_each_log_are_remembered() {
    let test = TestDb::new().await;
    let (worker, at) = (test.as_role("ostiary_worker"), now(&test).await);
    let mut conn = worker.acquire().await.unwrap();
    let post = |batch_id: i64, log_type| Remembered {
        node_id: node(1),
        log_type,
        batch_id,
        received_at: at,
        lines: PostFingerprints::of([batch_id.to_string().as_str()]),
    };
    let posts: Vec<Remembered> = (1..=6)
        .map(|id| post(id, b'r'))
        .chain([post(2, b's')])
        .collect();
    post_fingerprints::remember(&mut conn, &posts)
        .await
        .unwrap();
    post_fingerprints::remember(&mut conn, &[post(9, b'r')])
        .await
        .unwrap();
    let found = post_fingerprints::list(&mut conn, &[node(1), node(2)])
        .await
        .unwrap();
    let kept: Vec<(u8, i64)> = found
        .iter()
        .map(|post| (post.log_type, post.batch_id))
        .collect();
    assert_eq!(
        kept,
        [(b's', 2), (b'r', 4), (b'r', 5), (b'r', 6), (b'r', 9)]
    );
    assert_eq!(found[4].lines, PostFingerprints::of(["9"]));
    assert_eq!(
        post_fingerprints::delete_older(&mut conn, at + chrono::TimeDelta::seconds(1))
            .await
            .unwrap(),
        5
    );
    test.drop().await;
}

#[tokio::test]
async fn a_name_has_one_id_whoever_says_it() {
    let test = TestDb::new().await;
    let (worker, at) = (test.as_role("ostiary_worker"), now(&test).await);
    let mut conn = worker.acquire().await.unwrap();
    let first = query_names::insert(&mut conn, &[("b", node(1)), ("a", node(1))], at)
        .await
        .unwrap();
    let second = query_names::insert(&mut conn, &[("a", node(2)), ("c", node(2))], at)
        .await
        .unwrap();
    assert_eq!(first["a"], second["a"]);
    assert_eq!(
        query_names::find(&mut conn, &["a", "b", "c", "d"])
            .await
            .unwrap()
            .len(),
        3
    );
    let introduced = query_names::count_introduced_by(&mut conn, &[node(1), node(2), node(3)])
        .await
        .unwrap();
    assert_eq!(
        (
            introduced.get(&node(1)),
            introduced.get(&node(2)),
            introduced.get(&node(3))
        ),
        (Some(&2), Some(&1), None)
    );
    test.drop().await;
}

#[tokio::test]
async fn partitions_are_made_for_days_that_may_still_be_needed_and_for_no_others() {
    let test = TestDb::new().await;
    let (worker, at) = (test.as_role("ostiary_worker"), now(&test).await);
    let mut conn = worker.acquire().await.unwrap();
    let today = at.date_naive();
    let count = "SELECT count(*)::text FROM pg_inherits WHERE inhparent = 'events'::regclass";
    let before: i64 = test.texts(count).await[0].parse().unwrap();
    partitions::ensure_ahead(&mut conn, at, 7).await.unwrap();
    assert_eq!(
        test.texts(count).await,
        [before.to_string()],
        "the migration made them"
    );
    partitions::ensure(&mut conn, today - Days::new(10))
        .await
        .unwrap();
    partitions::ensure(&mut conn, today + Days::new(9))
        .await
        .unwrap();
    assert_eq!(test.texts(count).await, [(before + 2).to_string()]);
    for far in [today - Days::new(400), today + Days::new(400)] {
        assert!(
            matches!(
                partitions::ensure(&mut conn, far).await,
                Err(Error::Other(_))
            ),
            "{far}"
        );
    }
    // log_batches are kept for three days, so its partition of ten days ago goes; that of events stays.
    let dropped = partitions::drop_old(&mut conn).await.unwrap();
    assert_eq!(
        dropped,
        [format!(
            "log_batches_{}",
            (today - Days::new(10)).format("%Y%m%d")
        )]
    );
    test.drop().await;
}

//! Pending work: its order, its locks, its limits.

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_domain::ids::NodeId;
use ostiary_store::log_batches::{self, NewBatch, compress};
use ostiary_store::pending::{self, Pending, TakeLimits, Work};
use ostiary_store::testing::TestDb;
use ostiary_store::{Conn, Db};
use uuid::Uuid;

const ANY: TakeLimits = TakeLimits {
    rows: 100,
    bytes: i64::MAX,
    only: None,
};

fn node(n: u128) -> NodeId {
    NodeId(Uuid::from_u128(n))
}

/// Now, to the second, by the clock of Postgres.
async fn now(test: &TestDb) -> DateTime<Utc> {
    let sql = "SELECT floor(extract(epoch FROM now()))::bigint::text";
    let seconds = test.texts(sql).await[0].parse().unwrap();
    DateTime::from_timestamp(seconds, 0).unwrap()
}

async fn post(db: &Db, node: NodeId, at: DateTime<Utc>, data: &[u8]) -> i64 {
    let batch = NewBatch {
        node_id: node,
        log_type: b'r',
        received_at: at,
        client_version: "5.23.1".into(),
        data: data.to_vec(),
    };
    let mut conn = db.acquire().await.unwrap();
    log_batches::insert(&mut conn, &[batch]).await.unwrap()[0]
}

async fn take(
    conn: &mut Conn,
    nodes: &[NodeId],
    at: DateTime<Utc>,
    limits: TakeLimits,
) -> Vec<i64> {
    let rows = pending::take(conn, nodes, at, limits).await.unwrap();
    rows.iter().map(|row: &Pending| row.id).collect()
}

#[tokio::test]
async fn work_comes_whole_and_in_order_and_within_its_limits() {
    let test = TestDb::new().await;
    let (api, worker, at) = (
        test.as_role("ostiary_api"),
        test.as_role("ostiary_worker"),
        now(&test).await,
    );
    let mut ids = Vec::new();
    for n in [1, 2, 1, 2] {
        ids.push(post(&api, node(n), at, &compress(&[b' '; 1000])).await);
    }
    let size = i64::try_from(compress(&[b' '; 1000]).len()).unwrap();
    let both = [node(1), node(2)];
    let mut tx = worker.begin().await.unwrap();
    assert_eq!(take(&mut tx, &both, at, ANY).await, ids);
    assert_eq!(
        take(&mut tx, &both, at, TakeLimits { rows: 3, ..ANY }).await,
        ids[..3]
    );
    assert_eq!(
        take(
            &mut tx,
            &both,
            at,
            TakeLimits {
                bytes: size + 1,
                ..ANY
            }
        )
        .await,
        ids[..2]
    );
    assert_eq!(
        take(&mut tx, &both, at, TakeLimits { bytes: 1, ..ANY }).await,
        ids[..1],
        "one, however large"
    );
    assert_eq!(
        take(
            &mut tx,
            &both,
            at,
            TakeLimits {
                only: Some((ids[1], ids[2])),
                ..ANY
            }
        )
        .await,
        ids[1..2],
        "the first node has an earlier row, which must come first"
    );
    assert_eq!(take(&mut tx, &[node(2)], at, ANY).await, [ids[1], ids[3]]);
    assert!(
        take(&mut tx, &both, at - TimeDelta::seconds(1), ANY)
            .await
            .is_empty(),
        "not yet due"
    );
    let row = pending::take(&mut tx, &both, at, ANY)
        .await
        .unwrap()
        .remove(0);
    let Work::Batch(batch) = row.work else {
        panic!("a post was stored")
    };
    assert_eq!(
        (batch.log_type, batch.client_version.as_str()),
        (b'r', "5.23.1")
    );
    assert_eq!(batch.open(1000).unwrap(), [b' '; 1000]);
    assert!(
        batch
            .open(999)
            .unwrap_err()
            .to_string()
            .contains("more than 999 bytes")
    );
    Db::commit(tx).await.unwrap();
    test.drop().await;
}

#[tokio::test]
async fn work_that_failed_holds_back_the_later_work_of_its_node_and_of_no_other() {
    let test = TestDb::new().await;
    let (api, worker, at) = (
        test.as_role("ostiary_api"),
        test.as_role("ostiary_worker"),
        now(&test).await,
    );
    let first = post(&api, node(1), at, b"").await;
    let second = post(&api, node(1), at, b"").await;
    let other = post(&api, node(2), at, b"").await;
    let mut conn = worker.acquire().await.unwrap();
    let later = at + TimeDelta::seconds(60);
    pending::postpone(&mut conn, first, later, "deadlock")
        .await
        .unwrap();
    let listed = pending::list_due_nodes(&mut conn, at, None, 10)
        .await
        .unwrap();
    assert_eq!((listed.due.as_slice(), listed.next), (&[node(2)][..], None));
    assert_eq!(take(&mut conn, &[node(1), node(2)], at, ANY).await, [other]);
    assert_eq!(
        take(&mut conn, &[node(1), node(2)], later, ANY).await,
        [first, second, other]
    );
    assert_eq!(
        pending::take(&mut conn, &[node(1)], later, ANY)
            .await
            .unwrap()[0]
            .attempts,
        1
    );
    pending::delete(&mut conn, &[first, other]).await.unwrap();
    assert_eq!(
        take(&mut conn, &[node(1), node(2)], at, ANY).await,
        [second]
    );
    assert_eq!(pending::backlog(&mut conn).await.unwrap().rows, 1);
    test.drop().await;
}

#[tokio::test]
async fn nodes_are_listed_page_by_page_whatever_their_backlog() {
    let test = TestDb::new().await;
    let (api, worker, at) = (
        test.as_role("ostiary_api"),
        test.as_role("ostiary_worker"),
        now(&test).await,
    );
    for n in [3, 1, 1, 1, 2, 1] {
        post(&api, node(n), at, b"").await;
    }
    let mut conn = worker.acquire().await.unwrap();
    let page = pending::list_due_nodes(&mut conn, at, None, 2)
        .await
        .unwrap();
    assert_eq!(
        (page.due, page.next),
        (vec![node(1), node(2)], Some(node(2)))
    );
    let page = pending::list_due_nodes(&mut conn, at, page.next, 2)
        .await
        .unwrap();
    assert_eq!((page.due, page.next), (vec![node(3)], None));
    let all = pending::list_due_nodes(&mut conn, at, None, 10)
        .await
        .unwrap();
    assert_eq!(all.due, [node(3), node(1), node(2)], "the oldest first");
    test.drop().await;
}

#[tokio::test]
async fn a_node_is_locked_by_one_transaction_at_a_time_and_nobody_waits() {
    let test = TestDb::new().await;
    let worker = test.as_role("ostiary_worker");
    let nodes = [node(2), node(1)];
    let mut one = worker.begin().await.unwrap();
    let mut two = worker.begin().await.unwrap();
    assert_eq!(
        pending::lock_nodes(&mut one, &nodes[..1]).await.unwrap(),
        [node(2)]
    );
    assert_eq!(
        pending::lock_nodes(&mut two, &nodes).await.unwrap(),
        [node(1)]
    );
    one.rollback().await.unwrap();
    assert_eq!(
        pending::lock_nodes(&mut two, &nodes).await.unwrap(),
        [node(1), node(2)]
    );
    two.rollback().await.unwrap();
    test.drop().await;
}

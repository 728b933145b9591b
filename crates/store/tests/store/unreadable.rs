//! What could not be understood: kept by those who may only insert, bounded per node, given back as it was sent.

use ostiary_domain::ids::NodeId;
use ostiary_store::log_batches::compress;
use ostiary_store::page::PageRequest;
use ostiary_store::testing::TestDb;
use ostiary_store::unreadable::{self, Dropped, NewUnreadable};
use uuid::Uuid;

fn item(node: NodeId, number: u128, bytes: &[u8]) -> NewUnreadable {
    NewUnreadable {
        id: Uuid::from_u128(number),
        node_id: node,
        batch_id: None,
        log_type: "result".into(),
        received_at: crate::machine_time(),
        reason: format!("reason {number}\0"),
        data: compress(bytes),
    }
}

#[tokio::test]
async fn the_oldest_of_a_node_make_room_and_are_counted_whoever_inserts() {
    let db = TestDb::new().await;
    db.execute("UPDATE unreadable_bounds SET items_per_node = 3, bytes_per_node = 400")
        .await;
    let (node, other) = (NodeId(Uuid::from_u128(1)), NodeId(Uuid::from_u128(2)));
    let api = db.as_role("ostiary_api");
    let worker = db.as_role("ostiary_worker");
    let of_other = [item(other, 100, b"its own")];
    unreadable::insert(&mut api.acquire().await.unwrap(), &of_other)
        .await
        .unwrap();
    for number in 1..=2 {
        let items = [item(node, number, b"one"), item(node, number + 10, b"two")];
        let role = if number == 1 { &api } else { &worker };
        unreadable::insert(&mut role.acquire().await.unwrap(), &items)
            .await
            .unwrap();
    }
    let manager = db.as_role("ostiary_manager");
    let mut conn = manager.acquire().await.unwrap();
    let page = PageRequest::default();
    let kept = unreadable::list(&mut conn, Some(node), &page, false)
        .await
        .unwrap()
        .items;
    assert_eq!(kept.len(), 3, "{kept:?}");
    assert!(
        kept.iter().all(|item| item.id != Uuid::from_u128(1)),
        "the oldest is gone: {kept:?}"
    );
    assert_eq!(
        unreadable::dropped(&mut conn, Some(node))
            .await
            .unwrap()
            .items,
        1
    );
    assert_eq!(
        unreadable::dropped(&mut conn, Some(other)).await.unwrap(),
        Dropped::default()
    );
    // Bytes that do not compress, more than a node may have: everything older goes.
    let noise: Vec<u8> = (0..350_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    unreadable::insert(
        &mut worker.acquire().await.unwrap(),
        &[item(node, 50, &noise)],
    )
    .await
    .unwrap();
    let kept = unreadable::list(&mut conn, Some(node), &page, true)
        .await
        .unwrap()
        .items;
    let bytes: i32 = kept.iter().map(|item| item.stored_bytes).sum();
    assert!(bytes <= 400, "{bytes}");
    assert_eq!((kept[0].id, &kept[0].data), (Uuid::from_u128(50), &noise));
    assert_eq!(
        unreadable::list(&mut conn, Some(other), &page, true)
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    drop(conn);
    for role in [api, worker, manager] {
        role.close().await;
    }
    db.drop().await;
}

#[tokio::test]
async fn data_are_given_back_as_they_were_sent() {
    let db = TestDb::new().await;
    let node = NodeId(Uuid::from_u128(1));
    let sent = [b"\xff\x00 not text ".as_slice(), &[b'x'; 5000]].concat();
    let mut conn = db.db.acquire().await.unwrap();
    unreadable::insert(&mut conn, &[item(node, 1, &sent)])
        .await
        .unwrap();
    assert_eq!(
        unreadable::find_data(&mut conn, Uuid::from_u128(1))
            .await
            .unwrap()
            .unwrap(),
        sent
    );
    assert_eq!(
        unreadable::find_data(&mut conn, Uuid::from_u128(2))
            .await
            .unwrap(),
        None
    );
    let listed = unreadable::list(&mut conn, None, &PageRequest::default(), false)
        .await
        .unwrap()
        .items;
    assert_eq!(listed[0].data, sent[..300], "a list shows the beginning");
    assert_eq!(listed[0].reason, "reason 1\u{FFFD}");
    drop(conn);
    db.drop().await;
}

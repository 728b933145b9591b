//! What the ledger says and keeps, and how destinations fare that fail, are off or gather.

use ostiary_boot::clock::new_id;
use ostiary_domain::ids::FindingId;
use ostiary_store::deliveries::NewDelivery;
use ostiary_store::delivery_upkeep;

use super::super::*;
use super::pair;
use super::world::{OK, Receiver, World};

#[tokio::test]
async fn the_ledger_keeps_what_was_sent_without_secrets() {
    let key = "0123456789abcdef0123456789abcdef";
    // What the receiver writes behind this body is none of the answer any more.
    let quoting = "400 Bad Request|Content-Length: 35\r\n\r\nNo 0123456789abcdef0123456789abcdef";
    let receiver = Receiver::start(&[quoting]).await;
    let world = World::new(&receiver).await;
    let id = world.tell(world.finding, "opened").await;
    let settings = serde_json::json!({"routing_key": key, "url": receiver.url()});
    world.change_destination("pagerduty", &settings).await;
    assert_eq!(world.deliver(id).await, Outcome::Dead);
    assert_eq!(receiver.bodies()[0]["routing_key"], key);
    let sent = &world.sent(id).await[0];
    assert!(sent.contains("\"routing_key\":\"•••\""), "{sent}");
    assert!(
        sent.contains("\"trigger\"") && !sent.contains(key),
        "{sent}"
    );
    let refused = pair("refused", "400 Bad Request: No •••");
    assert_eq!(world.attempts(id).await, [refused]);
    world.end().await;
}

#[tokio::test]
async fn a_disabled_destination_gets_nothing_and_its_rows_say_so() {
    let receiver = Receiver::start(&[OK]).await;
    let world = World::new(&receiver).await;
    let waiting = world.tell(world.finding, "opened").await;
    let sql = "UPDATE destinations SET enabled = false";
    world.test_db.execute(sql).await;
    let alert_id = world.test_db.texts("SELECT id::text FROM alerts").await[0]
        .parse()
        .unwrap();
    let new = NewDelivery {
        id: new_id().into(),
        alert_id,
        destination_id: world.destination,
    };
    let mut conn = world.db.acquire().await.unwrap();
    let made = deliveries::insert(&mut conn, &[new], world.clock.now()).await;
    assert!(made.unwrap().is_empty(), "there is nothing to be rung for");
    drop(conn);
    assert_eq!(world.deliver(waiting).await, Outcome::Skipped);
    for id in [waiting, new.id] {
        let row = world.row(id).await;
        assert_eq!(row.state, "skipped");
        assert_eq!(row.last_answer, "not sent: the destination is disabled");
        assert!(row.finished_at.is_some());
    }
    assert!(receiver.bodies().is_empty());
    world.end().await;
}

#[tokio::test]
async fn what_somebody_over_there_may_mend_is_tried_seldom_for_hours_and_then_given_up() {
    let receiver = Receiver::start(&["404 Not Found"]).await;
    let world = World::new(&receiver).await;
    let id = world.tell(world.finding, "opened").await;
    let began = world.clock.now();
    for attempt in 1..MOST_REJECTIONS {
        assert_eq!(world.deliver_due().await, 1, "attempt {attempt}");
        let wait = world.row(id).await.due_at - world.clock.now();
        assert!(wait >= TimeDelta::minutes(3), "{wait}");
        world.clock.advance(wait);
    }
    let took = world.clock.now() - began;
    assert!((5..=11).contains(&took.num_hours()), "{took}");
    assert_eq!(world.deliver_due().await, 1);
    let row = world.row(id).await;
    assert_eq!(
        (row.state.as_str(), row.last_answer.as_str()),
        ("dead", "404 Not Found")
    );
    assert_eq!(
        world.attempts(id).await[0],
        pair("rejected", "404 Not Found")
    );

    // Somebody made the channel anew and has it sent again: what was tried before is forgiven.
    receiver.answer_from_now(OK);
    let mut conn = world.test_db.db.acquire().await.unwrap();
    let again = delivery_upkeep::send_again(&mut conn, id, world.clock.now()).await;
    assert_eq!(again.unwrap(), Some(world.destination));
    destination_circuits::close(&mut conn, world.destination)
        .await
        .unwrap();
    drop(conn);
    assert_eq!(world.deliver_due().await, 1);
    assert_eq!(world.row(id).await.state, "delivered");
    world.end().await;
}

#[tokio::test]
async fn a_destination_that_fails_is_paused_and_tried_with_one_delivery() {
    let receiver = Receiver::start(&["500 Internal Server Error"]).await;
    let world = World::new(&receiver).await;
    let mut ids = Vec::new();
    for _ in 0..8 {
        let finding = FindingId(new_id());
        world.insert_finding(finding).await;
        ids.push(world.tell(finding, "opened").await);
    }
    for id in &ids[..5] {
        assert_eq!(world.deliver(*id).await, Outcome::Waiting);
    }
    assert_eq!(world.deliver(ids[5]).await, Outcome::NotDue, "paused");
    assert_eq!(world.deliver_due().await, 0);
    assert_eq!(receiver.bodies().len(), 5);

    world.pass(FIRST_PAUSE);
    assert_eq!(world.deliver(ids[5]).await, Outcome::Waiting, "the probe");
    assert_eq!(world.deliver(ids[6]).await, Outcome::NotDue, "paused on");
    assert_eq!(receiver.bodies().len(), 6);

    receiver.answer_from_now(OK);
    world.pass(FIRST_PAUSE * 2);
    assert_eq!(world.deliver(ids[6]).await, Outcome::Delivered, "the probe");
    assert_eq!(
        world.deliver(ids[7]).await,
        Outcome::Delivered,
        "works again"
    );
    let left = world
        .test_db
        .texts("SELECT destination_id::text FROM destination_circuits")
        .await;
    assert!(left.is_empty(), "{left:?}");
    world.end().await;
}

#[tokio::test]
async fn a_destination_that_gathers_is_told_of_all_in_one_message_and_in_order() {
    let receiver = Receiver::start(&["503 Service Unavailable", OK]).await;
    let world = World::new(&receiver).await;
    let sql = "UPDATE destinations SET digest_minutes = 10";
    world.test_db.execute(sql).await;
    let opened = world.tell(world.finding, "opened").await;
    world.pass(Duration::from_secs(300));
    let resolved = world.tell(world.finding, "resolved").await;
    let other = FindingId(new_id());
    world.insert_finding(other).await;
    let elsewhere = world.tell(other, "opened").await;
    assert_eq!(world.deliver_due().await, 0, "they are gathered");
    world.pass(Duration::from_secs(300));
    assert_eq!(world.deliver_due().await, 1, "one message that fails");
    let ids = [opened, resolved, elsewhere];
    let mut dues = Vec::new();
    for id in ids {
        dues.push(world.row(id).await.due_at);
    }
    assert!(dues.iter().all(|due| *due == dues[0]), "{dues:?}");
    world.clock.advance(dues[0] - world.clock.now());
    assert_eq!(world.deliver_due().await, 1);
    for id in ids {
        assert_eq!(world.row(id).await.state, "delivered");
        assert_eq!(world.attempts(id).await.len(), 2);
    }
    let bodies = receiver.bodies();
    assert_eq!(bodies.len(), 2);
    assert_eq!(bodies[1]["type"], "digest");
    let told: Vec<&str> = bodies[1]["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["delivery_id"].as_str().unwrap())
        .collect();
    assert_eq!(told, ids.map(|id| id.to_string()));
    assert!(world.sent(opened).await[1].contains("\"digest\""));
    let along = format!("Told in one message with delivery {opened}.");
    assert_eq!(world.sent(resolved).await, [along.as_str(), along.as_str()]);
    world.end().await;
}

#[tokio::test]
async fn what_is_long_past_is_forgotten_but_not_who_is_to_be_told_of_an_end() {
    let receiver = Receiver::start(&[OK]).await;
    let world = World::new(&receiver).await;
    let id = world.tell(world.finding, "opened").await;
    assert_eq!(world.deliver(id).await, Outcome::Delivered);
    let mut conn = world.db.acquire().await.unwrap();
    let before = world.clock.now();
    let mut forget = async |before| {
        let attempts = delivery_upkeep::delete_old_attempts(&mut conn, before, 10).await;
        let deliveries = delivery_upkeep::delete_old(&mut conn, before, 10).await;
        (attempts.unwrap(), deliveries.unwrap())
    };
    assert_eq!(forget(before).await, (0, 0), "nothing is older");
    let later = before + TimeDelta::seconds(1);
    assert_eq!(forget(later).await, (1, 0), "its finding is open");
    let resolved = "UPDATE findings SET state = 'resolved'";
    world.test_db.execute(resolved).await;
    assert_eq!(forget(later).await, (0, 1));
    drop(conn);
    world.end().await;
}

//! Deliveries on a real Postgres, as the worker's role, to a real web server.

#[path = "deliver_alert_world.rs"]
mod world;

use ostiary_boot::clock::new_id;
use ostiary_domain::ids::FindingId;
use ostiary_store::deliveries::NewDelivery;
use ostiary_store::delivery_upkeep;
use serde_json::Value;

use super::*;
use world::{OK, Receiver, SILENCE, World};

fn pair(outcome: &str, answer: &str) -> (String, String) {
    (outcome.to_owned(), answer.to_owned())
}

#[tokio::test]
async fn a_delivery_that_fails_is_tried_again_and_arrives() {
    let receiver = Receiver::start(&["503 Service Unavailable", OK]).await;
    let world = World::new(&receiver).await;
    let id = world.tell(world.finding, "opened").await;

    assert_eq!(world.deliver(id).await, Outcome::Waiting);
    let row = world.row(id).await;
    assert_eq!((row.state.as_str(), row.attempts), ("waiting", 1));
    assert_eq!(row.last_answer, "503 Service Unavailable");
    let wait = row.due_at - world.clock.now();
    assert!((11..=19).contains(&wait.num_seconds()), "{wait}");

    assert_eq!(
        world.deliver(id).await,
        Outcome::NotDue,
        "its time has not come"
    );
    world.pass(Duration::from_secs(20));
    assert_eq!(world.deliver(id).await, Outcome::Delivered);
    let row = world.row(id).await;
    assert_eq!((row.state.as_str(), row.attempts), ("delivered", 2));
    assert_eq!(row.finished_at, Some(world.clock.now()));
    let attempts = [
        pair("retry", "503 Service Unavailable"),
        pair("delivered", OK),
    ];
    assert_eq!(world.attempts(id).await, attempts);
    assert_eq!(receiver.deliveries(), [id.to_string(), id.to_string()]);

    world.pass(Duration::from_secs(86_400));
    assert_eq!(world.deliver(id).await, Outcome::NotDue, "it has arrived");
    assert_eq!(world.deliver_due().await, 0);
    world.end().await;
}

#[tokio::test]
async fn a_destination_that_asks_for_time_gets_it() {
    let receiver = Receiver::start(&["429 Too Many Requests|Retry-After: 600\r\n"]).await;
    let world = World::new(&receiver).await;
    let id = world.tell(world.finding, "opened").await;
    assert_eq!(world.deliver(id).await, Outcome::Waiting);
    let wait = world.row(id).await.due_at - world.clock.now();
    assert_eq!(wait, TimeDelta::seconds(600));
    world.end().await;
}

#[tokio::test]
async fn a_refusal_ends_a_delivery_and_so_do_too_many_attempts() {
    let receiver = Receiver::start(&["410 Gone", "500 Internal Server Error"]).await;
    let world = World::new(&receiver).await;
    let refused = world.tell(world.finding, "opened").await;
    assert_eq!(world.deliver(refused).await, Outcome::Dead);
    let row = world.row(refused).await;
    assert_eq!(
        (row.state.as_str(), row.last_answer.as_str()),
        ("dead", "410 Gone")
    );
    assert_eq!(world.attempts(refused).await, [pair("refused", "410 Gone")]);

    let tried = world.tell(world.finding, "resolved").await;
    let began = world.clock.now();
    for attempt in 1..MOST_ATTEMPTS {
        assert_eq!(world.deliver_due().await, 1, "attempt {attempt}");
        let wait = world.row(tried).await.due_at - world.clock.now();
        world.clock.advance(wait);
    }
    let took = world.clock.now() - began;
    assert!((18..=32).contains(&took.num_hours()), "{took}");
    assert_eq!(world.deliver(tried).await, Outcome::Dead);
    assert_eq!(
        world.row(tried).await.last_answer,
        "500 Internal Server Error"
    );
    world.pass(Duration::from_secs(86_400));
    assert_eq!(world.deliver_due().await, 0);
    world.end().await;
}

#[tokio::test]
async fn a_worker_killed_between_sending_and_recording_leads_to_a_second_sending_of_the_same_delivery()
 {
    let receiver = Receiver::start(&[SILENCE]).await;
    let world = World::new(&receiver).await;
    let id = world.tell(world.finding, "opened").await;
    tokio::select! {
        outcome = world.deliver(id) => panic!("nobody answered, and yet: {outcome:?}"),
        () = receiver.heard.notified() => {}
    }
    let row = world.row(id).await;
    assert_eq!(
        (row.state.as_str(), row.attempts),
        ("waiting", 1),
        "counted before it was made"
    );
    assert_eq!(
        world.deliver_due().await,
        0,
        "the lease of the dead worker still runs"
    );

    receiver.answer_from_now(OK);
    world.pass(world.outbound.longest_attempt() + LEASE_MARGIN);
    assert_eq!(world.deliver_due().await, 1);
    assert_eq!(world.row(id).await.state, "delivered");
    assert_eq!(receiver.deliveries(), [id.to_string(), id.to_string()]);
    world.end().await;
}

#[tokio::test]
async fn an_attempt_that_never_ends_is_given_up_one_day_without_being_made() {
    let receiver = Receiver::start(&[OK]).await;
    let world = World::new(&receiver).await;
    let id = world.tell(world.finding, "opened").await;
    let sql = format!("UPDATE deliveries SET attempts = {MOST_ATTEMPTS}");
    world.test_db.execute(&sql).await;
    assert_eq!(world.deliver(id).await, Outcome::Dead);
    assert!(world.row(id).await.last_answer.contains("given up"));
    assert!(receiver.bodies().is_empty());
    world.end().await;
}

#[tokio::test]
async fn two_workers_never_send_the_same_delivery_at_once() {
    let receiver = Receiver::start(&[OK]).await;
    let world = World::new(&receiver).await;
    let id = world.tell(world.finding, "opened").await;
    let outcomes = futures::future::join_all((0..4).map(|_| world.deliver(id))).await;
    let delivered = outcomes
        .iter()
        .filter(|outcome| **outcome == Outcome::Delivered);
    assert_eq!(delivered.count(), 1, "{outcomes:?}");
    assert_eq!(receiver.bodies().len(), 1);
    world.end().await;
}

#[tokio::test]
async fn a_late_answer_counts_only_if_it_is_good() {
    let receiver = Receiver::start(&[OK]).await;
    let world = World::new(&receiver).await;
    let id = world.tell(world.finding, "opened").await;
    let mut conn = world.db.acquire().await.unwrap();
    let began = world.clock.now();
    let first = deliveries::take(&mut conn, id, began, began)
        .await
        .unwrap()
        .unwrap();
    let second = deliveries::take(&mut conn, id, began, began)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((first.attempts, second.attempts), (1, 2));
    let end = |verdict| Attempt {
        started_at: began,
        duration_ms: 1,
        verdict,
        answer: "late",
    };
    deliveries::record(&mut conn, &first, &end(Verdict::Refused), began)
        .await
        .unwrap();
    assert_eq!(
        world.row(id).await.state,
        "waiting",
        "the second claimant is at it"
    );
    deliveries::record(&mut conn, &first, &end(Verdict::Delivered), began)
        .await
        .unwrap();
    assert_eq!(world.row(id).await.state, "delivered");
    deliveries::record(&mut conn, &second, &end(Verdict::Refused), began)
        .await
        .unwrap();
    assert_eq!(world.row(id).await.state, "delivered");
    assert_eq!(world.attempts(id).await.len(), 3);
    drop(conn);
    world.end().await;
}

#[tokio::test]
async fn alerts_of_one_finding_arrive_in_order_and_others_do_not_wait_for_them() {
    let receiver = Receiver::start(&["500 Internal Server Error"]).await;
    let world = World::new(&receiver).await;
    let opened = world.tell(world.finding, "opened").await;
    assert_eq!(world.deliver(opened).await, Outcome::Waiting);
    world.pass(Duration::from_secs(1));
    let resolved = world.tell(world.finding, "resolved").await;
    assert_eq!(
        world.deliver(resolved).await,
        Outcome::NotDue,
        "the earlier one waits"
    );
    assert_eq!(world.row(resolved).await.attempts, 0);

    receiver.answer_from_now(OK);
    let other = FindingId(new_id());
    world.insert_finding(other).await;
    let elsewhere = world.tell(other, "opened").await;
    assert_eq!(world.deliver_due().await, 1);
    assert_eq!(world.row(elsewhere).await.state, "delivered");

    world.pass(Duration::from_secs(30));
    assert_eq!(world.deliver_due().await, 2, "one after the other");
    let types: Vec<Value> = receiver
        .bodies()
        .into_iter()
        .map(|body| body["type"].clone())
        .collect();
    assert_eq!(types[2..], ["finding.opened", "finding.resolved"]);
    assert_eq!(
        receiver.deliveries()[2..],
        [opened.to_string(), resolved.to_string()]
    );
    world.end().await;
}

#[tokio::test]
async fn a_dead_alert_does_not_hold_up_the_next_one_of_its_finding() {
    let receiver = Receiver::start(&["410 Gone", OK]).await;
    let world = World::new(&receiver).await;
    let opened = world.tell(world.finding, "opened").await;
    let resolved = world.tell(world.finding, "resolved").await;
    assert_eq!(world.deliver_due().await, 2);
    assert_eq!(world.row(opened).await.state, "dead");
    assert_eq!(world.row(resolved).await.state, "delivered");
    world.end().await;
}

#[tokio::test]
async fn what_cannot_be_sent_at_all_dies_with_a_clear_answer() {
    let receiver = Receiver::start(&[OK]).await;
    let cases = [
        ("DELETE FROM destinations", "the destination was deleted"),
        (
            "UPDATE destinations SET kind = 'pigeon'",
            "there is no kind of destination \"pigeon\"",
        ),
        (
            "UPDATE destinations SET settings_sealed = 'rubbish'",
            "sealed with another key",
        ),
        (
            "UPDATE alerts SET body = '{}'",
            "the alert cannot be read: missing field",
        ),
    ];
    for (sql, part) in cases {
        let world = World::new(&receiver).await;
        let id = world.tell(world.finding, "opened").await;
        world.test_db.execute(sql).await;
        assert_eq!(world.deliver_due().await, 1, "{sql}");
        let row = world.row(id).await;
        assert_eq!(row.state, "dead", "{sql}");
        assert!(row.last_answer.contains(part), "{}", row.last_answer);
        world.end().await;
    }
    assert!(receiver.bodies().is_empty());
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
    assert!(again.unwrap());
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
    world.end().await;
}

#[test]
fn waits_double_up_to_an_hour_and_differ_from_delivery_to_delivery() {
    let ids: Vec<DeliveryId> = (0..200).map(|_| new_id().into()).collect();
    for attempts in 1..=60 {
        let nominal = (15 * 2_u64.pow(attempts.min(20) - 1)).min(3600) * 1000;
        let waits: std::collections::BTreeSet<Duration> = ids
            .iter()
            .map(|id| back_off(FIRST_WAIT, *id, attempts))
            .collect();
        let (least, most) = (
            waits.first().unwrap().as_millis(),
            waits.last().unwrap().as_millis(),
        );
        assert!(least >= u128::from(nominal) * 3 / 4 && most <= u128::from(nominal) * 5 / 4);
        assert!(
            most - least > u128::from(nominal) / 4,
            "{attempts}: {least} to {most}"
        );
        assert!(waits.len() > 150);
    }
}

#[tokio::test]
async fn nothing_is_begun_when_the_worker_is_to_stop() {
    let receiver = Receiver::start(&[OK]).await;
    let world = World::new(&receiver).await;
    let id = world.tell(world.finding, "opened").await;
    world.shutdown.cancel();
    assert_eq!(world.deliver_due().await, 0);
    assert_eq!(world.row(id).await.attempts, 0);
    world.end().await;
}

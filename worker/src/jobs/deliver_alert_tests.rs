//! Deliveries on a real Postgres, as the worker's role, to a real web server.

#[path = "deliver_alert_ledger_tests.rs"]
mod ledger;
#[path = "deliver_alert_world.rs"]
mod world;

use ostiary_boot::clock::new_id;
use ostiary_domain::ids::FindingId;
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
    let sent = world.sent(id).await;
    let sent: Vec<Value> = sent
        .iter()
        .map(|body| serde_json::from_str(body).unwrap())
        .collect();
    assert_eq!(sent, receiver.bodies(), "the ledger has what was sent");

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
        body: "",
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

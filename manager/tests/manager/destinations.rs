//! Destinations of every kind, what is sent again, and what a pager says back.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use hmac::Mac as _;
use serde_json::json;

use crate::sample;
use crate::world::World;

const SECRET: &str = "0123456789abcdef-of-the-webhook";

/// A form of a destination that is to be told of high findings in prod.
const PAGER: [(&str, &str); 8] = [
    ("kind", "pagerduty"),
    ("name", "pager"),
    ("routing_key", "0123456789abcdef0123456789abcdef"),
    ("url", "https://events.pagerduty.com/v2/enqueue"),
    ("webhook_secret", SECRET),
    ("min_severity", "high"),
    ("target", "prod"),
    ("enabled", "on"),
];

fn with<'a>(field: &'a str, value: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut form: Vec<_> = PAGER
        .into_iter()
        .filter(|(name, _)| *name != field)
        .collect();
    form.push((field, value));
    form
}

#[tokio::test]
async fn what_is_wrong_with_a_destination_is_said_beside_its_field_and_nothing_typed_is_lost() {
    let world = World::new().await;
    let mut browser = world.browser_as("admin").await;
    for (field, value, part) in [
        ("routing_key", "short", "32 letters and digits"),
        ("url", "ftp://x", "must begin with https"),
        ("webhook_secret", "short", "shorter than any secret"),
        ("min_severity", "awful", "Choose one of info"),
        ("target", "prod and", "is missing at character"),
        ("digest_minutes", "5", "one alert at a time"),
        ("text_template", "{% set x = 1 %}", "cannot be used here"),
        ("title_template", "{{ broken", "is not closed"),
    ] {
        let answer = browser.post("/destinations", &with(field, value)).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{field}");
        let beside = format!("id=\"{field}-error\"");
        assert!(
            answer.body.contains(&beside) && answer.body.contains(part),
            "{field}: {}",
            answer.body
        );
        assert!(
            answer.body.contains("value=\"pager\""),
            "nothing typed is lost"
        );
        assert!(!answer.body.contains(SECRET), "but secrets are not shown");
    }
    let made = browser.post("/destinations", &PAGER).await.location;
    let page = browser.get(&made).await.body.replace("&#x2f;", "/");
    let id = made.rsplit('/').next().unwrap();
    for part in [
        "From severity high on",
        "<code>prod</code>",
        &format!("/hooks/pagerduty/{id}"),
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    world.end().await;
}

#[tokio::test]
async fn a_program_makes_and_changes_destinations_and_never_reads_their_secrets() {
    let world = World::new().await;
    world.user("ann", "admin").await;
    let token = world.token("ann").await;
    let mut wanted = json!({
        "name": "chat", "kind": "slack", "min_severity": "high", "target": "prod", "takes_all": true, "digest_minutes": 10,
        "fields": {"url": "https://hooks.slack.com/services/T0/B0/s3cret"},
    });
    let made = world
        .post_json("/api/v1/destinations", &token, &wanted)
        .await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.body);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/destinations/{id}");
    let shown = world.get_json(&path, &token).await;
    assert!(!shown.body.contains("s3cret"), "{}", shown.body);
    let shown = shown.json();
    assert_eq!(
        (&shown["digest_minutes"], &shown["tells_changes"]),
        (&json!(10), &json!(true))
    );
    let list = world.get_json("/api/v1/destinations", &token).await.json();
    assert_eq!(list["items"][0], shown);

    wanted["min_severity"] = "awful".into();
    let wrong = world
        .post_json("/api/v1/destinations", &token, &wanted)
        .await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(wrong.body.contains("min_severity"), "{}", wrong.body);

    wanted["min_severity"] = "low".into();
    wanted["fields"] = json!({});
    let put = Request::put(&path)
        .header("Authorization", format!("Bearer {token}"))
        .header("Content-Type", "application/json")
        .body(Body::from(wanted.to_string()));
    let changed = world.send(put.unwrap()).await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.body);
    let shown = world.get_json(&path, &token).await.json();
    assert_eq!(shown["min_severity"], "low");
    assert_eq!(
        shown["summary"], "incoming webhook at hooks.slack.com",
        "a secret that is left out stays"
    );
    let gone = format!("{path}/delete");
    let named = json!({"confirm": "chat"});
    let gone = world.post_json(&gone, &token, &named).await;
    assert_eq!(gone.status, StatusCode::OK, "{}", gone.body);
    assert_eq!(
        world.get_json(&path, &token).await.status,
        StatusCode::NOT_FOUND
    );
    world.end().await;
}

#[tokio::test]
async fn a_template_is_previewed_while_it_is_typed() {
    let world = World::new().await;
    let mut browser = world.browser_as("admin").await;
    let templates = [
        ("title_template", "$name on {{ node.name }}"),
        ("text_template", "{{ kind }}"),
    ];
    let said = browser
        .post("/destinations/preview", &templates)
        .await
        .json();
    assert_eq!(
        said,
        json!({"ok": true, "title": "Free Coupons on mac-7", "text": "opened"})
    );
    let said = browser
        .post(
            "/destinations/preview",
            &[("text_template", "{% macro x() %}")],
        )
        .await
        .json();
    assert_eq!(said["ok"], false);
    assert!(
        said["errors"]["text_template"]
            .as_str()
            .unwrap()
            .contains("macro"),
        "{said}"
    );
    world.end().await;
}

#[tokio::test]
async fn what_was_given_up_is_sent_again_one_by_one_all_or_since_a_time() {
    let world = World::new().await;
    let mut browser = world.browser_as("admin").await;
    sample::one_of_everything(&world).await;
    let states = || {
        world
            .test_db
            .texts("SELECT state FROM deliveries ORDER BY state")
    };
    let destination = format!("/destinations/{}", sample::DESTINATION);
    let delivery = world.test_db.texts("SELECT id::text FROM deliveries").await[0].clone();
    let one = format!("/deliveries/{delivery}/send-again");
    browser.post(&one, &[]).await;
    assert_eq!(states().await, ["delivered"], "it has arrived");

    let dead = "UPDATE deliveries SET state = 'dead', attempts = 31";
    world.test_db.execute(dead).await;
    assert!(
        browser
            .get("/deliveries?state=dead")
            .await
            .body
            .contains(&one)
    );
    browser.post(&one, &[]).await;
    assert_eq!(states().await, ["waiting"]);
    world.test_db.execute(dead).await;
    browser
        .post(&format!("{destination}/send-dead-again"), &[])
        .await;
    assert_eq!(states().await, ["waiting"]);
    let forgiven = world
        .test_db
        .texts("SELECT forgiven_attempts::text FROM deliveries")
        .await;
    assert_eq!(forgiven, ["31"]);

    let replay = format!("{destination}/replay");
    browser
        .post(&replay, &[("since", "2020-01-01 00:00")])
        .await;
    assert_eq!(states().await, ["waiting"], "what waits is not sent twice");
    world.test_db.execute(dead).await;
    browser
        .post(&replay, &[("since", "2020-01-01 00:00")])
        .await;
    assert_eq!(
        states().await,
        ["dead", "waiting"],
        "a new delivery of the same alert"
    );
    let answer = browser.post(&replay, &[("since", "yesterday")]).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.body.contains("no time like"), "{}", answer.body);
    world.end().await;
}

/// What PagerDuty would post.
fn hook(world: &World, to: &str, event: &str, kind: &str, key: &str) -> Request<Body> {
    let body = json!({"event": {
        "id": event, "event_type": kind, "resource_type": "incident", "occurred_at": world.app.clock.now(),
        "agent": {"type": "user_reference", "summary": "Ann"}, "data": {"id": "P1", "type": "incident", "incident_key": key},
    }})
    .to_string();
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    let signature = format!("v1={}", hex::encode(mac.finalize().into_bytes()));
    Request::post(to)
        .header("X-PagerDuty-Signature", signature)
        .body(Body::from(body))
        .unwrap()
}

#[tokio::test]
async fn an_acknowledgement_in_the_pager_is_one_here_once_and_only_if_it_is_signed() {
    let world = World::new().await;
    let mut browser = world.browser_as("admin").await;
    sample::one_of_everything(&world).await;
    let made = browser.post("/destinations", &PAGER).await.location;
    let to = format!("/hooks/pagerduty/{}", made.rsplit('/').next().unwrap());
    let key = format!("ostiary-{}", sample::FINDING);
    let state = || world.test_db.texts("SELECT state FROM findings");

    let mut forged = hook(&world, &to, "e1", "incident.acknowledged", &key);
    let wrong = format!("v1={}", "00".repeat(32));
    forged
        .headers_mut()
        .insert("X-PagerDuty-Signature", wrong.parse().unwrap());
    assert_eq!(world.send(forged).await.status, StatusCode::UNAUTHORIZED);
    let elsewhere = format!("/hooks/pagerduty/{}", sample::DESTINATION);
    let mail = hook(&world, &elsewhere, "e1", "incident.acknowledged", &key);
    assert_eq!(world.send(mail).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(state().await, ["open"]);

    let acknowledged = || hook(&world, &to, "e1", "incident.acknowledged", &key);
    assert_eq!(
        world.send(acknowledged()).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(state().await, ["acknowledged"]);
    let log = browser.get("/audit").await.body;
    assert!(log.contains("Ann (pager)"), "{log}");

    browser
        .post(&format!("/findings/{}/reopen", sample::FINDING), &[])
        .await;
    assert_eq!(state().await, ["open"]);
    assert_eq!(
        world.send(acknowledged()).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        state().await,
        ["open"],
        "a copy of an event changes nothing"
    );
    for (event, kind, key, after) in [
        ("e2", "incident.resolved", "of-somebody-else", "open"),
        ("e3", "incident.annotated", key.as_str(), "open"),
        ("e4", "incident.resolved", key.as_str(), "resolved"),
        ("e5", "incident.reopened", key.as_str(), "open"),
    ] {
        let answer = world.send(hook(&world, &to, event, kind, key)).await;
        assert_eq!(
            answer.status,
            StatusCode::NO_CONTENT,
            "{event}: {}",
            answer.body
        );
        assert_eq!(state().await, [after], "{event}");
    }
    world.end().await;
}

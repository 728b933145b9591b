//! How alerts reach people: by mail with STARTTLS and a password, by HTTP to a server that does all that servers do, by a pager and
//! back; and what the ledger says of it.

use std::path::Path;
use std::sync::Arc;

use hmac::Mac as _;
use ostiary_dev::mail::{self, MailCatcher};
use ostiary_tests::{
    PATIENCE, Program, Receiver, Reply, World, WorldOptions, eventually, run_browser,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

const QUERY: &str = "pack/watch/ports";
const SECRET: &str = "0123456789abcdef-of-the-webhook";
const ROUTING_KEY: &str = "0123456789abcdef0123456789abcdef";

/// Everything runs, nothing inside may be called but `127.0.0.1` itself, and a rule watches ports.
async fn world() -> World {
    let options = WorldOptions::default()
        .set("WORKER__SWEEP_SECONDS", "1")
        .set("OUTPUTS__ALLOW_PRIVATE_ADDRESSES", "false")
        .set("OUTPUTS__ALLOWED_NETWORKS", r#"["127.0.0.1/32"]"#);
    let world = World::start(options).await;
    let is = |field: &str, value: &str| json!({"id": field, "field": field, "type": "string", "input": "text", "operator": "equal", "value": value});
    let rule = json!({
        "name": "New port", "severity": "high", "entity_columns": ["port"],
        "conditions": {"condition": "AND", "rules": [is("query_name", QUERY), is("action", "added")]},
    });
    world.rest().post("rules", &rule).await;
    world
}

async fn destination(world: &World, name: &str, kind: &str, fields: Value) -> String {
    let wanted = json!({"name": name, "kind": kind, "takes_all": true, "fields": fields});
    let made = world.rest().post("destinations", &wanted).await;
    text(&made["id"]).to_owned()
}

fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
}

/// A node enrolls, says which ports are open, and then that one more is; gives the finding.
async fn drift(world: &World) -> String {
    let wire = world.wire();
    let key = wire.enroll(world.enroll_secret(), "web-1").await;
    for (counter, port) in [(0, "22"), (1, "4444")] {
        let line = json!({
            "name": QUERY, "hostIdentifier": "web-1", "calendarTime": "", "unixTime": world.now().timestamp(), "epoch": 0,
            "counter": counter, "numerics": false, "action": "added", "columns": {"port": port},
        });
        let body = json!({"node_key": key, "log_type": "result", "data": [line]});
        assert!(wire.post("/log", &body).await.is_success());
    }
    eventually("the finding opens", PATIENCE, async || {
        let found = world.rest().all("findings").await;
        found.first().map(|finding| text(&finding["id"]).to_owned())
    })
    .await
}

/// The deliveries of a destination, oldest first, once `is_so` holds for them.
async fn deliveries(
    world: &World,
    what: &str,
    destination: &str,
    is_so: impl Fn(&[Value]) -> bool,
) -> Vec<Value> {
    eventually(what, PATIENCE, async || {
        let mut found = world
            .rest()
            .all(&format!("deliveries?destination={destination}"))
            .await;
        found.reverse();
        is_so(&found).then_some(found)
    })
    .await
}

fn are_delivered(deliveries: &[Value], number: usize) -> bool {
    let delivered = |each: &Value| each["state"] == "delivered";
    deliveries.len() == number && deliveries.iter().all(delivered)
}

fn column<'a>(of: &'a [Value], name: &str) -> Vec<&'a str> {
    of.iter().map(|each| text(&each[name])).collect()
}

/// A mail server with STARTTLS that wants a password.
async fn mail_server(world: &World) -> MailCatcher {
    let chain = CertificateDer::pem_file_iter(&world.certificates.certificate).unwrap();
    let chain: Vec<CertificateDer<'static>> = chain.collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(&world.certificates.private_key).unwrap();
    let tls = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let options = mail::Options {
        tls: Some(Arc::new(tls)),
        implicit_tls: false,
        login: Some(("ostiary".to_owned(), "correct horse".to_owned())),
    };
    let folder = world.folder().join("mail-by-starttls");
    let listen = "127.0.0.1:0".parse().unwrap();
    MailCatcher::start(listen, &folder, options).await.unwrap()
}

fn mail_settings(server: &MailCatcher, ca: &Path) -> Value {
    json!({
        "server": "localhost", "port": server.address().port().to_string(), "encryption": "starttls", "username": "ostiary",
        "password": "correct horse", "from": "Ostiary <ostiary@example.com>", "to": "sec@example.com",
        "ca_certificate": std::fs::read_to_string(ca).unwrap(),
    })
}

/// Waits for the record of a delivery's latest attempt, and lets the wait before the next pass at once.
async fn let_time_pass(world: &World, destination: &str, attempts: usize) {
    let what = format!("attempt {attempts} is recorded");
    let found = deliveries(world, &what, destination, |found| {
        let recorded = |each: &Value| each["attempts"].as_array().map(Vec::len);
        found.first().and_then(recorded) == Some(attempts)
    })
    .await;
    let id = text(&found[0]["id"]);
    let sql =
        format!("UPDATE deliveries SET due_at = now() WHERE id = '{id}' AND state = 'waiting'");
    world.db.execute(&sql).await;
    world.db.execute("DELETE FROM destination_circuits").await;
}

#[tokio::test]
async fn a_server_that_fails_stalls_leads_inward_and_is_busy_gets_every_alert_in_order_in_the_end()
{
    let world = world().await;
    let rest = world.rest();
    let inside = Receiver::start(Vec::new()).await;
    let inward = format!(
        "307 Temporary Redirect\r\nLocation: http://{}/\r\n",
        inside.address()
    );
    let script = vec![
        Reply::status("500 Internal Server Error"),
        Reply::Silence,
        Reply::Say(inward),
        Reply::Say("429 Too Many Requests\r\nRetry-After: 3000\r\n".to_owned()),
    ];
    let tries = script.len();
    let receiver = Receiver::start(script).await;
    let mails = mail_server(&world).await;
    let fields = mail_settings(&mails, &world.certificates.ca);
    let by_mail = destination(&world, "by mail", "email", fields).await;
    let url = format!("http://{}/hook/T0p", receiver.address());
    let fields = json!({"url": url, "secret": SECRET});
    let hook = destination(&world, "hook", "webhook", fields).await;
    let port = inside.address().port();
    let fields = json!({"url": format!("http://127.0.0.2:{port}/"), "secret": SECRET});
    let forbidden = destination(&world, "inside", "webhook", fields).await;

    let finding = drift(&world).await;
    // What comes later waits for its turn.
    for deed in ["acknowledge", "resolve"] {
        let path = format!("findings/{finding}/{deed}");
        let decided = rest.post(&path, &json!({})).await;
        assert_eq!(decided["changed"], true, "{decided}");
    }
    // Nobody waits for one that fails: the mails are there, and over TLS, or the server would have taken none.
    deliveries(&world, "the mails are delivered", &by_mail, |found| {
        are_delivered(found, 3)
    })
    .await;
    let caught = mails.messages().unwrap();
    assert_eq!(caught.len(), 3);
    assert!(caught[0].contains("Subject: [high] New port on web-1"));
    assert!(
        world.mail.messages().unwrap().is_empty(),
        "no rule names it"
    );

    for attempts in 1..=tries {
        let opened = ["finding.opened"].repeat(attempts);
        eventually("the server is asked", PATIENCE, async || {
            (receiver.heard().len() == attempts).then_some(())
        })
        .await;
        assert_eq!(column(&receiver.heard(), "type"), opened);
        let_time_pass(&world, &hook, attempts).await;
    }
    let told = deliveries(&world, "all is delivered", &hook, |found| {
        are_delivered(found, 3)
    })
    .await;
    let kinds = ["opened", "acknowledged", "resolved"];
    assert_eq!(column(&told, "alert_kind"), kinds);
    let heard = receiver.heard();
    assert_eq!(heard.len(), tries + 3, "each attempt is a request");
    let events = kinds.map(|kind| format!("finding.{kind}"));
    assert_eq!(column(&heard[tries..], "type"), events);
    let ledger = rest
        .get(&format!("deliveries/{}", text(&told[0]["id"])))
        .await;
    let attempts = ledger["attempts"].as_array().unwrap();
    assert_eq!(
        column(attempts, "outcome"),
        ["retry", "retry", "rejected", "retry", "delivered"]
    );
    let answers = column(attempts, "answer");
    for (answer, part) in answers
        .iter()
        .zip(["500", "no answer in time", "307", "429", "202"])
    {
        assert!(answer.contains(part), "{answer}");
    }
    for (attempt, request) in attempts.iter().zip(&heard) {
        let sent: Value = serde_json::from_str(text(&attempt["body"])).unwrap();
        assert_eq!(sent, *request, "the ledger keeps what was sent");
    }
    let log = world.log(Program::Worker);
    assert!(!log.contains("T0p") && !log.contains(SECRET), "secrets");

    let refused = deliveries(&world, "nothing inside is called", &forbidden, |found| {
        found.len() == 3 && found.iter().all(|each| each["state"] == "dead")
    })
    .await;
    assert!(text(&refused[0]["last_answer"]).contains("private address"));
    assert!(inside.heard().is_empty());

    let since = json!({"since": "2020-01-01T00:00:00Z"});
    let replayed = rest
        .post(&format!("destinations/{hook}/replay"), &since)
        .await;
    assert_eq!(replayed["deliveries"], 3);
    deliveries(&world, "all is told again", &hook, |found| {
        are_delivered(found, 6)
    })
    .await;
    let heard = receiver.heard();
    let (first, again) = heard[tries..].split_at(3);
    assert_eq!(column(again, "type"), events);
    assert_eq!(column(again, "alert_id"), column(first, "alert_id"));
    assert_ne!(column(again, "delivery_id"), column(first, "delivery_id"));
    world.end().await;
}

/// Posts what PagerDuty would post, and gives the status of the answer.
async fn hook(world: &World, destination: &str, secret: &str, event: &Value) -> u16 {
    let body = json!({"event": event}).to_string();
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    let signature = format!("v1={}", hex::encode(mac.finalize().into_bytes()));
    let url = format!("http://{}/hooks/pagerduty/{destination}", world.manager);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client
        .post(url)
        .header("X-PagerDuty-Signature", signature)
        .body(body);
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn an_acknowledgement_in_the_pager_is_one_here_and_all_is_told_under_one_key() {
    let world = world().await;
    let rest = world.rest();
    let receiver = Receiver::start(Vec::new()).await;
    let fields = json!({
        "routing_key": ROUTING_KEY, "url": format!("http://{}/v2/enqueue", receiver.address()), "webhook_secret": SECRET,
    });
    let pager = destination(&world, "pager", "pagerduty", fields).await;
    let finding = drift(&world).await;
    let told = async |number: usize| {
        let what = format!("{number} events are delivered");
        deliveries(&world, &what, &pager, |found| are_delivered(found, number)).await;
        receiver.heard()
    };
    let key = format!("ostiary-{finding}");
    let events = told(1).await;
    assert_eq!(events[0]["event_action"], "trigger");
    assert_eq!(events[0]["dedup_key"], key.as_str());

    let event = json!({
        "id": "E1", "event_type": "incident.acknowledged", "resource_type": "incident", "occurred_at": world.now(),
        "agent": {"type": "user_reference", "summary": "Ann"},
        "data": {"id": "P1", "type": "incident", "incident_key": key},
    });
    let state = async || rest.get(&format!("findings/{finding}")).await["state"].clone();
    assert_eq!(hook(&world, &pager, "another secret..", &event).await, 401);
    assert_eq!(state().await, "open");
    assert_eq!(hook(&world, &pager, SECRET, &event).await, 204);
    assert_eq!(state().await, "acknowledged");
    told(2).await;
    rest.post(&format!("findings/{finding}/resolve"), &json!({}))
        .await;
    let events = told(3).await;
    assert_eq!(
        column(&events, "event_action"),
        ["trigger", "acknowledge", "resolve"]
    );
    assert_eq!(column(&events, "dedup_key"), [key.as_str(); 3]);

    show_it_in_a_browser(&world, &pager).await;
    let log = world.log(Program::Worker) + &world.log(Program::Manager);
    assert!(!log.contains(ROUTING_KEY) && !log.contains(SECRET));
    world.end().await;
}

async fn show_it_in_a_browser(world: &World, pager: &str) {
    if std::env::var_os("OSTIARY_SKIP_BROWSER").is_some() {
        println!("OSTIARY_SKIP_BROWSER is set: nobody looks at the pages");
        return;
    }
    let (user, password) = world.admin();
    let input = json!({
        "manager_url": format!("http://{}", world.manager), "user": user, "password": password, "destination": pager,
    });
    let seen = run_browser("alerts.mjs", &input).await;
    assert!(
        text(&seen["tested"]).contains("The test was taken: 202"),
        "{seen}"
    );
    assert_eq!(
        text(&seen["preview"]).lines().next(),
        Some("Free Coupons on mac-7"),
        "{seen}"
    );
    assert!(text(&seen["refused"]).contains("is not closed"), "{seen}");
    let sent = text(&seen["sent"]);
    assert!(
        sent.contains("\"resolve\"") && !sent.contains(ROUTING_KEY),
        "{sent}"
    );
    assert_eq!(seen["console"], json!([]), "nothing is wrong on any page");
}

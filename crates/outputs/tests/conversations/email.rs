//! Mail: to a catcher that behaves, and to servers that do not.

use std::net::SocketAddr;

use ostiary_dev::mail::{self, MailCatcher};
use ostiary_outputs::destinations::{Kind, send_test};
use ostiary_outputs::{Options, Outbound, Templates, TestAlert};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::scripted::{Server, Step};
use crate::{
    Folder, PATIENCE, impatient, message, outbound, refused, rejected, retry, send, send_by,
    server_tls,
};

fn settings(address: SocketAddr, changes: &Value) -> Value {
    let mut settings = json!({
        "server": "localhost", "port": address.port(), "encryption": "none",
        "from": "Ostiary <ostiary@example.com>", "to": "a@example.com, b@example.com",
    });
    for (key, value) in changes.as_object().unwrap() {
        settings[key] = value.clone();
    }
    settings
}

async fn catcher(folder: &Folder, options: mail::Options) -> MailCatcher {
    let listen = "127.0.0.1:0".parse().unwrap();
    MailCatcher::start(listen, &folder.0.join("mail"), options)
        .await
        .unwrap()
}

fn login() -> Option<(String, String)> {
    Some(("ostiary".to_owned(), "pässword\u{20ac}".to_owned()))
}

/// The value of a header, its continuation lines joined.
fn header(mail: &str, name: &str) -> String {
    let head = mail.split_once("\r\n\r\n").unwrap().0.replace("\r\n ", " ");
    let found: Vec<&str> = head
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .collect();
    assert_eq!(found.len(), 1, "{name} in {head}");
    found[0].to_owned()
}

#[tokio::test]
async fn a_mail_goes_out_without_encryption() {
    let folder = Folder::new();
    let catcher = catcher(&folder, mail::Options::default()).await;
    let answer = send(
        "email",
        &settings(catcher.address(), &json!({})),
        &message(&json!({})),
    )
    .await;
    assert_eq!(answer, Ok("250 2.0.0 caught".to_owned()));
    let mails = catcher.messages().unwrap();
    assert_eq!(mails.len(), 1, "one mail for two recipients");
    let mail = &mails[0];
    assert_eq!(header(mail, "Subject"), "[high] Firewall off on mac-7");
    assert_eq!(header(mail, "From"), "Ostiary <ostiary@example.com>");
    assert_eq!(header(mail, "To"), "a@example.com, b@example.com");
    assert_eq!(header(mail, "Auto-Submitted"), "auto-generated");
    let id = "<00000000-0000-0000-0000-000000000006@example.com>";
    assert_eq!(header(mail, "Message-ID"), id);
    let thread = "<finding-00000000-0000-0000-0000-000000000009@example.com>";
    assert_eq!(header(mail, "References"), thread);
    for part in [
        "Content-Type: text/plain",
        "Content-Type: text/html",
        "global_state: 0",
    ] {
        assert!(mail.contains(part), "{part} in {mail}");
    }
}

#[tokio::test]
async fn a_mail_goes_out_by_starttls_and_by_tls_with_a_password_and_a_ca_of_ones_own() {
    for implicit_tls in [false, true] {
        let folder = Folder::new();
        let (tls, ca) = server_tls(&folder, &["localhost"]);
        let options = mail::Options {
            tls: Some(tls),
            implicit_tls,
            login: login(),
        };
        let catcher = catcher(&folder, options).await;
        let (username, password) = login().unwrap();
        let encryption = if implicit_tls { "tls" } else { "starttls" };
        let changes = json!({"encryption": encryption, "ca_certificate": ca, "username": username, "password": password});
        let result = send(
            "email",
            &settings(catcher.address(), &changes),
            &message(&json!({})),
        )
        .await;
        assert_eq!(result, Ok("250 2.0.0 caught".to_owned()), "{encryption}");
        assert_eq!(catcher.messages().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_wrong_password_is_tried_again_seldom_for_somebody_may_mend_it() {
    let folder = Folder::new();
    let (tls, ca) = server_tls(&folder, &["localhost"]);
    let options = mail::Options {
        tls: Some(tls),
        implicit_tls: false,
        login: login(),
    };
    let catcher = catcher(&folder, options).await;
    let changes = json!({"encryption": "starttls", "ca_certificate": ca, "username": "ostiary", "password": "wr0ng-one"});
    let result = send(
        "email",
        &settings(catcher.address(), &changes),
        &message(&json!({})),
    )
    .await;
    let answer = rejected(result);
    assert!(
        answer.contains("signing in failed") && answer.contains("wrong user name or password"),
        "{answer}"
    );
    assert!(!answer.contains("wr0ng-one"), "{answer}");
    assert!(catcher.messages().unwrap().is_empty());
}

#[tokio::test]
async fn a_server_that_cannot_prove_its_name_gets_nothing() {
    let folder = Folder::new();
    let (tls, ca) = server_tls(&folder, &["elsewhere.example"]);
    let (_, other_ca) = server_tls(&Folder::new(), &["localhost"]);
    for (implicit_tls, encryption) in [(false, "starttls"), (true, "tls")] {
        let options = mail::Options {
            tls: Some(tls.clone()),
            implicit_tls,
            login: None,
        };
        let catcher = catcher(&folder, options).await;
        for ca in [&ca, &other_ca] {
            let changes = json!({"encryption": encryption, "ca_certificate": ca});
            let result = send(
                "email",
                &settings(catcher.address(), &changes),
                &message(&json!({})),
            )
            .await;
            let (answer, _) = retry(result);
            assert!(answer.contains("certificate"), "{answer}");
        }
        assert!(catcher.messages().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_mail_that_should_be_encrypted_never_goes_out_readable() {
    let folder = Folder::new();
    let catcher = catcher(&folder, mail::Options::default()).await;
    let changes = json!({"encryption": "starttls"});
    let result = send(
        "email",
        &settings(catcher.address(), &changes),
        &message(&json!({})),
    )
    .await;
    assert!(retry(result).0.contains("STARTTLS"));
    assert!(catcher.messages().unwrap().is_empty());
}

#[tokio::test]
async fn transient_answers_are_tried_again_and_final_ones_are_not() {
    const TRANSIENT: [&[(&str, Step)]; 5] = [
        &[("", Step::Say("421 too busy"))],
        &[("MAIL", Step::Say("451 later"))],
        &[("RCPT", Step::Say("450 grey-listed"))],
        &[("DATA", Step::Say("452 disk full"))],
        &[(".", Step::Say("451 scanner down"))],
    ];
    for script in TRANSIENT {
        let server = Server::smtp(script).await;
        let result = send(
            "email",
            &settings(server.address, &json!({})),
            &message(&json!({})),
        )
        .await;
        let Step::Say(text) = script[0].1 else {
            unreachable!()
        };
        let (answer, _) = retry(result);
        assert!(
            answer.contains(&text[..3]) && answer.contains(&text[4..]),
            "{answer}"
        );
    }
    const FINAL: [&[(&str, Step)]; 3] = [
        &[("MAIL", Step::Say("550 sender not allowed"))],
        &[("RCPT", Step::Say("550 no such user"))],
        &[(".", Step::Say("554 looks like spam"))],
    ];
    for script in FINAL {
        let server = Server::smtp(script).await;
        let result = send(
            "email",
            &settings(server.address, &json!({})),
            &message(&json!({})),
        )
        .await;
        let Step::Say(text) = script[0].1 else {
            unreachable!()
        };
        let answer = refused(result);
        assert!(answer.contains(&text[4..]), "{answer}");
    }
    // A block of our address is of the connection, not of the mail: it may be lifted.
    let server = Server::smtp(&[("", Step::Say("554 no service for you"))]).await;
    retry(
        send(
            "email",
            &settings(server.address, &json!({})),
            &message(&json!({})),
        )
        .await,
    );
}

#[tokio::test]
async fn one_recipient_who_left_does_not_keep_the_alert_from_the_others() {
    let server = Server::smtp(&[("RCPT TO:<a@", Step::Say("550 no such user"))]).await;
    let answer = send(
        "email",
        &settings(server.address, &json!({})),
        &message(&json!({})),
    )
    .await
    .unwrap();
    assert!(
        answer.contains("a@example.com") && answer.contains("no such user"),
        "{answer}"
    );
    let heard = server.heard();
    assert!(
        heard.iter().any(|line| line == "RCPT TO:<b@example.com>"),
        "{heard:?}"
    );
    assert!(heard.iter().any(|line| line == "."), "{heard:?}");
    assert_eq!(heard.last().map(String::as_str), Some("QUIT"));
}

#[tokio::test]
async fn a_server_that_hangs_or_goes_away_is_tried_again() {
    const SCRIPTS: [&[(&str, Step)]; 6] = [
        &[("", Step::Hang)],
        &[("MAIL", Step::Hang)],
        &[(".", Step::Hang)],
        &[("", Step::Close)],
        &[("RCPT", Step::Close)],
        &[(".", Step::Close)],
    ];
    for script in SCRIPTS {
        let server = Server::smtp(script).await;
        let settings = settings(server.address, &json!({}));
        let (outbound, message) = (impatient(), message(&json!({})));
        let sent = send_by(&outbound, "email", &settings, &message);
        let sent = tokio::time::timeout(PATIENCE, sent).await;
        let (answer, _) = retry(sent.expect("it ends by itself"));
        assert!(!answer.is_empty());
    }
    let nobody = SocketAddr::from(([127, 0, 0, 1], ostiary_dev::free_port().unwrap()));
    retry(send("email", &settings(nobody, &json!({})), &message(&json!({}))).await);
}

#[tokio::test]
async fn a_mail_that_was_taken_stays_delivered_when_the_good_bye_fails() {
    const SCRIPTS: [&[(&str, Step)]; 2] = [&[("QUIT", Step::Hang)], &[("QUIT", Step::Close)]];
    for script in SCRIPTS {
        let server = Server::smtp(script).await;
        let result = send(
            "email",
            &settings(server.address, &json!({})),
            &message(&json!({})),
        )
        .await;
        assert_eq!(result, Ok("250 ok".to_owned()));
    }
}

#[tokio::test]
async fn a_mail_server_inside_is_refused_unless_the_settings_allow_it() {
    let folder = Folder::new();
    let catcher = catcher(&folder, mail::Options::default()).await;
    let strict = Outbound::new(Options::default()).unwrap();
    for server in [
        "localhost",
        "127.0.0.1",
        "127.1",
        "[::1]",
        "::ffff:127.0.0.1",
    ] {
        let settings = settings(catcher.address(), &json!({"server": server}));
        let destination = Kind::find("email").unwrap().read(&settings).ok().unwrap();
        let answer = refused(destination.send(&strict, &message(&json!({}))).await);
        assert!(answer.contains("private address"), "{answer}");
    }
    assert!(catcher.messages().unwrap().is_empty());
}

#[tokio::test]
async fn what_nodes_and_rules_say_cannot_get_into_headers_or_forge_lines() {
    let folder = Folder::new();
    let catcher = catcher(&folder, mail::Options::default()).await;
    let hostile = message(&json!({
        "/rule/name": "Grün \u{20ac}\r\nBcc: all@example.com",
        "/node/name": "n\r\n\r\nX-Own: 1\u{202e}",
        "/entity": "e\nFinding:    https://evil.example",
        "/columns": {"k\r\n.\r\nMAIL FROM:<x@y>": "v\r\n.\r\nRCPT TO:<z@y>"},
    }));
    send("email", &settings(catcher.address(), &json!({})), &hostile)
        .await
        .unwrap();
    let mails = catcher.messages().unwrap();
    assert_eq!(mails.len(), 1);
    let (head, body) = mails[0].split_once("\r\n\r\n").unwrap();
    assert!(head.is_ascii(), "{head}");
    for line in head.lines() {
        assert!(
            !line.starts_with("Bcc") && !line.starts_with("X-Own"),
            "{head}"
        );
    }
    assert!(header(&mails[0], "Subject").contains("=?utf-8?"), "{head}");
    let text = decode_text_part(body);
    assert!(
        text.contains("Grün \u{20ac}  Bcc: all@example.com"),
        "{text}"
    );
    for line in text.lines() {
        assert!(
            !line.starts_with("Finding:    https://evil"),
            "a forged line in {text}"
        );
    }
}

/// The text/plain part, whatever its encoding.
fn decode_text_part(body: &str) -> String {
    let part = body
        .split("Content-Type: text/plain")
        .nth(1)
        .unwrap()
        .split("\r\n--")
        .next()
        .unwrap();
    let (head, text) = part.split_once("\r\n\r\n").unwrap();
    if head.contains("quoted-printable") {
        let joined = text.replace("=\r\n", "");
        let mut bytes = Vec::new();
        let mut rest = joined.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            if byte == b'=' {
                let hex = std::str::from_utf8(&after[..2]).unwrap();
                bytes.push(u8::from_str_radix(hex, 16).unwrap());
                rest = &after[2..];
            } else {
                bytes.push(byte);
                rest = after;
            }
        }
        return String::from_utf8(bytes).unwrap();
    }
    assert!(head.contains("7bit"), "{head}");
    text.to_owned()
}

#[tokio::test]
async fn a_test_alert_says_that_it_is_one() {
    let folder = Folder::new();
    let catcher = catcher(&folder, mail::Options::default()).await;
    let test = TestAlert {
        id: Uuid::from_u128(8).into(),
        destination: "security mail",
        url: "https://m.example/destinations",
        templates: &Templates::default(),
        now: message(&json!({})).now,
    };
    let settings = settings(catcher.address(), &json!({}));
    send_test(&outbound(), Kind::find("email").unwrap(), &settings, &test)
        .await
        .unwrap();
    let mails = catcher.messages().unwrap();
    assert_eq!(
        header(&mails[0], "Subject"),
        "[info] Test alert on no node (test)"
    );
    assert!(mails[0].contains("Nothing has happened."), "{}", mails[0]);
}

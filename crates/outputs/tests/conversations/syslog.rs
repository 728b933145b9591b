//! Syslog over UDP, TCP and TLS, to sockets of our own. That rsyslog understands it is shown by a journey.

use ostiary_outputs::destinations::Kind;
use ostiary_outputs::{Message, Options, Outbound};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, UdpSocket};
use tokio_rustls::TlsAcceptor;

use crate::{Folder, message, outbound, refused, retry, send, server_tls};

fn settings(port: u16, transport: &str, ca: &str) -> Value {
    json!({"server": "localhost", "port": port, "transport": transport, "facility": "local3", "ca_certificate": ca})
}

/// What the message of `main.rs` looks like: facility 19, severity 3.
const EXPECTED: &str = "<155>1 2027-01-15T08:00:01.000000Z m.example ostiary - finding.opened [ostiary@32473 \
    delivery=\"00000000-0000-0000-0000-000000000006\" finding=\"00000000-0000-0000-0000-000000000009\" kind=\"opened\" severity=\"high\" \
    rule=\"Firewall off\" node=\"mac-7\" entity=\"global_state=0\" query=\"pack/demo/firewall\" url=\"https://m.example/findings/1\"] \
    [high] Firewall off on mac-7: global_state=0";

fn hostile() -> Message {
    message(&json!({
        "/rule/name": "r\n<0>1 - forged - - - -", "/node/name": "n\"]\\", "/entity": "e\u{0}\u{202e}\r\n",
    }))
}

#[tokio::test]
async fn an_alert_goes_out_over_udp() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let mut settings = settings(port, "udp", "");
    settings["server"] = "127.0.0.1".into();
    send("syslog", &settings, &message(&json!({})))
        .await
        .unwrap();
    let mut bytes = [0; 9000];
    let length = socket.recv(&mut bytes).await.unwrap();
    assert_eq!(std::str::from_utf8(&bytes[..length]).unwrap(), EXPECTED);
}

#[tokio::test]
async fn a_frame_says_its_length_and_nothing_in_it_begins_another() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = settings(listener.local_addr().unwrap().port(), "tcp", "");
    settings["server"] = "127.0.0.1".into();
    let sender = tokio::spawn(async move { send("syslog", &settings, &hostile()).await });
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    drop(stream);
    sender.await.unwrap().unwrap();
    let (length, line) = text.split_once(' ').unwrap();
    assert_eq!(length.parse(), Ok(line.len()));
    assert!(
        !line.contains(char::is_control) && !line.contains('\u{202e}'),
        "{line:?}"
    );
    assert!(line.contains(r#"node="n\"\]\\""#), "{line}");
}

#[tokio::test]
async fn over_tls_the_server_must_prove_its_name() {
    let folder = Folder::new();
    for (name, is_good) in [("localhost", true), ("elsewhere.example", false)] {
        let (tls, ca) = server_tls(&folder, &[name]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = settings(listener.local_addr().unwrap().port(), "tls", &ca);
        let sender =
            tokio::spawn(async move { send("syslog", &settings, &message(&json!({}))).await });
        let (stream, _) = listener.accept().await.unwrap();
        let shaken = TlsAcceptor::from(tls).accept(stream).await;
        if is_good {
            let mut stream = shaken.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            drop(stream);
            assert_eq!(text, format!("{} {EXPECTED}", EXPECTED.len()));
            sender.await.unwrap().unwrap();
        } else {
            assert!(shaken.is_err());
            let (answer, _) = retry(sender.await.unwrap());
            assert!(answer.contains("TLS with localhost failed"), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_server_inside_is_refused_over_every_transport() {
    let strict = Outbound::new(Options::default()).unwrap();
    assert!(outbound().connector.resolve("127.0.0.1", 1).await.is_ok());
    for transport in ["udp", "tcp", "tls"] {
        let kind = Kind::find("syslog").unwrap();
        let destination = kind.read(&settings(514, transport, "")).ok().unwrap();
        let answer = refused(destination.send(&strict, &message(&json!({}))).await);
        assert!(answer.contains("private address"), "{answer}");
    }
}

//! Kafka: messages to the mock cluster of librdkafka, read back by librdkafka; and what no mock cluster does, by a broker made here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, MetadataRequest, MetadataResponse, ResponseHeader,
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::{
    Decodable as _, Encodable, HeaderVersion, StrBytes, decode_request_header_from_buffer,
};
use ostiary_dev::kafka::Kafka;
use ostiary_outputs::sinks::{NodeOfRecord, Record};
use ostiary_outputs::{Options, Outbound, SendError};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::Folder;
use crate::sinks::{record, sink, way};

const NODES: u32 = 12;

/// A line of one of twelve nodes.
fn line(number: u32) -> Record {
    let record = record(number);
    let node = record.node.as_deref().unwrap().clone();
    let id = Uuid::from_u128(u128::from(number % NODES));
    Record {
        node: Some(Arc::new(NodeOfRecord { id, ..node })),
        ..record
    }
}

#[tokio::test]
async fn messages_of_a_node_lie_in_one_partition_in_their_order() {
    let folder = Folder::new();
    let cluster = Kafka::start(&folder.0).await.unwrap();
    let lines: Vec<Record> = (0..1200).map(line).collect();
    for compression in ["gzip", "none"] {
        let topic = format!("ostiary.{compression}");
        // The first of them is down.
        let brokers = format!("127.0.0.1:1,{}", cluster.brokers);
        let settings = json!({"brokers": brokers, "topic": topic, "encryption": "none", "compression": compression});
        let mut kafka = sink("kafka", &settings);
        // Twice on the same connections, once on others.
        for part in [&lines[..700], &lines[700..1000]] {
            kafka.forward(&way(true), part).await.unwrap();
        }
        let mut another = sink("kafka", &settings);
        another.forward(&way(true), &lines[1000..]).await.unwrap();
        let mut of_nodes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut partitions: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
        for message in cluster.messages(&topic).await.unwrap() {
            let texts = of_nodes.entry(message.key.clone()).or_default();
            texts.push(message.text);
            let places = partitions.entry(message.key).or_default();
            places.insert(message.partition);
        }
        assert!(partitions.values().all(|places| places.len() == 1));
        let used: BTreeSet<u32> = partitions.into_values().flatten().collect();
        assert!(used.len() > 1, "keys are spread");
        let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in &lines {
            let node = line.node.as_ref().unwrap().id.to_string();
            expected.entry(node).or_default().push(line.to_json_line());
        }
        assert_eq!(of_nodes, expected, "{compression}");
    }
    cluster.stop().await;
}

/// A broker that demands a password and names a leader that lies elsewhere.
async fn broker(leader: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move { while answer(&mut stream, leader).await.is_some() {} });
        }
    });
    port
}

/// Answers one request; `None` when there is none.
async fn answer(stream: &mut TcpStream, leader: &'static str) -> Option<()> {
    let length = stream.read_i32().await.ok()?;
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut bytes).await.ok()?;
    let mut bytes = Bytes::from(bytes);
    let header = decode_request_header_from_buffer(&mut bytes).unwrap();
    let version = header.request_api_version;
    let number = header.correlation_id;
    let text = StrBytes::from_static_str;
    let answer = match ApiKey::try_from(header.request_api_key).unwrap() {
        ApiKey::ApiVersions => {
            let known = |key: ApiKey, highest| {
                let api = ApiVersion::default().with_api_key(key as i16);
                api.with_max_version(highest)
            };
            let known = vec![
                known(ApiKey::Metadata, 8),
                known(ApiKey::Produce, 8),
                known(ApiKey::SaslHandshake, 1),
                known(ApiKey::SaslAuthenticate, 1),
            ];
            written(
                number,
                version,
                &ApiVersionsResponse::default().with_api_keys(known),
            )
        }
        ApiKey::SaslHandshake => {
            let asked = SaslHandshakeRequest::decode(&mut bytes, version).unwrap();
            assert_eq!(&*asked.mechanism, "PLAIN");
            let offered = vec![text("PLAIN")];
            written(
                number,
                version,
                &SaslHandshakeResponse::default().with_mechanisms(offered),
            )
        }
        ApiKey::SaslAuthenticate => {
            let asked = SaslAuthenticateRequest::decode(&mut bytes, version).unwrap();
            let response = SaslAuthenticateResponse::default();
            let response = if &asked.auth_bytes[..] == b"\0ada\0s3cret" {
                response
            } else {
                let told = Some(text("Authentication failed"));
                // SASL_AUTHENTICATION_FAILED
                response.with_error_code(58).with_error_message(told)
            };
            written(number, version, &response)
        }
        ApiKey::Metadata => {
            let asked = MetadataRequest::decode(&mut bytes, version).unwrap();
            let name = asked.topics.unwrap()[0].name.clone();
            let broker = MetadataResponseBroker::default()
                .with_node_id(7.into())
                .with_host(text(leader))
                .with_port(9092);
            let partition = MetadataResponsePartition::default().with_leader_id(7.into());
            let topic = MetadataResponseTopic::default().with_name(name);
            let topic = topic.with_partitions(vec![partition]);
            let response = MetadataResponse::default().with_brokers(vec![broker]);
            written(number, version, &response.with_topics(vec![topic]))
        }
        other => panic!("{other:?} was not to be asked"),
    };
    stream.write_all(&answer).await.ok()
}

fn written<R: Encodable + HeaderVersion>(number: i32, version: i16, response: &R) -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.put_i32(0);
    let header = ResponseHeader::default().with_correlation_id(number);
    (header.encode(&mut bytes, R::header_version(version))).unwrap();
    response.encode(&mut bytes, version).unwrap();
    let length = i32::try_from(bytes.len() - 4).unwrap();
    (&mut bytes[..4]).put_i32(length);
    assert!(bytes.remaining() > 4);
    bytes
}

async fn refusal(settings: &Value) -> SendError {
    let options = Options {
        allowed_networks: vec!["127.0.0.1/32".parse().unwrap()],
        ..Options::default()
    };
    let mut way = way(false);
    way.outbound = Outbound::new(options).unwrap();
    let mut kafka = sink("kafka", settings);
    kafka.forward(&way, &[record(1)]).await.unwrap_err()
}

#[tokio::test]
async fn a_broker_is_told_the_password_and_an_address_that_it_announces_is_not_trusted() {
    let port = broker("10.0.0.1").await;
    let settings = |password: &str| json!({"brokers": format!("127.0.0.1:{port}"), "topic": "t", "encryption": "none", "username": "ada", "password": password, "compression": "none"});
    let wrong = refusal(&settings("guessed")).await;
    let told = SendError::Rejected {
        answer: "Authentication failed".into(),
    };
    assert_eq!(wrong, told);
    let inward = refusal(&settings("s3cret")).await;
    assert!(
        matches!(&inward, SendError::Refused { answer } if answer.contains("10.0.0.1 lies on a private address")),
        "{inward:?}"
    );
}

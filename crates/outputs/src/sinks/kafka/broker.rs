//! One connection to one broker: requests, each answered before the next.

use std::collections::HashMap;
use std::fmt;

use bytes::{BufMut as _, Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{
    ApiVersionsRequest, RequestHeader, ResponseHeader, SaslAuthenticateRequest,
    SaslHandshakeRequest,
};
use kafka_protocol::protocol::{
    Decodable as _, Encodable as _, HeaderVersion as _, Request, StrBytes,
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::stream::{Stream, broken};
use crate::{Connector, SendError, Trust};

/// The longest answer that is read: metadata of a topic, or a word about each partition.
const LONGEST_ANSWER: usize = 1 << 20;
const API_VERSIONS: (i16, i16) = (0, 0);
const SASL_HANDSHAKE: (i16, i16) = (1, 1);
const SASL_AUTHENTICATE: (i16, i16) = (0, 1);

/// Where a broker listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// How brokers are spoken to.
pub(crate) struct Access {
    /// By TLS, or in the clear.
    pub(crate) trust: Option<Trust>,
    /// User name and password, told by SASL's PLAIN.
    pub(crate) login: Option<(String, SecretString)>,
}

/// A connection to a broker.
pub(super) struct Broker {
    stream: Box<dyn Stream>,
    next: i32,
    /// By the key of a request, which versions the broker knows.
    versions: HashMap<i16, (i16, i16)>,
}

impl Broker {
    /// Connects, asks which versions are known, and says who we are.
    pub(super) async fn connect(
        connector: &Connector,
        access: &Access,
        address: &Address,
    ) -> Result<Self, SendError> {
        let (host, port) = (&address.host, address.port);
        let stream: Box<dyn Stream> = match &access.trust {
            Some(trust) => Box::new(connector.tls(host, port, trust).await?),
            None => Box::new(connector.tcp(host, port).await?),
        };
        let mut broker = Self {
            stream,
            next: 0,
            versions: HashMap::from([(ApiVersionsRequest::KEY, API_VERSIONS)]),
        };
        let known = broker
            .ask(API_VERSIONS, &ApiVersionsRequest::default())
            .await?;
        let known = known.api_keys.iter();
        broker.versions = known
            .map(|api| (api.api_key, (api.min_version, api.max_version)))
            .collect();
        if let Some((user, password)) = &access.login {
            broker.log_in(user, password).await?;
        }
        Ok(broker)
    }

    async fn log_in(&mut self, user: &str, password: &SecretString) -> Result<(), SendError> {
        let mechanism = StrBytes::from_static_str("PLAIN");
        let request = SaslHandshakeRequest::default().with_mechanism(mechanism);
        let answer = self.ask(SASL_HANDSHAKE, &request).await?;
        if ResponseError::try_from_code(answer.error_code).is_some() {
            let offered: Vec<&str> = answer.mechanisms.iter().map(|one| &**one).collect();
            return Err(SendError::rejected(format!(
                "the broker does not take PLAIN, but {}",
                offered.join(", ")
            )));
        }
        // RFC 4616: nobody to act for, who, and the proof.
        let words = format!("\0{user}\0{}", password.expose_secret());
        let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(words));
        let answer = self.ask(SASL_AUTHENTICATE, &request).await?;
        match ResponseError::try_from_code(answer.error_code) {
            None => Ok(()),
            Some(error) => {
                let told = answer.error_message.map(|text| text.to_string());
                Err(SendError::rejected(
                    told.unwrap_or_else(|| error.to_string()),
                ))
            }
        }
    }

    /// Asks, in the newest of our versions that the broker knows, and waits for the answer.
    pub(super) async fn ask<R: Request>(
        &mut self,
        ours: (i16, i16),
        request: &R,
    ) -> Result<R::Response, SendError> {
        let (lowest, highest) = self.versions.get(&R::KEY).copied().unwrap_or((0, -1));
        let version = highest.min(ours.1);
        if version < lowest.max(ours.0) {
            return Err(SendError::rejected(
                "the broker and we have no version of the protocol in common",
            ));
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(number)
            .with_client_id(Some(StrBytes::from_static_str("ostiary")));
        let mut bytes = BytesMut::new();
        bytes.put_i32(0);
        (header.encode(&mut bytes, R::header_version(version))).map_err(odd)?;
        request.encode(&mut bytes, version).map_err(odd)?;
        let length = i32::try_from(bytes.len() - 4).map_err(odd)?;
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&bytes).await.map_err(broken)?;
        self.stream.flush().await.map_err(broken)?;
        let mut answer = self.answer().await?;
        let header_version = R::Response::header_version(version);
        let header = ResponseHeader::decode(&mut answer, header_version).map_err(odd)?;
        if header.correlation_id != number {
            return Err(odd("it answers what was not asked"));
        }
        R::Response::decode(&mut answer, version).map_err(odd)
    }

    async fn answer(&mut self) -> Result<Bytes, SendError> {
        let length = self.stream.read_i32().await.map_err(broken)?;
        let length = usize::try_from(length).ok();
        let length = length.filter(|length| *length <= LONGEST_ANSWER);
        let mut answer = vec![0; length.ok_or_else(|| odd("its answer is too long"))?];
        self.stream.read_exact(&mut answer).await.map_err(broken)?;
        Ok(answer.into())
    }
}

/// The other side is no Kafka broker, or not as we know them.
pub(super) fn odd(why: impl fmt::Display) -> SendError {
    SendError::retry(format!("the server does not speak as Kafka does: {why}"))
}

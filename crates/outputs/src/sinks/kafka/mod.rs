//! A producer of Kafka, as small as a sink needs it: who leads which partition of a topic, and batches of records to these leaders.
//!
//! Source: kafka.apache.org/protocol, "Kafka protocol guide" (Network, Protocol Primitives, The Messages), and
//! kafka.apache.org/documentation/#recordbatch. The bytes are made by the crate `kafka_protocol`; the connections are our own, since
//! the clients there are look names up themselves and follow the addresses that brokers announce, past our check of where may be
//! connected to. Brokers are chosen by admins: what one says is bounded in its length, and believed otherwise.

mod broker;
mod murmur;

use std::collections::{BTreeMap, HashMap};

use bytes::{Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, ProduceRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, Record,
    RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

pub(crate) use broker::{Access, Address};
use broker::{Broker, odd};

use crate::{Connector, SendError};

/// Versions of requests that are known here; 10 of metadata and 13 of produce would name topics by ids.
const METADATA: (i16, i16) = (1, 9);
const PRODUCE: (i16, i16) = (3, 9);
/// How long a leader may wait for its followers, in milliseconds.
const FOLLOWERS: i32 = 10_000;

/// A message for a topic.
#[derive(Debug)]
pub(crate) struct Message {
    /// Messages of one key come into one partition, and keep their order there.
    pub(crate) key: String,
    /// When it happened, in milliseconds since 1970.
    pub(crate) at: i64,
    pub(crate) text: String,
}

/// A topic, and the brokers that lead its partitions.
pub(crate) struct Topic {
    name: TopicName,
    addresses: HashMap<i32, Address>,
    /// By the number of the partition.
    leaders: Vec<i32>,
    open: HashMap<i32, Broker>,
}

impl Topic {
    /// Asks the first broker that answers who leads the partitions of a topic.
    ///
    /// # Errors
    /// None answers, or there is no such topic, or a partition has no leader at the moment.
    pub(crate) async fn find(
        connector: &Connector,
        access: &Access,
        brokers: &[Address],
        name: &str,
    ) -> Result<Self, SendError> {
        let name = TopicName(StrBytes::from_string(name.to_owned()));
        let mut last = SendError::rejected("no broker is named");
        for address in brokers {
            let answer = async {
                let mut broker = Broker::connect(connector, access, address).await?;
                ask_leaders(&mut broker, &name).await
            };
            match answer.await {
                Ok(answer) => return Self::read(name, answer),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn read(name: TopicName, answer: MetadataResponse) -> Result<Self, SendError> {
        let topic = answer.topics.into_iter().next().ok_or_else(|| odd(""))?;
        judge(topic.error_code, &name)?;
        let leaders = leaders_of(&topic)?;
        let address =
            |broker: &kafka_protocol::messages::metadata_response::MetadataResponseBroker| {
                Some(Address {
                    host: broker.host.to_string(),
                    port: u16::try_from(broker.port).ok()?,
                })
            };
        let addresses: HashMap<i32, Address> = (answer.brokers.iter())
            .filter_map(|broker| Some((*broker.node_id, address(broker)?)))
            .collect();
        if leaders.iter().any(|leader| !addresses.contains_key(leader)) {
            return Err(SendError::retry("a leader has no address at the moment"));
        }
        Ok(Self {
            name,
            addresses,
            leaders,
            open: HashMap::new(),
        })
    }

    /// Hands messages over, in their order within each partition; all of them are on all followers that are in step when it returns.
    ///
    /// # Errors
    /// Not all of them are.
    pub(crate) async fn produce(
        &mut self,
        connector: &Connector,
        access: &Access,
        compression: Compression,
        messages: &[Message],
    ) -> Result<(), SendError> {
        let mut of_partitions: BTreeMap<usize, Vec<&Message>> = BTreeMap::new();
        for message in messages {
            let partition = murmur::partition(message.key.as_bytes(), self.leaders.len());
            of_partitions.entry(partition).or_default().push(message);
        }
        let mut of_leaders: BTreeMap<i32, Vec<PartitionProduceData>> = BTreeMap::new();
        for (partition, messages) in of_partitions {
            let index = i32::try_from(partition).map_err(odd)?;
            let data = PartitionProduceData::default()
                .with_index(index)
                .with_records(Some(batch(&messages, compression)?));
            (of_leaders.entry(self.leaders[partition]).or_default()).push(data);
        }
        for (leader, data) in of_leaders {
            self.hand_over(connector, access, leader, data).await?;
        }
        Ok(())
    }

    async fn hand_over(
        &mut self,
        connector: &Connector,
        access: &Access,
        leader: i32,
        data: Vec<PartitionProduceData>,
    ) -> Result<(), SendError> {
        let mut broker = match self.open.remove(&leader) {
            Some(broker) => broker,
            None => Broker::connect(connector, access, &self.addresses[&leader]).await?,
        };
        let asked = data.len();
        let data = TopicProduceData::default()
            .with_name(self.name.clone())
            .with_partition_data(data);
        let request = ProduceRequest::default()
            // All followers that are in step.
            .with_acks(-1)
            .with_timeout_ms(FOLLOWERS)
            .with_topic_data(vec![data]);
        let answer = broker.ask(PRODUCE, &request).await?;
        let answers = (answer.responses.iter()).flat_map(|topic| &topic.partition_responses);
        let mut answered = 0;
        for partition in answers {
            judge(partition.error_code, &self.name)?;
            answered += 1;
        }
        if answered != asked {
            return Err(odd("it forgets partitions"));
        }
        // Kept only if all went well.
        self.open.insert(leader, broker);
        Ok(())
    }
}

async fn ask_leaders(broker: &mut Broker, name: &TopicName) -> Result<MetadataResponse, SendError> {
    let topic = MetadataRequestTopic::default().with_name(Some(name.clone()));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![topic]))
        // If the brokers' own settings allow that as well.
        .with_allow_auto_topic_creation(true);
    broker.ask(METADATA, &request).await
}

/// The leaders of all partitions, by their numbers.
fn leaders_of(topic: &MetadataResponseTopic) -> Result<Vec<i32>, SendError> {
    let mut leaders = vec![None; topic.partitions.len()];
    for partition in &topic.partitions {
        let index = usize::try_from(partition.partition_index).ok();
        let place = index.and_then(|index| leaders.get_mut(index));
        *place.ok_or_else(|| odd("its partitions are not numbered"))? = Some(*partition.leader_id);
    }
    let leaders: Option<Vec<i32>> = (leaders.into_iter())
        .map(|leader| leader.filter(|leader| *leader >= 0))
        .collect();
    match leaders {
        Some(leaders) if !leaders.is_empty() => Ok(leaders),
        // With one left out, keys would come into other partitions than before.
        _ => Err(SendError::retry("a partition has no leader at the moment")),
    }
}

/// What a code of an answer says of the messages.
fn judge(code: i16, topic: &TopicName) -> Result<(), SendError> {
    let Some(error) = ResponseError::try_from_code(code) else {
        return Ok(());
    };
    let text = format!("topic {}: {error}", topic.0);
    Err(match error {
        ResponseError::MessageTooLarge
        | ResponseError::RecordListTooLarge
        | ResponseError::InvalidRecord => SendError::refused(text),
        error if error.is_retriable() => SendError::retry(text),
        _ => SendError::rejected(text),
    })
}

/// A batch of records, as it lies in Kafka's log.
fn batch(messages: &[&Message], compression: Compression) -> Result<Bytes, SendError> {
    let records: Vec<Record> = (0_i64..)
        .zip(messages)
        .map(|(offset, message)| Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            timestamp_type: TimestampType::Creation,
            offset,
            // The library divides a batch where these two do not grow together.
            sequence: i32::try_from(offset).map_or(NO_SEQUENCE, |offset| NO_SEQUENCE + offset),
            timestamp: message.at,
            key: Some(Bytes::from(message.key.clone())),
            value: Some(Bytes::from(message.text.clone())),
            headers: Default::default(),
        })
        .collect();
    let options = RecordEncodeOptions {
        version: 2,
        compression,
    };
    let mut bytes = BytesMut::new();
    RecordBatchEncoder::encode(&mut bytes, &records, &options).map_err(SendError::refused)?;
    Ok(bytes.freeze())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::records::RecordBatchDecoder;

    use super::*;

    #[test]
    fn messages_become_one_batch_without_a_producer() {
        let message = |n: i64| Message {
            key: format!("node {n}"),
            at: 1_795_253_405_250 + n,
            text: format!("{{\"n\":{n}}}"),
        };
        let messages: Vec<Message> = (0..3).map(message).collect();
        let messages: Vec<&Message> = messages.iter().collect();
        for compression in [Compression::None, Compression::Gzip] {
            let mut bytes = batch(&messages, compression).unwrap();
            let info = RecordBatchDecoder::decode_batch_info(&mut bytes.clone()).unwrap();
            assert_eq!(info.len(), 1, "a broker takes no more than one");
            assert_eq!(
                (
                    info[0].record_count,
                    info[0].producer_id,
                    info[0].base_sequence
                ),
                (3, -1, -1)
            );
            let read = RecordBatchDecoder::decode(&mut bytes).unwrap().records;
            let texts: Vec<_> = read.iter().map(|one| one.value.clone().unwrap()).collect();
            assert_eq!(texts, ["{\"n\":0}", "{\"n\":1}", "{\"n\":2}"]);
            assert_eq!(read[2].timestamp, 1_795_253_405_252);
            assert_eq!(read[2].key.as_deref(), Some(&b"node 2"[..]));
        }
    }

    #[test]
    fn codes_tell_whether_messages_or_settings_are_to_blame() {
        let topic = TopicName(StrBytes::from_static_str("logs"));
        assert_eq!(judge(0, &topic), Ok(()));
        let kind = |code| judge(code, &topic).unwrap_err();
        // MESSAGE_TOO_LARGE, NOT_LEADER_OR_FOLLOWER, TOPIC_AUTHORIZATION_FAILED
        assert!(matches!(kind(10), SendError::Refused { .. }));
        assert!(matches!(kind(6), SendError::Retry { .. }));
        assert!(matches!(kind(29), SendError::Rejected { .. }));
    }
}

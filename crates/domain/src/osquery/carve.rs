//! `/carve/start` and `/carve/continue`: what nodes say about a carve. Whether one is taken is decided in `carve`.
//!
//! osqueryd reads neither `error` nor `node_invalid` on these endpoints (`osquery/carver/carver.cpp::postCarve`): a start fails for want
//! of `session_id`, a block by a body that is no JSON or by a closed connection. Any JSON, and an empty body, says "stored".

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::json::Members;
use super::{RequestError, object_members, unsigned_of};

/// Why a body of these endpoints cannot be meant.
#[derive(Debug, thiserror::Error)]
pub enum CarveRequestError {
    /// It is no JSON object, or says nothing of who sends it.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A member is missing or empty.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A member is no whole number from 0 on, neither as a number nor as a text (before osquery 3.2).
    #[error("{0} is not a whole number")]
    NotANumber(&'static str),
    /// A member is longer than anything that osqueryd makes, or holds other than visible ASCII.
    #[error("{0} is not an id")]
    NotAnId(&'static str),
    /// The data are not padded standard base64.
    #[error("data is not base64")]
    NotBase64,
}

/// The longest id that is believed, in bytes; osqueryd makes GUIDs of 36.
const MAX_ID: usize = 128;

/// The body of `/carve/start`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarveStart {
    /// The node key, `""` when the node is not enrolled.
    pub node_key: String,
    /// The GUID that the node gave the carve: `carves.carve_guid` of the query's result.
    pub carve_id: String,
    /// From osquery 2.4.4 on; until 4.6 the id of the distributed query, since a random one. Empty when missing or odd.
    pub request_id: String,
    /// How many blocks will come.
    pub block_count: u64,
    /// Bytes of each block but the last.
    pub block_size: u64,
    /// Bytes of all blocks together.
    pub carve_size: u64,
}

impl CarveStart {
    /// Reads a sanitised body; `header_key` is the key of the `Authorization` header, used when the body has none.
    ///
    /// # Errors
    /// The body is no JSON object, no node key is to be found, or a member is missing or odd.
    pub fn parse(text: &str, header_key: Option<&str>) -> Result<Self, CarveRequestError> {
        let members = object_members(text).map_err(RequestError::from)?;
        Ok(Self {
            node_key: members.node_key(header_key)?.into_owned(),
            carve_id: id(&members, "carve_id")?.into_owned(),
            request_id: id(&members, "request_id").unwrap_or_default().into_owned(),
            block_count: number(&members, "block_count")?,
            block_size: number(&members, "block_size")?,
            carve_size: number(&members, "carve_size")?,
        })
    }
}

/// The body of `/carve/continue`: one block. It says by its session only who sends it.
#[derive(Debug, PartialEq, Eq)]
pub struct CarveBlock<'a> {
    /// What the start was answered with.
    pub session_id: Cow<'a, str>,
    /// Which block, from 0 on.
    pub block_id: u64,
    data: Cow<'a, str>,
}

impl<'a> CarveBlock<'a> {
    /// Reads a sanitised body.
    ///
    /// # Errors
    /// The body is no JSON object, or a member is missing or odd.
    pub fn parse(text: &'a str) -> Result<Self, CarveRequestError> {
        let members = object_members(text).map_err(RequestError::from)?;
        Ok(Self {
            session_id: id(&members, "session_id")?,
            block_id: number(&members, "block_id")?,
            data: members
                .text("data")
                .filter(|data| !data.is_empty())
                .ok_or(CarveRequestError::Missing("data"))?,
        })
    }

    /// How many bytes the data are at most, without looking at them.
    #[must_use]
    pub fn data_len_at_most(&self) -> usize {
        self.data.len() / 4 * 3 + 3
    }

    /// The bytes of the block.
    ///
    /// # Errors
    /// They are not padded standard base64, to the last bit.
    pub fn decode_data(&self) -> Result<Vec<u8>, CarveRequestError> {
        STANDARD
            .decode(self.data.as_bytes())
            .map_err(|_| CarveRequestError::NotBase64)
    }
}

/// The answer to a start that is taken.
#[derive(Debug, Clone, Serialize)]
pub struct CarveStarted {
    /// Not empty, and known to nobody else: it is all that a block says of its sender before osquery 5.23.
    pub session_id: String,
}

/// The answer to a block that is stored.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct BlockStored {}

fn id<'a>(members: &Members<'a>, key: &'static str) -> Result<Cow<'a, str>, CarveRequestError> {
    let text = members
        .text(key)
        .filter(|text| !text.is_empty())
        .ok_or(CarveRequestError::Missing(key))?;
    if text.len() <= MAX_ID && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text)
    } else {
        Err(CarveRequestError::NotAnId(key))
    }
}

fn number(members: &Members<'_>, key: &'static str) -> Result<u64, CarveRequestError> {
    let value = members.get(key).ok_or(CarveRequestError::Missing(key))?;
    unsigned_of(value).ok_or(CarveRequestError::NotANumber(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUID: &str = "0f2e4c1d-1111-4222-8333-444455556666";

    #[test]
    fn k1_to_k3_numbers_are_numbers_or_texts_and_the_request_id_may_be_missing() {
        let modern = format!(
            r#"{{"block_count":13,"block_size":8192,"carve_size":100352,"carve_id":"{GUID}","request_id":"r-1","node_key":"K"}}"#
        );
        let start = CarveStart::parse(&modern, None).unwrap();
        assert_eq!(
            start,
            CarveStart {
                node_key: "K".into(),
                carve_id: GUID.into(),
                request_id: "r-1".into(),
                block_count: 13,
                block_size: 8192,
                carve_size: 100_352,
            }
        );
        let old = format!(
            r#"{{"block_count":"13","block_size":"8192","carve_size":"100352","carve_id":"{GUID}","node_key":"K"}}"#
        );
        let start = CarveStart::parse(&old, None).unwrap();
        assert_eq!((start.block_count, start.request_id.as_str()), (13, ""));
        let keyless = modern.replace(r#","node_key":"K""#, "");
        assert_eq!(
            CarveStart::parse(&keyless, Some("H")).unwrap().node_key,
            "H"
        );
        assert!(CarveStart::parse(&keyless, None).is_err());
    }

    #[test]
    fn a_start_that_cannot_be_meant_names_what_is_wrong() {
        let says = |body: &str| CarveStart::parse(body, Some("K")).unwrap_err().to_string();
        assert_eq!(says(r#"{"block_count":1}"#), "carve_id is missing");
        assert_eq!(
            says(r#"{"carve_id":"a","block_size":1,"carve_size":1}"#),
            "block_count is missing"
        );
        for odd in ["-1", "1.5", "\"x\"", "\"\"", "null", "[1]", "1e999"] {
            let body =
                format!(r#"{{"carve_id":"a","block_count":{odd},"block_size":1,"carve_size":1}}"#);
            assert_eq!(says(&body), "block_count is not a whole number", "{odd}");
        }
        assert_eq!(says(r#"{"carve_id":"a b"}"#), "carve_id is not an id");
        assert_eq!(says(r#"{"carve_id":"a\nb"}"#), "carve_id is not an id");
        let long = format!(r#"{{"carve_id":"{}"}}"#, "a".repeat(129));
        assert_eq!(says(&long), "carve_id is not an id");
        assert!(says("[]").contains("not a JSON object"));
    }

    #[test]
    fn a_block_is_read_also_as_the_writer_of_osquery_2_escaped_it() {
        for body in [
            r#"{"block_id":0,"session_id":"S","request_id":"r","data":"/+8="}"#,
            r#"{"block_id":"0","session_id":"S","request_id":"","data":"\/+8="}"#,
        ] {
            let block = CarveBlock::parse(body).unwrap();
            assert_eq!((block.session_id.as_ref(), block.block_id), ("S", 0));
            assert_eq!(block.decode_data().unwrap(), [0xff, 0xef]);
            assert!(block.data_len_at_most() >= 2);
        }
    }

    #[test]
    fn k12_only_whole_base64_is_taken() {
        for bad in [
            "/+8", "/-8=", "/+9=", "/+8=\\n", " /+8=", "/+8=x", "====", "\u{fffd}",
        ] {
            let body = format!(r#"{{"block_id":0,"session_id":"S","data":"{bad}"}}"#);
            let error = CarveBlock::parse(&body).unwrap().decode_data().unwrap_err();
            assert_eq!(error.to_string(), "data is not base64", "{bad}");
        }
        for none in [r#""""#, "null"] {
            let body = format!(r#"{{"block_id":0,"session_id":"S","data":{none}}}"#);
            let error = CarveBlock::parse(&body).unwrap_err();
            assert_eq!(error.to_string(), "data is missing");
        }
    }

    #[test]
    fn answers_are_written_to_the_letter() {
        let started = CarveStarted {
            session_id: "S".into(),
        };
        assert_eq!(
            serde_json::to_string(&started).unwrap(),
            r#"{"session_id":"S"}"#
        );
        assert_eq!(
            serde_json::to_string(&BlockStored::default()).unwrap(),
            "{}"
        );
    }
}

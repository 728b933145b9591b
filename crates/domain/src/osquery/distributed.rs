//! `/distributed/read` and `/distributed/write`: what nodes ask and answer about live queries. The states of a task are
//! decided in `live_query`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::json::Members;
use super::{Columns, RequestError, integer_of, object_members, text_of};

/// The body of `/distributed/read`.
#[derive(Clone, PartialEq, Eq)]
pub struct DistributedReadRequest {
    /// The node key, `""` when the node is not enrolled.
    pub node_key: String,
}

impl DistributedReadRequest {
    /// Reads a sanitised body; `header_key` is the key of the `Authorization` header, used when the body has none.
    ///
    /// # Errors
    /// When the body is not a JSON object, carries what another endpoint takes, or no node key is to be found.
    pub fn parse(text: &str, header_key: Option<&str>) -> Result<Self, RequestError> {
        let members = object_members(text)?;
        members.ask_only()?;
        Ok(Self {
            node_key: members.node_key(header_key)?.into_owned(),
        })
    }
}

/// The answer to `/distributed/read`; the default one hands out nothing.
///
/// **Invariant:** ids and SQL are non-empty, else osqueryd drops the rest of the document.
#[derive(Debug, Clone, Default, Serialize)]
pub struct DistributedReadResponse {
    /// SQL by the id under which its result comes back. Avoid dots in ids: osquery 2.x splits at them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub queries: BTreeMap<String, String>,
    /// Discovery SQL by id: the query runs only if this yields a row. Only for osquery from 5.8 on; before, one such
    /// entry silences every query that has none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub discovery: BTreeMap<String, String>,
    /// Ask every 5 s for this many seconds; 0 ends it. It has to be a JSON integer from 3.2 on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accelerate: Option<u32>,
    node_invalid: bool,
}

/// The body of `/distributed/write`: the answers to some live queries, rows untouched.
pub struct DistributedWrite<'a> {
    /// The node key, `""` when the node is not enrolled.
    pub node_key: Cow<'a, str>,
    /// One entry per id, in the order sent.
    pub results: Vec<QueryResult<'a>>,
}

/// What one node answers to one live query.
#[derive(Debug)]
pub struct QueryResult<'a> {
    /// The id that `/distributed/read` gave it.
    pub id: String,
    /// 0 for success; `None` from osquery before 2.1.2. A status that is no number counts as 1.
    pub status: Option<i64>,
    /// The error, `""` on success and from osquery before 4.4.
    pub message: Cow<'a, str>,
    /// The rows.
    pub rows: ResultRows<'a>,
    /// What the query cost; from osquery 5.8 on, and not always then.
    pub stats: Option<QueryStats>,
}

impl QueryResult<'_> {
    /// Whether the node says that the query ran. Without a status (before 2.1.2) an answer is all we have.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.status.unwrap_or(0) == 0
    }
}

/// The rows of one live query: checked to be JSON, not yet decoded, for there may be 100,000 of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResultRows<'a>(Option<&'a RawValue>);

impl<'a> ResultRows<'a> {
    /// The rows as a JSON array, exactly as sent.
    #[must_use]
    pub fn as_json(&self) -> &'a str {
        self.0.map_or("[]", |rows| rows.get())
    }

    /// How many rows [`decode`](Self::decode) would give; none is held in memory for that.
    #[must_use]
    pub fn count(&self) -> usize {
        let mut rows = serde_json::Deserializer::from_str(self.as_json());
        rows.deserialize_seq(CountRows).unwrap_or_default()
    }

    /// Decodes the rows, in their order; the columns keep the order of the SELECT. What is not a row is left out.
    #[must_use]
    pub fn decode(&self) -> Vec<Columns<'a>> {
        let rows: Vec<&'a RawValue> = serde_json::from_str(self.as_json()).unwrap_or_default();
        rows.into_iter()
            .filter_map(|row| serde_json::from_str(row.get()).ok())
            .collect()
    }
}

/// Counts the elements of an array that [`Columns`] can be read from.
struct CountRows;

impl<'de> Visitor<'de> for CountRows {
    type Value = usize;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<usize, A::Error> {
        let mut count = 0;
        while let Some(row) = rows.next_element::<&'de RawValue>()? {
            let row = row.get();
            if row.starts_with('{') || row == r#""""# || row == "null" {
                count += 1;
            }
        }
        Ok(count)
    }
}

/// What a query cost the whole osqueryd worker while it ran. Values that cannot be (negative, or a wrapped negative)
/// are `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueryStats {
    /// Milliseconds on the clock.
    pub wall_time_ms: Option<i64>,
    /// Milliseconds of user CPU.
    pub user_time_ms: Option<i64>,
    /// Milliseconds of system CPU.
    pub system_time_ms: Option<i64>,
    /// Growth of resident memory in bytes.
    pub memory_bytes: Option<i64>,
}

impl<'a> DistributedWrite<'a> {
    /// Reads a sanitised body; `header_key` is the key of the `Authorization` header, used when the body has none.
    ///
    /// # Errors
    /// When the body is not a JSON object, is a log, or no node key is to be found. Odd entries never cost their neighbours.
    pub fn parse(text: &'a str, header_key: Option<&str>) -> Result<Self, RequestError> {
        let members = object_members(text)?;
        members.no_log()?;
        let mut results = Results::default();
        for (id, rows) in leaves(&members, "queries") {
            results.of(id).rows = ResultRows(rows.get().starts_with('[').then_some(rows));
        }
        for (id, status) in leaves(&members, "statuses") {
            results.of(id).status = Some(integer_of(status).unwrap_or(1));
        }
        for (id, message) in leaves(&members, "messages") {
            results.of(id).message = text_of(message);
        }
        for (id, stats) in members.get("stats").map(pairs_of).unwrap_or_default() {
            results.of(id.into_owned()).stats = stats_of(stats);
        }
        Ok(Self {
            node_key: members.node_key(header_key)?,
            results: results.ordered,
        })
    }
}

/// Results by id, in the order in which the ids were first named.
#[derive(Default)]
struct Results<'a> {
    ordered: Vec<QueryResult<'a>>,
    positions: HashMap<String, usize>,
}

impl<'a> Results<'a> {
    fn of(&mut self, id: String) -> &mut QueryResult<'a> {
        let next = self.ordered.len();
        let position = *self.positions.entry(id.clone()).or_insert(next);
        if position == next {
            self.ordered.push(QueryResult {
                id,
                status: None,
                message: Cow::Borrowed(""),
                rows: ResultRows::default(),
                stats: None,
            });
        }
        &mut self.ordered[position]
    }
}

fn pairs_of(object: &RawValue) -> Vec<(Cow<'_, str>, &RawValue)> {
    object_members(object.get())
        .map(Members::into_pairs)
        .unwrap_or_default()
}

/// The values under a key by id. Osquery 2.x splits ids at their dots into nested objects; they are joined again.
fn leaves<'a>(members: &Members<'a>, key: &str) -> Vec<(String, &'a RawValue)> {
    let mut found = Vec::new();
    let Some(root) = members.get(key) else {
        return found;
    };
    let mut open: Vec<(String, &RawValue, usize)> = pairs_of(root)
        .into_iter()
        .rev()
        .map(|(id, value)| (id.into_owned(), value, 0))
        .collect();
    while let Some((id, value, depth)) = open.pop() {
        if !value.get().starts_with('{') {
            found.push((id, value));
        } else if depth < MAX_ID_DOTS {
            let nested = pairs_of(value).into_iter().rev();
            open.extend(nested.map(|(part, value)| (format!("{id}.{part}"), value, depth + 1)));
        }
    }
    found
}

/// How many dots an id may have been split at. Each level is scanned again, and depth is the node's choice.
const MAX_ID_DOTS: usize = 8;

fn stats_of(stats: &RawValue) -> Option<QueryStats> {
    let members = object_members(stats.get()).ok()?;
    let number = |key| {
        members
            .get(key)
            .and_then(integer_of)
            .filter(|value| *value >= 0)
    };
    let stats = QueryStats {
        wall_time_ms: number("wall_time_ms"),
        user_time_ms: number("user_time"),
        system_time_ms: number("system_time"),
        memory_bytes: number("memory"),
    };
    (stats != QueryStats::default()).then_some(stats)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> DistributedWrite<'_> {
        DistributedWrite::parse(body, None).unwrap()
    }

    #[test]
    fn w1_a_modern_answer_is_read_whole() {
        let write = parse(
            r#"{"queries":{"b":[{"z":"3","a":"1"},{"z":"4","a":"2"}],"a":[]},"statuses":{"b":0,"a":1},"messages":{"b":"","a":"no such table: foo"},"stats":{"b":{"wall_time_ms":12,"user_time":10,"system_time":2,"memory":4096},"a":{}},"node_key":"K"}"#,
        );
        assert_eq!(write.node_key, "K");
        let [b, a] = write.results.as_slice() else {
            panic!("two results")
        };
        assert_eq!((b.id.as_str(), b.succeeded()), ("b", true));
        let rows = b.rows.decode();
        assert_eq!(
            rows[0].to_json(),
            r#"{"z":"3","a":"1"}"#,
            "the order of the SELECT"
        );
        assert_eq!(rows[1].get("z"), Some("4"));
        assert_eq!(b.stats.unwrap().memory_bytes, Some(4096));
        assert_eq!(
            (a.succeeded(), a.message.as_ref(), a.rows.as_json()),
            (false, "no such table: foo", "[]")
        );
        assert_eq!(a.stats, None);
    }

    #[test]
    fn rows_are_counted_as_they_would_be_decoded() {
        for rows in [
            r#"[{"a":"1"},{},"",null,{"a":{"b":[1e999]}}]"#,
            r#"["x",7,[],[{}],true,1e999,{"a":"{"}]"#,
            "[]",
            " [ { } , { } ] ",
        ] {
            let body = format!(r#"{{"node_key":"K","queries":{{"q":{rows}}}}}"#);
            let rows = parse(&body).results[0].rows;
            assert_eq!(rows.count(), rows.decode().len(), "{body}");
        }
        assert_eq!(
            parse(r#"{"node_key":"K","queries":{"q":""}}"#).results[0]
                .rows
                .count(),
            0
        );
    }

    #[test]
    fn w2_to_w7_w11_w14_older_and_odd_answers() {
        let one = |body| parse(body).results.pop().unwrap();
        assert!(
            one(r#"{"node_key":"K","queries":{"q":[]}}"#).succeeded(),
            "W4"
        );
        assert!(
            one(r#"{"node_key":"K","queries":{"q":[]},"statuses":{"q":"0"}}"#).succeeded(),
            "W5"
        );
        assert!(
            !one(r#"{"node_key":"K","queries":{"q":[]},"statuses":{"q":"1"}}"#).succeeded(),
            "W5"
        );
        assert!(!one(r#"{"node_key":"K","queries":{"q":[]},"statuses":{"q":"bad"}}"#).succeeded());
        assert!(
            one(r#"{"node_key":"K","queries":{"q":""}}"#)
                .rows
                .decode()
                .is_empty(),
            "W6"
        );
        let failed = one(r#"{"node_key":"K","queries":{},"statuses":{"q":1}}"#);
        assert_eq!((failed.id.as_str(), failed.succeeded()), ("q", false), "W7");
        let odd = one(
            r#"{"node_key":"K","queries":{"q":[]},"stats":{"q":{"memory":18446744073709551615,"user_time":"7"}}}"#,
        );
        assert_eq!(
            odd.stats,
            Some(QueryStats {
                user_time_ms: Some(7),
                ..QueryStats::default()
            }),
            "W11"
        );
        assert!(
            parse(r#"{"node_key":"K","queries":{},"statuses":{},"messages":"","stats":[]}"#)
                .results
                .is_empty(),
            "W14"
        );
    }

    #[test]
    fn w13_w16_rows_may_be_odd_without_costing_their_neighbours() {
        let sanitised = crate::osquery::sanitise(
            b"{\"node_key\":\"K\",\"queries\":{\"q\":[{\"a\":\"\xFF\"},5,{\"b\":\"2\"}]}}",
        );
        let rows = parse(&sanitised.text).results[0].rows.decode();
        assert_eq!(rows.len(), 2);
        assert_eq!(
            (rows[0].get("a"), rows[1].get("b")),
            (Some("\u{FFFD}"), Some("2"))
        );
    }

    #[test]
    fn w15_w17_ids_with_dots_come_back_whole_however_they_are_nested() {
        for body in [
            r#"{"node_key":"K","queries":{"a.b.ü":[{"x":"1"}]},"statuses":{"a.b.ü":"0"}}"#,
            r#"{"node_key":"K","queries":{"a.b.ü":[{"x":"1"}]},"statuses":{"a":{"b":{"ü":"0"}}}}"#,
            r#"{"node_key":"K","queries":{"a":{"b":{"ü":[{"x":"1"}]}}},"statuses":{"a":{"b":{"ü":"0"}}}}"#,
        ] {
            let results = parse(body).results;
            assert_eq!(results.len(), 1, "{body}");
            assert_eq!(
                (results[0].id.as_str(), results[0].status),
                ("a.b.ü", Some(0))
            );
            assert_eq!(results[0].rows.decode().len(), 1);
        }
    }

    #[test]
    fn an_empty_answer_to_a_read_is_short_and_a_full_one_is_ordered() {
        let mut response = DistributedReadResponse::default();
        assert_eq!(
            serde_json::to_string(&response).unwrap(),
            r#"{"node_invalid":false}"#
        );
        response.queries.insert("b".into(), "SELECT 2".into());
        response.queries.insert("a".into(), "SELECT 1".into());
        response.accelerate = Some(60);
        assert_eq!(
            serde_json::to_string(&response).unwrap(),
            r#"{"queries":{"a":"SELECT 1","b":"SELECT 2"},"accelerate":60,"node_invalid":false}"#
        );
    }
}

//! One line of a result log: event, batch, snapshot, or snapshot as events.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::decode::{Receipt, UnreadableReason};
use super::legacy_text::Repair;
use super::{Action, Execution, Kind, Row, times};
use crate::osquery::{Columns, Text, integer_of, object_members, text_of, unsigned_of};

/// Decodes one line into an execution of its own; [`super::execution`] joins what belongs together.
pub(super) fn decode<'a>(
    json: &'a str,
    receipt: &Receipt,
) -> Result<Execution<'a>, UnreadableReason> {
    let mut line: Line<'a> = serde_json::from_str(json)
        .map_err(|error| UnreadableReason::Malformed(error.to_string()))?;
    let (kind, line_per_row, mut rows) = line.take_rows()?;
    let repair = Repair::of_result(receipt.version);
    let text =
        |value: Option<&'a RawValue>| repaired(value.map(text_of).unwrap_or_default(), repair);
    let query_name = text(line.name);
    if query_name.is_empty() {
        return Err(UnreadableReason::NoQueryName);
    }
    let of_rows = match kind {
        Kind::Differential if receipt.unescape => repair.with_hex(receipt.version),
        _ => repair,
    };
    if of_rows.is_needed() {
        rows.iter_mut()
            .for_each(|row| row.columns.repair(|text| of_rows.apply(text)));
    }
    let mut decorations = line.decorations();
    if repair.is_needed() {
        decorations.repair(|text| repair.apply(text));
    }
    let unix_time = times::unix_time(
        line.unix_time.and_then(integer_of),
        line.calendar_time.map(text_of),
        receipt.received_at,
    );
    Ok(Execution {
        query_name,
        host_identifier: text(line.host_identifier),
        kind,
        epoch: line.epoch.and_then(unsigned_of),
        counter: line.counter.and_then(unsigned_of),
        unix_time,
        occurred_at: times::occurred_at(unix_time, receipt.received_at),
        decorations,
        line_per_row,
        lossy: json.contains('\u{FFFD}'),
        rows,
    })
}

fn repaired(text: Cow<'_, str>, repair: Repair) -> Cow<'_, str> {
    match repair.apply(&text) {
        Some(better) => Cow::Owned(better),
        None => text,
    }
}

/// The members of a line. Rows are decoded at once, scalars when they are needed.
#[derive(Default)]
struct Line<'a> {
    name: Option<&'a RawValue>,
    host_identifier: Option<&'a RawValue>,
    calendar_time: Option<&'a RawValue>,
    unix_time: Option<&'a RawValue>,
    epoch: Option<&'a RawValue>,
    counter: Option<&'a RawValue>,
    action: Option<&'a RawValue>,
    decorations: Option<&'a RawValue>,
    columns: Option<Columns<'a>>,
    snapshot: Option<Rows<'a>>,
    diff_results: Option<&'a RawValue>,
    /// Keys we do not know: with `decorations_top_level`, decorations.
    others: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Line<'a> {
    /// What the line holds: its kind, whether it is one row of perhaps many, and the rows.
    fn take_rows(&mut self) -> Result<(Kind, bool, Vec<Row<'a>>), UnreadableReason> {
        if let Some(columns) = self.columns.take() {
            let word = self.action.map(text_of).unwrap_or_default();
            let (kind, action) = match Action::parse(&word) {
                Some(Action::Snapshot) => (Kind::Snapshot, Action::Snapshot),
                Some(action @ (Action::Added | Action::Removed)) => (Kind::Differential, action),
                Some(Action::Triggered) | None => {
                    return Err(UnreadableReason::UnknownAction(word.into_owned()));
                }
            };
            return Ok((kind, true, vec![Row::new(action, columns)]));
        }
        if let Some(Rows(snapshot)) = self.snapshot.take() {
            let rows = snapshot
                .into_iter()
                .map(|columns| Row::new(Action::Snapshot, columns));
            return Ok((Kind::Snapshot, false, rows.collect()));
        }
        let changes = self.diff_results.ok_or(UnreadableReason::NoRows)?;
        Ok((Kind::Differential, false, changed_rows(changes)?))
    }

    fn decorations(&mut self) -> Columns<'a> {
        let nested = self
            .decorations
            .and_then(|nested| serde_json::from_str(nested.get()).ok());
        let nested: Columns<'a> = nested.unwrap_or_default();
        if self.others.is_empty() {
            return nested;
        }
        let others = self
            .others
            .drain(..)
            .map(|(name, value)| (name, text_of(value)));
        Columns::new(others.chain(nested)) // of equal names the nested one, coming last, stays
    }
}

/// The rows of a batch, removed ones first, as the event format has them.
fn changed_rows(changes: &RawValue) -> Result<Vec<Row<'_>>, UnreadableReason> {
    if text_of(changes).is_empty() {
        return Ok(Vec::new()); // "" is how osquery before 3.2 wrote an empty object
    }
    let malformed = |error: serde_json::Error| UnreadableReason::Malformed(error.to_string());
    let members = object_members(changes.get()).map_err(malformed)?;
    let mut rows = Vec::new();
    for action in [Action::Removed, Action::Added] {
        if let Some(list) = members.get(action.as_str()) {
            let Rows(list) = serde_json::from_str(list.get()).map_err(malformed)?;
            rows.extend(list.into_iter().map(|columns| Row::new(action, columns)));
        }
    }
    Ok(rows)
}

/// An array of rows; `""` (osquery before 3.2) and null are an empty one.
struct Rows<'a>(Vec<Columns<'a>>);

impl<'de> Deserialize<'de> for Rows<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RowsVisitor;
        impl<'de> Visitor<'de> for RowsVisitor {
            type Value = Rows<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of rows")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Rows<'de>, A::Error> {
                let mut rows = Vec::new();
                while let Some(row) = seq.next_element()? {
                    rows.push(row);
                }
                Ok(Rows(rows))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Rows<'de>, E> {
                if text.is_empty() {
                    return Ok(Rows(Vec::new()));
                }
                Err(E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
            fn visit_unit<E>(self) -> Result<Rows<'de>, E> {
                Ok(Rows(Vec::new()))
            }
        }
        deserializer.deserialize_any(RowsVisitor)
    }
}

impl<'de> Deserialize<'de> for Line<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LineVisitor;
        impl<'de> Visitor<'de> for LineVisitor {
            type Value = Line<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Line<'de>, A::Error> {
                let mut line = Line::default();
                while let Some(Text(key)) = map.next_key()? {
                    match key.as_ref() {
                        "columns" => line.columns = Some(map.next_value()?),
                        "snapshot" => line.snapshot = Some(map.next_value()?),
                        "diffResults" => line.diff_results = Some(map.next_value()?),
                        "name" => line.name = Some(map.next_value()?),
                        "hostIdentifier" => line.host_identifier = Some(map.next_value()?),
                        "calendarTime" => line.calendar_time = Some(map.next_value()?),
                        "unixTime" => line.unix_time = Some(map.next_value()?),
                        "epoch" => line.epoch = Some(map.next_value()?),
                        "counter" => line.counter = Some(map.next_value()?),
                        "action" => line.action = Some(map.next_value()?),
                        "decorations" => line.decorations = Some(map.next_value()?),
                        // 3.4 to 4.1.0 called it logNumericsAsNumbers; values are text to us either way
                        "numerics" | "logNumericsAsNumbers" => {
                            map.next_value::<IgnoredAny>()?;
                        }
                        _ => line.others.push((key, map.next_value()?)),
                    }
                }
                Ok(line)
            }
        }
        deserializer.deserialize_map(LineVisitor)
    }
}

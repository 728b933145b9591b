//! Rows of osquery as tables, and as CSV. What stands in them came from nodes and is hostile.

use serde_json::{Map, Value, json};

/// At most this many rows are shown of one thing; more are for an export.
pub(super) const MAX_ROWS: usize = 500;

/// `{columns, rows}` of the contract: columns in the order of their first appearance, a missing one as null.
pub(super) fn table<'a>(rows: impl IntoIterator<Item = &'a Value>) -> Value {
    let rows: Vec<&Map<String, Value>> = rows.into_iter().filter_map(Value::as_object).collect();
    let columns = columns_of(&rows);
    let cells: Vec<Vec<Option<String>>> = rows
        .iter()
        .map(|row| {
            columns
                .iter()
                .map(|column| cell(row.get(*column)))
                .collect()
        })
        .collect();
    json!({"columns": columns, "rows": cells})
}

pub(super) fn columns_of<'a>(rows: &[&'a Map<String, Value>]) -> Vec<&'a str> {
    let mut columns: Vec<&str> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for row in rows {
        for name in row.keys() {
            if seen.insert(name.as_str()) {
                columns.push(name);
            }
        }
    }
    columns
}

/// A value as text; osquery sends text, or numbers with `logger_numerics`.
pub(super) fn cell(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// The rows of a JSON array; anything else has none.
pub(super) fn rows_of(json: &str) -> Vec<Value> {
    match serde_json::from_str(json) {
        Ok(Value::Array(rows)) => rows,
        _ => Vec::new(),
    }
}

/// A cell that no spreadsheet takes for a formula (OWASP "CSV injection"): what begins like one gets an apostrophe in front.
pub(crate) fn csv_cell(text: &str) -> String {
    if text.starts_with([
        '=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}',
    ]) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_unlike_columns_make_one_table() {
        let rows = [
            json!({"b": "1", "a": 2}),
            json!({"c": null, "a": "x"}),
            json!("no row"),
        ];
        assert_eq!(
            table(&rows),
            json!({"columns": ["b", "a", "c"], "rows": [["1", "2", null], [null, "x", null]]})
        );
    }

    #[test]
    fn a_formula_becomes_text() {
        for formula in ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"] {
            assert!(csv_cell(formula).starts_with('\''), "{formula}");
        }
        assert_eq!(csv_cell("plain = text"), "plain = text");
    }
}

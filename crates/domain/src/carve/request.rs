//! Asking for a carve, and knowing it again: the SQL that a node carves by, and the row of its table `carves`.

use serde_json::value::RawValue;

use crate::osquery::Columns;

/// The statement by which a node carves this path; `None` when the path is empty or holds control characters. osquery resolves `%`
/// (this folder) and `%%` (and all below) itself, and only in `LIKE` (`osquery/tables/forensic/carves.cpp`).
#[must_use]
pub fn sql_for_path(path: &str) -> Option<String> {
    let path = path.trim();
    if path.is_empty() || path.chars().any(char::is_control) {
        return None;
    }
    let operator = if path.contains('%') { "LIKE" } else { "=" };
    let quoted = path.replace('\'', "''");
    Some(format!(
        "SELECT * FROM carves WHERE carve = 1 AND path {operator} '{quoted}'"
    ))
}

/// What a node's table `carves` says of one carve.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CarveRow {
    /// The paths that were asked for, joined by commas.
    pub path: String,
    /// `SCHEDULED`, `PENDING`, `SUCCESS`, `DATA POST FAILED`, …
    pub status: String,
    /// SHA-256 of the uploaded archive in lower case, once the node knows it; archives above its `read_max` have none.
    pub sha256: Option<String>,
    /// The statement that gave this row may have asked for the carve; a row of one that was there before says `carve = 0`
    /// (`osquery/tables/forensic/carves.cpp`).
    pub is_asked_for: bool,
}

/// Finds the carve with this GUID in the rows of a result (a JSON array of objects).
#[must_use]
pub fn carve_row(rows: &str, carve_id: &str) -> Option<CarveRow> {
    let rows: Vec<&RawValue> = serde_json::from_str(rows).ok()?;
    rows.into_iter()
        .filter_map(|row| serde_json::from_str::<Columns<'_>>(row.get()).ok())
        .find(|row| row.get("carve_guid") == Some(carve_id))
        .map(|row| {
            let text = |column| row.get(column).unwrap_or_default().to_owned();
            let sha256 = text("sha256").to_ascii_lowercase();
            CarveRow {
                path: text("path"),
                status: text("status"),
                is_asked_for: row.get("carve") != Some("0"),
                sha256: Some(sha256)
                    .filter(|hash| hash.len() == 64 && hash.bytes().all(|c| c.is_ascii_hexdigit())),
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_becomes_one_literal_whatever_it_holds() {
        let sql = |path| sql_for_path(path).unwrap();
        assert_eq!(
            sql(" /etc/hosts "),
            "SELECT * FROM carves WHERE carve = 1 AND path = '/etc/hosts'"
        );
        assert_eq!(
            sql("/var/log/%%"),
            "SELECT * FROM carves WHERE carve = 1 AND path LIKE '/var/log/%%'"
        );
        assert_eq!(
            sql("/x' OR path LIKE '/%"),
            "SELECT * FROM carves WHERE carve = 1 AND path LIKE '/x'' OR path LIKE ''/%'"
        );
        for bad in ["", "  ", "/a\nb", "/a\0b", "/a\u{85}b"] {
            assert_eq!(sql_for_path(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_carve_is_found_by_its_guid_and_hashes_that_are_none_are_left_out() {
        let hash = "AB".repeat(32);
        let rows = format!(
            r#"[5,{{"carve_guid":"a","path":"/a","sha256":"","status":"SCHEDULED","carve":"1"}},
                {{"carve_guid":"b","path":"/b,/c","sha256":"{hash}","status":"SUCCESS","carve":"0"}},{{"carve_guid":"c","sha256":"-1"}}]"#
        );
        let row = carve_row(&rows, "b").unwrap();
        assert_eq!(
            (row.path.as_str(), row.status.as_str()),
            ("/b,/c", "SUCCESS")
        );
        assert_eq!(row.sha256, Some("ab".repeat(32)));
        assert_eq!(carve_row(&rows, "a").unwrap().sha256, None);
        assert_eq!(carve_row(&rows, "c").unwrap().sha256, None);
        let is_asked_for = |id| carve_row(&rows, id).unwrap().is_asked_for;
        assert_eq!(["a", "b", "c"].map(is_asked_for), [true, false, true]);
        assert_eq!(carve_row(&rows, "d"), None);
        assert_eq!(carve_row("{}", "a"), None);
    }
}

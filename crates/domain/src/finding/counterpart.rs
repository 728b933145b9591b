//! The row that stood where another one came, or came where another one went.

use crate::osquery::Columns;

/// Among the rows that went by a change (or came by it), the one in whose place this row came (or went): it agrees in the columns that
/// make the entity, if the rule names some, else in at least half of all columns; of several the one that agrees most, then the one
/// that fills the same columns, then the first. `None` when there is none, or one that is no different.
#[must_use]
pub fn counterpart<'r, 'c>(
    row: &Columns<'_>,
    entity_columns: &[String],
    others: impl IntoIterator<Item = &'r Columns<'c>>,
) -> Option<&'r Columns<'c>>
where
    'c: 'r,
{
    let mut best: Option<((usize, usize), &Columns<'_>)> = None;
    for other in others {
        let equal = row
            .iter()
            .filter(|(name, value)| other.get(name) == Some(*value))
            .count();
        let filled_alike = row
            .iter()
            .filter(|(name, value)| {
                other
                    .get(name)
                    .is_some_and(|was| was.is_empty() == value.is_empty())
            })
            .count();
        let columns = row.iter().count();
        let named: Vec<&String> = entity_columns
            .iter()
            .filter(|name| row.get(name).is_some())
            .collect();
        let stands_for = if named.is_empty() {
            equal * 2 >= columns
        } else {
            named.iter().all(|name| row.get(name) == other.get(name))
        };
        let is_same = equal == columns && other.iter().count() == columns;
        if stands_for && !is_same && best.is_none_or(|(most, _)| (equal, filled_alike) > most) {
            best = Some(((equal, filled_alike), other));
        }
    }
    best.map(|(_, other)| other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pairs: &[(&'static str, &'static str)]) -> Columns<'static> {
        Columns::new(pairs.iter().copied())
    }

    #[test]
    fn a_counterpart_has_the_same_entity_or_half_of_the_columns() {
        let came = row(&[("name", "adb"), ("version", "2"), ("path", "/x")]);
        let older = row(&[("name", "adb"), ("version", "1"), ("path", "/x")]);
        let moved = row(&[("name", "adb"), ("version", "1"), ("path", "/y")]);
        let other = row(&[("name", "nc"), ("version", "1"), ("path", "/y")]);
        let gone = [other.clone(), moved.clone(), older.clone()];
        assert_eq!(counterpart(&came, &[], &gone), Some(&gone[2]));
        let by_name = ["name".to_owned()];
        assert_eq!(counterpart(&came, &by_name, &gone[..2]), Some(&gone[1]));
        assert_eq!(counterpart(&came, &[], &gone[..2]), None);
        assert_eq!(counterpart(&came, &by_name, &gone[..1]), None);
        assert_eq!(
            counterpart(&came, &["unknown".to_owned()], &gone),
            Some(&gone[2])
        );
    }

    #[test]
    fn of_rows_that_agree_as_much_the_one_that_is_filled_alike_stood_there() {
        let came = row(&[("chain", "INPUT"), ("policy", "ACCEPT"), ("target", "")]);
        let entry = row(&[("chain", "INPUT"), ("policy", ""), ("target", "")]);
        let accepts = row(&[("chain", "INPUT"), ("policy", ""), ("target", "ACCEPT")]);
        let policy = row(&[("chain", "INPUT"), ("policy", "DROP"), ("target", "")]);
        let gone = [accepts, entry, policy];
        assert_eq!(counterpart(&came, &[], &gone), Some(&gone[2]));
    }

    #[test]
    fn the_same_row_is_no_counterpart() {
        let came = row(&[("name", "adb")]);
        assert_eq!(counterpart(&came, &[], [&came.clone()]), None);
        assert_eq!(counterpart(&came, &[], []), None);
    }
}

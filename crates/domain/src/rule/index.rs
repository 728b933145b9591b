//! Finding the rules that a row may concern without asking each of them.
//!
//! Most rules name their query, and many name a value of one column besides. Both are looked up; only what is left is asked row by row.

use std::collections::{HashMap, HashSet};

use super::operand::{Key, key_of};
use super::{Comparison, Condition, Field, Test};
use crate::osquery::Columns;

/// Rules by their places in the set.
pub(super) type Places = Vec<usize>;

/// The rules of one query name, or of none.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// Those that name no value of a column.
    pub(super) plain: Places,
    by_column: Vec<(String, HashMap<Key, Places>)>,
}

impl Bucket {
    pub(super) fn insert(&mut self, place: usize, condition: &Condition) {
        let Some((column, keys)) = values(condition) else {
            self.plain.push(place);
            return;
        };
        let index = match self.by_column.iter().position(|(name, _)| name == column) {
            Some(index) => index,
            None => {
                self.by_column.push((column.to_owned(), HashMap::new()));
                self.by_column.len() - 1
            }
        };
        for key in keys {
            self.by_column[index].1.entry(key).or_default().push(place);
        }
    }

    /// Whether there are rules that a row is looked up for.
    pub(super) fn names_values(&self) -> bool {
        !self.by_column.is_empty()
    }

    /// The rules that name a value that this row has; a rule stands under one column only, so none comes twice.
    pub(super) fn named_by<'b>(
        &'b self,
        row: &'b Columns<'_>,
    ) -> impl Iterator<Item = usize> + use<'b> {
        self.by_column
            .iter()
            .filter_map(|(column, by_value)| by_value.get(&key_of(row.get(column)?)?))
            .flatten()
            .copied()
    }
}

/// The query names without which the condition cannot hold; `None` when it may hold for names that it does not name.
pub(super) fn query_names(condition: &Condition) -> Option<HashSet<&str>> {
    match condition {
        Condition::Test(test) => {
            if test.field != Field::QueryName || !equals(test) {
                return None;
            }
            // A number equals other spellings of itself, so its text is no name to look up.
            let is_text = |key: &Key| matches!(key, Key::Text(_));
            let keys = test.operand.keys(test.operator.comparison)?;
            keys.iter()
                .all(is_text)
                .then(|| test.operand.texts().iter().map(String::as_str).collect())
        }
        Condition::All(parts) => parts
            .iter()
            .filter_map(query_names)
            .min_by_key(HashSet::len),
        Condition::Any(parts) => {
            let each: Option<Vec<HashSet<&str>>> = parts.iter().map(query_names).collect();
            Some(each?.into_iter().flatten().collect())
        }
        Condition::Not(_) => None,
    }
}

/// A column and the values of it without one of which the condition cannot hold.
fn values(condition: &Condition) -> Option<(&str, HashSet<Key>)> {
    match condition {
        Condition::Test(test) => match &test.field {
            Field::Column(name) if equals(test) => {
                let keys = test.operand.keys(test.operator.comparison)?;
                Some((name, keys.into_iter().collect()))
            }
            _ => None,
        },
        Condition::All(parts) => parts
            .iter()
            .filter_map(values)
            .min_by_key(|(_, keys)| keys.len()),
        Condition::Any(parts) => {
            let each: Option<Vec<(&str, HashSet<Key>)>> = parts.iter().map(values).collect();
            let mut each = each?.into_iter();
            let (column, mut keys) = each.next()?;
            for (other, more) in each {
                if other != column {
                    return None;
                }
                keys.extend(more);
            }
            Some((column, keys))
        }
        Condition::Not(_) => None,
    }
}

fn equals(test: &Test) -> bool {
    matches!(test.operator.comparison, Comparison::Equal | Comparison::In) && !test.operator.negated
}

//! Sections whose value is a set of named entries, edited field by field instead of as JSON: views and automatic tables. What fields an
//! entry has stands in `shape`; how fields become JSON again in `build`. What is wrong with the JSON is `sections`' matter.
//!
//! **Invariant:** what nobody touched stays as it is stored, byte for byte: the order of members, odd blanks, members that no form knows.

mod build;
mod shape;

use serde::Serialize;
use serde_json::{Map, Value};

pub use shape::{EntryField, FieldKind, Shape};

/// The most entries that a form takes.
const MAX_ENTRIES: usize = 500;
/// Empty entries that a form offers, folded, beside those that there are.
const SPARE: usize = 2;

/// What is typed about the entries of a section.
#[derive(Debug, Clone, Serialize)]
pub struct SectionForm {
    /// What an entry consists of.
    pub shape: &'static Shape,
    /// The value that the form was made of, as JSON: it comes back with the form, so that what nobody touched can stay.
    pub base: String,
    /// The entries, empty ones included.
    pub entries: Vec<TypedEntry>,
    /// Members of the value that are no entries as osquery wants them, as JSON; empty when there are none.
    pub other: String,
}

/// What is typed about an entry.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TypedEntry {
    /// The name under which it is stored; empty for a new one.
    pub was: String,
    /// Its name.
    pub name: String,
    /// What is typed in the fields of the shape, in its order.
    pub fields: Vec<String>,
    /// Members that have no field, as JSON; empty when there are none.
    pub other: String,
    /// Is it to be left out from now on?
    pub gone: bool,
}

impl TypedEntry {
    /// Was nothing typed?
    #[must_use]
    pub fn is_blank(&self) -> bool {
        let texts = [&self.was, &self.name, &self.other];
        texts
            .into_iter()
            .chain(&self.fields)
            .all(|text| text.trim().is_empty())
    }
}

impl SectionForm {
    /// The form of a value; `None` when the key has none, or the value is of another kind than osquery wants.
    #[must_use]
    pub fn of(key: &str, value: &Value) -> Option<Self> {
        let shape = Shape::of(key)?;
        let members = value.as_object()?;
        let entries =
            (members.iter())
                .filter(|(_, entry)| shape.fits(entry))
                .map(|(name, entry)| TypedEntry {
                    was: name.clone(),
                    name: name.clone(),
                    fields: shape.texts(entry),
                    other: shape.other(entry),
                    gone: false,
                });
        let form = Self {
            shape,
            base: value.to_string(),
            entries: entries.collect(),
            other: shape.odd(members),
        };
        Some(form.with_spares())
    }

    /// The form of a key without any entry.
    #[must_use]
    pub fn empty(key: &str) -> Option<Self> {
        Self::of(key, &Value::Object(Map::new()))
    }

    /// Reads the fields `base`, `other`, `entries` (how many) and `e0_name`, `e0_was`, `e0_gone`, `e0_other`, `e0_<member>` and so on;
    /// `None` when it was no such form, but one with JSON.
    #[must_use]
    pub fn read<'f>(key: &str, field: impl Fn(&str) -> &'f str) -> Option<Self> {
        let shape = Shape::of(key)?;
        let count: usize = field("entries").parse().ok()?;
        let entry = |at: usize| {
            let text = |name: &str| field(&field_name(at, name)).replace("\r\n", "\n");
            TypedEntry {
                was: text("was"),
                name: text("name").trim().to_owned(),
                fields: (shape.fields.iter())
                    .map(|each| text(each.member))
                    .collect(),
                other: text("other"),
                gone: !text("gone").is_empty(),
            }
        };
        let form = Self {
            shape,
            base: field("base").to_owned(),
            entries: (0..count.min(MAX_ENTRIES)).map(entry).collect(),
            other: field("other").replace("\r\n", "\n"),
        };
        Some(form.with_spares())
    }

    /// Members of a value made of this form that are none of its entries.
    pub(super) fn odd(&self, value: &Value) -> Map<String, Value> {
        let members = value.as_object().into_iter().flatten();
        let is_entry = |name: &str| self.kept().any(|(_, entry)| entry.name == name);
        members
            .filter(|(name, _)| !is_entry(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    fn with_spares(mut self) -> Self {
        let typed = (self.entries.iter()).rposition(|entry| !entry.is_blank());
        let wanted = typed.map_or(0, |last| last + 1) + SPARE;
        let blank = TypedEntry {
            fields: vec![String::new(); self.shape.fields.len()],
            ..TypedEntry::default()
        };
        let wanted = wanted.max(self.entries.len());
        self.entries.resize(wanted, blank);
        self
    }
}

/// The name of a form's field for an entry.
#[must_use]
pub fn field_name(entry: usize, field: &str) -> String {
    format!("e{entry}_{field}")
}

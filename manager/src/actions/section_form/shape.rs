//! What an entry of a section consists of, and how it is shown.

use serde::Serialize;
use serde_json::{Map, Value};

/// The entries of a key.
#[derive(Debug, Serialize)]
pub struct Shape {
    /// The key.
    pub key: &'static str,
    /// What people call an entry.
    pub noun: &'static str,
    /// A name as an example.
    pub example: &'static str,
    /// Its fields, beside its name.
    pub fields: &'static [EntryField],
    /// Is an entry the text of its only field, rather than an object?
    #[serde(skip)]
    is_text: bool,
}

/// A field of an entry.
#[derive(Debug, Serialize)]
pub struct EntryField {
    /// The member in osquery's config.
    pub member: &'static str,
    /// What people call it.
    pub label: &'static str,
    /// How it is typed.
    pub kind: FieldKind,
    /// May it be empty?
    pub optional: bool,
    /// What else to know.
    pub hint: &'static str,
    /// An example.
    pub placeholder: &'static str,
}

/// How a field is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldKind {
    /// SQL, looked at while it is typed.
    Sql,
    /// A line.
    Line,
    /// A list, one a line.
    Lines,
}

/// The keys that have such a form (`osquery/config/parsers/views.cpp`, `auto_constructed_tables.cpp`).
static SHAPES: [Shape; 2] = [
    Shape {
        key: "views",
        noun: "view",
        example: "listening",
        is_text: true,
        fields: &[EntryField {
            member: "sql",
            label: "SQL",
            kind: FieldKind::Sql,
            optional: false,
            hint: "",
            placeholder: "SELECT * FROM listening_ports WHERE port <> 0",
        }],
    },
    Shape {
        key: "auto_table_construction",
        noun: "automatic table",
        example: "quarantine",
        is_text: false,
        fields: &[
            EntryField {
                member: "path",
                label: "SQLite files",
                kind: FieldKind::Line,
                optional: false,
                hint: "On the node. % is any part of one level, %% everything below.",
                placeholder: "/Users/%/Library/Preferences/com.apple.LaunchServices.QuarantineEventsV2",
            },
            EntryField {
                member: "query",
                label: "Query",
                kind: FieldKind::Sql,
                optional: false,
                hint: "Runs on each file, so its tables are those of the file: only its form can be checked here.",
                placeholder: "SELECT LSQuarantineAgentName FROM LSQuarantineEvent",
            },
            EntryField {
                member: "columns",
                label: "Columns",
                kind: FieldKind::Lines,
                optional: false,
                hint: "One a line, as the query names them. osquery adds path by itself.",
                placeholder: "LSQuarantineAgentName",
            },
            EntryField {
                member: "platform",
                label: "Platform",
                kind: FieldKind::Line,
                optional: true,
                hint: "As in osquery, such as darwin or linux,darwin. Empty: any.",
                placeholder: "darwin",
            },
        ],
    },
];

impl Shape {
    /// That of a key.
    #[must_use]
    pub fn of(key: &str) -> Option<&'static Self> {
        SHAPES.iter().find(|shape| shape.key == key)
    }

    /// The member that is SQL.
    pub(in crate::actions) fn sql(&self) -> &'static str {
        self.first(FieldKind::Sql)
    }

    /// The member that is a list, or else the SQL.
    pub(in crate::actions) fn lists(&self) -> &'static str {
        self.first(FieldKind::Lines)
    }

    fn first(&self, kind: FieldKind) -> &'static str {
        let found = self.fields.iter().find(|field| field.kind == kind);
        found.unwrap_or(&self.fields[0]).member
    }

    /// Can the fields show this entry?
    pub(super) fn fits(&self, entry: &Value) -> bool {
        if self.is_text {
            return entry.is_string();
        }
        let Value::Object(members) = entry else {
            return false;
        };
        (self.fields.iter()).all(|field| match (field.kind, members.get(field.member)) {
            (_, None) => true,
            (FieldKind::Lines, Some(Value::Array(items))) => items.iter().all(|item| {
                let text = item.as_str().unwrap_or_default();
                !text.is_empty() && text.trim() == text && !text.contains(['\n', '\r'])
            }),
            (FieldKind::Sql, Some(Value::String(_))) => true,
            (FieldKind::Line, Some(Value::String(text))) => !text.contains(['\n', '\r']),
            _ => false,
        })
    }

    /// What the fields show of an entry that fits.
    pub(super) fn texts(&self, entry: &Value) -> Vec<String> {
        (self.fields.iter())
            .map(|field| self.text(field, entry))
            .collect()
    }

    /// What a field shows of an entry that fits.
    pub(super) fn text(&self, field: &EntryField, entry: &Value) -> String {
        let member = if self.is_text {
            Some(entry)
        } else {
            entry.get(field.member)
        };
        match member {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(items)) => {
                let texts: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
                texts.join("\n")
            }
            _ => String::new(),
        }
    }

    /// Is an entry nothing but its text?
    pub(super) fn is_text(&self) -> bool {
        self.is_text
    }

    /// Does an entry's member have a field?
    pub(super) fn has(&self, member: &str) -> bool {
        self.fields.iter().any(|field| field.member == member)
    }

    /// The members of an entry that have no field, as JSON.
    pub(super) fn other(&self, entry: &Value) -> String {
        let members = entry.as_object().into_iter().flatten();
        shown(members.filter(|(member, _)| !self.has(member)))
    }

    /// The members of a value that are no entries which the fields could show, as JSON.
    pub(super) fn odd(&self, members: &Map<String, Value>) -> String {
        shown(members.iter().filter(|(_, entry)| !self.fits(entry)))
    }
}

fn shown<'m>(members: impl Iterator<Item = (&'m String, &'m Value)>) -> String {
    let members: Map<String, Value> = members
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if members.is_empty() {
        return String::new();
    }
    serde_json::to_string_pretty(&members).unwrap_or_default()
}

//! From typed fields to the JSON of a section, upon what was stored before.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{EntryField, FieldKind, SectionForm, Shape, TypedEntry, field_name};
use crate::actions::validate::{Check, lines};

impl SectionForm {
    /// The value of the section. What is no JSON, or named twice, is noted at its field.
    pub(in crate::actions) fn value(&self, check: &mut Check) -> Map<String, Value> {
        let base: Map<String, Value> = serde_json::from_str(&self.base).unwrap_or_default();
        let odd = match same(&self.other, &self.shape.odd(&base)) {
            true => None,
            false => Some(object(check, "other", &self.other)),
        };
        let mut made = Map::new();
        let mut put = |check: &mut Check, field: &str, name: &str, entry: Value| {
            if made.insert(name.to_owned(), entry).is_some() {
                check.wrong(field, format!("There are two of the name {name}."));
            }
        };
        let mut done = BTreeSet::new();
        for (name, stored) in &base {
            let typed = (self.entries.iter().enumerate())
                .find(|(_, entry)| !entry.was.is_empty() && entry.was == *name);
            match (typed, &odd) {
                (Some((at, entry)), _) if self.shape.fits(stored) => {
                    done.insert(at);
                    if !entry.gone {
                        let built = entry.build(check, self.shape, at, Some(stored));
                        put(check, &field_name(at, "name"), &entry.name, built);
                    }
                }
                (_, None) if !self.shape.fits(stored) => put(check, "other", name, stored.clone()),
                (_, Some(odd)) if !self.shape.fits(stored) => {
                    if let Some(entry) = odd.get(name) {
                        put(check, "other", name, entry.clone());
                    }
                }
                _ => {}
            }
        }
        for (at, entry) in self.entries.iter().enumerate() {
            if !entry.gone && !entry.is_blank() && !done.contains(&at) {
                let built = entry.build(check, self.shape, at, None);
                put(check, &field_name(at, "name"), &entry.name, built);
            }
        }
        let is_new = |name: &str| base.get(name).is_none_or(|stored| self.shape.fits(stored));
        for (name, entry) in odd.iter().flatten().filter(|(name, _)| is_new(name)) {
            put(check, "other", name, entry.clone());
        }
        made
    }

    /// The value as it is typed at the moment, whatever is wrong with it.
    pub(crate) fn as_typed(&self) -> Value {
        Value::Object(self.value(&mut Check::default()))
    }

    /// The entries that are to be stored, with their places in the form.
    pub(in crate::actions) fn kept(&self) -> impl Iterator<Item = (usize, &TypedEntry)> {
        let entries = self.entries.iter().enumerate();
        entries.filter(|(_, entry)| !entry.gone && !entry.is_blank())
    }
}

impl TypedEntry {
    fn build(&self, check: &mut Check, shape: &Shape, at: usize, stored: Option<&Value>) -> Value {
        if self.name.is_empty() {
            check.wrong(&field_name(at, "name"), "This must not be empty.");
        }
        let mut members = match stored {
            Some(Value::Object(members)) => members.clone(),
            _ => Map::new(),
        };
        let nothing = Value::Null;
        let stored = stored.unwrap_or(&nothing);
        let mut text = Value::String(String::new());
        for (field, typed) in shape.fields.iter().zip(&self.fields) {
            let name = field_name(at, field.member);
            if !field.optional && typed.trim().is_empty() {
                check.wrong(&name, "This must not be empty.");
            }
            let is_kept = !stored.is_null() && same(typed, &shape.text(field, stored));
            match (is_kept, shape.is_text()) {
                (true, true) => text = stored.clone(),
                (true, false) => {}
                (false, true) => text = typed_value(check, &name, field, typed),
                // `remove` would move the last member into the gap.
                (false, false) if typed.trim().is_empty() => {
                    drop(members.shift_remove(field.member));
                }
                (false, false) => {
                    let value = typed_value(check, &name, field, typed);
                    members.insert(field.member.to_owned(), value);
                }
            }
        }
        if shape.is_text() {
            return text;
        }
        if !same(&self.other, &shape.other(stored)) {
            let name = field_name(at, "other");
            let other = object(check, &name, &self.other);
            if let Some(known) = other.keys().find(|member| shape.has(member)) {
                check.wrong(&name, format!("\"{known}\" has a field of its own."));
            }
            members.retain(|member, _| shape.has(member) || other.contains_key(member));
            members.extend(other);
        }
        Value::Object(members)
    }
}

fn typed_value(check: &mut Check, name: &str, field: &EntryField, typed: &str) -> Value {
    match field.kind {
        FieldKind::Sql => check.sql(name, typed).into(),
        FieldKind::Line => check.line(name, typed, 4000).into(),
        FieldKind::Lines => lines(&check.text(name, typed, 50_000)).into(),
    }
}

/// JSON that is an object; nothing typed is an empty one.
fn object(check: &mut Check, field: &str, typed: &str) -> Map<String, Value> {
    if typed.trim().is_empty() {
        return Map::new();
    }
    match check.json(field, typed) {
        Value::Object(members) => members,
        _ => {
            check.wrong(field, "This is an object: {…}.");
            Map::new()
        }
    }
}

/// Is this what was shown? Browsers write line ends in their own way.
fn same(typed: &str, shown: &str) -> bool {
    let plain = |text: &str| text.replace("\r\n", "\n").replace('\r', "\n");
    plain(typed) == plain(shown)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What a browser sends of a form that nobody touched.
    fn sent(form: &SectionForm) -> Vec<(String, String)> {
        let lines = |text: &str| text.replace("\r\n", "\n").replace('\n', "\r\n");
        let mut fields = vec![
            ("base".to_owned(), form.base.clone()),
            ("entries".to_owned(), form.entries.len().to_string()),
            ("other".to_owned(), lines(&form.other)),
        ];
        for (at, entry) in form.entries.iter().enumerate() {
            fields.push((field_name(at, "was"), entry.was.clone()));
            fields.push((field_name(at, "name"), entry.name.clone()));
            fields.push((field_name(at, "other"), lines(&entry.other)));
            for (field, text) in form.shape.fields.iter().zip(&entry.fields) {
                fields.push((field_name(at, field.member), lines(text)));
            }
        }
        fields
    }

    fn built(key: &str, sent: &[(String, String)]) -> (String, bool) {
        let field = |name: &str| {
            let found = sent.iter().rev().find(|(field, _)| field == name);
            found.map_or("", |(_, value)| value.as_str())
        };
        let form = SectionForm::read(key, field).unwrap();
        let mut check = Check::default();
        let value = Value::Object(form.value(&mut check));
        (value.to_string(), check.done().is_ok())
    }

    #[test]
    fn a_form_that_nobody_touched_gives_the_same_bytes() {
        let cases = [
            ("views", json!({})),
            (
                "views",
                json!({"b": " SELECT 1;\r\n", "a": "\n\nSELECT 2", "odd": 7, "c": "SELECT 3"}),
            ),
            (
                "auto_table_construction",
                json!({
                    "z": {"x": [1, null], "platform": "", "columns": ["a", "b"], "y": 1.50, "query": "SELECT a,\n b FROM c", "path": " /x"},
                    "odd": {"query": "q", "columns": ["a", 1]}, "text": "q", "lines": {"path": "a\nb"}, "blank": {"columns": ["a "]},
                    "a": {"path": "/a", "query": "SELECT a FROM b", "columns": []}, "e": {}
                }),
            ),
        ];
        for (key, value) in cases {
            let form = SectionForm::of(key, &value).unwrap();
            assert_eq!(built(key, &sent(&form)).0, value.to_string(), "{key}");
        }
        assert!(SectionForm::of("views", &json!([])).is_none());
        assert!(SectionForm::of("yara", &json!({})).is_none());
    }

    #[test]
    fn what_is_changed_stands_where_it_stood() {
        let value = json!({
            "a": {"note": 1, "query": "SELECT a FROM b", "path": "/a", "platform": "darwin", "columns": ["a"]},
            "b": {"query": "SELECT b FROM c", "path": "/b", "columns": ["b"]}, "odd": 1,
            "c": {"query": "SELECT c FROM d", "path": "/c", "columns": ["c"]}
        });
        let key = "auto_table_construction";
        let mut fields = sent(&SectionForm::of(key, &value).unwrap());
        for (name, text) in [
            ("e0_name", "renamed"),
            ("e0_platform", ""),
            ("e0_columns", "a\r\n\r\n b "),
            ("e0_other", "{\"more\": [1]}"),
            ("e1_gone", "on"),
            ("e3_name", "new"),
            ("e3_query", "SELECT 1 AS x;"),
            ("e3_path", "/new"),
            ("e3_columns", "x"),
            ("other", "{\"odd\": 2, \"odder\": 3}"),
        ] {
            fields.push((name.to_owned(), text.to_owned()));
        }
        let expected = json!({
            "renamed": {"query": "SELECT a FROM b", "path": "/a", "columns": ["a", "b"], "more": [1]}, "odd": 2,
            "c": {"query": "SELECT c FROM d", "path": "/c", "columns": ["c"]},
            "new": {"path": "/new", "query": "SELECT 1 AS x", "columns": ["x"]}, "odder": 3
        });
        assert_eq!(built(key, &fields), (expected.to_string(), true));
    }

    #[test]
    fn what_is_wrong_is_said_at_its_field() {
        let value = json!({"a": {"query": "SELECT a FROM b", "path": "/a", "columns": ["a"]}});
        let key = "auto_table_construction";
        for (field, text) in [
            ("e1_name", "a"),
            ("e0_name", " "),
            ("e0_query", ";"),
            ("e0_columns", ""),
            ("e0_other", "[]"),
            ("e0_other", "{\"path\": 1}"),
            ("other", "no JSON"),
        ] {
            let mut fields = sent(&SectionForm::of(key, &value).unwrap());
            fields.push((field.to_owned(), text.to_owned()));
            assert!(!built(key, &fields).1, "{field} {text}");
        }
    }
}

//! Settings that a kind of sink asks for, out of what was typed into its fields.

use std::collections::BTreeMap;

use ostiary_outputs::destinations::{Field, Input};
use serde_json::{Map, Value};

use super::validate::Check;

/// The settings that the fields make. A secret left empty is taken from `stored`, and so is what the form did not offer.
pub(super) fn settings_of(
    check: &mut Check,
    fields: &[Field],
    typed: &BTreeMap<String, String>,
    stored: &Map<String, Value>,
) -> Value {
    let mut settings = Map::new();
    for field in fields {
        let value = match typed.get(field.name) {
            Some(text) => value_of(check, field, text, stored),
            None => stored.get(field.name).cloned(),
        };
        if field.required && value.is_none() {
            check.wrong(field.name, "This must not be empty.");
        }
        if let Some(value) = value {
            settings.insert(field.name.to_owned(), value);
        }
    }
    Value::Object(settings)
}

fn value_of(
    check: &mut Check,
    field: &Field,
    typed: &str,
    stored: &Map<String, Value>,
) -> Option<Value> {
    let text = match field.input {
        Input::LongText => check.text(field.name, typed, 20_000),
        // A blank may be part of a password.
        Input::Secret => typed.to_owned(),
        _ => check.line(field.name, typed, 2000),
    };
    if text.is_empty() {
        return match field.input {
            Input::Secret => stored.get(field.name).cloned(),
            _ => None,
        };
    }
    Some(match field.input {
        Input::Number => Value::from(check.number(field.name, &text, 1, 65_535)),
        Input::Choice(choices) => {
            let names: Vec<&str> = choices.iter().map(|(value, _)| *value).collect();
            Value::from(check.choice(field.name, &text, &names))
        }
        _ => Value::from(text),
    })
}

//! Comparisons that a row passes or not.

use super::read::{Token, position, split};
use crate::value::Value;

/// A row while it is joined: alias, column, value.
pub(super) type Scoped = Vec<(String, String, Value)>;

pub(super) fn lookup(row: &Scoped, alias: Option<&str>, column: &str) -> Option<Value> {
    row.iter()
        .find(|(table, name, _)| {
            name.eq_ignore_ascii_case(column)
                && alias.is_none_or(|alias| table.eq_ignore_ascii_case(alias))
        })
        .map(|(_, _, value)| value.clone())
}

pub(super) fn operand(tokens: &[Token], row: &Scoped) -> Option<Value> {
    match tokens {
        [Token::Text(text)] => Some(Value::Text(text.clone())),
        [Token::Number(number)] => Some(
            number
                .parse()
                .map_or_else(|_| number.as_str().into(), Value::Int),
        ),
        [Token::Sign("-"), Token::Number(number)] => {
            number.parse().ok().map(|n: i64| Value::Int(-n))
        }
        [table, Token::Sign("."), column] => lookup(row, Some(table.name()?), column.name()?),
        [Token::Quoted(text)] => Some(lookup(row, None, text).unwrap_or_else(|| text.into())),
        [column] => lookup(row, None, column.name()?),
        [function, Token::Sign("("), inner @ .., Token::Sign(")")] => {
            let text = operand(inner, row)?.text();
            match function.name()?.to_lowercase().as_str() {
                "lower" => Some(text.to_lowercase().into()),
                "upper" => Some(text.to_uppercase().into()),
                "length" => Some(text.chars().count().into()),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Whether a condition holds; what cannot be read is taken to hold.
pub(super) fn holds(condition: &[Token], row: &Scoped) -> bool {
    if position(condition, &["or", "between", "case"]).is_some() {
        return true;
    }
    split(condition, |token| token.is("and"))
        .into_iter()
        .all(|part| comparison(part, row).unwrap_or(true))
}

pub(super) fn comparison(part: &[Token], row: &Scoped) -> Option<bool> {
    if let [Token::Sign("("), inner @ .., Token::Sign(")")] = part {
        return Some(holds(inner, row));
    }
    let at = part.iter().position(|token| {
        token.is("like")
            || matches!(
                token,
                Token::Sign("=" | "==" | "!=" | "<>" | "<" | ">" | "<=" | ">=")
            )
    })?;
    let negated = at > 0 && part[at - 1].is("not");
    let (left, right) = (
        operand(&part[..at - usize::from(negated)], row)?,
        operand(&part[at + 1..], row)?,
    );
    let order = match (number(&left), number(&right)) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => left.text().cmp(&right.text()),
    };
    let held = match &part[at] {
        Token::Sign("=" | "==") => order.is_eq(),
        Token::Sign("!=" | "<>") => order.is_ne(),
        Token::Sign("<") => order.is_lt(),
        Token::Sign(">") => order.is_gt(),
        Token::Sign("<=") => order.is_le(),
        Token::Sign(">=") => order.is_ge(),
        _ => like(&right.text().to_lowercase(), &left.text().to_lowercase()),
    };
    Some(held != negated)
}

pub(super) fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        Value::Text(text) => text.parse().ok(),
    }
}

pub(super) fn like(pattern: &str, text: &str) -> bool {
    match pattern.chars().next() {
        None => text.is_empty(),
        Some('%') => {
            let rest = &pattern[1..];
            text.char_indices().any(|(at, _)| like(rest, &text[at..])) || like(rest, "")
        }
        Some(wanted) => text.chars().next().is_some_and(|c| {
            (wanted == '_' || wanted == c)
                && like(&pattern[wanted.len_utf8()..], &text[c.len_utf8()..])
        }),
    }
}

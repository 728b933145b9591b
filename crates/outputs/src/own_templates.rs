//! Texts that people write for a destination: minijinja without anything that could take long or grow, and Doorman's `$column`.
//!
//! What a template makes is plain text; each kind of destination writes that text so that nothing in it steers the other side. So a
//! template cannot bold a word, and a node cannot call a whole channel.
//!
//! **Sandbox:** only `{{ … }}`, `if` and `for`; no assignments, macros or arithmetic, whereby texts could double again and again; the
//! filters below, each of them bounded; so much fuel (one unit an instruction) and so many bytes of text.

use std::collections::BTreeMap;
use std::io;

use minijinja::{Environment, ErrorKind, Output, State, UndefinedBehavior, Value};
use serde::Serialize;

use crate::{Alert, Message, one_line};

const FUEL: u64 = 20_000;
const MOST_SOURCE: usize = 10_000;
const MOST_TEXT: usize = 20_000;
const MOST_OF_A_VALUE: usize = 1000;
const STATEMENTS: [&str; 6] = ["if", "elif", "else", "endif", "for", "endfor"];

/// The texts of a destination; an empty one is Ostiary's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Templates {
    /// Of the subject, or what a kind has in its place.
    pub title: String,
    /// Of all the rest.
    pub text: String,
}

/// Why a template cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TemplateError(String);

/// What a template sees.
#[derive(Serialize)]
struct Context<'a> {
    kind: &'static str,
    by: &'a str,
    #[serde(flatten)]
    alert: &'a Alert,
}

/// Renders a template.
///
/// # Errors
/// It is not understood, or takes too much.
pub(crate) fn render(source: &str, message: &Message) -> Result<String, TemplateError> {
    if source.len() > MOST_SOURCE {
        let text = format!("a template may have {MOST_SOURCE} bytes");
        return Err(TemplateError(text));
    }
    let source = translate(source)?;
    let environment = environment(&message.alert);
    let template = environment
        .template_from_str(&source)
        .map_err(|error| explain(&error))?;
    let alert = &message.alert;
    let context = Context {
        kind: message.kind.as_str(),
        by: alert.change.as_ref().map_or("", |change| &change.by),
        alert,
    };
    let mut out = Bounded(Vec::new());
    let context = Value::from(minijinja::value::Serde(&context));
    template
        .render_captured_to(context, &mut out)
        .map_err(|error| explain(&error))?;
    Ok(String::from_utf8_lossy(&out.0).trim().to_owned())
}

fn environment(alert: &Alert) -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_fuel(Some(FUEL));
    environment.set_undefined_behavior(UndefinedBehavior::Chainable);
    let syntax = minijinja::syntax::SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    environment.set_syntax(syntax.expect("the usual delimiters do not collide"));
    // Whatever is put in stands on one line: a row cannot add lines that look like the template's.
    environment.set_formatter(
        |out: &mut Output<'_>, _: &mut State<'_, '_>, value: &Value| {
            if value.is_undefined() || value.is_none() {
                return Ok(());
            }
            out.write_str(&line(value)).map_err(minijinja::Error::from)
        },
    );
    let columns = columns_of(alert);
    environment.add_function("column", move |name: &str| {
        columns
            .get(name)
            .cloned()
            .unwrap_or_else(|| format!("${name}"))
    });
    environment.add_filter("line", |value: &Value| line(value));
    environment.add_filter("upper", |value: &Value| line(value).to_uppercase());
    environment.add_filter("lower", |value: &Value| line(value).to_lowercase());
    environment.add_filter("short", |value: &Value, most: usize| {
        one_line(&value.to_string(), most.min(MOST_OF_A_VALUE))
    });
    environment.add_filter("json", |value: &Value| {
        let text = serde_json::to_string(value).unwrap_or_default();
        one_line(&text, MOST_OF_A_VALUE)
    });
    environment.add_filter("length", minijinja::filters::length);
    environment.add_filter("items", minijinja::filters::items);
    environment.add_filter("default", minijinja::filters::default);
    environment.add_test("defined", minijinja::tests::is_defined);
    environment
}

fn line(value: &Value) -> String {
    one_line(&value.to_string(), MOST_OF_A_VALUE)
}

/// What Doorman's `$name` stands for: columns of the row, then what is known of the node.
fn columns_of(alert: &Alert) -> BTreeMap<String, String> {
    let node = &alert.node;
    let of_node = [
        ("id", &node.id),
        ("display_name", &node.name),
        ("host_identifier", &node.host_identifier),
        ("platform", &node.platform),
    ];
    let mut columns: BTreeMap<String, String> = of_node
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .collect();
    for (name, value) in &alert.columns {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        columns.insert(name.clone(), text);
    }
    columns
}

/// Turns `$name` and `${name}` (Python's `string.Template`, which Doorman used: `$$` is a dollar, and a name that nobody knows stays as
/// it is) into calls, and refuses what is not for templates of ours.
fn translate(source: &str) -> Result<String, TemplateError> {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find(['{', '$']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = match rest.as_bytes().get(..2) {
            Some(b"{{" | b"{%" | b"{#") => tag(rest)?,
            Some(b"$$") => {
                out.push('$');
                rest = &rest[2..];
                continue;
            }
            _ => 0,
        };
        if taken > 0 {
            out.push_str(&rest[..taken]);
            rest = &rest[taken..];
        } else if let Some((name, after)) = placeholder(rest) {
            out.push_str(&format!("{{{{ column(\"{name}\") }}}}"));
            rest = after;
        } else {
            out.push_str(&rest[..1]);
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// `$name` or `${name}` at the beginning of a text, and what follows.
fn placeholder(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('$')?;
    let (name, is_braced) = match inner.strip_prefix('{') {
        Some(braced) => (braced, true),
        None => (inner, false),
    };
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = name.find(|c| !is_of_name(c)).unwrap_or(name.len());
    let (name, after) = name.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let after = if is_braced {
        after.strip_prefix('}')?
    } else {
        after
    };
    Some((name, after))
}

/// How long the tag is that a text begins with. It ends where minijinja lets it end: outside of quotes.
fn tag(text: &str) -> Result<usize, TemplateError> {
    let end = match &text[..2] {
        "{#" => return text.find("#}").map(|at| at + 2).ok_or_else(unclosed),
        "{%" => "%}",
        _ => "}}",
    };
    if end == "%}" {
        let words = text[2..].trim_start_matches(['-', '+']).trim_start();
        let word: String = words
            .chars()
            .take_while(char::is_ascii_alphabetic)
            .collect();
        if !STATEMENTS.contains(&word.as_str()) {
            let text = format!("\"{word}\" cannot be used here: there are only if and for");
            return Err(TemplateError(text));
        }
    }
    let mut quote = None;
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(2) {
        match quote {
            Some(_) if is_escaped => is_escaped = false,
            Some(_) if c == '\\' => is_escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if text[at..].starts_with(end) => return Ok(at + end.len()),
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == '*' => {
                return Err(TemplateError("there is no arithmetic here".to_owned()));
            }
            None => {}
        }
    }
    Err(unclosed())
}

fn unclosed() -> TemplateError {
    TemplateError("a {{, {% or {# is not closed".to_owned())
}

fn explain(error: &minijinja::Error) -> TemplateError {
    let what = match error.kind() {
        ErrorKind::OutOfFuel => "this takes too long".to_owned(),
        ErrorKind::WriteFailure => format!("the text becomes longer than {MOST_TEXT} bytes"),
        kind => error
            .detail()
            .map_or_else(|| kind.to_string(), |detail| format!("{kind}: {detail}")),
    };
    TemplateError(match error.line() {
        Some(line) => format!("line {line}: {what}"),
        None => what,
    })
}

/// Takes so much and no more.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MOST_TEXT {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "own_templates_tests.rs"]
mod tests;

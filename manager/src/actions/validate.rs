//! From what was typed to what may be stored: each check says in a sentence what is wrong with its field.

use ostiary_domain::target::Target;
use serde_json::Value;

use crate::error::{Error, FieldErrors, Result};

/// Collects what is wrong; [`done`](Self::done) refuses if anything is.
#[derive(Debug, Default)]
pub struct Check {
    errors: FieldErrors,
}

impl Check {
    /// Notes an error.
    pub fn wrong(&mut self, field: &str, sentence: impl Into<String>) {
        self.errors.add(field, sentence);
    }

    /// Was anything noted about this field?
    #[must_use]
    pub fn is_wrong(&self, field: &str) -> bool {
        self.errors.0.contains_key(field)
    }

    /// A line that must not be empty.
    pub fn name(&mut self, field: &str, text: &str, longest: usize) -> String {
        let text = text.trim();
        if text.is_empty() {
            self.wrong(field, "This must not be empty.");
        }
        self.line(field, text, longest)
    }

    /// A line that may be empty.
    pub fn line(&mut self, field: &str, text: &str, longest: usize) -> String {
        let text = text.trim();
        if text.chars().count() > longest {
            self.wrong(
                field,
                format!("This is too long: at most {longest} characters."),
            );
        } else if text.chars().any(char::is_control) {
            self.wrong(
                field,
                "This must stand on one line, without control characters.",
            );
        }
        text.to_owned()
    }

    /// A name that becomes part of the names of results: osquery joins pack and query with `/`.
    pub fn result_name(&mut self, field: &str, text: &str) -> String {
        let name = self.name(field, text, 200);
        if name.contains(ostiary_domain::node_config::PACK_DELIMITER) {
            self.wrong(
                field,
                "A \"/\" cannot be used: it stands between pack and query in the names of results.",
            );
        }
        name
    }

    /// The name of a query in a pack, or (`is_packed` false) in the schedule. A "/" is fine in a pack: the pack's own name has none, so
    /// names of results can still be taken apart. osquery's published packs have such names.
    pub fn query_name(&mut self, field: &str, text: &str, is_packed: bool) -> String {
        let name = self.name(field, text, 200);
        let prefix = format!("pack{}", ostiary_domain::node_config::PACK_DELIMITER);
        if !is_packed && name.starts_with(&prefix) {
            self.wrong(
                field,
                format!("Names that begin with {prefix} are those of queries in packs."),
            );
        }
        if let Some(flaw) = ostiary_domain::node_config::conditions::flaw_of_query_name(&name) {
            self.wrong(field, sentence(&flaw));
        }
        name
    }

    /// Which of several values stays: the one with the highest number; empty for 0.
    pub fn priority(&mut self, field: &str, text: &str) -> i32 {
        self.optional_number(field, text, -1000, 1000)
            .and_then(|priority| i32::try_from(priority).ok())
            .unwrap_or(0)
    }

    /// Text of several lines that may be empty.
    pub fn text(&mut self, field: &str, text: &str, longest: usize) -> String {
        let text = text.trim().replace("\r\n", "\n");
        if text.chars().count() > longest {
            self.wrong(
                field,
                format!("This is too long: at most {longest} characters."),
            );
        } else if text.contains('\0') {
            self.wrong(field, "This contains a NUL character.");
        }
        text
    }

    /// One SQL statement. What it may say, osquery decides; two statements or none it would refuse in any case.
    pub fn sql(&mut self, field: &str, text: &str) -> String {
        let sql = self.text(field, text, 100_000);
        let sql = sql
            .trim_end_matches(|character: char| character == ';' || character.is_whitespace())
            .to_owned();
        if sql.is_empty() {
            self.wrong(field, "This must not be empty.");
        }
        sql
    }

    /// A tag expression; empty means every node.
    pub fn target(&mut self, field: &str, text: &str) -> String {
        let text = self.line(field, text, 2000);
        if let Err(error) = Target::parse(&text) {
            self.wrong(field, sentence(&error));
        }
        text
    }

    /// A whole number within bounds.
    pub fn number(&mut self, field: &str, text: &str, least: i64, most: i64) -> i64 {
        match text.trim().parse::<i64>() {
            Ok(number) if (least..=most).contains(&number) => number,
            _ => {
                self.wrong(
                    field,
                    format!("A whole number from {least} to {most} is needed."),
                );
                least
            }
        }
    }

    /// A whole number within bounds, or nothing.
    pub fn optional_number(
        &mut self,
        field: &str,
        text: &str,
        least: i64,
        most: i64,
    ) -> Option<i64> {
        if text.trim().is_empty() {
            None
        } else {
            Some(self.number(field, text, least, most))
        }
    }

    /// A share of hosts in percent, or nothing for all.
    pub fn shard(&mut self, text: &str) -> Option<i16> {
        self.optional_number("shard", text, 1, 100)
            .and_then(|shard| i16::try_from(shard).ok())
    }

    /// osquery's platform condition, as in `linux,darwin`; empty for all.
    pub fn platform(&mut self, text: &str) -> String {
        const KNOWN: [&str; 7] = [
            "linux", "darwin", "windows", "freebsd", "posix", "all", "any",
        ];
        let platform = self.line("platform", text, 100);
        if platform
            .split(',')
            .map(str::trim)
            .any(|word| !word.is_empty() && !KNOWN.contains(&word))
        {
            self.wrong(
                "platform",
                format!(
                    "Platforms are {}, several with commas between.",
                    KNOWN.join(", ")
                ),
            );
        }
        platform
    }

    /// Lowest osquery version, as in `5.2.0`; empty for all.
    pub fn version(&mut self, text: &str) -> String {
        let version = self.line("version", text, 40);
        if !version.is_empty()
            && !version
                .split('.')
                .all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit()))
        {
            self.wrong(
                "version",
                "A version is written as numbers with dots, like 5.2.0.",
            );
        }
        version
    }

    /// One of a few words.
    pub fn choice(&mut self, field: &str, text: &str, choices: &[&str]) -> String {
        if !choices.contains(&text) {
            self.wrong(field, format!("Choose one of {}.", choices.join(", ")));
        }
        text.to_owned()
    }

    /// JSON.
    pub fn json(&mut self, field: &str, text: &str) -> Value {
        match serde_json::from_str(text.trim()) {
            Ok(value) => value,
            Err(error) => {
                self.wrong(field, format!("This is not JSON: {error}."));
                Value::Null
            }
        }
    }

    /// Refuses if anything was wrong.
    ///
    /// # Errors
    /// [`Error::Invalid`] with all that was noted.
    pub fn done(self) -> Result<()> {
        if self.errors.0.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid(self.errors))
        }
    }
}

/// An error's words as a sentence beside a field.
pub fn sentence(error: &impl std::fmt::Display) -> String {
    let words = error.to_string();
    let mut letters = words.chars();
    let capital = letters
        .next()
        .map(|first| first.to_uppercase().to_string())
        .unwrap_or_default();
    format!("{capital}{}.", letters.as_str().trim_end_matches('.'))
}

/// What is deleted for good asks for its name.
pub(super) fn confirmed(typed: &str, name: &str) -> Result<()> {
    if typed.trim() == name.trim() {
        Ok(())
    } else {
        Err(Error::field(
            "confirm",
            format!("Type \"{name}\" to delete it."),
        ))
    }
}

/// Lines that are not empty, trimmed.
#[must_use]
pub fn lines(text: &str) -> Vec<String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(ToOwned::to_owned)
        .collect()
}

/// Statements for a field that takes one a line: line ends inside of one become blanks, or editing would take it apart.
#[must_use]
pub fn one_a_line(statements: &[String]) -> String {
    let flat = statements.iter().map(|sql| sql.replace(['\r', '\n'], " "));
    flat.collect::<Vec<_>>().join("\n")
}

/// Words with commas or blanks between, without repetitions.
#[must_use]
pub fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text
        .split(|c: char| c == ',' || c.is_whitespace())
        .filter(|word| !word.is_empty())
    {
        if !words.iter().any(|known| known == word) {
            words.push(word.to_owned());
        }
    }
    words
}

/// Turns the refusal of a unique constraint into a sentence beside its field.
pub fn taken<T>(
    result: ostiary_store::Result<T>,
    constraint: &str,
    field: &str,
    sentence: &str,
) -> Result<T> {
    result.map_err(|error| {
        if error.is_constraint(constraint) {
            Error::field(field, sentence)
        } else {
            error.into()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_beside_its_field() {
        let mut check = Check::default();
        assert_eq!(check.name("name", " a ", 10), "a");
        check.name("empty", "  ", 10);
        check.result_name("slash", "a/b");
        check.target("target", "a and");
        check.number("number", "12x", 1, 5);
        check.version("5.x");
        check.platform("linux, amiga");
        assert_eq!(check.sql("sql", "SELECT 1 ; \n"), "SELECT 1");
        check.json("json", "{");
        let Err(Error::Invalid(errors)) = check.done() else {
            panic!("it was refused")
        };
        let fields: Vec<_> = errors.0.keys().map(String::as_str).collect();
        assert_eq!(
            fields,
            [
                "empty", "json", "number", "platform", "slash", "target", "version"
            ]
        );
        assert_eq!(
            errors.0["target"],
            "A tag, a condition or \"(\" is missing at character 6."
        );
        assert_eq!(words("a, b\n a"), ["a", "b"]);
    }
}

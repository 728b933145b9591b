//! What an enrollment is decided by, and the words of the decision.

use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};

use crate::ids::{EnrollSecretId, NodeId};
use crate::node::{IdentifierKind, NodeDetails};

/// A machine that asks for a key.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// What it says about itself.
    pub details: &'a NodeDetails,
    /// By which secret.
    pub secret: EnrollSecretId,
    /// From where.
    pub ip: Option<IpAddr>,
    /// How long after its last request a node counts as alive ([`ALIVE_FOR`](super::ALIVE_FOR) unless the settings say otherwise).
    pub alive_for: TimeDelta,
}

/// A node that shares at least one identifier with the machine that enrolls.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Which node.
    pub node_id: NodeId,
    /// What both have in common.
    pub shared: Vec<IdentifierKind>,
    /// The instance id that we know of it, lower-cased; empty if it never told one.
    pub instance_id: String,
    /// Its hardware UUID, lower-cased; empty if it never told one.
    pub hardware_uuid: String,
    /// Its serial number, lower-cased; empty if it never told one.
    pub hardware_serial: String,
    /// Its last request.
    pub last_seen_at: Option<DateTime<Utc>>,
    /// Where that came from.
    pub last_ip: Option<IpAddr>,
    /// When it got its latest node key.
    pub enrolled_at: DateTime<Utc>,
    /// By which secret, while that exists.
    pub secret: Option<EnrollSecretId>,
    /// What people have decided about it.
    pub standing: Standing,
}

/// What people have decided about a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It may do what nodes do.
    InForce,
    /// It has a key that unlocks nothing until an admin approves of it.
    Waiting,
    /// An admin has switched it off.
    Disabled,
    /// An admin did not approve of it.
    Refused,
}

/// Which enrollments by a secret wait for an admin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Approval {
    /// None.
    #[default]
    None,
    /// Those that would take over the identity of a silent node.
    Reestablished,
    /// All that bring a node in.
    All,
}

impl Approval {
    /// As it stands in `enroll_secrets.approval`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Reestablished => "reestablished",
            Self::All => "all",
        }
    }

    /// The reverse of [`as_str`](Self::as_str).
    #[must_use]
    pub fn from_str_opt(text: &str) -> Option<Self> {
        [Self::None, Self::Reestablished, Self::All]
            .into_iter()
            .find(|each| each.as_str() == text)
    }

    /// Must an enrollment that was decided so wait for an admin?
    #[must_use]
    pub fn is_needed(self, decision: &Decision) -> bool {
        match decision {
            Decision::New { .. } => self == Self::All,
            Decision::Reestablished(_) => self != Self::None,
            Decision::Known(_) | Decision::Barred(_) => false,
        }
    }
}

/// What two nodes have in common that makes them look like one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Hardware UUID or serial number, with another osquery database: a clone, an impostor, or a machine wiped while we thought it
    /// alive.
    Hardware,
    /// The osquery database, on other hardware: a copied disk, or a machine that got a new board.
    Database,
    /// Only the host identifier; old clients tell nothing else.
    HostIdentifier,
}

impl Reason {
    /// As it stands in `node_conflicts.reason`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hardware => "hardware",
            Self::Database => "database",
            Self::HostIdentifier => "host_identifier",
        }
    }
}

/// A node that looks like the same machine and was not handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict {
    /// Which node.
    pub with: NodeId,
    /// Why it looks so.
    pub reason: Reason,
}

/// What to do with the machine that enrolls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// A machine never seen, or one that cannot be told from another.
    New {
        /// The node that it may be.
        conflict: Option<Conflict>,
    },
    /// A node that we know, by its own osquery database or because its threads race.
    Known(NodeId),
    /// The hardware of a silent node with a new osquery database, or its database on new hardware: the same machine, wiped or
    /// repaired. Its identity rests on the secret alone, which is marked and may need an approval.
    Reestablished(NodeId),
    /// People have switched the node off, or refused it: it gets no new key.
    Barred(NodeId),
}

//! Which node a machine is that comes with a key of another manager. It did not enroll here, so nothing but facts tells.

use super::{Conflict, Reason, Standing};
use crate::ids::NodeId;
use crate::node::{IdentifierKind, NodeDetails};

/// A node here that shares at least one identifier with the machine.
#[derive(Debug, Clone)]
pub struct Lookalike {
    /// Which node.
    pub node_id: NodeId,
    /// What both have in common.
    pub shared: Vec<IdentifierKind>,
    /// Its hardware UUID, in any case; empty if it never told one.
    pub hardware_uuid: String,
    /// Its serial number, in any case; empty if it never told one.
    pub hardware_serial: String,
    /// Its host name, in any case; empty if it never told one.
    pub hostname: String,
    /// What people have decided about it.
    pub standing: Standing,
}

/// What becomes of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It becomes a node; it may be the one of the conflict.
    New {
        /// The node that it may be.
        conflict: Option<Conflict>,
    },
    /// It is this node already, in whatever standing.
    Known(NodeId, Standing),
}

/// Decides. A host identifier alone proves nothing: it may be a mere host name, and whoever types a file may err. It takes the same
/// hardware, or a second fact that agrees, and nothing that speaks against it; where two nodes fit alike nobody is chosen.
#[must_use]
pub fn arrive(details: &NodeDetails, candidates: &[Lookalike]) -> Arrival {
    let same: Vec<&Lookalike> = candidates
        .iter()
        .filter(|each| is_same(details, each))
        .collect();
    if let [only] = same.as_slice() {
        return Arrival::Known(only.node_id, only.standing);
    }
    let conflict = |of: &Lookalike| Conflict {
        with: of.node_id,
        reason: if shares_hardware(of) {
            Reason::Hardware
        } else {
            Reason::HostIdentifier
        },
    };
    let likeliest = candidates.iter().max_by_key(|each| shares_hardware(each));
    Arrival::New {
        conflict: likeliest.map(conflict),
    }
}

fn shares_hardware(each: &Lookalike) -> bool {
    let hardware = [IdentifierKind::HardwareUuid, IdentifierKind::Serial];
    each.shared.iter().any(|kind| hardware.contains(kind))
}

fn is_same(details: &NodeDetails, each: &Lookalike) -> bool {
    let differ = |one: &str, other: &str| {
        let (one, other) = (one.trim(), other.trim());
        !one.is_empty() && !other.is_empty() && !one.eq_ignore_ascii_case(other)
    };
    let is_other = differ(&details.hardware_uuid, &each.hardware_uuid)
        || differ(&details.hardware_serial, &each.hardware_serial);
    let name = details.hostname.trim();
    // A host identifier that is the host name is one fact, not two.
    let is_second_fact = !name.is_empty()
        && name.eq_ignore_ascii_case(each.hostname.trim())
        && !name.eq_ignore_ascii_case(details.host_identifier.trim());
    let shares_name = each.shared.contains(&IdentifierKind::HostIdentifier) && is_second_fact;
    !is_other && (shares_hardware(each) || shares_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookalike(number: u128, shared: &[IdentifierKind]) -> Lookalike {
        Lookalike {
            node_id: NodeId(uuid::Uuid::from_u128(number)),
            shared: shared.to_vec(),
            hardware_uuid: "aaaa".into(),
            hardware_serial: "S1".into(),
            hostname: "web-1".into(),
            standing: Standing::InForce,
        }
    }

    fn details(identifier: &str, uuid: &str, serial: &str, hostname: &str) -> NodeDetails {
        NodeDetails {
            host_identifier: identifier.into(),
            hardware_uuid: uuid.into(),
            hardware_serial: serial.into(),
            hostname: hostname.into(),
            ..NodeDetails::default()
        }
    }

    #[test]
    fn a_machine_is_a_known_node_only_by_its_hardware_or_by_two_facts() {
        use IdentifierKind::{HardwareUuid, HostIdentifier, Serial};
        let known =
            |number: u128| Arrival::Known(NodeId(uuid::Uuid::from_u128(number)), Standing::InForce);
        let new = |reason: Option<Reason>| Arrival::New {
            conflict: reason.map(|reason| Conflict {
                with: NodeId(uuid::Uuid::from_u128(1)),
                reason,
            }),
        };
        for (machine, shared, expected) in [
            (details("h", "AAAA", "", ""), &[HardwareUuid][..], known(1)),
            (details("h", "", "s1", ""), &[Serial], known(1)),
            (
                details("h", "bbbb", "s1", ""),
                &[Serial],
                new(Some(Reason::Hardware)),
            ),
            (
                details("h", "aaaa", "s2", ""),
                &[HardwareUuid],
                new(Some(Reason::Hardware)),
            ),
            (
                details("h", "", "", ""),
                &[HostIdentifier],
                new(Some(Reason::HostIdentifier)),
            ),
            (details("h", "", "", "WEB-1"), &[HostIdentifier], known(1)),
            (
                details("web-1", "", "", "web-1"),
                &[HostIdentifier],
                new(Some(Reason::HostIdentifier)),
            ),
            (
                details("h", "", "", "web-2"),
                &[HostIdentifier],
                new(Some(Reason::HostIdentifier)),
            ),
            (
                details("h", "bbbb", "", "web-1"),
                &[HostIdentifier],
                new(Some(Reason::HostIdentifier)),
            ),
        ] {
            assert_eq!(
                arrive(&machine, &[lookalike(1, shared)]),
                expected,
                "{machine:?}"
            );
        }
        assert_eq!(arrive(&details("h", "x", "y", "z"), &[]), new(None));
        let two = [lookalike(1, &[HardwareUuid]), lookalike(2, &[HardwareUuid])];
        assert!(
            matches!(
                arrive(&details("h", "aaaa", "", ""), &two),
                Arrival::New { conflict: Some(_) }
            ),
            "two fit alike"
        );
    }
}

//! Enrollment: who a machine is that asks for a node key.
//!
//! Whoever holds the fleet's secret can claim to be any machine, and cloned machines share their hardware's identifiers. So a live
//! node is never handed over, and a host name alone proves nothing.

use chrono::{DateTime, TimeDelta, Utc};

use crate::ids::NodeId;
use crate::node::{IdentifierKind, NodeDetails};

/// A node that shares at least one identifier with the machine that enrolls.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Which node.
    pub node_id: NodeId,
    /// What both have in common.
    pub shared: Vec<IdentifierKind>,
    /// The instance id that we know of it, lower-cased; empty if it never told one.
    pub instance_id: String,
    /// Its last request.
    pub last_seen_at: Option<DateTime<Utc>>,
    /// When it got its latest node key.
    pub enrolled_at: DateTime<Utc>,
    /// An admin has switched it off.
    pub disabled: bool,
}

/// What to do with the machine that enrolls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// A machine never seen. With `conflict_with` it claims hardware whose node is alive: a clone, or an impostor.
    New {
        /// The living node with the same hardware.
        conflict_with: Option<NodeId>,
    },
    /// A node that we know, by its own osquery database or without any doubt of another machine.
    Known(NodeId),
    /// Known hardware with a new osquery database, while the known node is silent: the same machine, wiped. Its identity rests on
    /// the secret alone, which is marked and may need an approval.
    Reestablished(NodeId),
    /// The node is switched off: it gets no new key.
    Disabled(NodeId),
}

/// How long after its last request a node still counts as alive. Longer than every usual polling interval, shorter than a
/// reinstallation.
pub const ALIVE_FOR: TimeDelta = TimeDelta::minutes(10);

/// How long after an enrollment the same claim without an instance id is taken for the same client.
pub const RACE_GRACE: TimeDelta = TimeDelta::minutes(2);

/// Decides who the machine is. `candidates` are all nodes that share an identifier with `details`.
///
/// Matching is by instance id first (osquery's own database), then by hardware UUID or serial. Clients before osquery 2.8 send
/// nothing but a host identifier, often a mere host name: it finds their own silent node again, never a living one.
#[must_use]
pub fn decide(details: &NodeDetails, candidates: &[Candidate], now: DateTime<Utc>) -> Decision {
    let newest_with = |kind: IdentifierKind| {
        candidates
            .iter()
            .filter(|candidate| candidate.shared.contains(&kind))
            .max_by_key(|candidate| (candidate.last_seen_at, candidate.enrolled_at))
    };
    if let Some(same) = newest_with(IdentifierKind::Instance) {
        // A cloned disk carries the instance id along; other hardware is another machine then.
        let other_hardware = !details.hardware_uuid.is_empty()
            && !same.shared.contains(&IdentifierKind::HardwareUuid)
            && !same.shared.contains(&IdentifierKind::Serial);
        return match other_hardware && is_alive(same, now) {
            true => Decision::New {
                conflict_with: Some(same.node_id),
            },
            false => known(same),
        };
    }
    let hardware =
        newest_with(IdentifierKind::HardwareUuid).or_else(|| newest_with(IdentifierKind::Serial));
    if let Some(same) = hardware {
        // A racing client tells each time the same; one that leaves out what the node has told before is somebody else.
        let untold = details.instance_id.is_empty() && same.instance_id.is_empty();
        return without_proof(same, untold, now);
    }
    let told_nothing_else = details.instance_id.is_empty() && details.hardware_uuid.is_empty();
    match newest_with(IdentifierKind::HostIdentifier) {
        Some(same) if told_nothing_else && same.instance_id.is_empty() => {
            without_proof(same, true, now)
        }
        _ => Decision::New {
            conflict_with: None,
        },
    }
}

/// The machine says it is `candidate`, but does not bring that node's database. While the node lives it is another machine; an
/// exception are clients that never tell an instance id and enroll again within moments, because their threads race
/// (`osquery/remote/enroll`: the key is erased unconditionally, so two or three enrollments within seconds are normal).
fn without_proof(candidate: &Candidate, untold: bool, now: DateTime<Utc>) -> Decision {
    if candidate.disabled {
        Decision::Disabled(candidate.node_id)
    } else if untold && now - candidate.enrolled_at < RACE_GRACE {
        Decision::Known(candidate.node_id)
    } else if is_alive(candidate, now) {
        Decision::New {
            conflict_with: Some(candidate.node_id),
        }
    } else {
        Decision::Reestablished(candidate.node_id)
    }
}

fn known(candidate: &Candidate) -> Decision {
    if candidate.disabled {
        Decision::Disabled(candidate.node_id)
    } else {
        Decision::Known(candidate.node_id)
    }
}

fn is_alive(candidate: &Candidate, now: DateTime<Utc>) -> bool {
    !candidate.disabled
        && candidate
            .last_seen_at
            .is_some_and(|seen| now - seen < ALIVE_FOR)
}

#[cfg(test)]
mod tests {
    use IdentifierKind::{HardwareUuid, HostIdentifier, Instance, Serial};
    use uuid::Uuid;

    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn candidate(shared: &[IdentifierKind], instance: &str, seen_minutes_ago: i64) -> Candidate {
        Candidate {
            node_id: NodeId(Uuid::from_u128(7)),
            shared: shared.to_vec(),
            instance_id: instance.into(),
            last_seen_at: Some(now() - TimeDelta::minutes(seen_minutes_ago)),
            enrolled_at: now() - TimeDelta::days(1),
            disabled: false,
        }
    }

    fn modern() -> NodeDetails {
        NodeDetails {
            host_identifier: "h".into(),
            hardware_uuid: "u".into(),
            instance_id: "i2".into(),
            ..NodeDetails::default()
        }
    }

    const NODE: NodeId = NodeId(Uuid::from_u128(7));

    #[test]
    fn an_unknown_machine_is_a_new_node() {
        assert_eq!(
            decide(&modern(), &[], now()),
            Decision::New {
                conflict_with: None
            }
        );
    }

    #[test]
    fn the_same_database_is_the_same_node_however_often_it_enrolls() {
        let same = candidate(&[Instance, HardwareUuid, HostIdentifier], "i2", 0);
        assert_eq!(decide(&modern(), &[same], now()), Decision::Known(NODE));
    }

    #[test]
    fn the_same_hardware_with_another_database_is_another_node_while_the_first_lives() {
        let same = candidate(&[HardwareUuid, HostIdentifier], "i1", 1);
        assert_eq!(
            decide(&modern(), &[same], now()),
            Decision::New {
                conflict_with: Some(NODE)
            }
        );
    }

    #[test]
    fn the_same_hardware_with_another_database_is_the_same_machine_wiped_when_the_first_is_silent()
    {
        let same = candidate(&[HardwareUuid], "i1", 60);
        assert_eq!(
            decide(&modern(), &[same], now()),
            Decision::Reestablished(NODE)
        );
        let same = candidate(&[Serial], "i1", 60);
        assert_eq!(
            decide(&modern(), &[same], now()),
            Decision::Reestablished(NODE)
        );
    }

    #[test]
    fn leaving_out_the_instance_id_does_not_hand_over_a_living_node() {
        let shy = NodeDetails {
            instance_id: String::new(),
            ..modern()
        };
        let same = candidate(&[HardwareUuid], "i1", 1);
        assert_eq!(
            decide(&shy, &[same], now()),
            Decision::New {
                conflict_with: Some(NODE)
            }
        );
    }

    #[test]
    fn leaving_out_the_instance_id_hands_over_no_node_that_has_just_enrolled_either() {
        let mut just_enrolled = candidate(&[HardwareUuid, HostIdentifier], "i1", 0);
        just_enrolled.enrolled_at = now() - TimeDelta::seconds(2);
        let shy = NodeDetails {
            instance_id: String::new(),
            ..modern()
        };
        assert_eq!(
            decide(&shy, &[just_enrolled.clone()], now()),
            Decision::New {
                conflict_with: Some(NODE)
            }
        );
        just_enrolled.instance_id = String::new();
        assert_eq!(
            decide(&shy, &[just_enrolled.clone()], now()),
            Decision::Known(NODE),
            "neither told one: its threads race"
        );
        assert_eq!(
            decide(&modern(), &[just_enrolled], now()),
            Decision::New {
                conflict_with: Some(NODE)
            }
        );
    }

    #[test]
    fn a_copied_database_on_other_hardware_is_another_node() {
        let same = candidate(&[Instance, HostIdentifier], "i2", 1);
        assert_eq!(
            decide(&modern(), &[same], now()),
            Decision::New {
                conflict_with: Some(NODE)
            }
        );
    }

    #[test]
    fn a_host_identifier_alone_finds_only_a_silent_node_that_told_nothing_else() {
        let same = candidate(&[HostIdentifier], "", 1);
        assert_eq!(
            decide(&modern(), std::slice::from_ref(&same), now()),
            Decision::New {
                conflict_with: None
            }
        );
        let old = NodeDetails {
            host_identifier: "h".into(),
            ..NodeDetails::default()
        };
        assert_eq!(
            decide(&old, &[same], now()),
            Decision::New {
                conflict_with: Some(NODE)
            }
        );
        let mut racing = candidate(&[HostIdentifier], "", 0);
        racing.enrolled_at = now() - TimeDelta::seconds(2);
        assert_eq!(decide(&old, &[racing], now()), Decision::Known(NODE));
        let silent = candidate(&[HostIdentifier], "", 60);
        assert_eq!(
            decide(&old, &[silent], now()),
            Decision::Reestablished(NODE)
        );
        let modern_node = candidate(&[HostIdentifier], "i1", 1);
        assert_eq!(
            decide(&old, &[modern_node], now()),
            Decision::New {
                conflict_with: None
            }
        );
    }

    #[test]
    fn a_disabled_node_gets_no_new_key() {
        let mut same = candidate(&[Instance, HardwareUuid], "i2", 1);
        same.disabled = true;
        assert_eq!(
            decide(&modern(), &[same.clone()], now()),
            Decision::Disabled(NODE)
        );
        same.shared = vec![HardwareUuid];
        same.instance_id = "i1".into();
        assert_eq!(decide(&modern(), &[same], now()), Decision::Disabled(NODE));
    }
}

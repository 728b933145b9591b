//! Cases of identity as a table, and what must hold for every case.

use IdentifierKind::{HardwareUuid, HostIdentifier, Instance, Serial};
use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::ids::{EnrollSecretId, NodeId};
use crate::node::{IdentifierKind, NodeDetails};

const SECRET: EnrollSecretId = EnrollSecretId(Uuid::from_u128(1));

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn node(number: u128) -> NodeId {
    NodeId(Uuid::from_u128(number))
}

/// What a machine tells: instance, UUID, serial, host identifier.
fn tells(instance: &str, uuid: &str, serial: &str, host: &str) -> NodeDetails {
    NodeDetails {
        host_identifier: host.into(),
        hardware_uuid: uuid.into(),
        hardware_serial: serial.into(),
        instance_id: instance.into(),
        ..NodeDetails::default()
    }
}

/// A node that has told this, as the store would find it for `claim`.
fn known(
    number: u128,
    told: &NodeDetails,
    claim: &NodeDetails,
    seen_minutes_ago: i64,
) -> Candidate {
    let theirs = told.identifiers();
    Candidate {
        node_id: node(number),
        shared: claim
            .identifiers()
            .into_iter()
            .filter(|own| theirs.contains(own))
            .map(|(kind, _)| kind)
            .collect(),
        instance_id: told.instance_id.to_lowercase(),
        hardware_uuid: told.hardware_uuid.to_lowercase(),
        hardware_serial: told.hardware_serial.to_lowercase(),
        last_seen_at: Some(now() - TimeDelta::minutes(seen_minutes_ago)),
        last_ip: Some([192, 0, 2, 1].into()),
        enrolled_at: now() - TimeDelta::days(1),
        secret: Some(SECRET),
        standing: Standing::InForce,
    }
}

fn decided(details: &NodeDetails, candidates: &[Candidate]) -> Decision {
    let claim = Claim {
        details,
        secret: SECRET,
        ip: Some([192, 0, 2, 1].into()),
        alive_for: ALIVE_FOR,
    };
    let shared: Vec<Candidate> = candidates
        .iter()
        .filter(|each| !each.shared.is_empty())
        .cloned()
        .collect();
    decide(&claim, &shared, now())
}

fn new() -> Decision {
    Decision::New { conflict: None }
}

fn conflict(number: u128, reason: Reason) -> Decision {
    Decision::New {
        conflict: Some(Conflict {
            with: node(number),
            reason,
        }),
    }
}

#[test]
fn who_a_machine_is() {
    let claim = tells("i2", "u", "s", "h");
    let old = tells("", "", "", "h");
    // What is asked, what is known (number, told, minutes since it was seen), and what is decided.
    type Case<'a> = (
        &'a str,
        &'a NodeDetails,
        &'a [(u128, NodeDetails, i64)],
        Decision,
    );
    let cases: &[Case<'_>] = &[
        ("nobody like it", &claim, &[], new()),
        (
            "the same database, however often it enrolls",
            &claim,
            &[(7, claim.clone(), 0)],
            Decision::Known(node(7)),
        ),
        (
            "the same database under another name",
            &claim,
            &[(7, tells("I2", "U", "S", "renamed"), 0)],
            Decision::Known(node(7)),
        ),
        (
            "the same database, of which no hardware is known",
            &claim,
            &[(7, tells("i2", "", "", "h"), 0)],
            Decision::Known(node(7)),
        ),
        (
            "the same hardware while the known node lives",
            &claim,
            &[(7, tells("i1", "u", "s", "h"), 1)],
            conflict(7, Reason::Hardware),
        ),
        (
            "the same hardware while the known node is silent: wiped",
            &claim,
            &[(7, tells("i1", "u", "s", "h"), 60)],
            Decision::Reestablished(node(7)),
        ),
        (
            "only the serial in common, and silent",
            &claim,
            &[(7, tells("i1", "", "s", "h"), 60)],
            Decision::Reestablished(node(7)),
        ),
        (
            "leaving out the instance id does not hand over a living node",
            &tells("", "u", "s", "h"),
            &[(7, tells("i1", "u", "s", "h"), 1)],
            conflict(7, Reason::Hardware),
        ),
        (
            "a copied database while the original lives",
            &claim,
            &[(7, tells("i2", "u9", "s9", "h"), 1)],
            conflict(7, Reason::Database),
        ),
        (
            "a copied database, the original silent: never without a mark",
            &claim,
            &[(7, tells("i2", "u9", "s9", "h"), 60)],
            Decision::Reestablished(node(7)),
        ),
        (
            "a copied database of which only the serial differs",
            &claim,
            &[(7, tells("i2", "u", "s9", "h"), 1)],
            conflict(7, Reason::Database),
        ),
        (
            "a clone that has become a node of its own finds itself, not the original that was seen later",
            &claim,
            &[
                (7, tells("i2", "u9", "s9", "h"), 0),
                (8, tells("i2", "u", "s", "h"), 5),
            ],
            Decision::Known(node(8)),
        ),
        (
            "a machine that was given another's database is itself, wiped",
            &claim,
            &[
                (7, tells("i2", "u9", "s9", "other"), 0),
                (8, tells("i1", "u", "s", "h"), 60),
            ],
            Decision::Reestablished(node(8)),
        ),
        (
            "one UUID, two serial numbers: not the same machine, even when silent",
            &claim,
            &[(7, tells("i1", "u", "s9", "h"), 60)],
            new(),
        ),
        (
            "one UUID, two serial numbers, both living",
            &claim,
            &[(7, tells("i1", "u", "s9", "h"), 1)],
            conflict(7, Reason::Hardware),
        ),
        (
            "several silent nodes on one hardware: nobody can say which",
            &claim,
            &[
                (7, tells("i1", "u", "s", "x"), 60),
                (8, tells("i3", "u", "s", "y"), 70),
            ],
            conflict(7, Reason::Hardware),
        ),
        (
            "containers on one hardware are told apart by what they call themselves",
            &claim,
            &[
                (7, tells("i1", "u", "s", "x"), 1),
                (8, tells("i3", "u", "s", "h"), 70),
            ],
            Decision::Reestablished(node(8)),
        ),
        (
            "a host name proves nothing while its node lives",
            &old,
            &[(7, old.clone(), 1)],
            conflict(7, Reason::HostIdentifier),
        ),
        (
            "nor when it is silent",
            &old,
            &[(7, old.clone(), 600)],
            conflict(7, Reason::HostIdentifier),
        ),
        (
            "nor does the host name of a node that tells more",
            &old,
            &[(7, tells("i1", "u", "s", "h"), 600)],
            new(),
        ),
        (
            "nor does a newcomer that tells more, under a known name",
            &claim,
            &[(7, old.clone(), 600)],
            new(),
        ),
    ];
    for (name, asks, nodes, expected) in cases {
        let candidates: Vec<Candidate> = nodes
            .iter()
            .map(|(number, told, ago)| known(*number, told, asks, *ago))
            .collect();
        assert_eq!(decided(asks, &candidates), *expected, "{name}");
        let reversed: Vec<Candidate> = candidates.into_iter().rev().collect();
        assert_eq!(decided(asks, &reversed), *expected, "{name}, reversed");
    }
}

#[test]
fn a_host_identifier_that_is_a_uuid_counts_as_hardware_for_clients_that_tell_nothing_else() {
    let uuid = "4c4c4544-0042-4b10-8057-b7c04f4a5932";
    let old = tells("", "", "", &uuid.to_uppercase());
    assert_eq!(
        decided(&old, &[known(7, &old, &old, 60)]),
        Decision::Reestablished(node(7))
    );
    assert_eq!(
        decided(&old, &[known(7, &old, &old, 1)]),
        conflict(7, Reason::Hardware)
    );
    let modern = tells("i", uuid, "s", uuid);
    assert_eq!(
        decided(&modern, &[known(7, &old, &modern, 60)]),
        Decision::Reestablished(node(7)),
        "imported from a manager that knew nothing else"
    );
    for placeholder in [
        "03000200-0400-0500-0006-000700080009",
        "00000000-0000-0000-0000-000000000000",
        "10000000-0000-8000-0040-000000000000",
        "03020100-0504-0706-0809-0a0b0c0d0e0f",
    ] {
        assert_eq!(
            tells("", "", "", placeholder).identifiers(),
            [],
            "{placeholder} is no identity"
        );
    }
}

#[test]
fn racing_threads_of_a_client_that_tells_no_instance_are_one_node() {
    for shy in [tells("", "u", "s", "h"), tells("", "", "", "h")] {
        let mut racing = known(7, &shy, &shy, 0);
        racing.enrolled_at = now() - TimeDelta::seconds(2);
        assert_eq!(
            decided(&shy, std::slice::from_ref(&racing)),
            Decision::Known(node(7))
        );
        let elsewhere = Candidate {
            last_ip: Some([198, 51, 100, 1].into()),
            ..racing.clone()
        };
        let by_another_secret = Candidate {
            secret: None,
            ..racing.clone()
        };
        let has_told_more = Candidate {
            instance_id: "i1".into(),
            ..racing.clone()
        };
        let earlier = Candidate {
            enrolled_at: now() - RACE_GRACE,
            ..racing
        };
        for other in [elsewhere, by_another_secret, has_told_more, earlier] {
            assert!(
                matches!(
                    decided(&shy, std::slice::from_ref(&other)),
                    Decision::New { .. }
                ),
                "{other:?}"
            );
        }
    }
}

#[test]
fn a_barred_node_gets_no_new_key_and_bars_nobody_else() {
    let claim = tells("i2", "u", "s", "h");
    for standing in [Standing::Disabled, Standing::Refused] {
        let barred = |told: &NodeDetails| Candidate {
            standing,
            ..known(7, told, &claim, 1)
        };
        assert_eq!(
            decided(&claim, &[barred(&claim)]),
            Decision::Barred(node(7))
        );
        let wiped = barred(&tells("i1", "u", "s", "h"));
        assert_eq!(
            decided(&claim, std::slice::from_ref(&wiped)),
            Decision::Barred(node(7))
        );
        let rightful = known(8, &tells("i3", "u", "s", "h"), &claim, 60);
        assert_eq!(
            decided(&claim, &[wiped, rightful]),
            Decision::Reestablished(node(8)),
            "an impostor who was refused locks nobody out"
        );
    }
}

#[test]
fn a_node_that_waits_is_itself_and_is_taken_over_by_nobody() {
    let claim = tells("i2", "u", "s", "h");
    let waiting = |told: &NodeDetails, ago| Candidate {
        standing: Standing::Waiting,
        ..known(7, told, &claim, ago)
    };
    assert_eq!(
        decided(&claim, &[waiting(&claim, 0)]),
        Decision::Known(node(7))
    );
    let other = tells("i1", "u", "s", "h");
    assert_eq!(
        decided(&claim, &[waiting(&other, 600)]),
        conflict(7, Reason::Hardware)
    );
}

#[test]
fn an_approval_is_asked_for_what_the_secret_says() {
    let reestablished = Decision::Reestablished(node(7));
    let known = Decision::Known(node(7));
    for (approval, expected) in [
        (Approval::None, [false, false, false]),
        (Approval::Reestablished, [false, true, false]),
        (Approval::All, [true, true, false]),
    ] {
        assert_eq!(
            [new(), reestablished, known].map(|decision| approval.is_needed(&decision)),
            expected
        );
        assert_eq!(Approval::from_str_opt(approval.as_str()), Some(approval));
    }
    assert_eq!(Approval::from_str_opt("some"), None);
}

fn details() -> impl Strategy<Value = NodeDetails> {
    let one_of = |words: &'static [&'static str]| prop::sample::select(words);
    (
        one_of(&["", "i1", "i2", "I1"]),
        one_of(&["", "u1", "u2"]),
        one_of(&["", "s1", "s2"]),
        one_of(&["h1", "h2", "4c4c4544-0042-4b10-8057-b7c04f4a5932"]),
    )
        .prop_map(|(instance, uuid, serial, host)| tells(instance, uuid, serial, host))
}

proptest! {
    #[test]
    fn a_living_node_is_handed_to_nobody_who_cannot_be_it(
        claim in details(),
        nodes in prop::collection::vec((details(), 0..30_i64, 0..4_usize, 0..300_i64, any::<bool>()), 0..6),
    ) {
        let candidates: Vec<Candidate> = nodes
            .iter()
            .zip(1..)
            .map(|((told, ago, standing, enrolled_seconds_ago, here), number)| Candidate {
                standing: [Standing::InForce, Standing::Waiting, Standing::Disabled, Standing::Refused][*standing],
                enrolled_at: now() - TimeDelta::seconds(*enrolled_seconds_ago),
                last_ip: here.then(|| [192, 0, 2, 1].into()),
                ..known(number, told, &claim, *ago)
            })
            .collect();
        let of = |id: NodeId| candidates.iter().find(|each| each.node_id == id).unwrap();
        let differ = |own: &str, known: &str| {
            !own.is_empty() && !known.is_empty() && own.to_lowercase() != known
        };
        let decision = decided(&claim, &candidates);
        match decision {
            Decision::Known(id) => {
                let node = of(id);
                let owns_database = node.shared.contains(&Instance)
                    && !differ(&claim.hardware_uuid, &node.hardware_uuid)
                    && !differ(&claim.hardware_serial, &node.hardware_serial);
                let races = claim.instance_id.is_empty()
                    && node.instance_id.is_empty()
                    && node.last_ip.is_some()
                    && now() - node.enrolled_at < RACE_GRACE;
                prop_assert!(owns_database || races, "{decision:?}");
                prop_assert!(matches!(node.standing, Standing::InForce | Standing::Waiting));
            }
            Decision::Reestablished(id) => {
                let node = of(id);
                prop_assert!(now() - node.last_seen_at.unwrap() >= ALIVE_FOR, "{decision:?}");
                prop_assert_eq!(node.standing, Standing::InForce);
                let shared = &node.shared;
                prop_assert!(
                    [Instance, HardwareUuid, Serial].iter().any(|kind| shared.contains(kind)),
                    "a name alone proves nothing: {decision:?}"
                );
            }
            Decision::Barred(id) => {
                prop_assert!(matches!(of(id).standing, Standing::Disabled | Standing::Refused));
            }
            Decision::New { conflict: Some(conflict) } => {
                let node = of(conflict.with);
                prop_assert!(matches!(node.standing, Standing::InForce | Standing::Waiting));
                if conflict.reason == Reason::HostIdentifier {
                    prop_assert!(node.shared.contains(&HostIdentifier));
                }
            }
            Decision::New { conflict: None } => {
                let is_itself = |each: &Candidate| {
                    each.standing == Standing::InForce
                        && each.shared.contains(&Instance)
                        && !differ(&claim.hardware_uuid, &each.hardware_uuid)
                        && !differ(&claim.hardware_serial, &each.hardware_serial)
                };
                prop_assert!(!candidates.iter().any(is_itself), "a node always finds itself");
            }
        }
        let mut reversed = candidates.clone();
        reversed.reverse();
        prop_assert_eq!(decided(&claim, &reversed), decision, "the order decides nothing");
    }
}

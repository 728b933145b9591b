//! The decision itself.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Candidate, Claim, Conflict, Decision, Reason, Standing};
use crate::ids::NodeId;
use crate::node::IdentifierKind;

/// How long after its last request a node still counts as alive. Longer than every usual polling interval, shorter than a
/// reinstallation.
pub const ALIVE_FOR: TimeDelta = TimeDelta::minutes(10);

/// How long after an enrollment the same claim without an instance id is taken for the same client.
pub const RACE_GRACE: TimeDelta = TimeDelta::minutes(2);

/// Decides who the machine is. `candidates` are all nodes that share an identifier with the claim.
///
/// Matching is by instance id first (osquery's own database), then by hardware UUID or serial. Clients before osquery 2.8 send
/// nothing but a host identifier, often a mere host name: that never makes anybody a node that is there already, except within
/// moments from the same place, because a client's threads race (`osquery/remote/enroll`: the key is erased unconditionally, so two
/// or three enrollments within seconds are normal).
#[must_use]
pub fn decide(claim: &Claim<'_>, candidates: &[Candidate], now: DateTime<Utc>) -> Decision {
    let judge = Judge { claim, now };
    judge
        .by_database(candidates)
        .or_else(|| judge.by_hardware(candidates))
        .or_else(|| judge.by_copied_database(candidates))
        .or_else(|| judge.by_shared_hardware(candidates))
        .or_else(|| judge.by_host_identifier(candidates))
        .unwrap_or(Decision::New { conflict: None })
}

struct Judge<'a> {
    claim: &'a Claim<'a>,
    now: DateTime<Utc>,
}

impl Judge<'_> {
    /// Its own database, on hardware that does not speak against it.
    fn by_database(&self, candidates: &[Candidate]) -> Option<Decision> {
        let same = candidates
            .iter()
            .filter(|each| shares(each, IdentifierKind::Instance) && !self.is_other_hardware(each))
            .max_by_key(|each| (each.is_open(), shares_hardware(each), each.newest()))?;
        Some(if same.is_open() {
            Decision::Known(same.node_id)
        } else {
            Decision::Barred(same.node_id)
        })
    }

    /// Its hardware, with another database.
    fn by_hardware(&self, candidates: &[Candidate]) -> Option<Decision> {
        let same = candidates
            .iter()
            .filter(|each| shares_hardware(each) && !self.is_other_hardware(each));
        self.without_proof(&same.collect::<Vec<_>>(), Reason::Hardware)
    }

    /// Its database, but hardware that speaks against it.
    fn by_copied_database(&self, candidates: &[Candidate]) -> Option<Decision> {
        let copies = candidates
            .iter()
            .filter(|each| shares(each, IdentifierKind::Instance));
        self.without_proof(&copies.collect::<Vec<_>>(), Reason::Database)
    }

    /// The UUID of one board with the serial number of another: clones made by hand. They are never the same node.
    fn by_shared_hardware(&self, candidates: &[Candidate]) -> Option<Decision> {
        let alike = candidates
            .iter()
            .filter(|each| shares_hardware(each) && each.is_open() && self.is_alive(each));
        alike
            .max_by_key(|each| each.newest())
            .map(|each| conflict(each, Reason::Hardware))
    }

    /// Old clients, which tell nothing else.
    fn by_host_identifier(&self, candidates: &[Candidate]) -> Option<Decision> {
        let details = self.claim.details;
        if !details.instance_id.is_empty() || !details.hardware_uuid.is_empty() {
            return None;
        }
        let same = candidates
            .iter()
            .filter(|each| {
                shares(each, IdentifierKind::HostIdentifier) && each.instance_id.is_empty()
            })
            .max_by_key(|each| (each.is_open(), each.newest()))?;
        Some(if !same.is_open() {
            Decision::Barred(same.node_id)
        } else if self.races_with(same) {
            Decision::Known(same.node_id)
        } else {
            conflict(same, Reason::HostIdentifier)
        })
    }

    /// The machine says it is one of these, but nothing proves it. While one of them lives it is another machine; of several silent
    /// ones nobody can say which. Those that people have barred count only when there is no other: else an impostor who was refused
    /// would lock out the machine that it claimed to be.
    fn without_proof(&self, alike: &[&Candidate], reason: Reason) -> Option<Decision> {
        let mut open: Vec<&Candidate> = alike
            .iter()
            .copied()
            .filter(|each| each.is_open())
            .collect();
        if open.is_empty() {
            return newest_of(alike).map(|each| Decision::Barred(each.node_id));
        }
        // Containers share their host's hardware; what they call themselves tells them apart, though it proves nothing.
        if open
            .iter()
            .any(|each| shares(each, IdentifierKind::HostIdentifier))
        {
            open.retain(|each| shares(each, IdentifierKind::HostIdentifier));
        }
        if let Some(racing) = open.iter().find(|each| self.races_with(each)) {
            return Some(Decision::Known(racing.node_id));
        }
        let alive: Vec<&Candidate> = open
            .iter()
            .copied()
            .filter(|each| self.is_alive(each))
            .collect();
        match (newest_of(&alive), open.as_slice()) {
            (Some(living), _) => Some(conflict(living, reason)),
            (None, [only]) if only.standing == Standing::InForce => {
                Some(Decision::Reestablished(only.node_id))
            }
            (None, several) => newest_of(several).map(|each| conflict(each, reason)),
        }
    }

    /// The same client, asking again within moments: it tells no instance id, as before, and comes from the same place. One that
    /// leaves out what the node has told before is somebody else.
    fn races_with(&self, candidate: &Candidate) -> bool {
        self.claim.details.instance_id.is_empty()
            && candidate.instance_id.is_empty()
            && candidate.secret == Some(self.claim.secret)
            && candidate.last_ip.map(|ip| ip.to_canonical())
                == self.claim.ip.map(|ip| ip.to_canonical())
            && self.now - candidate.enrolled_at < RACE_GRACE
    }

    /// Do UUID or serial number, where both sides tell one, differ?
    fn is_other_hardware(&self, candidate: &Candidate) -> bool {
        let differ = |own: &str, known: &str| {
            let own = own.trim().to_lowercase();
            !own.is_empty() && !known.is_empty() && own != known
        };
        let details = self.claim.details;
        differ(&details.hardware_uuid, &candidate.hardware_uuid)
            || differ(&details.hardware_serial, &candidate.hardware_serial)
    }

    fn is_alive(&self, candidate: &Candidate) -> bool {
        candidate
            .last_seen_at
            .is_some_and(|seen| self.now - seen < self.claim.alive_for)
    }
}

impl Candidate {
    /// Not barred by people.
    fn is_open(&self) -> bool {
        matches!(self.standing, Standing::InForce | Standing::Waiting)
    }

    fn newest(&self) -> (Option<DateTime<Utc>>, DateTime<Utc>, NodeId) {
        (self.last_seen_at, self.enrolled_at, self.node_id)
    }
}

fn newest_of<'a>(candidates: &[&'a Candidate]) -> Option<&'a Candidate> {
    candidates.iter().copied().max_by_key(|each| each.newest())
}

fn shares(candidate: &Candidate, kind: IdentifierKind) -> bool {
    candidate.shared.contains(&kind)
}

fn shares_hardware(candidate: &Candidate) -> bool {
    shares(candidate, IdentifierKind::HardwareUuid) || shares(candidate, IdentifierKind::Serial)
}

fn conflict(candidate: &Candidate, reason: Reason) -> Decision {
    Decision::New {
        conflict: Some(Conflict {
            with: candidate.node_id,
            reason,
        }),
    }
}

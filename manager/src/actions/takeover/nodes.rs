//! What becomes of nodes that come with a key. A key that is known here already is left alone, and so is its node.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use chrono::{DateTime, Utc};
use ostiary_boot::clock::new_id;
use ostiary_domain::enrollment::{Arrival, Conflict, Lookalike, Reason, Standing, arrive};
use ostiary_domain::ids::{NodeId, TagId};
use ostiary_domain::node::{IdentifierKind, NodeDetails, platform_of};
use ostiary_domain::node_key_file::KeyLine;
use ostiary_store::node_keys::KeyHash;
use ostiary_store::takeovers::{self, TakenOver, TakenOverKey};
use ostiary_store::{Conn, tags};
use serde_json::json;

use crate::actions::config_import::{Action, FieldChange, Note, Step};
use crate::error::Result;
use crate::state::App;

/// A node that comes with its key.
#[derive(Debug, Clone)]
pub(super) struct Coming {
    /// Where it was read: `line 7`.
    pub(super) place: String,
    /// SHA-256 of its key, in hex.
    pub(super) key_sha256: String,
    pub(super) host_identifier: String,
    pub(super) hostname: String,
    pub(super) display_name: Option<String>,
    pub(super) platform: String,
    pub(super) hardware_uuid: String,
    pub(super) hardware_serial: String,
    pub(super) hardware_model: String,
    pub(super) enrolled_at: Option<DateTime<Utc>>,
    pub(super) disabled: bool,
    pub(super) tags: Vec<String>,
}

impl Coming {
    pub(super) fn of_line(line: &KeyLine) -> Self {
        let line = line.clone();
        Self {
            place: line.place,
            key_sha256: line.key_sha256,
            host_identifier: line.host_identifier,
            hostname: line.hostname,
            display_name: None,
            platform: line.platform,
            hardware_uuid: line.hardware_uuid,
            hardware_serial: line.hardware_serial,
            hardware_model: String::new(),
            enrolled_at: None,
            disabled: false,
            tags: line.tags,
        }
    }

    fn hash(&self) -> Option<KeyHash> {
        hex::decode(&self.key_sha256).ok()?.try_into().ok()
    }

    fn details(&self) -> NodeDetails {
        NodeDetails {
            host_identifier: self.host_identifier.clone(),
            hostname: self.hostname.clone(),
            platform: platform_of("", &self.platform, &self.platform),
            hardware_uuid: self.hardware_uuid.clone(),
            hardware_serial: self.hardware_serial.clone(),
            hardware_model: self.hardware_model.clone(),
            ..NodeDetails::default()
        }
        .without_placeholders()
    }

    fn name(&self) -> &str {
        [
            self.display_name.as_deref().unwrap_or_default(),
            &self.hostname,
            &self.host_identifier,
        ]
        .into_iter()
        .find(|name| !name.is_empty())
        .unwrap_or("a node without a name")
    }
}

/// What is to be done with one.
#[derive(Debug)]
pub(super) struct Settled {
    /// Which node it is, or becomes.
    id: NodeId,
    hash: KeyHash,
    coming: Coming,
    /// It enrolled here already; the key it has from there is good, too.
    is_known: bool,
    /// The node that it may be.
    conflict: Option<Conflict>,
}

/// What is to be done with all.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    pub(super) steps: Vec<Step>,
    pub(super) notes: Vec<Note>,
    pub(super) arrivals: Vec<Settled>,
}

impl Arrivals {
    fn note(&mut self, place: &str, text: impl Into<String>) {
        self.notes.push(Note {
            kind: "warning",
            place: place.to_owned(),
            text: text.into(),
        });
    }
}

/// Decides. Nothing is written.
pub(super) async fn decide(conn: &mut Conn, coming: Vec<Coming>) -> Result<Arrivals> {
    let hashes: Vec<Vec<u8>> = coming
        .iter()
        .filter_map(|node| Some(node.hash()?.to_vec()))
        .collect();
    let known: HashSet<Vec<u8>> = takeovers::known_keys(conn, &hashes)
        .await?
        .into_iter()
        .map(|(hash, _)| hash)
        .collect();
    let mut deciding = Deciding {
        lookalikes: lookalikes(conn, &coming).await?,
        ..Deciding::default()
    };
    let mut seen = HashSet::new();
    for node in coming {
        let Some(hash) = node.hash() else {
            continue;
        };
        if !seen.insert(hash) {
            let text = "Another one has the same key; this one is left out.";
            deciding.out.note(&node.place, text);
        } else if known.contains(hash.as_slice()) {
            let name = node.name().to_owned();
            let unchanged = step(Action::Unchanged, name, Vec::new());
            deciding.out.steps.push(unchanged);
        } else {
            deciding.node(node, hash);
        }
    }
    Ok(deciding.out)
}

type Identifier = (IdentifierKind, String);

/// Nodes here by the identifiers that they share with those that come.
async fn lookalikes(
    conn: &mut Conn,
    coming: &[Coming],
) -> Result<HashMap<Identifier, Vec<Lookalike>>> {
    let wanted: BTreeSet<Identifier> = coming
        .iter()
        .flat_map(|node| node.details().identifiers())
        .collect();
    let wanted: Vec<Identifier> = wanted.into_iter().collect();
    let mut by_identifier: HashMap<Identifier, Vec<Lookalike>> = HashMap::new();
    for (kind, value, lookalike) in takeovers::lookalikes(conn, &wanted).await? {
        let entry = by_identifier.entry((kind, value)).or_default();
        entry.push(lookalike);
    }
    Ok(by_identifier)
}

#[derive(Default)]
struct Deciding {
    lookalikes: HashMap<Identifier, Vec<Lookalike>>,
    /// Nodes here that one of those that come is.
    taken: HashSet<NodeId>,
    /// Those that become nodes, by their hardware.
    newcomers: HashMap<Identifier, NodeId>,
    out: Arrivals,
}

impl Deciding {
    fn node(&mut self, coming: Coming, hash: KeyHash) {
        let details = coming.details();
        let identifiers = details.identifiers();
        let decided = match arrive(&details, &self.candidates(&identifiers)) {
            // Two machines with one hardware: the second becomes a node of its own, which people may merge.
            Arrival::Known(with, _) if !self.taken.insert(with) => Arrival::New {
                conflict: Some(Conflict {
                    with,
                    reason: Reason::Hardware,
                }),
            },
            Arrival::New { conflict: None } => Arrival::New {
                conflict: self.twin(&identifiers),
            },
            decided => decided,
        };
        let place = coming.place.clone();
        let (id, conflict) = match decided {
            Arrival::Known(id, Standing::InForce) if coming.disabled => {
                // The node stays free for a live record of the same machine.
                self.taken.remove(&id);
                self.out.note(&place, "It is switched off there, and a node here with these identifiers is not: its key is left out.");
                return;
            }
            Arrival::Known(id, standing) => {
                self.out.note(&place, known_as(standing));
                (id, None)
            }
            Arrival::New { conflict } => {
                if let Some(conflict) = conflict {
                    self.out.note(&place, may_be(conflict.reason));
                }
                (NodeId(new_id()), conflict)
            }
        };
        let is_known = matches!(decided, Arrival::Known(..));
        if !is_known {
            let hardware = [IdentifierKind::HardwareUuid, IdentifierKind::Serial];
            let own = identifiers.into_iter();
            for identifier in own.filter(|(kind, _)| hardware.contains(kind)) {
                self.newcomers.entry(identifier).or_insert(id);
            }
        }
        let action = if is_known {
            Action::Changed
        } else {
            Action::Added
        };
        let shown = step(action, coming.name().to_owned(), fields(&coming));
        self.out.steps.push(shown);
        self.out.arrivals.push(Settled {
            id,
            hash,
            coming,
            is_known,
            conflict,
        });
    }

    /// Nodes here that share an identifier, each with all that it shares.
    fn candidates(&self, identifiers: &[Identifier]) -> Vec<Lookalike> {
        let mut found: Vec<Lookalike> = Vec::new();
        for identifier in identifiers {
            for lookalike in self.lookalikes.get(identifier).into_iter().flatten() {
                match found
                    .iter_mut()
                    .find(|known| known.node_id == lookalike.node_id)
                {
                    Some(known) => known.shared.push(identifier.0),
                    None => found.push(lookalike.clone()),
                }
            }
        }
        found
    }

    /// One of those that come before with the same hardware.
    fn twin(&self, identifiers: &[Identifier]) -> Option<Conflict> {
        let with = identifiers
            .iter()
            .find_map(|identifier| self.newcomers.get(identifier))?;
        Some(Conflict {
            with: *with,
            reason: Reason::Hardware,
        })
    }
}

fn known_as(standing: Standing) -> &'static str {
    match standing {
        Standing::InForce => {
            "A node with these identifiers is here already; it gets this key besides its own."
        }
        Standing::Disabled => {
            "A node with these identifiers is here already and switched off; it gets this key, and stays switched off."
        }
        Standing::Waiting | Standing::Refused => {
            "A node with these identifiers is here already and not approved; it gets this key, which unlocks nothing until it is."
        }
    }
}

fn may_be(reason: Reason) -> &'static str {
    match reason {
        Reason::Hardware | Reason::Database => {
            "Another node has the same hardware and cannot be taken for this one; both stand under Conflicts afterwards."
        }
        Reason::HostIdentifier => {
            "A node here has the same host identifier and nothing else that agrees, which proves nothing; it becomes another, and both stand under Conflicts afterwards."
        }
    }
}

fn fields(coming: &Coming) -> Vec<FieldChange> {
    let mut tags = coming.tags.clone();
    tags.sort();
    let fields = [
        ("host_identifier", json!(coming.host_identifier)),
        ("tags", json!(tags)),
        ("disabled", json!(coming.disabled)),
    ];
    let fields = fields.map(|(field, new)| FieldChange {
        field: field.to_owned(),
        old: serde_json::Value::Null,
        new,
    });
    fields.into()
}

fn step(action: Action, name: String, fields: Vec<FieldChange>) -> Step {
    Step {
        action,
        kind: "node",
        name,
        fields,
    }
}

/// Writes what was decided, thousands of nodes by a statement. Tags are made if need be.
pub(super) async fn carry_out(app: &App, conn: &mut Conn, arrivals: Vec<Settled>) -> Result<()> {
    let now = app.now();
    let new = arrivals.iter().filter(|arrival| !arrival.is_known);
    let nodes: Vec<TakenOver> = new
        .map(|arrival| TakenOver {
            id: arrival.id,
            details: arrival.coming.details(),
            display_name: arrival.coming.display_name.clone(),
            enrolled_at: arrival.coming.enrolled_at.unwrap_or(now),
            disabled_at: arrival.coming.disabled.then_some(now),
        })
        .collect();
    takeovers::insert_nodes(conn, &nodes).await?;
    let keys = arrivals.iter().map(|arrival| TakenOverKey {
        id: new_id(),
        node: arrival.id,
        hash: arrival.hash,
    });
    takeovers::insert_keys(conn, &keys.collect::<Vec<_>>(), now).await?;
    let conflicts = arrivals
        .iter()
        .filter_map(|arrival| Some((arrival.id, arrival.conflict?)));
    takeovers::flag_conflicts(conn, &conflicts.collect::<Vec<_>>(), now).await?;
    let mut tagged: BTreeMap<String, Vec<NodeId>> = BTreeMap::new();
    for arrival in arrivals {
        for name in arrival.coming.tags {
            tagged.entry(name).or_default().push(arrival.id);
        }
    }
    for (name, nodes) in tagged {
        let tag = tags::ensure(conn, TagId(new_id()), &name, now).await?;
        tags::attach(conn, tag, &nodes).await?;
    }
    Ok(())
}

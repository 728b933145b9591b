//! A Doorman's database: its nodes with their keys, what they are asked, rules and users. Its fleet then goes on here, each node with
//! the queries it had.
//!
//! What reached no node there (a pack, query or file path without tags) reaches none here: its target is `none`, for an empty one would
//! be every node.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use ostiary_boot::clock::new_id;
use ostiary_domain::ids::UserId;
use ostiary_domain::osquery::pack_file::{
    ImportedFilePaths, ImportedPack, ImportedQuery, ImportedTag,
};
use ostiary_domain::tag;
use ostiary_domain::target::Target;
use ostiary_store::doorman::{self, DoormanDatabase, DoormanNode, DoormanQuery};
use ostiary_store::{Conn, Db, Options, rule_edits, users};
use serde_json::{Value, json};

use super::doorman_names::Renamed;
use super::doorman_rules::{self, NewRule};
use super::nodes::{Arrivals, Coming, carry_out, decide};
use crate::actions::audit::Change;
use crate::actions::config_change::{ConfigChange, Saving};
use crate::actions::config_import::{
    Action, Current, Note, Report, Step, Steps, Wanted, carry_out as carry_out_config,
    check_sql_of, compare,
};
use crate::auth::{Admin, Permit};
use crate::error::Result;
use crate::state::App;

/// What was read, in words of ours.
#[derive(Debug, Clone)]
pub struct DoormanImport {
    wanted: Wanted,
    nodes: Vec<Coming>,
    rules: Vec<doorman::DoormanRule>,
    renamed: Renamed,
    users: Vec<doorman::DoormanUser>,
}

impl DoormanImport {
    /// Reads the database at a URL. Nothing is written there.
    ///
    /// # Errors
    /// It cannot be reached, or is no Doorman's.
    pub async fn read(url: &str) -> Result<Self> {
        let db = Db::prepare(&Options::at(url), "ostiary-manager import-doorman")?;
        let mut tx = db.begin().await?;
        let database = doorman::read(&mut tx).await?;
        drop(tx);
        db.close().await;
        Ok(Self::of(database))
    }

    /// Puts what was read into words of ours.
    #[must_use]
    pub fn of(database: DoormanDatabase) -> Self {
        let mut wanted = Wanted::default();
        let mut renamed = Renamed::of(&database);
        let tags = add_tags(&mut wanted, &database);
        let as_target = |names: &[String]| target_of(names, &tags);
        let by_id: HashMap<i32, &DoormanQuery> = database
            .queries
            .iter()
            .map(|query| (query.id, query))
            .collect();
        let mut packed = Vec::new();
        for pack in &database.packs {
            packed.extend(&pack.queries);
            let queries: Vec<&DoormanQuery> = (pack.queries.iter())
                .filter_map(|id| by_id.get(id).copied())
                .collect();
            // A query that carries this very tag is asked before the pack runs.
            let (discovery, scheduled): (Vec<_>, Vec<_>) = (queries.into_iter())
                .partition(|query| query.tags.iter().any(|tag| tag == "discovery"));
            let mut imported = ImportedPack {
                name: pack.name.clone(),
                description: pack.description.clone().unwrap_or_default(),
                target: as_target(&pack.tags),
                platform: pack.platform.clone().unwrap_or_default(),
                version: pack.version.clone().unwrap_or_default(),
                shard: shard(&mut wanted, &pack.name, pack.shard),
                discovery: discovery.iter().map(|query| query.sql.clone()).collect(),
                ..ImportedPack::default()
            };
            for query in scheduled {
                // Doorman sends a map: of equal names the last one counts.
                let query = imported_query(&mut wanted, query, String::new());
                match imported
                    .queries
                    .iter_mut()
                    .find(|known| known.name == query.name)
                {
                    Some(known) => {
                        let place = format!("{}/{}", pack.name, query.name);
                        wanted.note("warning", place, "There are two queries of this name; the last one is taken, as Doorman sends it.");
                        *known = query;
                    }
                    None => imported.queries.push(query),
                }
            }
            wanted.add_pack("Doorman", imported);
        }
        add_schedule(&mut wanted, &mut renamed, &database, &packed, &as_target);
        for path in &database.file_paths {
            let target = std::mem::replace(&mut wanted.target, as_target(&path.tags));
            let imported = ImportedFilePaths {
                category: path.category.clone(),
                globs: path.globs.clone(),
                ..ImportedFilePaths::default()
            };
            wanted.add_file_path("Doorman", imported);
            wanted.target = target;
        }
        let nodes = add_nodes(&mut wanted, &database.nodes, &tags);
        Self {
            wanted,
            nodes,
            rules: database.rules,
            renamed,
            users: database.users,
        }
    }

    async fn plan(&self, app: &App, conn: &mut Conn) -> Result<(Report, Plan)> {
        let mut wanted = self.wanted.clone();
        let current = Current::load(conn).await?;
        current.complete(&mut wanted);
        check_sql_of(app, conn, &mut wanted).await;
        let mut steps = compare(conn, &current, &wanted, false).await?;
        let mut arrivals = decide(conn, self.nodes.clone()).await?;
        let rules = doorman_rules::plan(conn, &self.rules, &self.renamed).await?;
        let (new_users, twins) = self.new_users(conn).await?;
        let mut notes = wanted.notes;
        notes.append(&mut steps.notes);
        notes.append(&mut arrivals.notes);
        notes.extend(rules.notes);
        notes.extend(twins);
        let mut all = std::mem::take(&mut steps.steps);
        all.append(&mut arrivals.steps);
        all.extend(rules.steps);
        for user in &self.users {
            let is_new = new_users.iter().any(|new| new.username == user.username);
            all.push(Step {
                action: if is_new {
                    Action::Added
                } else {
                    Action::Unchanged
                },
                kind: "user",
                name: user.username.clone(),
                fields: Vec::new(),
            });
        }
        if !new_users.is_empty() {
            notes.push(Note {
                kind: "info",
                place: "users".to_owned(),
                text: "They come as viewers without a password: Doorman's hashes are bcrypt, which is not taken over. Give each a password and \
                       a role on the page of users."
                    .to_owned(),
            });
        }
        let plan = Plan {
            config: steps,
            nodes: arrivals,
            rules: rules.new,
            users: new_users,
        };
        Ok((Report::new(all, notes, "doorman"), plan))
    }

    /// Users that are to be made. Those whose names differ by case only are one here.
    async fn new_users(&self, conn: &mut Conn) -> Result<(Vec<doorman::DoormanUser>, Vec<Note>)> {
        let (mut new, mut notes): (Vec<doorman::DoormanUser>, _) = (Vec::new(), Vec::new());
        for user in &self.users {
            let name = user.username.to_lowercase();
            if let Some(first) = new
                .iter_mut()
                .find(|first| first.username.to_lowercase() == name)
            {
                notes.push(Note {
                    kind: "warning",
                    place: format!("user {}", user.username),
                    text: format!(
                        "It differs from {} by case only, which is one user here; it is left out.",
                        first.username
                    ),
                });
                first.email = first.email.take().or_else(|| user.email.clone());
            } else if users::find_credentials(conn, &user.username)
                .await?
                .is_none()
            {
                new.push(user.clone());
            }
        }
        Ok((new, notes))
    }
}

/// What is to be written.
struct Plan {
    config: Steps,
    nodes: Arrivals,
    rules: Vec<NewRule>,
    users: Vec<doorman::DoormanUser>,
}

/// What taking it over would do.
///
/// # Errors
/// Postgres failed.
pub async fn plan_doorman(app: &App, _: &Permit<Admin>, import: &DoormanImport) -> Result<Report> {
    let mut tx = app.db.begin().await?;
    Ok(import.plan(app, &mut tx).await?.0)
}

/// Takes it over, all in one transaction; a second time changes nothing. `digest` is that of the report that was shown.
///
/// # Errors
/// `Error::Refused` when something else would be done by now, or a config would become too large.
pub async fn apply_doorman(
    app: &App,
    permit: &Permit<Admin>,
    import: &DoormanImport,
    digest: &str,
) -> Result<Report> {
    let mut change = ConfigChange::begin(app).await?;
    let (report, plan) = import.plan(app, &mut change).await?;
    report.confirmed(digest)?;
    carry_out_config(app, &mut change, plan.config.writes).await?;
    carry_out(app, &mut change, plan.nodes.arrivals).await?;
    for rule in plan.rules {
        rule_edits::insert(&mut change, rule.id, &rule.values, app.now()).await?;
    }
    for user in plan.users {
        let email = user
            .email
            .as_deref()
            .filter(|email| !email.trim().is_empty());
        let id = UserId(new_id());
        users::insert(
            &mut change,
            id,
            &user.username,
            email,
            "viewer",
            None,
            app.now(),
        )
        .await?;
    }
    let entry = Change {
        action: "takeover.doorman",
        kind: "import",
        name: "Doorman",
        after: Some(json!({
            "added": report.count(Action::Added), "changed": report.count(Action::Changed), "unchanged": report.unchanged,
            "odd": report.notes.len(),
        })),
        ..Change::default()
    };
    change
        .finish(app, permit, &Saving::at_once(), entry)
        .await?;
    Ok(report)
}

/// Tags of Doorman are any text; here they are letters, digits, `-`, `_` and `.`. Returns what each is called here.
fn add_tags(wanted: &mut Wanted, database: &DoormanDatabase) -> BTreeMap<String, String> {
    let mut tags = BTreeMap::new();
    for tag in &database.tags {
        let mut name = tag::name_of(tag).unwrap_or_else(|| "tag".to_owned());
        while tags
            .values()
            .any(|taken: &String| taken.eq_ignore_ascii_case(&name))
        {
            name.push_str("-2");
        }
        if &name != tag {
            wanted.note(
                "info",
                format!("tag {tag}"),
                format!("It is called {name} here."),
            );
        }
        wanted.tags.push(ImportedTag {
            name: name.clone(),
            ..ImportedTag::default()
        });
        tags.insert(tag.clone(), name);
    }
    tags
}

fn target_of(names: &[String], tags: &BTreeMap<String, String>) -> String {
    let tags = names.iter().filter_map(|name| tags.get(name));
    Target::any(tags.map(|name| Target::Tag(name.clone()))).to_string()
}

/// The share of nodes that gets a thing; 0 is off in osquery, as is none.
fn shard(wanted: &mut Wanted, place: &str, shard: Option<i32>) -> Option<u8> {
    let shard = shard.filter(|shard| *shard != 0)?;
    let usable = u8::try_from(shard).ok();
    let usable = usable.filter(|shard| (1..=100).contains(shard));
    if usable.is_none() {
        let text =
            format!("Its shard is {shard}, which is no share from 1 to 100; it is left out.");
        wanted.note("warning", place, text);
    }
    usable
}

fn imported_query(wanted: &mut Wanted, query: &DoormanQuery, target: String) -> ImportedQuery {
    let interval = query.interval.unwrap_or(3600);
    let clamped = interval.clamp(1, 604_800);
    if clamped != interval {
        let text = format!(
            "Its interval is {interval} seconds, at which osqueryd skips it; it is {clamped} here."
        );
        wanted.note("warning", query.name.clone(), text);
    }
    ImportedQuery {
        name: query.name.clone(),
        sql: query.sql.clone(),
        interval: u32::try_from(clamped).unwrap_or(3600),
        removed: query.removed,
        denylist: true,
        target,
        platform: match query.platform.as_deref() {
            None | Some("all") => String::new(),
            Some(platform) => platform.to_owned(),
        },
        version: query.version.clone().unwrap_or_default(),
        shard: shard(wanted, &query.name, query.shard),
        description: query.description.clone().unwrap_or_default(),
        value: query.value.clone().unwrap_or_default(),
        ..ImportedQuery::default()
    }
}

/// A query with tags stands in the schedule of nodes that share one, whether it is in a pack, too, or not.
fn add_schedule(
    wanted: &mut Wanted,
    renamed: &mut Renamed,
    database: &DoormanDatabase,
    packed: &[&i32],
    as_target: &impl Fn(&[String]) -> String,
) {
    let mut file = ostiary_domain::osquery::pack_file::ImportedFile::default();
    let mut taken: Vec<String> = Vec::new();
    for query in &database.queries {
        if query.tags.is_empty() && packed.contains(&&query.id) {
            continue;
        }
        let mut imported = imported_query(wanted, query, as_target(&query.tags));
        if query.tags.is_empty() {
            let text = "It has neither tag nor pack and reached no node; its target is none.";
            wanted.note("info", query.name.clone(), text);
        }
        if taken.contains(&imported.name) {
            imported.name = format!("{} ({})", query.name, query.id);
            renamed.note(query.name.clone(), query.name.clone());
            renamed.note(query.name.clone(), imported.name.clone());
            let text = format!(
                "There are several queries of this name; this one is called {} here. A node that gets both ran only the last of them.",
                imported.name
            );
            wanted.note("warning", query.name.clone(), text);
        }
        taken.push(imported.name.clone());
        file.schedule.push(imported);
    }
    wanted.add("Doorman", file);
}

fn add_nodes(
    wanted: &mut Wanted,
    nodes: &[DoormanNode],
    tags: &BTreeMap<String, String>,
) -> Vec<Coming> {
    let mut coming = Vec::new();
    let own_secrets = nodes.iter().filter(|node| node.has_own_secret).count();
    if own_secrets > 0 {
        let text = format!(
            "{own_secrets} nodes have an enroll secret of their own, which is left out: with their keys they need none."
        );
        wanted.note("info", "nodes", text);
    }
    for node in nodes {
        let place = format!("node {}", node.id);
        let Some(enrolled_on) = node.enrolled_on else {
            wanted.note(
                "info",
                place,
                "It was prepared and never came; it is left out.",
            );
            continue;
        };
        let info = |column: &str| -> String {
            let text = node
                .node_info
                .get(column)
                .and_then(Value::as_str)
                .unwrap_or_default();
            text.trim().to_owned()
        };
        let host_identifier = node.host_identifier.clone().unwrap_or_default();
        let either = |one: String, other: String| if one.is_empty() { other } else { one };
        // Doorman has its nodes identify themselves by the hardware's UUID, unless it was told otherwise.
        let hardware_uuid = uuid::Uuid::try_parse(host_identifier.trim()).is_ok();
        coming.push(Coming {
            place,
            key_sha256: hex::encode(node.key_hash),
            hardware_uuid: if hardware_uuid {
                host_identifier.clone()
            } else {
                String::new()
            },
            host_identifier,
            hostname: either(info("hostname"), info("computer_name")),
            display_name: Some(info("display_name")).filter(|name| !name.is_empty()),
            platform: String::new(),
            hardware_serial: info("hardware_serial"),
            hardware_model: format!("{} {}", info("hardware_vendor"), info("hardware_model"))
                .trim()
                .to_owned(),
            enrolled_at: Some(DateTime::<Utc>::from_naive_utc_and_offset(enrolled_on, Utc)),
            disabled: !node.is_active,
            tags: node
                .tags
                .iter()
                .filter_map(|tag| tags.get(tag))
                .cloned()
                .collect(),
        });
    }
    coming
}

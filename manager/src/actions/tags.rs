//! Tags.

use ostiary_domain::ids::TagId;
use ostiary_domain::node_config::Parts;
use ostiary_domain::tag;
use ostiary_domain::target::Target;
use ostiary_store::tags::TagLine;
use ostiary_store::{
    Conn, Db, config_parts, config_revisions, enroll_secrets, rollouts, rule_edits, table_denials,
    tags,
};
use serde::Serialize;
use serde_json::json;

use super::audit::{Change, record};
use super::validate::Check;
use crate::auth::{Edit, Permit};
use crate::error::{Error, Result};
use crate::state::App;

/// Turns the refusal of a name into a sentence beside its field.
fn name_taken(error: ostiary_store::Error) -> Error {
    if tags::is_taken(&error) {
        Error::field("name", "There is already a tag of this name.")
    } else {
        error.into()
    }
}

/// What is typed about a tag.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TagDraft {
    /// Unique.
    pub name: String,
    /// What it means.
    pub description: String,
}

/// A tag's name: a word that a target can say without quotes.
pub(super) fn tag_name(check: &mut Check, field: &str, text: &str) -> String {
    let name = check.name(field, text, tag::MAX_CHARS);
    if !name.is_empty() && !tag::is_name(&name) {
        check.wrong(
            field,
            "A tag is one word of letters, digits and - _ . / @ (not and, or, not, none).",
        );
    }
    name
}

/// Makes a tag.
///
/// # Errors
/// [`Error::Invalid`].
pub async fn create(app: &App, permit: &Permit<Edit>, draft: &TagDraft) -> Result<TagId> {
    let mut check = Check::default();
    let (name, description) = (
        tag_name(&mut check, "name", &draft.name),
        check.text("description", &draft.description, 1000),
    );
    check.done()?;
    let id = TagId(ostiary_boot::clock::new_id());
    let mut tx = app.db.begin().await?;
    tags::insert(&mut tx, id, &name, &description, app.now())
        .await
        .map_err(name_taken)?;
    let after = Some(json!({"name": name, "description": description}));
    let change = Change {
        action: "tags.create",
        kind: "tag",
        id: id.to_string(),
        name: &name,
        after,
        ..Change::default()
    };
    record(app, &mut tx, permit, change).await?;
    Db::commit(tx).await?;
    Ok(id)
}

/// Changes a tag. A tag that a target names cannot be renamed: the target would silently mean other nodes.
///
/// # Errors
/// [`Error::Invalid`], [`Error::NotFound`].
pub async fn update(app: &App, permit: &Permit<Edit>, id: TagId, draft: &TagDraft) -> Result<()> {
    let mut check = Check::default();
    let (name, description) = (
        tag_name(&mut check, "name", &draft.name),
        check.text("description", &draft.description, 1000),
    );
    check.done()?;
    let mut tx = app.db.begin().await?;
    // Nobody names it in a target while it is looked for.
    config_revisions::lock(&mut tx).await?;
    let before = load(&mut tx, id).await?;
    if before.name != name {
        let users = users_of(&mut tx, &before.name).await?;
        // Targets do not look at capitals.
        if !users.is_empty() && before.name.to_lowercase() != name.to_lowercase() {
            return Err(Error::field(
                "name",
                format!(
                    "It cannot be renamed while a target names it: {}.",
                    users.join(", ")
                ),
            ));
        }
        enroll_secrets::rename_tag(&mut tx, &before.name, &name).await?;
    }
    tags::update(&mut tx, id, &name, &description)
        .await
        .map_err(name_taken)?;
    let (before, after) = (
        json!(before),
        json!({"name": name, "description": description}),
    );
    let (before, after) = (Some(before), Some(after));
    record(
        app,
        &mut tx,
        permit,
        Change {
            action: "tags.update",
            kind: "tag",
            id: id.to_string(),
            name: &name,
            before,
            after,
        },
    )
    .await?;
    Ok(Db::commit(tx).await?)
}

/// Deletes a tag and takes it from all nodes.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`] on `confirm`, [`Error::Refused`] while a target names it.
pub async fn delete(app: &App, permit: &Permit<Edit>, id: TagId, confirm: &str) -> Result<()> {
    let mut tx = app.db.begin().await?;
    // Nobody names it in a target while it is looked for.
    config_revisions::lock(&mut tx).await?;
    let tag = load(&mut tx, id).await?;
    super::validate::confirmed(confirm, &tag.name)?;
    let users = users_of(&mut tx, &tag.name).await?;
    if !users.is_empty() {
        return Err(Error::Refused(format!(
            "\"{}\" is named by the target of {}. Change that first.",
            tag.name,
            users.join(", ")
        )));
    }
    tags::delete(&mut tx, id).await?;
    let before = Some(json!(tag));
    record(
        app,
        &mut tx,
        permit,
        Change {
            action: "tags.delete",
            kind: "tag",
            id: id.to_string(),
            name: &tag.name,
            before,
            after: None,
        },
    )
    .await?;
    Ok(Db::commit(tx).await?)
}

async fn load(conn: &mut Conn, id: TagId) -> Result<TagLine> {
    tags::list(conn)
        .await?
        .into_iter()
        .find(|tag| tag.id == id.0)
        .ok_or(Error::NotFound)
}

/// What names the tag in its target, in words.
async fn users_of(conn: &mut Conn, tag: &str) -> Result<Vec<String>> {
    let mut users = parts_with(&config_parts::load(conn).await?, tag);
    let rules = rule_edits::list(conn).await?;
    users.extend(
        rules
            .iter()
            .filter(|rule| Target::parse(&rule.scope).is_ok_and(|scope| names(&scope, tag)))
            .map(|rule| format!("rule {}", rule.name)),
    );
    // Without its tag a denial would deny nobody anything.
    let denials = table_denials::list_values(conn).await?;
    users.extend(
        denials
            .iter()
            .filter(|denial| names(&denial.nodes(), tag))
            .map(|denial| format!("denial of tables for \"{}\"", denial.target)),
    );
    if let Some(split) = rollouts::find_split(conn).await? {
        let of_base = parts_with(&split.base, tag).into_iter();
        let only_there: Vec<String> = of_base.filter(|one| !users.contains(one)).collect();
        users.extend(
            only_there
                .into_iter()
                .map(|one| format!("{one} as the nodes outside of the roll-out have it")),
        );
    }
    Ok(users)
}

fn names(target: &Target, tag: &str) -> bool {
    let tags = target.tags();
    tags.iter().any(|name| name.eq_ignore_ascii_case(tag))
}

/// The parts of a config whose target names the tag.
fn parts_with(parts: &Parts, tag: &str) -> Vec<String> {
    let names = |target: &Target| names(target, tag);
    let mut users: Vec<String> = Vec::new();
    users.extend(
        parts
            .packs
            .iter()
            .filter(|pack| names(&pack.target))
            .map(|pack| format!("pack {}", pack.name)),
    );
    users.extend(
        parts
            .queries
            .iter()
            .filter(|query| names(&query.target))
            .map(|query| format!("query {}", query.name)),
    );
    users.extend(
        parts
            .file_paths
            .iter()
            .filter(|path| names(&path.target))
            .map(|path| format!("file path {}", path.category)),
    );
    users.extend(
        parts
            .decorators
            .iter()
            .filter(|each| names(&each.target))
            .map(|each| format!("decorator {}", each.name)),
    );
    users.extend(
        parts
            .options
            .iter()
            .filter(|option| names(&option.target))
            .map(|option| format!("option {}", option.name)),
    );
    users.extend(
        parts
            .sections
            .iter()
            .filter(|section| names(&section.target))
            .map(|section| format!("section {}/{}", section.key, section.name)),
    );
    users
}

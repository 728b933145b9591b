//! Takes the steps that were found. The caller owns the transaction.

use std::collections::HashMap;

use ostiary_boot::clock::new_id;
use ostiary_domain::ids::{
    DecoratorId, FilePathId, NodeId, OptionId, PackId, QueryId, SectionId, TagId,
};
use ostiary_store::{Conn, decorators, file_paths, options, packs, queries, sections, tags};

use super::compare::Write;
use crate::error::Result;
use crate::state::App;

/// Writes everything, in its order: a pack before its queries.
pub(crate) async fn carry_out(app: &App, conn: &mut Conn, writes: Vec<Write>) -> Result<()> {
    let now = app.now();
    let mut packs_by_name: HashMap<String, PackId> = HashMap::new();
    for write in writes {
        match write {
            Write::Pack(Some(id), values) => {
                packs::update(conn, PackId(id), &values, now).await?;
            }
            Write::Pack(None, values) => {
                let id = PackId(new_id());
                packs::insert(conn, id, &values, false, now).await?;
                packs_by_name.insert(values.name, id);
            }
            Write::Query(Some(id), _, values) => {
                queries::update(conn, QueryId(id), &values, now).await?;
            }
            Write::Query(None, pack, values) => {
                let pack = match pack {
                    None => None,
                    Some(name) => match packs_by_name.get(&name) {
                        Some(id) => Some(*id),
                        None => packs::find_id(conn, &name).await?,
                    },
                };
                queries::insert(conn, QueryId(new_id()), pack, &values, now).await?;
            }
            Write::Option(Some(id), values) => {
                options::update(conn, OptionId(id), &values, now).await?;
            }
            Write::Option(None, values) => {
                options::insert(conn, OptionId(new_id()), &values, now).await?;
            }
            Write::Decorator(Some(id), values) => {
                decorators::update(conn, DecoratorId(id), &values, now).await?;
            }
            Write::Decorator(None, values) => {
                decorators::insert(conn, DecoratorId(new_id()), &values, now).await?;
            }
            Write::FilePath(Some(id), values) => {
                file_paths::update(conn, FilePathId(id), &values, now).await?;
            }
            Write::FilePath(None, values) => {
                file_paths::insert(conn, FilePathId(new_id()), &values, now).await?;
            }
            Write::Section(Some(id), values) => {
                sections::update(conn, SectionId(id), &values, now).await?;
            }
            Write::Section(None, values) => {
                sections::insert(conn, SectionId(new_id()), &values, now).await?;
            }
            Write::Tag(name, description) => {
                let id = tags::ensure(conn, TagId(new_id()), &name, now).await?;
                tags::update(conn, id, &name, &description).await?;
            }
            Write::TagNodes(name, nodes) => {
                let id = tags::ensure(conn, TagId(new_id()), &name, now).await?;
                let nodes: Vec<NodeId> = nodes.into_iter().map(NodeId).collect();
                tags::attach(conn, id, &nodes).await?;
            }
            Write::DeletePack(id) => drop(packs::delete(conn, PackId(id)).await?),
            Write::DeleteQuery(id) => drop(queries::delete(conn, QueryId(id)).await?),
            Write::DeleteOption(id) => drop(options::delete(conn, OptionId(id)).await?),
            Write::DeleteDecorator(id) => drop(decorators::delete(conn, DecoratorId(id)).await?),
            Write::DeleteFilePath(id) => drop(file_paths::delete(conn, FilePathId(id)).await?),
            Write::DeleteSection(id) => drop(sections::delete(conn, SectionId(id)).await?),
        }
    }
    Ok(())
}

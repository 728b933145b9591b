//! What there is, and what of it stays when a file does not say otherwise.

use std::collections::HashMap;

use ostiary_store::decorators::{self, DecoratorRecord};
use ostiary_store::file_paths::{self, FilePathRecord};
use ostiary_store::options::{self, OptionRecord};
use ostiary_store::packs::{self, PackRecord};
use ostiary_store::queries::{self, QueryRecord, QueryValues};
use ostiary_store::sections::{self, SectionRecord};
use ostiary_store::{Conn, tags};
use uuid::Uuid;

use super::wanted::Wanted;
use crate::error::Result;

/// What there is.
#[derive(Debug)]
pub(crate) struct Current {
    pub(super) packs: Vec<PackRecord>,
    pub(super) packed: HashMap<Uuid, Vec<QueryRecord>>,
    pub(super) queries: Vec<QueryRecord>,
    pub(super) options: Vec<OptionRecord>,
    pub(super) decorators: Vec<DecoratorRecord>,
    pub(super) file_paths: Vec<FilePathRecord>,
    pub(super) sections: Vec<SectionRecord>,
    pub(super) tags: Vec<String>,
}

impl Current {
    pub(crate) async fn load(conn: &mut Conn) -> Result<Self> {
        Ok(Self {
            packs: packs::list(conn).await?,
            packed: queries::list_packed(conn).await?,
            queries: queries::list(conn, None).await?,
            options: options::list(conn).await?,
            decorators: decorators::list(conn).await?,
            file_paths: file_paths::list(conn).await?,
            sections: sections::list(conn).await?,
            tags: tags::names(conn).await?,
        })
    }

    /// Completes what is wanted by what is known: SQL is then checked for the nodes that will get it.
    pub(crate) fn complete(&self, wanted: &mut Wanted) {
        for pack in &mut wanted.packs {
            let values = &mut pack.values;
            let known = self.packs.iter().find(|known| known.name == values.name);
            let Some(known) = known else { continue };
            keep(&mut values.target, &known.target);
            keep(&mut values.description, &known.description);
            let queries = self.packed.get(&known.id).map(Vec::as_slice);
            for query in &mut pack.queries {
                complete_query(query, queries.unwrap_or_default());
            }
        }
        for query in &mut wanted.queries {
            complete_query(query, &self.queries);
        }
        for path in &mut wanted.file_paths {
            let mut known = self.file_paths.iter();
            if let Some(known) = known.find(|known| known.values.category == path.category) {
                keep(&mut path.target, &known.values.target);
            }
        }
    }
}

fn complete_query(query: &mut QueryValues, known: &[QueryRecord]) {
    if let Some(known) = known.iter().find(|known| known.name == query.name) {
        keep(&mut query.target, &known.target);
        keep(&mut query.description, &known.description);
        keep(&mut query.value, &known.value);
    }
}

/// What a file does not say stays as it is.
fn keep(wanted: &mut String, known: &str) {
    if wanted.is_empty() {
        known.clone_into(wanted);
    }
}

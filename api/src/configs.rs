//! Config documents, assembled once per distinct selection of parts and kept until an admin changes something.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use ostiary_domain::ids::NodeId;
use ostiary_domain::node_config::{self, MAX_BYTES, Parts, Selection};
use ostiary_store::configs::DocumentHash;
use ostiary_store::node_keys::KnownNode;
use ostiary_store::{Db, config_parts};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// A document as nodes get it.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) bytes: Bytes,
    pub(crate) hash: DocumentHash,
}

/// The documents of the present generation.
#[derive(Debug, Default)]
pub(crate) struct Configs {
    loaded: ArcSwapOption<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    parts: Parts,
    by_selection: Mutex<HashMap<Selection, Arc<Document>>>,
    /// Saves judging all targets at every poll. An entry holds as long as the node's facts are the very same.
    by_node: Mutex<HashMap<NodeId, Assembled>>,
}

/// For whom a document was assembled, and the document.
type Assembled = (Arc<KnownNode>, Arc<Document>);

impl Configs {
    /// Reads everything that documents are made of.
    pub(crate) async fn reload(&self, db: &Db) -> ostiary_store::Result<()> {
        let mut conn = db.acquire().await?;
        let parts = config_parts::load(&mut conn).await?;
        self.loaded.store(Some(Arc::new(Loaded {
            parts,
            by_selection: Mutex::default(),
            by_node: Mutex::default(),
        })));
        Ok(())
    }

    /// Has anything been read yet?
    pub(crate) fn is_loaded(&self) -> bool {
        self.loaded.load().is_some()
    }

    /// The document of a node.
    pub(crate) fn of(&self, node: &Arc<KnownNode>) -> Result<Arc<Document>> {
        let loaded = self.loaded.load_full().ok_or(Error::Unavailable)?;
        if let Some((known, document)) = loaded
            .by_node
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&node.id)
            && Arc::ptr_eq(known, node)
        {
            return Ok(document.clone());
        }
        let document = loaded.assemble(node)?;
        let entry = (node.clone(), document.clone());
        loaded
            .by_node
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(node.id, entry);
        Ok(document)
    }
}

impl Loaded {
    fn assemble(&self, node: &KnownNode) -> Result<Arc<Document>> {
        let selection = self.parts.select(&node.facts);
        let mut documents = self
            .by_selection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(document) = documents.get(&selection) {
            return Ok(document.clone());
        }
        let bytes = node_config::to_bytes(&self.parts.assemble_selection(&selection));
        if bytes.len() > MAX_BYTES {
            // A node that gets it has dropped its schedule before it refuses: better that it keeps what it has.
            tracing::error!(node.id = %node.id, bytes = bytes.len(), "the node's config is too large and is not sent");
            return Err(Error::Internal);
        }
        let hash = Sha256::digest(&bytes).into();
        let document = Arc::new(Document {
            bytes: bytes.into(),
            hash,
        });
        documents.insert(selection, document.clone());
        Ok(document)
    }
}

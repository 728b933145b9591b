//! Config documents, assembled once per distinct selection of parts and kept until an admin changes something.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use ostiary_domain::ids::NodeId;
use ostiary_domain::node_config::{MAX_BYTES, Parts, Selection, Written};
use ostiary_domain::rollout::position;
use ostiary_store::configs::DocumentHash;
use ostiary_store::node_keys::KnownNode;
use ostiary_store::rollouts::{self, Split};
use ostiary_store::{Db, config_parts};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// A document as nodes get it, in both forms.
#[derive(Debug)]
pub(crate) struct Document {
    /// For nodes that send no etag, and what is stored: either form names the same content.
    pub(crate) plain: Bytes,
    with_etag: Bytes,
    etag: String,
    /// Of the plain form.
    pub(crate) hash: DocumentHash,
}

impl Document {
    /// What answers a node that holds the document of this etag, or that knows nothing of etags (`None`).
    ///
    /// **Invariant:** `{"etag":"ok"}` goes only to a node that sent the very etag of this document. An older client would apply it as
    /// its config and lose its whole schedule; but it sends none, and nobody can have this one without having been sent it.
    pub(crate) fn answer_to(&self, etag: Option<&str>) -> Bytes {
        match etag {
            None => self.plain.clone(),
            Some(known) if known == self.etag => Bytes::from_static(br#"{"etag":"ok"}"#),
            Some(_) => self.with_etag.clone(),
        }
    }
}

/// The documents of the present generation.
#[derive(Debug, Default)]
pub(crate) struct Configs {
    loaded: ArcSwapOption<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    parts: Parts,
    /// A roll-out that is under way: the nodes outside still get what its base gives.
    split: Option<Split>,
    /// By whether the base gives it, and the selection.
    by_selection: Mutex<HashMap<(bool, Selection), Arc<Document>>>,
    /// Saves judging all targets at every poll. An entry holds as long as the node's facts are the very same.
    by_node: Mutex<HashMap<NodeId, Assembled>>,
}

/// For whom a document was assembled, and the document.
type Assembled = (Arc<KnownNode>, Arc<Document>);

impl Configs {
    /// Reads everything that documents are made of.
    pub(crate) async fn reload(&self, db: &Db) -> ostiary_store::Result<()> {
        // At one moment: new parts without their roll-out would reach everybody at once.
        let mut snapshot = db.begin_snapshot().await?;
        let parts = config_parts::load_for_nodes(&mut snapshot).await?;
        let split = rollouts::find_split(&mut snapshot).await?;
        Db::commit(snapshot).await?;
        self.loaded.store(Some(Arc::new(Loaded {
            parts,
            split,
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
        let outside = (self.split.as_ref())
            .filter(|split| position(split.rollout, node.id) > split.threshold);
        let parts = outside.map_or(&self.parts, |split| &split.base);
        let selection = parts.select(&node.facts);
        let key = (outside.is_some(), selection);
        let mut documents = self
            .by_selection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(document) = documents.get(&key) {
            return Ok(document.clone());
        }
        let written = Written::of(&parts.assemble_selection(&key.1));
        if written.size() > MAX_BYTES {
            // A node that gets it has dropped its schedule before it refuses: better that it keeps what it has.
            tracing::error!(node.id = %node.id, bytes = written.size(), "the node's config is too large and is not sent");
            return Err(Error::Internal);
        }
        let hash = Sha256::digest(&written.plain).into();
        let document = Arc::new(Document {
            plain: written.plain.into(),
            with_etag: written.with_etag.into(),
            etag: written.etag,
            hash,
        });
        documents.insert(key, document.clone());
        Ok(document)
    }
}

//! No document may exceed what osqueryd takes: is any of them too large or too deep?

use std::collections::HashSet;

use serde_json::Value;

use super::{MAX_BYTES, MAX_DEPTH, Pack, Parts, Query, Selection, VersionFamily, Written, depth};
use crate::node::NodeFacts;

/// What every document has, at most: keys of sections and the etag.
const FRAME_BYTES: usize = 400;

/// Why parts cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TooMuch {
    /// A document is too large.
    #[error("the config of {node} would have {bytes} bytes, and osquery takes {MAX_BYTES} at most")]
    Large {
        /// Its size.
        bytes: usize,
        /// The name of a node that would get it.
        node: String,
    },
    /// A part is nested too deeply.
    #[error("{what} is nested too deeply: osquery takes {MAX_DEPTH} levels of a config")]
    Deep {
        /// The part.
        what: String,
    },
}

impl Parts {
    /// Looks at the document of every distinct selection of these nodes; documents that cannot be too large, judged by the sizes of
    /// their parts, are not assembled. Call it on [`sorted`](Self::sorted) parts.
    ///
    /// # Errors
    /// The first document or part that is too much.
    pub fn check_limits<'a>(
        &self,
        nodes: impl IntoIterator<Item = &'a NodeFacts>,
    ) -> Result<(), TooMuch> {
        self.check_depth()?;
        let sizes = self.sizes();
        if sizes.iter().map(|size| size.chosen).sum::<usize>() + FRAME_BYTES <= MAX_BYTES {
            return Ok(());
        }
        let mut seen = HashSet::new();
        let selector = self.selector();
        for node in nodes {
            let selection = selector.select(node);
            if seen.contains(&selection) {
                continue;
            }
            if selection.weigh(&sizes) + FRAME_BYTES > MAX_BYTES {
                let bytes = Written::of(&self.assemble_selection(&selection)).size();
                if bytes > MAX_BYTES {
                    let node = node.name.clone();
                    return Err(TooMuch::Large { bytes, node });
                }
            }
            seen.insert(selection);
        }
        Ok(())
    }

    /// No document of this selection is larger.
    #[cfg(test)]
    pub(super) fn most_bytes(&self, selection: &Selection) -> usize {
        selection.weigh(&self.sizes()) + FRAME_BYTES
    }

    /// The most bytes that each part may add to a document, in the order of the bits of a [`Selection`].
    fn sizes(&self) -> Vec<Size> {
        let oldest = VersionFamily::BeforeFive;
        let packs = (self.packs.iter()).map(|pack| entry(&pack.name, &pack.to_json(oldest)));
        let queries = (self.queries.iter()).map(|query| entry(&query.name, &query.to_json(oldest)));
        let file_paths = (self.file_paths.iter()).map(|path| {
            let globs =
                text_of(&path.globs) + text_of(&path.queries) + text_of(&path.exclude_globs);
            let category = text_of(&path.category) + 4;
            Size {
                chosen: globs + 4 * category,
                else_sent: category,
            }
        });
        let decorators = (self.decorators.iter()).map(|each| text_of(&each.sql) + 24);
        let options = (self.options.iter()).map(|option| entry(&option.name, &option.value));
        let sections = (self.sections.iter()).map(|each| entry(&each.key, &each.value));
        let leftovers = (self.leftovers.iter()).map(|leftover| text_of(&leftover.name) + 64);
        (packs.chain(queries).map(Size::of))
            .chain(file_paths)
            .chain((decorators.chain(options).chain(sections).chain(leftovers)).map(Size::of))
            .collect()
    }

    fn check_depth(&self) -> Result<(), TooMuch> {
        let deep = |what: String| Err(TooMuch::Deep { what });
        for query in &self.queries {
            if 2 + query.depth() > MAX_DEPTH {
                return deep(format!("The query {}", query.name));
            }
        }
        for pack in &self.packs {
            if 2 + pack.depth() > MAX_DEPTH {
                return deep(format!("The pack {}", pack.name));
            }
        }
        for section in &self.sections {
            if 1 + depth(&section.value) > MAX_DEPTH {
                return deep(format!("The section {} of {}", section.name, section.key));
            }
        }
        Ok(())
    }
}

/// The most bytes that a part adds to a document.
struct Size {
    /// When it is chosen.
    chosen: usize,
    /// When it is not.
    else_sent: usize,
}

impl Size {
    fn of(chosen: usize) -> Self {
        Self {
            chosen,
            else_sent: 0,
        }
    }
}

impl Pack {
    fn depth(&self) -> usize {
        let queries = (self.queries.iter()).map(|query| 1 + query.depth());
        let extra = self.extra.values().map(depth);
        1 + queries.chain(extra).max().unwrap_or(0)
    }
}

impl Query {
    fn depth(&self) -> usize {
        1 + self.extra.values().map(depth).max().unwrap_or(0)
    }
}

impl Selection {
    /// The most bytes of what is chosen, and of what is not: the exclusions of other categories are reset by name.
    fn weigh(&self, sizes: &[Size]) -> usize {
        (sizes.iter().enumerate())
            .map(|(index, size)| {
                if self.is_chosen(index) {
                    size.chosen
                } else {
                    size.else_sent
                }
            })
            .sum()
    }
}

/// A member of an object with its comma.
fn entry(name: &str, value: &Value) -> usize {
    text_of(name) + text_of(value) + 4
}

fn text_of<T: serde::Serialize + ?Sized>(value: &T) -> usize {
    serde_json::to_string(value).map_or(0, |text| text.len())
}

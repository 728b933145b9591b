//! Which parts a node gets. Nodes with equal selections get equal documents, so a document is assembled once per selection.

use std::collections::HashMap;

use super::{FilePath, LeftoverKind, Parts};
use crate::node::NodeFacts;
use crate::osquery::OsqueryVersion;
use crate::target::TargetText;

/// A node's share of some [`Parts`]: a bit for each part, and what of its version matters. Means nothing for other parts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Selection {
    bits: Vec<u64>,
    /// How the document is written.
    pub family: VersionFamily,
}

impl Selection {
    /// Is the part at this place chosen?
    pub(super) fn is_chosen(&self, index: usize) -> bool {
        self.bits.get(index / 64).unwrap_or(&0) >> (index % 64) & 1 == 1
    }
}

/// Versions of osquery between which documents differ. As few as can be: each may double the number of distinct documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VersionFamily {
    /// Before 5.0, or not known yet: `blacklist` is written beside `denylist`. 2.11 to 4.3 know only the first, 4.4 on the second;
    /// each ignores the other.
    BeforeFive,
    /// 5.0 and later, which know `denylist` only.
    FromFive,
}

impl VersionFamily {
    /// The family of a version as nodes report it.
    #[must_use]
    pub fn of(version: &str) -> Self {
        match version.parse::<OsqueryVersion>() {
            Ok(version) if version >= OsqueryVersion::new(5, 0, 0) => Self::FromFive,
            _ => Self::BeforeFive,
        }
    }
}

/// Selects for many nodes: what all nodes have in common is looked up once.
#[derive(Debug)]
pub struct Selector<'p> {
    parts: &'p Parts,
    /// Each target once: of many packs few are different.
    targets: Vec<&'p TargetText>,
    /// Of each part the place of its target; none: it is disabled.
    places: Vec<Option<usize>>,
    depends_on_version: bool,
}

impl Selector<'_> {
    /// A node's share.
    #[must_use]
    pub fn select(&self, node: &NodeFacts) -> Selection {
        let matches: Vec<bool> = (self.targets.iter())
            .map(|target| target.matches(node))
            .collect();
        let chosen = self
            .places
            .iter()
            .map(|place| place.is_some_and(|at| matches[at]));
        let selection = Selection::new(chosen, self.depends_on_version, node);
        self.parts.without_resets_of_packs(selection, node)
    }
}

impl Selection {
    fn new(chosen: impl Iterator<Item = bool>, depends_on_version: bool, node: &NodeFacts) -> Self {
        let mut bits = Vec::new();
        for (index, chosen) in chosen.enumerate() {
            if index % 64 == 0 {
                bits.push(0);
            }
            bits[index / 64] |= u64::from(chosen) << (index % 64);
        }
        Self {
            bits,
            family: if depends_on_version {
                VersionFamily::of(&node.osquery_version)
            } else {
                VersionFamily::FromFive
            },
        }
    }
}

impl Parts {
    /// A node's share.
    #[must_use]
    pub fn select(&self, node: &NodeFacts) -> Selection {
        let chosen =
            (self.targets()).map(|target| target.is_some_and(|target| target.matches(node)));
        let selection = Selection::new(chosen, self.depends_on_version(), node);
        self.without_resets_of_packs(selection, node)
    }

    /// Takes the resets out of a selection that would win over what a chosen pack sets. A pack whose conditions do not take the node
    /// in sets nothing.
    fn without_resets_of_packs(&self, mut selection: Selection, node: &NodeFacts) -> Selection {
        if self.leftovers.is_empty() {
            return selection;
        }
        let first = self.targets().count() - self.leftovers.len();
        for (index, leftover) in (first..).zip(&self.leftovers) {
            if leftover.kind != LeftoverKind::Option || !selection.is_chosen(index) {
                continue;
            }
            let is_set = self.packs.iter().enumerate().any(|(at, pack)| {
                selection.is_chosen(at)
                    && pack.options().any(|(name, _)| name == leftover.name)
                    && pack.is_for(node)
            });
            if is_set {
                selection.bits[index / 64] &= !(1 << (index % 64));
            }
        }
        selection
    }

    /// For the shares of many nodes.
    #[must_use]
    pub fn selector(&self) -> Selector<'_> {
        let mut known: HashMap<&str, usize> = HashMap::new();
        let mut targets = Vec::new();
        let mut place = |target| {
            *known.entry(TargetText::as_str(target)).or_insert_with(|| {
                targets.push(target);
                targets.len() - 1
            })
        };
        let places = self
            .targets()
            .map(|target| target.map(&mut place))
            .collect();
        Selector {
            parts: self,
            targets,
            places,
            depends_on_version: self.depends_on_version(),
        }
    }

    /// The target of each part, in the order of the bits of a selection; none: it is disabled.
    fn targets(&self) -> impl Iterator<Item = Option<&TargetText>> {
        let enabled = |enabled: bool, target| enabled.then_some(target);
        (self
            .packs
            .iter()
            .map(move |pack| enabled(pack.enabled, &pack.target)))
        .chain((self.queries.iter()).map(move |query| enabled(query.enabled, &query.target)))
        .chain((self.file_paths.iter()).map(move |path| enabled(path.enabled, &path.target)))
        .chain((self.decorators.iter()).map(move |each| enabled(each.enabled, &each.target)))
        .chain((self.options.iter()).map(|option| Some(&option.target)))
        .chain((self.sections.iter()).map(move |each| enabled(each.enabled, &each.target)))
        .chain((self.leftovers.iter()).map(|leftover| Some(&leftover.target)))
    }

    /// Is there anything at all that is written differently for different versions?
    fn depends_on_version(&self) -> bool {
        let packed = (self.packs.iter().filter(|pack| pack.enabled)).flat_map(|pack| &pack.queries);
        (self.queries.iter().chain(packed)).any(|query| query.enabled && !query.denylist)
    }

    /// The parts that a selection chooses, in the order in which [`select`](Self::select) looked at them.
    pub(super) fn chosen(&self, selection: &Selection) -> Chosen<'_> {
        let mut index = 0;
        let mut next = || {
            index += 1;
            selection.is_chosen(index - 1)
        };
        Chosen {
            packs: self.packs.iter().filter(|_| next()).collect(),
            queries: self.queries.iter().filter(|_| next()).collect(),
            file_paths: self.file_paths.iter().map(|path| (path, next())).collect(),
            decorators: self.decorators.iter().filter(|_| next()).collect(),
            options: self.options.iter().filter(|_| next()).collect(),
            sections: self.sections.iter().filter(|_| next()).collect(),
            leftovers: self
                .leftovers
                .iter()
                .filter(|_| next())
                .map(|leftover| (leftover.kind, leftover.name.as_str()))
                .collect(),
            family: selection.family,
        }
    }
}

/// What a selection chooses.
pub(super) struct Chosen<'a> {
    pub(super) packs: Vec<&'a super::Pack>,
    pub(super) queries: Vec<&'a super::Query>,
    /// All of them: of those that are not chosen nodes may carry the exclusions.
    pub(super) file_paths: Vec<(&'a FilePath, bool)>,
    pub(super) decorators: Vec<&'a super::Decorator>,
    pub(super) options: Vec<&'a super::ConfigOption>,
    pub(super) sections: Vec<&'a super::Section>,
    pub(super) leftovers: Vec<(LeftoverKind, &'a str)>,
    pub(super) family: VersionFamily,
}

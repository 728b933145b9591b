//! What a change leaves behind on nodes: osqueryd keeps some things until its restart when a config merely lacks them.

use super::{FilePath, Leftover, LeftoverKind, Parts};
use chrono::{DateTime, Utc};

impl Parts {
    /// What nodes that ran `self` keep when they get `after`: options that are gone from a target, exclusions of categories that
    /// are. What is still there under its name is dealt with by [`assemble`](Self::assemble) itself.
    #[must_use]
    pub fn leftovers_in(&self, after: &Self, now: DateTime<Utc>) -> Vec<Leftover> {
        let options = (self.options.iter())
            .filter(|option| {
                !(after.options.iter())
                    .any(|other| other.name == option.name && *other.target == *option.target)
            })
            .map(|option| (LeftoverKind::Option, &option.name, &option.target));
        let excluded = (self.file_paths.iter())
            .filter(|path| path.enabled && !path.exclude_globs.is_empty())
            .filter(|path| !(after.file_paths.iter()).any(|other| still_resets(path, other)))
            .map(|path| (LeftoverKind::ExcludePaths, &path.category, &path.target));
        options
            .chain(excluded)
            .map(|(kind, name, target)| Leftover {
                kind,
                name: name.clone(),
                target: target.clone(),
                since: now,
            })
            .collect()
    }

    /// Is there an option of this name and target, or a category of this name, so that nothing is left over any more?
    #[must_use]
    pub fn supersedes(&self, leftover: &Leftover) -> bool {
        match leftover.kind {
            LeftoverKind::Option => (self.options.iter())
                .any(|option| option.name == leftover.name && *option.target == *leftover.target),
            LeftoverKind::ExcludePaths => (self.file_paths.iter()).any(|path| {
                path.category == leftover.name && path.enabled && *path.target == *leftover.target
            }),
        }
    }
}

/// Does the category as it is now reach the nodes that had it, with other exclusions or with none?
fn still_resets(before: &FilePath, after: &FilePath) -> bool {
    before.category == after.category
        && (!after.exclude_globs.is_empty() || after.enabled && *after.target == *before.target)
}

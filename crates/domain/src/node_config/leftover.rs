//! What a change leaves behind on nodes: osqueryd keeps some things until its restart when a config merely lacks them.

use chrono::{DateTime, Utc};

use super::{FilePath, Leftover, LeftoverKind, Parts};
use crate::target::TargetText;

impl Parts {
    /// What nodes that ran `self` keep when they get `after`: options that are gone from a target, exclusions of categories that
    /// are. What is still there under its name is dealt with by [`assemble`](Self::assemble) itself.
    #[must_use]
    pub fn leftovers_in(&self, after: &Self, now: DateTime<Utc>) -> Vec<Leftover> {
        let mut gone: Vec<(&str, &TargetText)> = Vec::new();
        for (name, target) in self.sent_options() {
            let is_known = (gone.iter()).any(|(known, of)| *known == name && ***of == **target);
            if !is_known && !after.sends(name, target) {
                gone.push((name, target));
            }
        }
        let options = (gone.into_iter()).map(|(name, target)| (LeftoverKind::Option, name, target));
        let excluded = (self.file_paths.iter())
            .filter(|path| path.enabled && !path.exclude_globs.is_empty())
            .filter(|path| !(after.file_paths.iter()).any(|other| still_resets(path, other)))
            .map(|path| {
                (
                    LeftoverKind::ExcludePaths,
                    path.category.as_str(),
                    &path.target,
                )
            });
        options
            .chain(excluded)
            .map(|(kind, name, target)| Leftover {
                kind,
                name: name.to_owned(),
                target: target.clone(),
                since: now,
            })
            .collect()
    }

    /// Another spelling of the same target is the same.
    fn sends(&self, name: &str, target: &TargetText) -> bool {
        (self.sent_options()).any(|(own, of)| own == name && **of == **target)
    }

    /// Is there an option of this name and target, or a category of this name, so that nothing is left over any more?
    #[must_use]
    pub fn supersedes(&self, leftover: &Leftover) -> bool {
        match leftover.kind {
            LeftoverKind::Option => self.sends(&leftover.name, &leftover.target),
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

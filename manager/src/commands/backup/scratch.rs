//! Files of a command that are gone at its end, however it comes: they hold keys and the whole database, unencrypted.
//!
//! They lie in a folder that only we may enter, locked as long as we live. What a process left that was killed is removed by the next.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use ostiary_boot::seal;
use rustix::fs::OFlags;

/// How our folders are called, whatever follows.
const NAME: &str = ".ostiary-backup-";

/// In each of them: locked by the process that uses it.
const LOCK: &str = "lock";

/// A folder for such files, made when the first one is.
#[derive(Debug, Default)]
pub(super) struct Scratch(Mutex<Option<Folder>>);

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes a new file in a folder within `parent`; all files of one command lie in that of the first.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn create(&self, parent: &Path, name: &str) -> anyhow::Result<(PathBuf, File)> {
        let mut folder = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let path = match &*folder {
            Some(folder) => folder.path.clone(),
            None => {
                remove_left_over(parent);
                folder.insert(Folder::make(parent)?).path.clone()
            }
        };
        let path = path.join(name);
        let file = private(&path)?;
        Ok((path, file))
    }

    /// Removes all of them now. Whoever goes on to write fails.
    pub(super) fn remove(&self) {
        let mut folder = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = folder.take()
            && let Err(error) = std::fs::remove_dir_all(&folder.path)
        {
            tracing::warn!(%error, "{} cannot be removed: it holds keys", folder.path.display());
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.remove();
    }
}

impl Folder {
    fn make(parent: &Path) -> anyhow::Result<Self> {
        let path = parent.join(format!("{NAME}{}", seal::random_token::<12>()));
        let cannot = || format!("{} cannot be made", path.display());
        (DirBuilder::new().mode(0o700).create(&path)).with_context(cannot)?;
        let lock = private(&path.join(LOCK))?;
        lock.try_lock().with_context(cannot)?;
        Ok(Self { path, _lock: lock })
    }
}

/// A new file that only we may read.
fn private(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("{} cannot be made", path.display()))
}

/// Removes folders whose process is gone. Those of other users stay, whatever they put into them: root could enter.
fn remove_left_over(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(NAME) {
            continue;
        }
        let path = entry.path();
        let is_ours = entry.metadata().is_ok_and(|entry| {
            entry.is_dir() && entry.uid() == rustix::process::geteuid().as_raw()
        });
        let is_left = is_ours && open_lock(&path).is_ok_and(|lock| lock.try_lock().is_ok());
        if is_left && std::fs::remove_dir_all(&path).is_ok() {
            tracing::info!("{} was left by a backup that was killed", path.display());
        }
    }
}

/// Opens the lock of a folder that another process made, and never waits for it.
fn open_lock(folder: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed())
        .open(folder.join(LOCK))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_others_lay_beside_is_neither_waited_for_nor_followed() {
        let parent = std::env::temp_dir().join(format!("ostiary-others-{}", std::process::id()));
        let target = parent.join("target");
        let [pipe, linked, link] =
            ["pipe", "linked", "link"].map(|name| parent.join(format!("{NAME}{name}")));
        for folder in [&pipe, &linked, &target] {
            std::fs::create_dir_all(folder).unwrap();
        }
        std::fs::write(target.join(LOCK), "").unwrap();
        let lock = pipe.join(LOCK);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &lock,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        std::os::unix::fs::symlink(target.join(LOCK), linked.join(LOCK)).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        Scratch::default().create(&parent, "dump").unwrap();
        assert!(target.join(LOCK).exists() && linked.exists() && link.exists());
        std::fs::remove_dir_all(parent).unwrap();
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn files_lie_where_only_we_may_look_and_go_with_what_was_left() {
        let parent = std::env::temp_dir().join(format!("ostiary-scratch-{}", std::process::id()));
        std::fs::create_dir_all(parent.join("mine")).unwrap();
        let killed = parent.join(format!("{NAME}killed"));
        std::fs::create_dir(&killed).unwrap();
        std::fs::write(killed.join(LOCK), "").unwrap();
        std::fs::write(killed.join("dump"), "secrets").unwrap();
        let (one, other) = (Scratch::default(), Scratch::default());
        let (path, _) = one.create(&parent, "dump").unwrap();
        let (second, _) = one.create(&parent, "tar").unwrap();
        let (beside, _) = other.create(&parent, "dump").unwrap();
        assert!(!killed.exists(), "nobody holds it any more");
        assert_eq!(path.parent(), second.parent());
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(mode(&path), 0o600);
        one.remove();
        assert!(!path.exists() && beside.exists(), "another lives on");
        one.remove();
        drop(other);
        assert_eq!(names(&parent), ["mine"]);
        std::fs::remove_dir_all(parent).unwrap();
    }
}

//! Blobs in a folder. Only the owner can read it: 0700 around, 0600 each.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;

use crate::storage::id_of;
use crate::{Error, Result};

/// Makes the folder if it is missing. What is written lies on the disk when it is said to be written.
pub(crate) fn open(folder: &Path) -> Result<Arc<dyn ObjectStore>> {
    let unusable = |error: &dyn std::fmt::Display| {
        Error::Settings(format!("{} cannot be used: {error}", folder.display()))
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| unusable(&error))?;
    let store = LocalFileSystem::new_with_prefix(folder).map_err(|error| unusable(&error))?;
    Ok(Arc::new(store.with_fsync(true)))
}

/// Lets only the owner read a file that was just written.
pub(crate) async fn protect(folder: &Path, name: &str) -> std::io::Result<()> {
    tokio::fs::set_permissions(folder.join(name), Permissions::from_mode(0o600)).await
}

/// Deletes files that are no finished objects, and into which nobody has written since `before`: what processes have left that were
/// killed while they wrote. Gives how many.
pub(crate) async fn clear_left_over(folder: &Path, before: SystemTime) -> std::io::Result<usize> {
    clear(folder, is_unfinished, before).await
}

/// Deletes what attempts to write this object have left, if nobody has written into it since `before`.
pub(crate) async fn clear_attempts(
    folder: &Path,
    object: &str,
    before: SystemTime,
) -> std::io::Result<usize> {
    let is_attempt = |name: &str| {
        let rest = name.strip_prefix(object);
        rest.is_some_and(|rest| rest.starts_with('-')) && is_unfinished(name)
    };
    clear(folder, is_attempt, before).await
}

async fn clear(
    folder: &Path,
    is_meant: impl Fn(&str) -> bool,
    before: SystemTime,
) -> std::io::Result<usize> {
    let mut cleared = 0;
    let mut entries = tokio::fs::read_dir(folder).await?;
    while let Some(entry) = entries.next_entry().await? {
        if !is_meant(&entry.file_name().to_string_lossy()) {
            continue;
        }
        // Whoever writes it may just have finished.
        let removed = match entry.metadata().await {
            Ok(metadata) if metadata.modified()? < before => {
                tokio::fs::remove_file(entry.path()).await
            }
            Ok(_) => continue,
            Err(error) => Err(error),
        };
        match removed {
            Ok(()) => cleared += 1,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(cleared)
}

/// The name of an attempt to write an object: `<object>-<attempt>`, to which object_store adds `#1` while it is written. Of before is
/// `<object>#1`.
fn is_unfinished(name: &str) -> bool {
    let is_id = |text: &str| id_of(text).is_some();
    let (attempt, part) = name.split_once('#').unwrap_or((name, ""));
    let is_attempt = attempt
        .split_once('-')
        .is_some_and(|(object, attempt)| is_id(object) && is_id(attempt));
    let is_part = !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
    is_attempt && (part.is_empty() || is_part) || is_id(attempt) && is_part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_we_have_not_finished_is_ours_to_clear() {
        let id = "0198f3a2c4d57e6f8a9b0c1d2e3f4051";
        for name in [
            format!("{id}-{id}"),
            format!("{id}-{id}#1"),
            format!("{id}#12"),
        ] {
            assert!(is_unfinished(&name), "{name}");
        }
        for name in [
            id.to_owned(),
            format!("{id}#"),
            format!("{id}#x"),
            format!("{id}-x"),
            "notes#1".to_owned(),
            "a-b".to_owned(),
        ] {
            assert!(!is_unfinished(&name), "{name}");
        }
    }
}

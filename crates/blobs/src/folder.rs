//! Blobs in a folder. Only the owner can read it: 0700 around, 0600 each.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;

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

/// Deletes what a process that was killed while it wrote this object has left: `name#1` and so on, as object_store calls them.
pub(crate) async fn clear_left_over(folder: &Path, name: &str) -> std::io::Result<()> {
    let beginning = format!("{name}#");
    let mut entries = tokio::fs::read_dir(folder).await?;
    while let Some(entry) = entries.next_entry().await? {
        if entry.file_name().to_string_lossy().starts_with(&beginning) {
            tokio::fs::remove_file(entry.path()).await?;
        }
    }
    Ok(())
}

//! Writing, reading, deleting.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, WriteMultipart};
use uuid::Uuid;

use crate::folder;
use crate::options::{Kind, Options};

/// What goes wrong with blobs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings cannot be meant, or name what cannot be used.
    #[error("{0}")]
    Settings(String),
    /// There is no such object.
    #[error("there is no such object in the storage")]
    NotFound,
    /// The storage failed; the same may succeed later.
    #[error("the storage failed: {0}")]
    Storage(#[source] object_store::Error),
    /// The folder failed.
    #[error("the folder failed: {0}")]
    Folder(#[from] std::io::Error),
}

/// What functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;

impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::NotFound,
            other => Self::Storage(other),
        }
    }
}

/// Parts of an upload: S3 takes none below 5 MiB but the last.
const PART: usize = 8 << 20;
/// Parts under way at once; each is in memory.
const PARTS_AT_ONCE: usize = 2;

/// The storage. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    /// The folder, if it is one.
    folder: Option<PathBuf>,
}

impl Blobs {
    /// Opens the storage. A folder is made if it is missing; a bucket is not contacted yet.
    ///
    /// # Errors
    /// The settings cannot be meant, or the folder cannot be used.
    pub fn open(options: &Options) -> Result<Self> {
        match options.kind {
            Kind::Folder => Ok(Self {
                store: folder::open(&options.folder)?,
                folder: Some(options.folder.clone()),
            }),
            #[cfg(feature = "s3")]
            Kind::S3 => Ok(Self {
                store: crate::s3::open(&options.s3)?,
                folder: None,
            }),
            #[cfg(not(feature = "s3"))]
            Kind::S3 => Err(Error::Settings(
                "[blobs] kind is \"s3\", but this program was built without it".to_owned(),
            )),
        }
    }

    /// Begins an object. Nobody sees it before [`Writer::finish`]; one of the same id is replaced then.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn write(&self, id: Uuid) -> Result<Writer> {
        let name = name_of(id);
        if let Some(folder) = &self.folder {
            folder::clear_left_over(folder, &name).await?;
        }
        let upload = self.store.put_multipart(&Path::from(name.as_str())).await?;
        Ok(Writer {
            upload: WriteMultipart::new_with_chunk_size(upload, PART),
            blobs: self.clone(),
            name,
        })
    }

    /// Reads an object.
    ///
    /// # Errors
    /// There is none of this id, or the storage failed.
    pub async fn read(&self, id: Uuid) -> Result<Blob> {
        let found = self.store.get(&Path::from(name_of(id))).await?;
        Ok(Blob {
            size: found.meta.size,
            bytes: found
                .into_stream()
                .map(|chunk| chunk.map_err(Error::from))
                .boxed(),
        })
    }

    /// Deletes an object, if there is one.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn delete(&self, id: Uuid) -> Result<()> {
        let name = name_of(id);
        if let Some(folder) = &self.folder {
            folder::clear_left_over(folder, &name).await?;
        }
        match self.store.delete(&Path::from(name.as_str())).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// An id in hexadecimal digits: the only kind of name there is.
fn name_of(id: Uuid) -> String {
    id.simple().to_string()
}

/// An object that is read.
pub struct Blob {
    /// Its size in bytes.
    pub size: u64,
    /// The bytes, in order.
    pub bytes: BoxStream<'static, Result<Bytes>>,
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blob")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// An object that is being written. One that is dropped unfinished leaves nothing behind in a folder; a bucket keeps its parts until
/// a rule of its own deletes them, so [`Writer::abort`] is better.
pub struct Writer {
    upload: WriteMultipart,
    blobs: Blobs,
    name: String,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// Adds bytes; waits while too much is under way.
    ///
    /// # Errors
    /// The storage failed: abort, and begin anew.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.upload.wait_for_capacity(PARTS_AT_ONCE).await?;
        self.upload.put(bytes);
        Ok(())
    }

    /// Ends the object: it is there from now on, and stays there through a loss of power.
    ///
    /// # Errors
    /// The storage failed; the object is not there.
    pub async fn finish(self) -> Result<()> {
        self.upload.finish().await?;
        if let Some(folder) = &self.blobs.folder {
            folder::protect(folder, &self.name).await?;
        }
        Ok(())
    }

    /// Gives the object up.
    ///
    /// # Errors
    /// The storage failed; parts of it may remain, which nobody sees.
    pub async fn abort(self) -> Result<()> {
        Ok(self.upload.abort().await?)
    }
}

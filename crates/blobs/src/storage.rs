//! Writing, reading, deleting.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures::stream::{BoxStream, StreamExt as _};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, WriteMultipart};
use sha2::{Digest as _, Sha256};
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
    /// What was written reads otherwise, so it cannot be counted on. The same may succeed later.
    #[error("the storage has not kept what was written into it")]
    Damaged,
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

/// What nobody has gone on with for this long is left over; no write takes as long.
const LEFT_OVER_AFTER: TimeDelta = TimeDelta::days(1);

/// An attempt at the same object into whose file nothing came for this long is dead, by the clock that dates files.
const DEAD_AFTER: Duration = Duration::from_secs(600);

/// The storage. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Folder(PathBuf),
    #[cfg(feature = "s3")]
    Bucket(Arc<crate::s3::Bucket>),
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
                place: Place::Folder(options.folder.clone()),
            }),
            #[cfg(feature = "s3")]
            Kind::S3 => {
                let bucket = crate::s3::Bucket::open(&options.s3)?;
                Ok(Self {
                    store: bucket.store(),
                    place: Place::Bucket(Arc::new(bucket)),
                })
            }
            #[cfg(not(feature = "s3"))]
            Kind::S3 => Err(Error::Settings(
                "[blobs] kind is \"s3\", but this program was built without it".to_owned(),
            )),
        }
    }

    /// Begins an object. Nobody sees it before [`Writer::finish`]; one of the same id is replaced then. `attempt` is a fresh id: others
    /// may be writing the same object, and do not disturb each other; what dead ones left in a folder is cleared away first, so that
    /// attempts that die one after the other do not fill the disk.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn write(&self, id: Uuid, attempt: Uuid) -> Result<Writer> {
        let name = name_of(id);
        let written_as = match &self.place {
            Place::Folder(folder) => {
                let before = SystemTime::now() - DEAD_AFTER;
                folder::clear_attempts(folder, &name, before).await?;
                format!("{name}-{}", name_of(attempt))
            }
            // An upload to a bucket has an id of its own.
            #[cfg(feature = "s3")]
            Place::Bucket(_) => name.clone(),
        };
        let path = Path::from(written_as.as_str());
        let upload = self.store.put_multipart(&path).await?;
        Ok(Writer {
            upload: WriteMultipart::new_with_chunk_size(upload, PART),
            blobs: self.clone(),
            name,
            written_as,
            hash: Sha256::new(),
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

    /// The objects that were written before `before`, one after the other. What is not named as we name things is passed over: others
    /// may keep their own in the same place.
    pub fn list_before(&self, before: DateTime<Utc>) -> BoxStream<'static, Result<Uuid>> {
        let found = self.store.list(None).map(move |found| {
            let found = found?;
            let id = id_of(found.location.as_ref());
            Ok(id.filter(|_| found.last_modified < before))
        });
        found
            .filter_map(|found: Result<Option<Uuid>>| std::future::ready(found.transpose()))
            .boxed()
    }

    /// Deletes an object, if there is one.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn delete(&self, id: Uuid) -> Result<()> {
        match self.store.delete(&Path::from(name_of(id))).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Clears away what was begun at least a day ago and not gone on with since; gives how many.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn clear_left_over(&self, now: DateTime<Utc>) -> Result<usize> {
        let before = now - LEFT_OVER_AFTER;
        match &self.place {
            Place::Folder(folder) => Ok(folder::clear_left_over(folder, before.into()).await?),
            #[cfg(feature = "s3")]
            Place::Bucket(bucket) => bucket.abort_left_over(before).await,
        }
    }

    /// The SHA-256 of an object. It is read in pieces: a request to a bucket has only so much time.
    async fn hash_of(&self, path: &Path) -> Result<[u8; 32]> {
        let size = self.store.head(path).await?.size;
        let mut hash = Sha256::new();
        let mut at = 0;
        while at < size {
            let end = size.min(at + PART as u64);
            hash.update(&self.store.get_range(path, at..end).await?);
            at = end;
        }
        Ok(hash.finalize().into())
    }
}

/// An id in hexadecimal digits: the only kind of name there is.
fn name_of(id: Uuid) -> String {
    id.simple().to_string()
}

/// The id in the whole name of an object of ours: ids that we give are UUIDs of version 7.
pub(crate) fn id_of(name: &str) -> Option<Uuid> {
    let id = Uuid::try_parse(name).ok()?;
    (id.get_version_num() == 7 && name_of(id) == name).then_some(id)
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
/// [`Blobs::clear_left_over`], so [`Writer::abort`] is better.
pub struct Writer {
    upload: WriteMultipart,
    blobs: Blobs,
    name: String,
    /// Its name until it is finished.
    written_as: String,
    hash: Sha256,
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
        self.hash.update(&bytes);
        self.upload.put(bytes);
        Ok(())
    }

    /// Ends the object: it is there from now on, and stays there through a loss of power. It is read once more before.
    ///
    /// # Errors
    /// The storage failed, or what it gives back differs from what was written; in a folder the object is not there. In a bucket
    /// it may be, since another attempt's has the same name: what a retry writes replaces it.
    pub async fn finish(self) -> Result<()> {
        self.upload.finish().await?;
        let blobs = &self.blobs;
        let path = Path::from(self.written_as.as_str());
        if blobs.hash_of(&path).await? != <[u8; 32]>::from(self.hash.finalize()) {
            if matches!(blobs.place, Place::Folder(_)) {
                blobs.store.delete(&path).await?;
            }
            return Err(Error::Damaged);
        }
        match &blobs.place {
            Place::Folder(folder) => {
                folder::protect(folder, &self.written_as).await?;
                let name = Path::from(self.name.as_str());
                Ok(blobs.store.rename(&path, &name).await?)
            }
            #[cfg(feature = "s3")]
            Place::Bucket(_) => Ok(()),
        }
    }

    /// Gives the object up.
    ///
    /// # Errors
    /// The storage failed; parts of it may remain, which nobody sees.
    pub async fn abort(self) -> Result<()> {
        Ok(self.upload.abort().await?)
    }
}

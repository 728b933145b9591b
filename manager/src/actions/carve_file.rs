//! The bytes of one file out of a stored carve, read on a thread of their own: where they lie was noted when the archive was listed, so
//! nothing of the archive is believed here.

use std::io::Read;
use std::time::Duration;

use axum::body::Bytes;
use futures::TryStreamExt as _;
use ostiary_archives::unpacked;
use ostiary_blobs::Blob;
use ostiary_domain::carve::ArchiveFormat;
use ostiary_store::carve_lists::CarveFile;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::time::timeout;
use tokio_util::io::{StreamReader, SyncIoBridge};

use crate::error::{Error, Result};

/// Bytes that are handed on at once.
const CHUNK: usize = 64 * 1024;
/// Chunks that may wait for whoever downloads.
const AHEAD: usize = 4;

/// How long whoever downloads may take nothing.
const PATIENCE: Duration = Duration::from_secs(60);
/// Files that are read at once: each of them holds a thread.
const AT_ONCE: usize = 8;

static READERS: Semaphore = Semaphore::const_new(AT_ONCE);

/// The right to read a file. It is given back when the file has been read, or nobody wants it any more.
pub(super) struct Turn(SemaphorePermit<'static>);

impl Turn {
    /// # Errors
    /// [`Error::Busy`] when too many files are being read.
    pub(super) fn take() -> Result<Self> {
        READERS.try_acquire().map(Self).map_err(|_| {
            Error::Busy(format!(
                "{AT_ONCE} files out of carves are being downloaded already. Try again when one of them is done."
            ))
        })
    }
}

/// The bytes of a file as they come; an error ends them early.
pub type FileBytes = mpsc::Receiver<std::io::Result<Bytes>>;

/// Where the bytes of a file lie in its archive.
#[derive(Debug, Clone, Copy)]
pub(super) struct FilePlace {
    is_packed: bool,
    from: u64,
    size: u64,
}

impl FilePlace {
    /// `None` when that is not known.
    pub(super) fn of(format: &str, file: &CarveFile) -> Option<Self> {
        Some(Self {
            is_packed: match format {
                format if format == ArchiveFormat::Tar.as_str() => false,
                format if format == ArchiveFormat::ZstdTar.as_str() => true,
                _ => return None,
            },
            from: u64::try_from(file.data_at?).ok()?,
            size: u64::try_from(file.size).ok()?,
        })
    }

    /// Begins to read.
    pub(super) fn read(self, archive: Blob, turn: Turn) -> FileBytes {
        let (sender, bytes) = mpsc::channel(AHEAD);
        let archive = StreamReader::new(archive.bytes.map_err(std::io::Error::other));
        let archive = SyncIoBridge::new(archive);
        tokio::task::spawn_blocking(move || {
            let _permit = turn.0;
            let copied = if self.is_packed {
                unpacked(archive).and_then(|archive| self.copy(archive, &sender))
            } else {
                self.copy(archive, &sender)
            };
            if let Err(error) = copied {
                tracing::warn!(%error, "a download ended early");
                // It fails when nobody waits for it any more.
                let _ = sender.try_send(Err(error));
            }
        });
        bytes
    }

    fn copy(
        self,
        mut archive: impl Read,
        to: &mpsc::Sender<std::io::Result<Bytes>>,
    ) -> std::io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        for (length, is_wanted) in [(self.from, false), (self.size, true)] {
            let mut left = length;
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
                let read = archive.read(&mut buffer[..most])?;
                if read == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                left -= read as u64;
                let gone = if is_wanted {
                    let chunk = Bytes::copy_from_slice(&buffer[..read]);
                    !hand_on(to, chunk, PATIENCE)?
                } else {
                    to.is_closed()
                };
                if gone {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Is there still somebody who wants it? This waits on a thread of its own.
fn hand_on(
    to: &mpsc::Sender<std::io::Result<Bytes>>,
    chunk: Bytes,
    patience: Duration,
) -> std::io::Result<bool> {
    let sent = async { timeout(patience, to.send(Ok(chunk))).await };
    match Handle::current().block_on(sent) {
        Ok(sent) => Ok(sent.is_ok()),
        Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_that_takes_nothing_is_given_up() {
        let (sender, mut bytes) = mpsc::channel(1);
        let sent = tokio::task::spawn_blocking(move || {
            let patience = Duration::from_millis(20);
            let first = hand_on(&sender, Bytes::from_static(b"a"), patience);
            let second = hand_on(&sender, Bytes::from_static(b"b"), patience);
            (first.unwrap(), second.unwrap_err().kind())
        });
        assert_eq!(sent.await.unwrap(), (true, std::io::ErrorKind::TimedOut));
        assert_eq!(bytes.recv().await.unwrap().unwrap(), "a");
        assert!(bytes.recv().await.is_none());
    }

    #[test]
    fn no_more_files_are_read_at_once_than_there_are_turns() {
        let turns: Vec<Turn> = (0..AT_ONCE).map(|_| Turn::take().unwrap()).collect();
        assert!(matches!(Turn::take(), Err(Error::Busy(_))));
        drop(turns);
        assert!(Turn::take().is_ok());
    }
}

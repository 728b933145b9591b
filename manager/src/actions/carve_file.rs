//! The bytes of one file out of a stored carve, read on a thread of their own: where they lie was noted when the archive was listed, so
//! nothing of the archive is believed here.

use std::io::Read;

use axum::body::Bytes;
use futures::TryStreamExt as _;
use ostiary_blobs::Blob;
use ostiary_domain::carve::ArchiveFormat;
use ostiary_store::carve_lists::CarveFile;
use tokio::sync::mpsc;
use tokio_util::io::{StreamReader, SyncIoBridge};

/// Bytes that are handed on at once.
const CHUNK: usize = 64 * 1024;
/// Chunks that may wait for whoever downloads.
const AHEAD: usize = 4;
/// Memory that a zstd frame may ask for, as a power of two: as when it was listed.
const WINDOW_LOG: u32 = 27;

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
    pub(super) fn read(self, archive: Blob) -> FileBytes {
        let (sender, bytes) = mpsc::channel(AHEAD);
        let archive = StreamReader::new(archive.bytes.map_err(std::io::Error::other));
        let archive = SyncIoBridge::new(archive);
        tokio::task::spawn_blocking(move || {
            let copied = if self.is_packed {
                unpacked(archive).and_then(|archive| self.copy(archive, &sender))
            } else {
                self.copy(archive, &sender)
            };
            if let Err(error) = copied {
                tracing::warn!(%error, "a download ended early");
                // It fails when nobody waits for it any more.
                let _ = sender.blocking_send(Err(error));
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
                    to.blocking_send(Ok(chunk)).is_err()
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

fn unpacked(archive: impl Read) -> std::io::Result<impl Read> {
    let mut decoder = zstd::stream::read::Decoder::new(archive)?;
    decoder.window_log_max(WINDOW_LOG)?;
    Ok(decoder)
}

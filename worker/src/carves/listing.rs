//! The bytes of a carve on their way to [`ostiary_archives::list`], and its listing on the way to the store.

use std::io::Read;

use bytes::Bytes;
use ostiary_archives::ListedFile;
use ostiary_store::carve_upkeep::JoinedFile;
use tokio::sync::mpsc;

/// The bytes of a carve as they come, to be listed on a thread of its own. When it has seen enough it hangs up.
pub(super) struct Incoming {
    chunks: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Incoming {
    pub(super) fn new(chunks: mpsc::Receiver<Bytes>) -> Self {
        Self {
            chunks,
            current: Bytes::new(),
        }
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.current = chunk,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.current.len());
        buffer[..length].copy_from_slice(&self.current.split_to(length));
        Ok(length)
    }
}

/// A file of a listing as the store has it.
pub(super) fn joined(file: ListedFile) -> JoinedFile {
    JoinedFile {
        path: file.path,
        size: i64::try_from(file.size).unwrap_or(i64::MAX),
        modified_at: file.modified_at,
        data_at: file.data_at.and_then(|at| i64::try_from(at).ok()),
    }
}

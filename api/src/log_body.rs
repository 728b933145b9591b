//! The body of `/log`: inflated, split and compressed while it arrives. Of a post of 100 MiB only its longest line and the compressed
//! rest are ever in memory.

use std::io::Write;

use axum::body::Body;
use axum::http::HeaderMap;
use flate2::write::GzDecoder;
use ostiary_domain::osquery::{Lines, LogHead, LogReader, LogType, RequestError};
use ostiary_store::log_batches::Compressor;

use crate::body::{self, Bounds, END, FAR_BEYOND, Held, Room};
use crate::error::{Error, Result};
use crate::fragments::Fragments;

/// Longer lines are lost, and counted; in bytes. osqueryd drops lines above 1 MiB itself, unless it is told otherwise.
const LINE_MAX: usize = 32 << 20;
/// Of a post that cannot be understood so much is kept, in bytes.
const KEPT: usize = 1 << 20;
/// Compressed bytes are taken in pieces of this size, for one may inflate to a thousand times as much; in bytes.
const PIECE: usize = 4096;

/// A post that has arrived.
#[derive(Debug)]
pub(crate) struct LogBody {
    /// What it says beside its lines; an error if it is not whole, no JSON object, or names no key.
    pub(crate) head: std::result::Result<LogHead, RequestError>,
    /// Its lines as a JSON array, compressed; those within the bounds.
    pub(crate) data: Vec<u8>,
    /// How many lines those are.
    pub(crate) lines: u64,
    /// How many lines had to be left out, as far as they were seen.
    pub(crate) lost: u64,
    /// There was more than the bounds allow.
    pub(crate) beyond_bounds: bool,
    /// Key and log type, if they have arrived in a body that was not read to its end.
    early: (Option<String>, Option<String>),
    /// The beginning, inflated.
    beginning: Vec<u8>,
    end: Vec<u8>,
    _held: Held,
}

impl LogBody {
    /// Reads a body to its end, even beyond the bounds, so that it can be acknowledged.
    ///
    /// # Errors
    /// The body is cut off, too slow, not what its `Content-Encoding` says, or there is no room.
    pub(crate) async fn read(
        headers: &HeaderMap,
        mut body: Body,
        bounds: Bounds,
        room: &Room,
        header_key: Option<&str>,
    ) -> Result<Self> {
        let gzip = body::is_gzip(headers)?;
        let mut inflate = gzip.then(|| GzDecoder::new(Splitter::new(bounds, true, room)));
        let mut plain = Splitter::new(bounds, gzip, room);
        let mut sent = 0_usize;
        while let Some(chunk) = body::next(&mut body).await? {
            sent = sent.saturating_add(chunk.len());
            if sent > bounds.sent.saturating_mul(FAR_BEYOND) {
                return Err(Error::TooLarge);
            }
            let Some(inflate) = &mut inflate else {
                plain.write_all(&chunk).map_err(|_| Error::Busy)?;
                continue;
            };
            for piece in chunk.chunks(PIECE) {
                let before = inflate.get_ref().inflated;
                if inflate.get_ref().gave_up {
                    break;
                }
                if let Err(error) = inflate.write_all(piece) {
                    let splitter = inflate.get_ref();
                    if splitter.no_room {
                        return Err(Error::Busy);
                    }
                    if !splitter.gave_up {
                        tracing::debug!(%error, "bad gzip");
                        return Err(Error::BadGzip);
                    }
                }
                if inflate.get_ref().inflated - before > 256 * 1024 {
                    // Others are to be served, too.
                    tokio::task::yield_now().await;
                }
            }
        }
        let splitter = match inflate {
            None => plain,
            Some(mut inflate) => {
                // Beyond the bounds it matters no more whether it ended well.
                if inflate.try_finish().is_err() {
                    let splitter = inflate.get_ref();
                    if splitter.no_room {
                        return Err(Error::Busy);
                    }
                    if !splitter.gave_up {
                        return Err(Error::BadGzip);
                    }
                }
                std::mem::replace(inflate.get_mut(), plain)
            }
        };
        Ok(splitter.finish(sent > bounds.sent, header_key))
    }

    /// The node key, wherever it can be found in a body that is not whole.
    pub(crate) fn key_in_fragments(&self) -> Option<String> {
        let (beginning, end) = (
            String::from_utf8_lossy(&self.beginning),
            String::from_utf8_lossy(&self.end),
        );
        let fragments = Fragments {
            head: &beginning,
            end: &end,
        };
        let found = || fragments.node_key().map(str::to_owned);
        self.early.0.clone().or_else(found)
    }

    /// Does a malformed body look as if it had not been cut off? Then some line in it is malformed beyond telling where it ends.
    pub(crate) fn looks_whole(&self) -> bool {
        let end = String::from_utf8_lossy(&self.end);
        let fragments = Fragments {
            head: "",
            end: &end,
        };
        // Behind the last line stands who it is, or nothing.
        end.trim_end().ends_with("]}") || fragments.node_key().is_some()
    }

    /// Which log it is, wherever that can be found.
    pub(crate) fn kind(&self) -> LogType {
        if let Ok(head) = &self.head {
            return LogType::parse(&head.log_type);
        }
        let (beginning, end) = (
            String::from_utf8_lossy(&self.beginning),
            String::from_utf8_lossy(&self.end),
        );
        let fragments = Fragments {
            head: &beginning,
            end: &end,
        };
        let name = self.early.1.as_deref().or_else(|| fragments.log_type());
        name.map_or(LogType::Unknown, LogType::parse)
    }

    /// The beginning, up to so many bytes.
    pub(crate) fn beginning(&self, max: usize) -> &[u8] {
        &self.beginning[..self.beginning.len().min(max)]
    }
}

/// Takes the inflated body.
struct Splitter {
    reader: LogReader,
    batch: Batch,
    bound: usize,
    /// Inflated bytes that are read at all: to inflate costs far more than to send, and we do not know yet by whom.
    patience: usize,
    inflated: usize,
    gave_up: bool,
    no_room: bool,
    beginning: Vec<u8>,
    end: Vec<u8>,
    held: Held,
}

/// The lines as they will be stored.
struct Batch {
    data: Compressor,
    bound: usize,
    lines: u64,
    lost: u64,
}

impl Lines for Batch {
    fn line(&mut self, bytes: &[u8]) {
        // The first line that does not fit ends it: what follows is lost, too, so that what is stored is a beginning.
        if self.lost > 0 || self.data.taken() + bytes.len() > self.bound {
            self.lost += 1;
            return;
        }
        self.data.push(if self.lines == 0 { b"[" } else { b"," });
        self.data.push(bytes);
        self.lines += 1;
    }

    fn again(&mut self) {
        (self.data, self.lines, self.lost) = (Compressor::new(), 0, 0);
    }
}

impl Splitter {
    fn new(bounds: Bounds, gzip: bool, room: &Room) -> Self {
        // What is not compressed has one size, and the smaller bound holds.
        let bound = if gzip {
            bounds.inflated
        } else {
            bounds.inflated.min(bounds.sent)
        };
        let data = Compressor::new();
        Self {
            reader: LogReader::new(LINE_MAX.min(bound)),
            batch: Batch {
                data,
                bound,
                lines: 0,
                lost: 0,
            },
            bound,
            patience: if gzip {
                bound.saturating_mul(2)
            } else {
                usize::MAX
            },
            inflated: 0,
            gave_up: false,
            no_room: false,
            beginning: Vec::new(),
            end: Vec::new(),
            held: Held::of(room),
        }
    }

    fn finish(self, beyond_as_sent: bool, header_key: Option<&str>) -> LogBody {
        let early = (self.reader.node_key(), self.reader.log_type());
        let too_long = self.reader.lost();
        let head = self.reader.finish(header_key);
        let mut data = self.batch.data;
        data.push(if self.batch.lines == 0 { b"[]" } else { b"]" });
        LogBody {
            head,
            data: data.finish(),
            lines: self.batch.lines,
            lost: self.batch.lost + too_long,
            beyond_bounds: beyond_as_sent || self.inflated > self.bound,
            early,
            beginning: self.beginning,
            end: self.end,
            _held: self.held,
        }
    }
}

impl Write for Splitter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.inflated = self.inflated.saturating_add(bytes.len());
        if self.inflated > self.patience {
            self.gave_up = true;
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        let kept = bytes.len().min(KEPT - self.beginning.len());
        self.beginning.extend_from_slice(&bytes[..kept]);
        self.end
            .extend_from_slice(&bytes[bytes.len().saturating_sub(END)..]);
        self.end.drain(..self.end.len().saturating_sub(END));
        self.reader.push(bytes, &mut self.batch);
        let held = self.beginning.len() + self.reader.held() + self.batch.data.held();
        if !self.held.grow(held) {
            self.no_room = true;
            return Err(std::io::ErrorKind::OutOfMemory.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

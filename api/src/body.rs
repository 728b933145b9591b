//! Bodies of requests: read to the end within bounds, inflated on the way.
//!
//! Memory is bounded three times: as sent and inflated per endpoint, and all bodies together. A gzip bomb costs no more than the
//! endpoint's bound.

use std::io::Write;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use flate2::write::GzDecoder;
use http_body_util::BodyExt as _;
use ostiary_boot::http::BodyTimedOut;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};

/// Bounds of one endpoint, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// As sent.
    pub sent: usize,
    /// Inflated.
    pub inflated: usize,
}

/// Room for all bodies together.
#[derive(Debug, Clone)]
pub struct Room(Arc<Semaphore>);

const UNIT: usize = 4096;

impl Room {
    /// Room for so many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes / UNIT)))
    }
}

/// A body, whole unless `beyond_bounds`.
#[derive(Debug)]
pub struct Read {
    /// The bytes, inflated; at most as many as the bounds allow.
    pub bytes: Vec<u8>,
    /// There was more.
    pub beyond_bounds: bool,
    /// The end of a body that was swallowed beyond the bounds, if it was reached: osqueryd says last who it is.
    pub end: Vec<u8>,
    // The room that the bytes take is given back with them.
    _held: Held,
}

/// A body of more than so many times the bound is not even swallowed.
pub(crate) const FAR_BEYOND: usize = 8;

/// How much of the end of a swallowed body is kept, in bytes.
pub(crate) const END: usize = 4096;

/// Reads a body.
///
/// With `to_the_end` a body beyond the bounds is swallowed whole, so that it can be acknowledged; else reading ends there.
///
/// # Errors
/// The body is cut off, too slow, not what its `Content-Encoding` says, or there is no room.
pub async fn read(
    headers: &HeaderMap,
    mut body: Body,
    bounds: Bounds,
    room: &Room,
    to_the_end: bool,
) -> Result<Read> {
    let gzip = is_gzip(headers)?;
    let mut sink = Sink {
        bytes: Vec::new(),
        // What is not compressed has one size, and the smaller bound holds.
        bound: if gzip {
            bounds.inflated
        } else {
            bounds.inflated.min(bounds.sent)
        },
        full: false,
        swallows: match (to_the_end, gzip) {
            (false, _) => 0,
            // To inflate costs far more than to send, and we do not know yet by whom.
            (true, true) => bounds.inflated,
            (true, false) => usize::MAX,
        },
        swallowed: 0,
        end: Vec::new(),
        held: Held::of(room),
        no_room: false,
    };
    let mut sent = 0;
    let (mut beyond, mut gave_up) = (false, false);
    if gzip {
        let mut inflate = GzDecoder::new(sink);
        while let Some(chunk) = next(&mut body).await? {
            sent += chunk.len();
            if sent > bounds.sent.saturating_mul(FAR_BEYOND) {
                return Err(Error::TooLarge);
            }
            if gave_up {
                continue;
            }
            if let Err(error) = inflate.write_all(&chunk) {
                if inflate.get_ref().no_room {
                    return Err(Error::Busy);
                }
                gave_up = inflate.get_ref().full;
                if !gave_up {
                    tracing::debug!(%error, "bad gzip");
                    return Err(Error::BadGzip);
                }
            }
            beyond |= inflate.get_ref().full || sent > bounds.sent;
            if beyond && !to_the_end {
                break;
            }
        }
        if !beyond {
            sink = finish(inflate)?;
            beyond = sink.full;
        } else {
            if !gave_up {
                // The decoder holds the last bytes back; whether it ended well matters no more.
                let _ = inflate.try_finish();
            }
            sink = std::mem::take(inflate.get_mut());
        }
    } else {
        while let Some(chunk) = next(&mut body).await? {
            sent += chunk.len();
            if sent > bounds.sent.saturating_mul(FAR_BEYOND) {
                return Err(Error::TooLarge);
            }
            if gave_up {
                continue;
            }
            if sink.write_all(&chunk).is_err() {
                if sink.no_room {
                    return Err(Error::Busy);
                }
                gave_up = true;
            }
            beyond |= sink.full || sent > bounds.sent;
            if beyond && !to_the_end {
                break;
            }
        }
    }
    Ok(Read {
        end: if beyond && !gave_up {
            sink.take_end()
        } else {
            Vec::new()
        },
        bytes: sink.bytes,
        beyond_bounds: beyond,
        _held: sink.held,
    })
}

fn finish(mut inflate: GzDecoder<Sink>) -> Result<Sink> {
    match inflate.try_finish() {
        Ok(()) => Ok(std::mem::take(inflate.get_mut())),
        Err(_) if inflate.get_ref().no_room => Err(Error::Busy),
        Err(_) => Err(Error::BadGzip),
    }
}

pub(crate) async fn next(body: &mut Body) -> Result<Option<bytes::Bytes>> {
    while let Some(frame) = body.frame().await {
        match frame.map(http_body_frame_data) {
            Ok(Some(data)) => return Ok(Some(data)),
            Ok(None) => {}
            Err(error) => {
                let timed_out = std::error::Error::source(&error)
                    .is_some_and(<dyn std::error::Error>::is::<BodyTimedOut>);
                return Err(if timed_out {
                    Error::TooSlow
                } else {
                    Error::CutOff
                });
            }
        }
    }
    Ok(None)
}

fn http_body_frame_data(frame: hyper::body::Frame<bytes::Bytes>) -> Option<bytes::Bytes> {
    frame.into_data().ok()
}

pub(crate) fn is_gzip(headers: &HeaderMap) -> Result<bool> {
    match headers
        .get(header::CONTENT_ENCODING)
        .map(|value| value.to_str().unwrap_or("?").trim())
    {
        None | Some("") => Ok(false),
        Some(coding) if coding.eq_ignore_ascii_case("identity") => Ok(false),
        Some(coding)
            if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip") =>
        {
            Ok(true)
        }
        Some(_) => Err(Error::UnknownEncoding),
    }
}

/// What one body holds of the room.
#[derive(Debug)]
pub(crate) struct Held {
    room: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Held {
    /// Small bodies are free: there are never more of them than connections.
    const FREE: usize = 16 * 1024;

    /// Nothing yet.
    pub(crate) fn of(room: &Room) -> Self {
        Self {
            room: Arc::clone(&room.0),
            permit: None,
        }
    }

    /// Takes room for so many bytes in all; `false` if there is none.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let held = self
            .permit
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        let needed = bytes.saturating_sub(Self::FREE).div_ceil(UNIT);
        if needed <= held {
            return true;
        }
        let more = u32::try_from(needed - held).unwrap_or(u32::MAX);
        let Ok(more) = Arc::clone(&self.room).try_acquire_many_owned(more) else {
            return false;
        };
        match &mut self.permit {
            Some(held) => held.merge(more),
            none => *none = Some(more),
        }
        true
    }
}

/// A buffer that takes only so much.
struct Sink {
    bytes: Vec<u8>,
    bound: usize,
    full: bool,
    /// So many bytes beyond the bound it takes, and keeps only the end of them.
    swallows: usize,
    swallowed: usize,
    end: Vec<u8>,
    held: Held,
    no_room: bool,
}

impl Default for Sink {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            bound: 0,
            full: false,
            swallows: 0,
            swallowed: 0,
            end: Vec::new(),
            held: Held::of(&Room::new(0)),
            no_room: false,
        }
    }
}

impl Sink {
    /// Makes the buffer as large as so many more bytes need: twice as large as it was, but never larger than the bound, nor than the
    /// room allows. `false` if there is no room.
    fn make_room(&mut self, more: usize) -> bool {
        let needed = self.bytes.len() + more;
        if needed <= self.bytes.capacity() {
            return true;
        }
        let doubled = (self.bytes.capacity() * 2).clamp(needed, self.bound);
        let found = [doubled, needed]
            .into_iter()
            .find(|capacity| self.held.grow(*capacity));
        if let Some(capacity) = found {
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        found.is_some()
    }

    fn swallow(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.full = true;
        self.swallowed = self.swallowed.saturating_add(bytes.len());
        if self.swallowed > self.swallows {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.end
            .extend_from_slice(&bytes[bytes.len().saturating_sub(END)..]);
        self.end.drain(..self.end.len().saturating_sub(END));
        Ok(())
    }

    /// The last bytes of all that was written.
    fn take_end(&mut self) -> Vec<u8> {
        let missing = END.saturating_sub(self.end.len());
        let mut end = self.bytes[self.bytes.len().saturating_sub(missing)..].to_vec();
        end.append(&mut self.end);
        end
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let fits = bytes.len().min(self.bound - self.bytes.len());
        if !self.make_room(fits) {
            self.no_room = true;
            return Err(std::io::ErrorKind::OutOfMemory.into());
        }
        self.bytes.extend_from_slice(&bytes[..fits]);
        if fits < bytes.len() {
            self.swallow(&bytes[fits..])?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    async fn read_gzip(bytes: Vec<u8>, bound: usize, room: &Room) -> Result<Read> {
        let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, "gzip".parse().unwrap())]);
        read(
            &headers,
            Body::from(bytes),
            Bounds {
                sent: bound,
                inflated: bound,
            },
            room,
            false,
        )
        .await
    }

    #[tokio::test]
    async fn a_bomb_costs_no_more_than_the_bound() {
        let room = Room::new(1 << 20);
        let read = read_gzip(gzip(&vec![b' '; 50 << 20]), 100_000, &room)
            .await
            .unwrap();
        assert!(read.beyond_bounds);
        assert_eq!(read.bytes.len(), 100_000);
        assert_eq!(read.bytes.capacity(), 100_000);
    }

    #[tokio::test]
    async fn room_counts_what_a_buffer_takes_not_what_stands_in_it() {
        let room = Room::new(1 << 20);
        let read = read_gzip(gzip(&vec![b' '; 600_000]), 1 << 20, &room)
            .await
            .unwrap();
        let free = room.0.available_permits() * UNIT;
        assert!(
            read.bytes.capacity() + free <= (1 << 20) + Held::FREE,
            "{} bytes taken, {free} bytes left of 1 MiB",
            read.bytes.capacity()
        );
        drop(read);
        assert_eq!(room.0.available_permits() * UNIT, 1 << 20);
    }

    #[tokio::test]
    async fn of_a_body_beyond_the_bound_the_beginning_and_the_end_are_kept() {
        let body: String = (0..50_000).map(|n| format!("{n:05} ")).collect();
        let last = &body[body.len() - END..];
        for gzipped in [false, true] {
            for bound in [160_000, body.len() - 100] {
                let (headers, sent) = if gzipped {
                    let coding = (header::CONTENT_ENCODING, "gzip".parse().unwrap());
                    (HeaderMap::from_iter([coding]), gzip(body.as_bytes()))
                } else {
                    (HeaderMap::new(), body.clone().into_bytes())
                };
                let bounds = Bounds {
                    sent: bound,
                    inflated: bound,
                };
                let room = Room::new(1 << 20);
                let read = read(&headers, Body::from(sent), bounds, &room, true)
                    .await
                    .unwrap();
                assert!(read.beyond_bounds);
                assert_eq!(read.bytes, &body.as_bytes()[..bound]);
                assert_eq!(String::from_utf8_lossy(&read.end), last);
            }
        }
    }

    #[tokio::test]
    async fn a_bomb_is_inflated_no_further_than_twice_the_bound() {
        let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, "gzip".parse().unwrap())]);
        let bounds = Bounds {
            sent: 100_000,
            inflated: 100_000,
        };
        let bomb = Body::from(gzip(&vec![b' '; 50 << 20]));
        let read = read(&headers, bomb, bounds, &Room::new(1 << 20), true)
            .await
            .unwrap();
        assert!(read.beyond_bounds && read.end.is_empty());
        assert_eq!(read.bytes.len(), 100_000);
    }

    #[tokio::test]
    async fn gzip_that_is_cut_off_or_corrupt_is_refused() {
        let room = Room::new(1 << 20);
        let whole = gzip(br#"{"node_key":"k","log_type":"result","data":[]}"#);
        assert_eq!(
            read_gzip(whole.clone(), 1000, &room)
                .await
                .unwrap()
                .bytes
                .len(),
            46
        );
        for length in [0, 1, 9, whole.len() / 2, whole.len() - 1] {
            let result = read_gzip(whole[..length].to_vec(), 1000, &room).await;
            assert!(
                matches!(result, Err(Error::BadGzip)),
                "{length} bytes: {result:?}"
            );
        }
        let mut corrupt = whole.clone();
        let middle = corrupt.len() / 2;
        corrupt[middle] ^= 0xff;
        assert!(matches!(
            read_gzip(corrupt, 1000, &room).await,
            Err(Error::BadGzip)
        ));
        assert!(matches!(
            read_gzip(b"{}".to_vec(), 1000, &room).await,
            Err(Error::BadGzip)
        ));
    }

    #[tokio::test]
    async fn without_room_the_answer_is_busy_and_room_comes_back() {
        let room = Room::new(64 * 1024);
        let large = vec![b'x'; 60 * 1024];
        let read = |bytes: Vec<u8>| {
            let room = room.clone();
            async move {
                read(
                    &HeaderMap::new(),
                    Body::from(bytes),
                    Bounds {
                        sent: 1 << 20,
                        inflated: 1 << 20,
                    },
                    &room,
                    false,
                )
                .await
            }
        };
        let first = read(large.clone()).await.unwrap();
        assert!(matches!(read(large.clone()).await, Err(Error::Busy)));
        assert_eq!(read(vec![b'x'; 1000]).await.unwrap().bytes.len(), 1000);
        drop(first);
        assert!(read(large).await.is_ok());
    }
}

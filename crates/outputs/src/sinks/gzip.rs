//! Bodies made smaller.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Compresses a body by gzip.
pub(crate) fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder
        .write_all(body)
        .and_then(|()| encoder.finish())
        .expect("writing to memory cannot fail")
}

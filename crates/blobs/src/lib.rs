//! Blobs: large objects that are written once, read as a stream and deleted. They lie in a folder of this machine or in an
//! S3-compatible storage; only this crate knows which, and nothing else does I/O with either.
//!
//! An object is named by an id and nothing else: no text of a node ever becomes part of a path. It appears whole or not at all.

mod folder;
mod options;
#[cfg(feature = "s3")]
mod s3;
mod storage;

pub use options::{Kind, Options, S3Options};
pub use storage::{Blob, Blobs, Error, Result, Writer};

//! Reading and writing osquery `.conf` files: a pack, or a whole config with packs, schedule, options and the rest.
//!
//! The files are not quite JSON. osqueryd deletes every backslash with the line break after it (inside of strings too:
//! the packs it ships do that in SQL), and then every line that begins with `#` or `//`
//! (`osquery/config/config.cpp::stripConfigComments`); the rest is strict JSON. So is this, save that it also takes a
//! byte order mark and CRLF. What we do not know is kept in `extra`, never a reason to refuse; an entry that osqueryd
//! would skip is left out and told as a [`Problem`], so that the admin can decide.

mod fields;
mod fleet;
mod import;
mod read;
mod strip;
#[cfg(test)]
mod tests;
mod write;

pub use fleet::{YamlFile, parse_yaml, parse_yaml_files};
pub use import::{
    DEFAULT_INTERVAL, ImportedFile, ImportedFilePaths, ImportedPack, ImportedQuery, ImportedTag,
    MAX_INTERVAL, PackFileError, Problem, parse,
};
pub use write::{write, write_pack};

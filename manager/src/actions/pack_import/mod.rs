//! Importing osquery's own files: a pack, or a whole `.conf`.

mod import;
mod values;

pub use import::{ImportDraft, Note, Report, ReportedPack, import};

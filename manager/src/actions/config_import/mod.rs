//! Configs come in: files of osquery and of Fleet are read, compared with what there is, shown, and then applied as shown, whole or not
//! at all.
//!
//! `wanted` makes of files what they want there to be, `current` says what there is; `compare` finds the steps that lead there and says them as a report; `carry_out`
//! takes the steps. A report has a digest; applying asks for it, so nothing is done that nobody has seen. What another manager's
//! database holds comes in by the same way.

mod carry_out;
mod compare;
mod current;
mod import;
mod report;
mod sql;
mod wanted;

pub(super) use carry_out::carry_out;
pub(super) use compare::{Steps, compare};
pub(super) use current::Current;
pub use import::{
    Import, ImportDraft, UploadedFile, apply, apply_kept, dry_run, keep, report_of_kept,
};
pub use report::{Action, FieldChange, Note, Report, Step};
pub(super) use sql::check as check_sql_of;
pub(super) use wanted::Wanted;

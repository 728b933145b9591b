//! Journeys through the whole of Ostiary. Run them by script/test, which starts what they need.

mod floors;
mod formats;
mod osqueryd;
mod recordings;
mod troubles;

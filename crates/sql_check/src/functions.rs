//! osquery's own SQL functions and collations, as things that do nothing: only their names and numbers of arguments count.
//!
//! Source: `osquery/sql/sqlite_{math,string,network,hashing,encoding,filesystem,operations,collation}.cpp` of osquery.

use rusqlite::functions::{Aggregate, Context, FunctionFlags};
use rusqlite::types::Null;
use rusqlite::{Connection, Result};

/// Name and number of arguments; -1 for any.
pub(crate) const FUNCTIONS: &[(&str, i32)] = &[
    // sqlite_math.cpp
    ("sqrt", 1),
    ("acos", 1),
    ("asin", 1),
    ("atan", 1),
    ("cos", 1),
    ("sin", 1),
    ("tan", 1),
    ("cot", 1),
    ("exp", 1),
    ("log", 1),
    ("log10", 1),
    ("power", 2),
    ("ceil", 1),
    ("floor", 1),
    ("degrees", 1),
    ("radians", 1),
    ("pi", 0),
    // sqlite_string.cpp
    ("split", 3),
    ("regex_split", 3),
    ("regex_match", 3),
    ("concat", -1),
    ("concat_ws", -1),
    ("inet_aton", 1),
    // sqlite_network.cpp
    ("in_cidr_block", 2),
    // sqlite_version.cpp
    ("version_compare", -1),
    // sqlite_hashing.cpp
    ("md5", 1),
    ("sha1", 1),
    ("sha256", 1),
    ("ssdeep_compare", 2),
    ("community_id_v1", 5),
    ("community_id_v1", 6),
    ("community_id_v1_strict", 5),
    ("community_id_v1_strict", 6),
    // sqlite_encoding.cpp
    ("to_base64", 1),
    ("from_base64", 1),
    ("conditional_to_base64", 1),
    // sqlite_filesystem.cpp
    ("is_path_deterministic", -1),
    ("find_file_path_in_cmd", -1),
    ("parent_directory", 1),
    // sqlite_operations.cpp, with carve() below
    ("sleep", 1),
];

/// The aggregate that starts a carve of the paths it is given.
pub(crate) const CARVE: &str = "carve";

const COLLATIONS: [&str; 4] = ["version", "version_arch", "version_dpkg", "version_rhel"];

struct Nothing;

impl Aggregate<(), Null> for Nothing {
    fn init(&self, _: &mut Context<'_>) -> Result<()> {
        Ok(())
    }

    fn step(&self, _: &mut Context<'_>, (): &mut ()) -> Result<()> {
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, _: Option<()>) -> Result<Null> {
        Ok(Null)
    }
}

/// Makes them known to a database.
pub(crate) fn register(db: &Connection) -> Result<()> {
    for (name, arguments) in FUNCTIONS {
        db.create_scalar_function(*name, *arguments, FunctionFlags::SQLITE_UTF8, |_| Ok(Null))?;
    }
    db.create_aggregate_function(CARVE, 1, FunctionFlags::SQLITE_UTF8, Nothing)?;
    for name in COLLATIONS {
        db.create_collation(name, Ord::cmp)?;
    }
    Ok(())
}

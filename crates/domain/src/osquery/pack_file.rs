//! Imports osquery `.conf` files.

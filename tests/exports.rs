//! Exports. Tests that need packages which a plain machine lacks are ignored; `make test-exports` brings the packages and runs them.

mod common;
#[path = "exports/python.rs"]
mod python;
#[path = "exports/state.rs"]
mod state;

//! The wish to stop early: set by the first Ctrl-C, looked at between steps, between batches of an evaluation, between files of an export, and during a download.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, ErrorKind, Result};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Asks the work at hand to save and stop; returns whether it had been asked before.
pub fn request() -> bool {
    REQUESTED.swap(true, Ordering::SeqCst)
}

/// Whether the work at hand was asked to stop.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// Leaves work that keeps nothing.
///
/// # Errors
/// [`ErrorKind::Interrupted`] where [`requested`].
pub fn check() -> Result<()> {
    if requested() {
        return Err(Error::new(ErrorKind::Interrupted, "interrupted").hint("nothing of it was kept: start it again"));
    }
    Ok(())
}

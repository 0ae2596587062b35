//! Writing files so that nothing is ever half written.

use std::io::Write as _;
use std::path::Path;

use crate::{Error, ErrorKind, Result};

/// Replaces a file's contents so that a reader, or a crash, sees the old or the new, never half.
///
/// # Errors
/// Any failure to write, as one of `kind`; the old file, if there is one, is untouched.
pub fn write_atomically(path: &Path, bytes: &[u8], kind: ErrorKind) -> Result<()> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let attempt = || -> std::io::Result<()> {
        let mut f = std::fs::File::create(&temporary)?;
        f.write_all(bytes)?;
        f.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    attempt().map_err(|e| {
        let _ = std::fs::remove_file(&temporary);
        Error::new(kind, format!("{} cannot be written", path.display()))
            .hint("check that the disk has room and the folder is writable; what was there before is untouched")
            .caused_by(e)
    })?;
    // The rename itself must survive a crash too. The new file is in place, whatever comes of this.
    if let Some(Ok(folder)) = path.parent().map(std::fs::File::open)
        && let Err(e) = folder.sync_all()
        && e.kind() != std::io::ErrorKind::InvalidInput
    {
        log::warn!(
            "{}: the folder cannot be flushed ({e}); a power failure may bring back the file before",
            path.display()
        );
    }
    Ok(())
}

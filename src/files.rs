//! Writing files so that nothing is ever half written, and listing folders.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::{Error, ErrorKind, Result};

/// Whether a name ends in one of `extensions`, in capitals or not.
pub fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension().is_some_and(|extension| extensions.iter().any(|e| extension.eq_ignore_ascii_case(e)))
}

/// What lies in a folder, in the order of the paths. Hidden entries are passed over: systems and this program leave their own.
///
/// Of more than `most` entries, `most` + 1 are given, any of them: enough to see that there are more.
///
/// # Errors
/// A data error: the folder cannot be listed.
pub fn list(folder: &Path, most: usize) -> Result<Vec<PathBuf>> {
    let attempt = || -> std::io::Result<Vec<PathBuf>> {
        let is_visible = |path: &PathBuf| !path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        let paths = std::fs::read_dir(folder)?.map(|entry| entry.map(|e| e.path()));
        let mut paths: Vec<PathBuf> = paths
            .filter(|path| path.as_ref().map_or(true, is_visible))
            .take(most.saturating_add(1))
            .collect::<Result<_, _>>()?;
        paths.sort();
        Ok(paths)
    };
    attempt().map_err(|e| {
        Error::data(format!("cannot list the folder {}", folder.display())).hint("check its permissions").caused_by(e)
    })
}

/// Writes a file that the user has named: as [`write_atomically`], but through a link, and into a device or a pipe.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_output(path: &Path, bytes: &[u8], kind: ErrorKind) -> Result<()> {
    // A link to nothing yet leads to what is to be made.
    let behind = || Some(path.parent()?.join(std::fs::read_link(path).ok()?));
    let target = std::fs::canonicalize(path).ok().or_else(behind).unwrap_or_else(|| path.to_path_buf());
    if !std::fs::metadata(&target).is_ok_and(|m| !m.is_file() && !m.is_dir()) {
        return write_atomically(&target, bytes, kind);
    }
    let file = std::fs::OpenOptions::new().write(true).open(&target);
    file.and_then(|mut f| f.write_all(bytes)).map_err(|e| unwritten(path, kind, e))
}

fn unwritten(path: &Path, kind: ErrorKind, e: std::io::Error) -> Error {
    Error::new(kind, format!("{} cannot be written", path.display()))
        .hint("check that the disk has room and the folder is writable; what was there before is untouched")
        .caused_by(e)
}

/// Replaces a file's contents so that a reader, or a crash, sees the old or the new, never half.
///
/// # Errors
/// Any failure to write, as one of `kind`; the old file, if there is one, is untouched.
pub fn write_atomically(path: &Path, bytes: &[u8], kind: ErrorKind) -> Result<()> {
    write_atomically_with(path, kind, |file| file.write_all(bytes))
}

/// As [`write_atomically`], with the contents that `write` writes.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_atomically_with(
    path: &Path,
    kind: ErrorKind,
    write: impl FnOnce(&mut std::fs::File) -> std::io::Result<()>,
) -> Result<()> {
    // Processes of other machines may have the same number and write into the same folder.
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
    let temporary = path.with_extension(format!("{random}.tmp"));
    let attempt = || -> std::io::Result<()> {
        let mut f = std::fs::File::create(&temporary)?;
        write(&mut f)?;
        f.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    attempt().map_err(|e| {
        let _ = std::fs::remove_file(&temporary);
        unwritten(path, kind, e)
    })?;
    // The rename itself must survive a crash too. The new file is in place, whatever comes of this.
    if let Some(Ok(folder)) = path
        .parent()
        .map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
        .map(std::fs::File::open)
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

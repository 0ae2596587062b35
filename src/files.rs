//! Writing files so that nothing is ever half written, and listing folders.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Error, ErrorKind, Result};

/// Age of a temporary file that no process is writing any more.
const HALF_WRITTEN: Duration = Duration::from_secs(3600);

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

/// Removes files that a process was killed at writing: those that [`write_atomically`] makes in place of `STEM.*`, where
/// `is_ours(STEM)`, and nobody has touched for an hour. What cannot be removed stays.
pub fn remove_half_written(folder: &Path, is_ours: impl Fn(&str) -> bool) {
    let is_old = |entry: &std::fs::DirEntry| {
        let age = entry.metadata().and_then(|m| m.modified()).map(|at| at.elapsed().unwrap_or_default());
        age.is_ok_and(|age| age > HALF_WRITTEN)
    };
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let stem = name.strip_suffix(".tmp").and_then(|name| name.rsplit_once('.'));
        let is_temporary = stem.is_some_and(|(stem, id)| id.bytes().all(|b| b.is_ascii_digit()) && is_ours(stem));
        if is_temporary && is_old(&entry) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Whether a file that the user has named can be written: refuses to overwrite one without `force`, and places that are none.
///
/// # Errors
/// A folder in its place or none around it, a file that is there.
pub fn check_free(file: &Path, force: bool) -> Result<()> {
    if file.is_dir() {
        return Err(Error::config(format!("{} is a folder, expected the name of a file", file.display()))
            .hint("name a file in it"));
    }
    if let Some(folder) = file.parent().filter(|f| !f.as_os_str().is_empty() && !f.is_dir()) {
        return Err(
            Error::config(format!("there is no folder {}", folder.display())).hint("make it, or choose another place")
        );
    }
    if force || !file.is_file() {
        return Ok(());
    }
    Err(Error::config(format!("{} exists", file.display())).hint("--force overwrites it, or choose another name"))
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
    sync_folder_of(path);
    Ok(())
}

/// Makes a rename in the folder around `path` survive a crash. What was renamed is in place, whatever comes of this.
pub fn sync_folder_of(path: &Path) {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_temporary_files_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["a.12.tmp", "a.13.tmp", "b.12.tmp", "a.x.tmp", "a.12"];
        for name in names {
            let file = std::fs::File::create(folder.path().join(name)).unwrap();
            let age = if name == "a.13.tmp" { HALF_WRITTEN / 2 } else { 2 * HALF_WRITTEN };
            file.set_modified(std::time::SystemTime::now() - age).unwrap();
        }
        remove_half_written(folder.path(), |stem| stem == "a");
        let left: Vec<bool> = names.iter().map(|name| folder.path().join(name).exists()).collect();
        assert_eq!(left, [false, true, true, true, true]);
    }
}

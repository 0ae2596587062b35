//! A folder that is written whole or not at all.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::digest::hexadecimal;
use crate::files::sync_folder_of;
use crate::{Error, Result, interrupt};

/// File with the hashes of all others, as `sha256sum -c` reads it.
const SUMS: &str = "SHA256SUMS";

/// Files of a folder, by their path in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files(BTreeMap<String, Vec<u8>>);

impl Files {
    /// Adds a file.
    pub fn insert(&mut self, path: impl Into<String>, contents: impl Into<Vec<u8>>) {
        self.0.insert(path.into(), contents.into());
    }

    /// The contents of a file.
    pub fn get(&self, path: &str) -> Option<&[u8]> {
        self.0.get(path).map(Vec::as_slice)
    }

    /// SHA-256 of each, by path.
    pub fn hashes(&self) -> BTreeMap<&str, String> {
        self.0.iter().map(|(path, bytes)| (path.as_str(), hexadecimal(&Sha256::digest(bytes)))).collect()
    }

    /// Writes them and `SHA256SUMS` into a new folder, which is there with all of them or not at all.
    ///
    /// # Errors
    /// A folder that exists or cannot be made, a full disk.
    pub fn write(&self, folder: &Path) -> Result<()> {
        check_free(folder)?;
        let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let temporary = folder.with_file_name(format!(".{name}.{random}.tmp"));
        let attempt = || -> std::io::Result<()> {
            self.write_to(&temporary)?;
            // An empty folder may have come between; one with files is not replaced.
            std::fs::rename(&temporary, folder)
        };
        attempt().map_err(|e| {
            let left = match std::fs::remove_dir_all(&temporary) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => format!("remove {}", temporary.display()),
                _ => "nothing was left behind".into(),
            };
            if let Err(interrupted) = interrupt::check() {
                return interrupted;
            }
            Error::config(format!("the folder {} cannot be written", folder.display()))
                .hint(format!("check that the disk has room and the folder around it is writable; {left}"))
                .caused_by(e)
        })?;
        sync_folder_of(folder);
        Ok(())
    }

    fn write_to(&self, folder: &Path) -> std::io::Result<()> {
        let sums: String = self.hashes().iter().map(|(path, hash)| format!("{hash}  {path}\n")).collect();
        let all = self.0.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice()));
        for (path, bytes) in all.chain([(SUMS, sums.as_bytes())]) {
            interrupt::check().map_err(std::io::Error::other)?;
            let path: PathBuf = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap_or(folder))?;
            let mut file = std::fs::File::create(&path)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            sync_folder_of(&path);
        }
        Ok(())
    }
}

/// Refuses a folder that is there.
///
/// # Errors
/// A folder or file of that name, no folder around it.
pub fn check_free(folder: &Path) -> Result<()> {
    if folder.symlink_metadata().is_ok() {
        return Err(Error::config(format!("{} exists", folder.display()))
            .hint("choose a new folder, or remove that one: an export is never mixed with other files"));
    }
    let around = folder.parent().filter(|around| !around.as_os_str().is_empty());
    match around.filter(|around| !around.is_dir()) {
        Some(around) => {
            Err(Error::config(format!("there is no folder {}", around.display()))
                .hint("make it, or choose another place"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_written_whole_and_never_over_another() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("out");
        let mut files = Files::default();
        files.insert("a/b.txt", "one");
        files.insert("c.bin", vec![1, 2]);
        files.write(&folder).unwrap();
        assert_eq!(std::fs::read(folder.join("a/b.txt")).unwrap(), b"one");
        let sums = std::fs::read_to_string(folder.join(SUMS)).unwrap();
        assert!(
            sums.starts_with("7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed  a/b.txt\n"),
            "{sums}"
        );
        assert!(files.write(&folder).unwrap_err().to_string().contains("exists"));
        files.insert("c.bin/d", "a file cannot be a folder");
        files.write(&place.path().join("other")).unwrap_err();
        let left: Vec<_> = std::fs::read_dir(place.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["out"]);
    }
}

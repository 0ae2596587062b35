//! The files of a data set: on disk, or out of an archive.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Error;

/// Entries of one folder or archive that are looked at.
pub(super) const MAX_ENTRIES: usize = 1000;
/// Larger files are passed over: seven times the largest published file.
pub(super) const MAX_FILE_BYTES: u64 = 1 << 30;

/// A picture file, and its class.
#[derive(Debug, Clone)]
pub(super) struct Labelled {
    pub(super) path: PathBuf,
    pub(super) class: u16,
}

impl AsRef<Path> for Labelled {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

/// A file with its name and size, wherever its bytes are.
#[derive(Debug, Clone)]
pub(super) struct DataFile {
    /// Its path; for one out of an archive, the archive's path followed by its own.
    pub(super) path: PathBuf,
    /// Bytes.
    pub(super) size: u64,
    /// Its bytes, where they came out of an archive.
    unpacked: Option<Arc<[u8]>>,
}

impl DataFile {
    /// The regular file at `path`.
    pub(super) fn on_disk(path: PathBuf, size: u64) -> DataFile {
        DataFile { path, size, unpacked: None }
    }

    /// A file out of an archive.
    pub(super) fn unpacked(path: PathBuf, bytes: Vec<u8>) -> DataFile {
        DataFile { path, size: bytes.len() as u64, unpacked: Some(bytes.into()) }
    }

    /// The last part of the path.
    pub(super) fn name(&self) -> String {
        file_name(&self.path)
    }

    /// A reader from the first byte.
    pub(super) fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        match &self.unpacked {
            Some(bytes) => Ok(Box::new(&bytes[..])),
            None => Ok(Box::new(File::open(&self.path)?)),
        }
    }

    /// All bytes: no more than the file held when it was found.
    pub(super) fn bytes(&self) -> io::Result<Cow<'_, [u8]>> {
        if let Some(bytes) = &self.unpacked {
            return Ok(Cow::Borrowed(bytes));
        }
        let mut bytes = Vec::new();
        File::open(&self.path)?.take(self.size).read_to_end(&mut bytes)?;
        Ok(Cow::Owned(bytes))
    }

    /// The first `count` bytes, or all there are.
    pub(super) fn start(&self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open()?.take(count as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The error for a failure to read it.
    pub(super) fn unreadable(&self, e: io::Error) -> Error {
        Error::data(format!("cannot read {}", self.path.display()))
            .hint("check the file's permissions and the disk, and that nothing changes the file meanwhile")
            .caused_by(e)
    }
}

/// The last part of a path, for messages.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

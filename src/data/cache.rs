//! Decoded pictures on disk, so that they are decoded once.
//!
//! A file beside the pictures: [`MAGIC`], a key (32 bytes: SHA-256 over this program's version, the side,
//! the folder, and the path, size and time of change of every picture), then for each picture in order a 1 and its bytes, or a 0, a length (u32) and the reason why it is broken;
//! at the end the SHA-256 of all that. A cache that does not fit is made anew, and one that cannot be written is done without.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};

use super::file::Labelled;
use super::picture_bytes;
use crate::error::ErrorKind;
use crate::files::write_atomically_with;

const MAGIC: &[u8; 8] = b"CQATPIC1";
const HASH_BYTES: usize = 32;
/// Bytes of the reason why a picture is broken, at most.
const LONGEST_REASON: usize = 4096;

/// A picture (3, side, side), or why it is broken.
pub(super) type Picture = std::result::Result<Vec<u8>, String>;

/// The cache of a list of pictures.
pub(super) struct Cache {
    path: PathBuf,
    key: [u8; HASH_BYTES],
    count: usize,
    side: usize,
}

impl Cache {
    /// The cache of `files`, scaled to `side`, in the folder `dir`.
    pub(super) fn of(dir: &Path, files: &[Labelled], side: usize) -> Cache {
        let mut hash = Sha256::new();
        hash.update(env!("CARGO_PKG_VERSION"));
        hash.update((side as u64).to_le_bytes());
        // Why a picture is broken is told with its path, which a folder that is moved changes.
        let mut field = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        field(std::fs::canonicalize(dir).as_deref().unwrap_or(dir).as_os_str().as_encoded_bytes());
        for Labelled { path, .. } in files {
            // One that is not there, such as a link to nothing, is told by whoever decodes it.
            let metadata = std::fs::metadata(path).ok();
            let changed = metadata.as_ref().and_then(|m| m.modified().ok()?.duration_since(UNIX_EPOCH).ok());
            let name = path.strip_prefix(dir).unwrap_or(path).as_os_str().as_encoded_bytes();
            field(name);
            field(&metadata.map_or(0, |m| m.len()).to_le_bytes());
            field(&changed.map_or(0, |t| t.as_nanos()).to_le_bytes());
        }
        let path = dir.join(format!(".cqat-pictures-{side}.cache"));
        Cache { path, key: hash.finalize().into(), count: files.len(), side }
    }

    /// The pictures, where the cache is there, whole, and of these files.
    pub(super) fn read(&self) -> Option<Vec<Picture>> {
        // Whoever made the folder may have put anything there: no more is read than such a cache has, and of no pipe.
        let most = self.count * (1 + picture_bytes(self.side)).max(5 + LONGEST_REASON) + MAGIC.len() + 2 * HASH_BYTES;
        let metadata = std::fs::metadata(&self.path).ok()?;
        if !metadata.is_file() || metadata.len() > most as u64 {
            return None;
        }
        let mut file = BufReader::new(File::open(&self.path).ok()?);
        let mut hash = Sha256::new();
        let mut take = |count: usize, is_content: bool| -> Option<Vec<u8>> {
            let mut bytes = vec![0; count];
            file.read_exact(&mut bytes).ok()?;
            if is_content {
                hash.update(&bytes);
            }
            Some(bytes)
        };
        if take(MAGIC.len(), true)? != MAGIC || take(HASH_BYTES, true)? != self.key {
            return None;
        }
        let mut whole = || {
            let mut pictures = Vec::new();
            for _ in 0..self.count {
                pictures.push(match take(1, true)?[..] {
                    [1] => Ok(take(picture_bytes(self.side), true)?),
                    _ => {
                        let length = u32::from_le_bytes(take(4, true)?.try_into().ok()?) as usize;
                        let reason = take(Some(length).filter(|&l| l <= LONGEST_REASON)?, true)?;
                        Err(String::from_utf8(reason).ok()?)
                    }
                });
            }
            Some((pictures, take(HASH_BYTES, false)?))
        };
        let found = whole();
        match found.filter(|(_, end)| hash.finalize()[..] == end[..]) {
            Some((pictures, _)) => {
                log::debug!("{} pictures from {}", pictures.len(), self.path.display());
                Some(pictures)
            }
            None => {
                log::warn!("{} is damaged: the pictures are decoded again", self.path.display());
                None
            }
        }
    }

    /// Writes the pictures, if that is possible.
    pub(super) fn write(&self, pictures: &[Picture]) {
        let written = write_atomically_with(&self.path, ErrorKind::Data, |file| {
            let mut file = Hashing { to: BufWriter::new(file), hash: Sha256::new() };
            file.write_all(MAGIC)?;
            file.write_all(&self.key)?;
            for picture in pictures {
                match picture {
                    Ok(bytes) => {
                        file.write_all(&[1])?;
                        file.write_all(bytes)?;
                    }
                    Err(why) => {
                        let why: String = why.chars().take(LONGEST_REASON / 4).collect(); // of four bytes at most
                        file.write_all(&[0])?;
                        file.write_all(&(why.len() as u32).to_le_bytes())?;
                        file.write_all(why.as_bytes())?;
                    }
                }
            }
            let Hashing { mut to, hash } = file;
            to.write_all(&hash.finalize())?;
            to.flush()
        });
        if let Err(e) = written {
            log::warn!("{e}: the pictures are decoded again next time");
        }
    }
}

/// Hashes what it passes on.
struct Hashing<W> {
    to: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

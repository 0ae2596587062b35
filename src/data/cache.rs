//! Decoded pictures on disk, so that they are decoded once.
//!
//! A file beside the pictures: [`MAGIC`], a key (32 bytes: SHA-256 over the side and the path, size and time of change of
//! every picture), then for each picture in order a 1 and its bytes, or a 0, a length (u32) and the reason why it is broken;
//! at the end the SHA-256 of all that. A cache that does not fit is made anew, and one that cannot be written is done without.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};

use super::file::Labelled;
use super::picture_bytes;
use crate::error::ErrorKind;
use crate::files::write_atomically;

const MAGIC: &[u8; 8] = b"CQATPIC1";
const HASH_BYTES: usize = 32;

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
        hash.update((side as u64).to_le_bytes());
        for Labelled { path, .. } in files {
            // One that is not there, such as a link to nothing, is told by whoever decodes it.
            let metadata = std::fs::metadata(path).ok();
            let changed = metadata.as_ref().and_then(|m| m.modified().ok()?.duration_since(UNIX_EPOCH).ok());
            let name = path.strip_prefix(dir).unwrap_or(path).as_os_str().as_encoded_bytes();
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
            hash.update(metadata.map_or(0, |m| m.len()).to_le_bytes());
            hash.update(changed.map_or(0, |t| t.as_nanos()).to_le_bytes());
        }
        let path = dir.join(format!(".cqat-pictures-{side}.cache"));
        Cache { path, key: hash.finalize().into(), count: files.len(), side }
    }

    /// The pictures, where the cache is there, whole, and of these files.
    pub(super) fn read(&self) -> Option<Vec<Picture>> {
        let bytes = std::fs::read(&self.path).ok()?;
        let (content, hash) = bytes.split_at_checked(bytes.len().checked_sub(HASH_BYTES)?)?;
        let mut rest = content.strip_prefix(MAGIC)?.strip_prefix(&self.key)?;
        if Sha256::digest(content)[..] != *hash {
            log::warn!("{} is damaged: the pictures are decoded again", self.path.display());
            return None;
        }
        let mut take = |count: usize| {
            let (taken, after) = rest.split_at_checked(count)?;
            rest = after;
            Some(taken)
        };
        let mut pictures = Vec::new();
        for _ in 0..self.count {
            pictures.push(match take(1)? {
                [1] => Ok(take(picture_bytes(self.side))?.to_vec()),
                _ => {
                    let length = u32::from_le_bytes(take(4)?.try_into().ok()?);
                    Err(String::from_utf8(take(length as usize)?.to_vec()).ok()?)
                }
            });
        }
        log::debug!("{} pictures from {}", pictures.len(), self.path.display());
        Some(pictures)
    }

    /// Writes the pictures, if that is possible.
    pub(super) fn write(&self, pictures: &[Picture]) {
        let mut content = [&MAGIC[..], &self.key].concat();
        for picture in pictures {
            match picture {
                Ok(bytes) => {
                    content.push(1);
                    content.extend(bytes);
                }
                Err(why) => {
                    content.push(0);
                    content.extend((why.len() as u32).to_le_bytes());
                    content.extend(why.as_bytes());
                }
            }
        }
        let hash = Sha256::digest(&content);
        content.extend(hash);
        if let Err(e) = write_atomically(&self.path, &content, ErrorKind::Data) {
            log::warn!("{e}: the pictures are decoded again next time");
        }
    }
}

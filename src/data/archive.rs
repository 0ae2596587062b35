//! Unpacking a .tar or .tar.gz into memory. Nothing is written to disk, so no path in an archive can lead anywhere.

use std::io::{self, BufReader, Read};

use flate2::read::MultiGzDecoder;

use super::file::{DataFile, MAX_ENTRIES, MAX_FILE_BYTES};
use crate::error::{Error, Result};
use crate::pictures;

/// An archive may unpack to this many times its own size, beside [`SLACK_BYTES`]: pictures hardly compress.
const MOST_GROWTH: u64 = 32;
const SLACK_BYTES: u64 = 16 << 20;

/// The regular files in `archive`, in its order.
///
/// # Errors
/// An archive that cannot be read to its end, or that unpacks to more than its size justifies.
pub(super) fn unpack(archive: &DataFile) -> Result<Vec<DataFile>> {
    let path = &archive.path;
    let limit = (SLACK_BYTES + MOST_GROWTH.saturating_mul(archive.size)).min(MAX_FILE_BYTES);
    let damaged = |e: io::Error| {
        let error = Error::data(format!("the archive {} cannot be read to its end", path.display()));
        let hint = match e.kind() {
            io::ErrorKind::FileTooLarge => "archives of CIFAR are read; unpack any other, and name the folder",
            _ => "it is cut short or damaged: download it again",
        };
        error.hint(hint).caused_by(e)
    };
    let magic = archive.start(2).map_err(|e| archive.unreadable(e))?;
    let file = BufReader::new(archive.open().map_err(|e| archive.unreadable(e))?);
    let stream: Box<dyn Read> = match magic[..] {
        [0x1f, 0x8b] => Box::new(MultiGzDecoder::new(file)),
        _ => Box::new(file),
    };
    let mut archive = tar::Archive::new(Limited { stream, left: limit });
    let mut files = Vec::new();
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        if files.len() == MAX_ENTRIES {
            return Err(Error::data(format!("the archive {} holds more than {MAX_ENTRIES} files", path.display()))
                .hint("archives of CIFAR are read; unpack any other, and name the folder"));
        }
        // Joined as text, not as a path: an absolute name would replace the archive's.
        let name = String::from_utf8_lossy(&entry.path_bytes()).escape_debug().to_string();
        let expected = entry.size();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(damaged)?;
        if bytes.len() as u64 != expected {
            let short = format!("{name}: {} bytes, expected {expected}", bytes.len());
            return Err(damaged(io::Error::new(io::ErrorKind::UnexpectedEof, short)));
        }
        files.push(DataFile::unpacked(format!("{}/{name}", path.display()).into(), bytes));
    }
    if !files.is_empty() && files.iter().all(|file| file.start(8).is_ok_and(|start| pictures::is_picture(&start))) {
        return Err(Error::data(format!("the archive {} holds pictures, {} of them", path.display(), files.len()))
            .hint("unpack it, and name the folder that holds a folder of pictures for each class"));
    }
    // What follows the last file is nothing, but a checksum that has to be right.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(damaged)?;
    Ok(files)
}

/// A stream that is an error once it has given `left` bytes more.
struct Limited<'a> {
    stream: Box<dyn Read + 'a>,
    left: u64,
}

impl Read for Limited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, "it unpacks to more than its size justifies"))?;
        Ok(count)
    }
}

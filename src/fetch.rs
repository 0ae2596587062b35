//! Downloading the published archives: from mirrors that may be slow, drop connections, stall or hold something else.
//!
//! What has arrived lies in `FILE.part` and is gone on from, also by a later call. The file gets its name once its hash is right.

mod connection;

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::digest::{self, Digest};
use crate::progress::Download;
use crate::{Error, ErrorKind, Result};
use connection::{Connection, Fault};

/// A published archive.
#[derive(Debug, Clone)]
pub struct Published {
    /// What `cqat data fetch` calls it.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Name of the file.
    pub file: &'static str,
    /// Its hash.
    pub digest: Digest,
}

/// The archives that `cqat data fetch` knows. Hashes are those that the authors state (MD5), and those of files that match them.
pub const PUBLISHED: [Published; 4] = [
    Published {
        name: "cifar100",
        about: "CIFAR-100, binary version",
        file: "cifar-100-binary.tar.gz",
        digest: digest::CIFAR100_BINARY,
    },
    Published {
        name: "cifar10",
        about: "CIFAR-10, binary version",
        file: "cifar-10-binary.tar.gz",
        digest: digest::CIFAR10_BINARY,
    },
    Published {
        name: "cifar100-python",
        about: "CIFAR-100, Python version",
        file: "cifar-100-python.tar.gz",
        digest: digest::CIFAR100_PYTHON,
    },
    Published {
        name: "cifar10-python",
        about: "CIFAR-10, Python version",
        file: "cifar-10-python.tar.gz",
        digest: digest::CIFAR10_PYTHON,
    },
];

/// Where the authors keep them.
pub const MIRRORS: [&str; 2] = ["https://www.cs.toronto.edu/~kriz", "https://cave.cs.toronto.edu/kriz"];

/// How a download goes about it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Addresses of the folders that hold the file, in the order in which they are tried.
    pub mirrors: Vec<String>,
    /// A connection that brings nothing for this time is given up.
    pub patience: Duration,
    /// Attempts in a row that bring nothing, of each mirror, before it is given up.
    pub attempts: u32,
    /// Time between such attempts.
    pub pause: Duration,
    /// Larger files are refused, whatever a server says.
    pub most_bytes: u64,
    /// No progress is shown.
    pub quiet: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            mirrors: MIRRORS.map(String::from).to_vec(),
            patience: Duration::from_secs(30),
            attempts: 4,
            pause: Duration::from_secs(2),
            most_bytes: 1 << 30, // six times the largest archive
            quiet: false,
        }
    }
}

/// Downloads `published` into the folder `to`; returns the path of the file.
///
/// # Errors
/// A data error: no mirror has the file, or the folder cannot be written. [`crate::ErrorKind::Interrupted`]. What has arrived
/// stays for the next call, unless its hash was wrong.
pub fn fetch(published: &Published, to: &Path, options: &Options) -> Result<PathBuf> {
    let target = to.join(published.file);
    let is_there = || match target.exists() && !published.digest.is_of(&target).map_err(|e| unwritable(&target, e))? {
        false => Ok(target.exists()),
        true => Err(Error::data(format!("{} is there already and is not the published file", target.display()))
            .hint("move it away, or fetch into another folder with --out")),
    };
    if is_there()? {
        return Ok(target);
    }
    std::fs::create_dir_all(to).map_err(|e| unwritable(to, e))?;
    let part = to.join(format!("{}.part", published.file));
    let lock = to.join(format!(".{}.lock", published.file));
    let _alone = hold(&lock, published.file)?;
    if is_there()? {
        return Ok(target); // another process has just brought it
    }
    let outcome = from_mirrors(published, &target, &part, options);
    if std::fs::metadata(&part).is_ok_and(|m| m.is_file() && m.len() == 0) {
        std::fs::remove_file(&part).map_err(|e| unwritable(&part, e))?;
    }
    outcome?;
    Ok(target)
}

/// Keeps another process from writing to the same partial file, as long as the result lives.
fn hold(lock: &Path, name: &str) -> Result<File> {
    let file = File::create(lock).map_err(|e| unwritable(lock, e))?;
    match file.try_lock() {
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(Error::data(format!("another process fetches {name} into the same folder"))
                .hint("wait for it, or fetch into another folder with --out"))
        }
        // Some file systems have no locks.
        _ => Ok(file),
    }
}

/// Brings `part` to its end from one mirror after the other, and gives it its name.
fn from_mirrors(published: &Published, target: &Path, part: &Path, options: &Options) -> Result<()> {
    let mut failures = String::new();
    for mirror in &options.mirrors {
        let url = format!("{}/{}", mirror.trim_end_matches('/'), published.file);
        loop {
            let mut file = open(part)?;
            let begun = file.metadata().is_ok_and(|m| m.len() > 0);
            let why = match download(&url, (part, &mut file), options)? {
                Some(why) => why,
                None => {
                    file.sync_all().map_err(|e| unwritable(part, e))?;
                    if published.digest.is_of(part).map_err(|e| unwritable(part, e))? {
                        return std::fs::rename(part, target).map_err(|e| unwritable(target, e));
                    }
                    std::fs::remove_file(part).map_err(|e| unwritable(part, e))?;
                    if begun {
                        continue; // what was there before may have been the wrong part
                    }
                    "the file has another hash than the published one".into()
                }
            };
            let _ = write!(failures, "\n  {url}: {why}");
            break;
        }
    }
    let kept = std::fs::metadata(part).is_ok_and(|m| m.len() > 0);
    let later = if kept { "try again later: it goes on where it stopped; or" } else { "try again later, or" };
    Err(Error::data(format!("{} could not be fetched:{failures}", published.file))
        .hint(format!("{later} name another --mirror, or download the file by hand")))
}

fn unwritable(path: &Path, e: std::io::Error) -> Error {
    Error::data(format!("{} cannot be read or written", path.display()))
        .hint("check that the disk has room and the folder is writable")
        .caused_by(e)
}

fn open(part: &Path) -> Result<File> {
    let file = OpenOptions::new().create(true).read(true).write(true).truncate(false).open(part);
    file.map_err(|e| unwritable(part, e))
}

/// Brings the file at `path` to its end, from the bytes that it has; returns why the mirror is given up where it is.
fn download(url: &str, (path, file): (&Path, &mut File), options: &Options) -> Result<Option<String>> {
    let mut progress = Download::start(url.rsplit('/').next().unwrap_or(url), options.quiet);
    // A server that starts again and again brings nothing new until it gets further than before.
    let (mut furthest, mut in_vain) = (0, 0);
    loop {
        let at = file.seek(SeekFrom::End(0)).map_err(|e| unwritable(path, e))?;
        furthest = at.max(furthest);
        let why = match piece(url, (path, file), at, options, &mut progress)? {
            Ended::Whole => return Ok(None),
            Ended::Early(Fault::Lasting(why)) => return Ok(Some(why)),
            Ended::Early(Fault::Passing(why)) => why,
            Ended::Early(Fault::Interrupted) => {
                return Err(Error::new(ErrorKind::Interrupted, "interrupted; what has arrived was kept")
                    .hint("the same command goes on from there"));
            }
        };
        if file.metadata().map_err(|e| unwritable(path, e))?.len() > furthest {
            in_vain = 0;
            continue;
        }
        in_vain += 1;
        if in_vain >= options.attempts {
            return Ok(Some(why));
        }
        log::info!("{url}: {why}; trying again");
        std::thread::sleep(options.pause);
    }
}

/// How a connection ended.
enum Ended {
    /// The file is whole, as far as the server's word goes.
    Whole,
    Early(Fault),
}

/// One connection: appends what it brings to the `at` bytes of `file`.
fn piece(
    url: &str,
    (path, file): (&Path, &mut File),
    at: u64,
    options: &Options,
    progress: &mut Download,
) -> Result<Ended> {
    let told = |e: std::io::Error| unwritable(path, e);
    let passing = |why: &str| Ok(Ended::Early(Fault::Passing(why.into())));
    let lasting = |why: &str| Ok(Ended::Early(Fault::Lasting(why.into())));
    let shorter = &format!("the server's file is shorter than {}; remove that to begin anew", path.display());
    let connection = Connection::open(url, at, options.patience);
    let head = match connection.head() {
        Ok(head) => head,
        Err(fault) => return Ok(Ended::Early(fault)),
    };
    let (start, total) = match head.status {
        206 if head.start == Some(at) => (at, head.total),
        206 => return lasting("the server sends another part of the file than it was asked for"),
        // All of it was there already, or more than there is.
        416 if head.total == Some(at) => return Ok(Ended::Whole),
        416 if head.total.is_some_and(|total| total < at) => return lasting(shorter),
        200 if head.length.is_some_and(|length| length < at) => return lasting(shorter),
        200 => (0, head.length),
        // Too early, too often, or the server's own fault.
        status @ (408 | 425 | 429 | 500..) => return passing(&format!("the server answers with status {status}")),
        status => return lasting(&format!("the server answers with status {status}")),
    };
    if total.is_some_and(|total| total > options.most_bytes) {
        return lasting(&format!("the server's file is larger than {} bytes", options.most_bytes));
    }
    let mut have = start;
    loop {
        progress.update(have, total);
        let bytes = match connection.bytes() {
            Ok(Some(bytes)) => bytes,
            Ok(None) => break,
            Err(fault) => return Ok(Ended::Early(fault)),
        };
        // A server that begins again sends what has arrived already: that is compared, and kept whatever comes of this.
        let (repeated, new) = bytes.split_at((at.saturating_sub(have) as usize).min(bytes.len()));
        let mut known = vec![0; repeated.len()];
        file.seek(SeekFrom::Start(have)).map_err(told)?;
        file.read_exact(&mut known).map_err(told)?;
        if known != repeated {
            let part = path.display();
            return lasting(&format!("the server's file does not begin as {part} does; remove that to begin anew"));
        }
        have += bytes.len() as u64;
        if have > total.unwrap_or(options.most_bytes) {
            file.set_len(at).map_err(told)?; // nothing that it sends is to be trusted
            return lasting("the server sends more than it said");
        }
        file.write_all(new).map_err(told)?;
    }
    match total {
        None if have < at => lasting(shorter),
        Some(total) if have < total => passing(&format!("the connection ended after {have} of {total} bytes")),
        _ => Ok(Ended::Whole),
    }
}

/// The mirrors that `CQAT_MIRRORS` names, separated by spaces; `None` without it.
pub fn mirrors_of_environment() -> Option<Vec<String>> {
    let text = std::env::var("CQAT_MIRRORS").ok()?;
    let mirrors: Vec<String> = text.split_whitespace().map(String::from).collect();
    (!mirrors.is_empty()).then_some(mirrors)
}

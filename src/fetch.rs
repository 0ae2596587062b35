//! Downloading the published archives: from mirrors that may be slow, drop connections, stall or hold something else.
//!
//! What has arrived lies in `FILE.part` and is gone on from, also by a later call. The file gets its name once its hash is right.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::digest::{self, Digest};
use crate::progress::Download;
use crate::{Error, Result, interrupt};

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
    /// A connection that has not ended after this time is opened anew where it stands. It is doubled where a server starts from
    /// the beginning each time.
    pub patience: Duration,
    /// Attempts in a row that bring nothing, of each mirror, before it is given up.
    pub attempts: u32,
    /// Time between such attempts.
    pub pause: Duration,
    /// Larger files are refused, whatever a server says.
    pub most_bytes: u64,
    /// No progress bar.
    pub quiet: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            mirrors: MIRRORS.map(String::from).to_vec(),
            patience: Duration::from_secs(60),
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
    if target.exists() {
        return match published.digest.is_of(&target).map_err(|e| unwritable(&target, e))? {
            true => Ok(target),
            false => Err(Error::data(format!("{} is there already and is not the published file", target.display()))
                .hint("move it away, or fetch into another folder with --out")),
        };
    }
    std::fs::create_dir_all(to).map_err(|e| unwritable(to, e))?;
    let part = to.join(format!("{}.part", published.file));
    let mut failures = Vec::new();
    for mirror in &options.mirrors {
        let url = format!("{}/{}", mirror.trim_end_matches('/'), published.file);
        loop {
            let mut file = open(&part)?;
            let begun = file.metadata().is_ok_and(|m| m.len() > 0);
            match download(&url, (&part, &mut file), options) {
                Err(Stop::Told(e)) => return Err(e),
                Err(Stop::Failed(why)) => failures.push(format!("{url}: {why}")),
                Ok(()) => {
                    file.sync_all().map_err(|e| unwritable(&part, e))?;
                    if published.digest.is_of(&part).map_err(|e| unwritable(&part, e))? {
                        std::fs::rename(&part, &target).map_err(|e| unwritable(&target, e))?;
                        return Ok(target);
                    }
                    std::fs::remove_file(&part).map_err(|e| unwritable(&part, e))?;
                    if begun {
                        continue; // what was there before may have been the wrong part
                    }
                    failures.push(format!("{url}: the file has another hash than the published one"));
                }
            }
            break;
        }
    }
    let list: String = failures.iter().map(|f| format!("\n  {f}")).collect();
    Err(Error::data(format!("{} could not be fetched:{list}", published.file))
        .hint("try again later: it goes on where it stopped; or name another --mirror, or download the file by hand"))
}

/// Why a mirror is given up.
enum Stop {
    /// The next one may do.
    Failed(String),
    /// Nothing else would.
    Told(Error),
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

/// Brings the file at `path` to its end, from the bytes that it has.
fn download(url: &str, (path, file): (&Path, &mut File), options: &Options) -> std::result::Result<(), Stop> {
    let told = |e: std::io::Error| Stop::Told(unwritable(path, e));
    let mut patience = options.patience;
    let mut bar = Download::start(options.quiet);
    // A server that starts again and again brings nothing new until it gets further than before.
    let (mut furthest, mut in_vain) = (0, 0);
    loop {
        let at = file.seek(SeekFrom::End(0)).map_err(told)?;
        furthest = at.max(furthest);
        let piece = piece(url, (path, file), at, (patience, options.most_bytes), &mut bar);
        if interrupt::requested() {
            return Err(Stop::Told(
                Error::new(crate::ErrorKind::Interrupted, "interrupted; what has arrived was kept")
                    .hint("the same command goes on from there"),
            ));
        }
        let why = match piece {
            Ok(Piece::Last) => return Ok(()),
            Ok(Piece::Cut { restarted, why }) => {
                if restarted {
                    patience *= 2;
                }
                why
            }
            Err(Stop::Failed(why)) => why,
            Err(stop) => return Err(stop),
        };
        if file.metadata().map_err(told)?.len() > furthest {
            in_vain = 0;
            continue;
        }
        in_vain += 1;
        if in_vain >= options.attempts {
            return Err(Stop::Failed(why));
        }
        log::info!("{url}: {why}; trying again");
        std::thread::sleep(options.pause);
    }
}

/// How a connection ended.
enum Piece {
    /// The file is whole, as far as the server's word goes.
    Last,
    /// There is more to come; `restarted` where the server began from the beginning.
    Cut { restarted: bool, why: String },
}

/// One connection of at most a time and for at most so many bytes: appends what it brings to the `at` bytes of `file`.
fn piece(
    url: &str,
    (path, file): (&Path, &mut File),
    at: u64,
    (patience, most_bytes): (Duration, u64),
    bar: &mut Download,
) -> std::result::Result<Piece, Stop> {
    let failed = |e: &dyn std::fmt::Display| Stop::Failed(e.to_string());
    let told = |e: std::io::Error| Stop::Told(unwritable(path, e));
    let config = ureq::Agent::config_builder()
        .timeout_connect(Some(patience))
        .timeout_recv_response(Some(patience))
        .timeout_recv_body(Some(patience))
        .http_status_as_error(false)
        .build();
    let agent = ureq::Agent::new_with_config(config);
    let request = agent.get(url).header("User-Agent", concat!("cqat/", env!("CARGO_PKG_VERSION")));
    let request = if at > 0 { request.header("Range", format!("bytes={at}-")) } else { request };
    let response = request.call().map_err(|e| failed(&e))?;
    let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(String::from);
    // `bytes 100-199/200`: where the piece begins, and the size of the whole.
    let range = header("content-range").and_then(|r| {
        let (span, total) = r.strip_prefix("bytes ")?.split_once('/')?;
        Some((span.split('-').next()?.parse::<u64>().ok(), total.parse::<u64>().ok()))
    });
    let length = header("content-length").and_then(|l| l.parse::<u64>().ok());
    let (start, total) = match response.status().as_u16() {
        206 if range.is_some_and(|(start, _)| start == Some(at)) => (at, range.and_then(|(_, total)| total)),
        206 => return Err(Stop::Failed("the server sends another part of the file than it was asked for".into())),
        // All of it was there already, or more than there is.
        416 if range.is_some_and(|(_, total)| total == Some(at)) => return Ok(Piece::Last),
        416 if range.is_some_and(|(_, total)| total.is_some_and(|total| total < at)) => {
            file.set_len(0).map_err(told)?; // more than there is cannot be a part of it
            return Err(Stop::Failed("the server's file is shorter than what has arrived".into()));
        }
        200 if length.is_some_and(|length| length < at) => {
            return Err(Stop::Failed("the server's file is shorter than what has arrived".into()));
        }
        200 => (0, length),
        status => return Err(Stop::Failed(format!("the server answers with status {status}"))),
    };
    if total.is_some_and(|total| total > most_bytes) {
        return Err(Stop::Failed(format!("the server's file is larger than {most_bytes} bytes")));
    }
    // A server that begins again sends what has arrived already: that is compared, and kept whatever comes of this.
    let restarted = start < at;
    let mut known = vec![0; 1 << 16];
    let mut reader = response.into_body().into_reader();
    let mut buffer = vec![0; 1 << 16];
    let mut have = start;
    loop {
        bar.update(have, total);
        if interrupt::requested() {
            return Ok(Piece::Cut { restarted, why: "interrupted".into() });
        }
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                let repeated = (at.saturating_sub(have) as usize).min(count);
                file.seek(SeekFrom::Start(have)).map_err(told)?;
                file.read_exact(&mut known[..repeated]).map_err(told)?;
                if known[..repeated] != buffer[..repeated] {
                    let part = path.display();
                    return Err(Stop::Failed(format!(
                        "the server's file does not begin as {part} does; remove that to begin anew"
                    )));
                }
                have += count as u64;
                if have > total.unwrap_or(most_bytes) {
                    file.set_len(at).map_err(told)?; // nothing that it sends is to be trusted
                    return Err(Stop::Failed("the server sends more than it said".into()));
                }
                file.write_all(&buffer[repeated..count]).map_err(told)?;
            }
            Err(e) => return Ok(Piece::Cut { restarted, why: e.to_string() }),
        }
    }
    bar.update(have, total);
    match total {
        None if have < at => Err(Stop::Failed("the server's file is shorter than what has arrived".into())),
        Some(total) if have < total => {
            Ok(Piece::Cut { restarted, why: format!("the connection ended after {have} of {total} bytes") })
        }
        _ => Ok(Piece::Last),
    }
}

/// The mirrors that `CQAT_MIRRORS` names, separated by spaces; `None` without it.
pub fn mirrors_of_environment() -> Option<Vec<String>> {
    let text = std::env::var("CQAT_MIRRORS").ok()?;
    let mirrors: Vec<String> = text.split_whitespace().map(String::from).collect();
    (!mirrors.is_empty()).then_some(mirrors)
}

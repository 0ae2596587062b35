//! The binary records of CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): recognising a file by its labels, and reading it.
//!
//! A record is one label byte (CIFAR-10) or two (CIFAR-100: coarse, fine) and a picture of [`PICTURE_BYTES`]. A file is
//! nothing but records, so its size and its labels are all there is to recognise it by.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use super::{PICTURE_BYTES, Split};
use crate::error::{Error, Result};

const BUFFER_BYTES: usize = 1 << 20;

/// Which of the two record layouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    Cifar10,
    Cifar100,
}

/// One label byte of a record: its name and the number of values it may take.
struct LabelByte {
    name: &'static str,
    classes: u8,
}

impl Layout {
    pub(super) const ALL: [Layout; 2] = [Layout::Cifar100, Layout::Cifar10];

    /// Name for messages.
    pub(super) fn title(self) -> &'static str {
        match self {
            Layout::Cifar10 => "CIFAR-10",
            Layout::Cifar100 => "CIFAR-100",
        }
    }

    /// Name for programs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Layout::Cifar10 => "cifar10",
            Layout::Cifar100 => "cifar100",
        }
    }

    /// The label bytes at the start of a record; the last is the class.
    fn labels(self) -> &'static [LabelByte] {
        match self {
            Layout::Cifar10 => &[LabelByte { name: "label", classes: 10 }],
            Layout::Cifar100 => {
                &[LabelByte { name: "coarse label", classes: 20 }, LabelByte { name: "fine label", classes: 100 }]
            }
        }
    }

    /// Number of classes.
    pub(super) fn classes(self) -> usize {
        self.labels().last().map_or(0, |l| usize::from(l.classes))
    }

    /// Bytes of a record: 3073 or 3074.
    pub(super) fn record_bytes(self) -> usize {
        self.labels().len() + PICTURE_BYTES
    }
}

/// A label out of range.
struct BadLabel {
    record: u64,
    byte: usize,
    value: u8,
}

impl BadLabel {
    fn error(&self, path: &Path, layout: Layout) -> Error {
        let BadLabel { record, byte, value } = *self;
        let label = &layout.labels()[byte];
        let offset = record * layout.record_bytes() as u64 + byte as u64;
        Error::data(format!(
            "{}: record {record} (counted from 0) has {} {value} at byte {offset} of the file, expected less than {} \
             in a {} file",
            path.display(),
            label.name,
            label.classes,
            layout.title()
        ))
        .hint("the file is damaged or is something else: unpack it again, or move it out of the folder")
    }
}

/// What a file turned out to be.
#[derive(Debug)]
pub(super) enum Kind {
    /// Whole records with valid labels.
    Records(Layout),
    /// Close enough to a CIFAR file that the user must be told what is wrong with it.
    Broken(Error),
    /// An archive or a pickle; what it is, in words.
    Packed(&'static str),
    /// Something unrelated.
    Other,
}

/// Recognises the file at `path` of `size` bytes by its content, reading no further than needed.
pub(super) fn recognise(path: &Path, size: u64) -> Kind {
    match scan(path, size) {
        Ok(kind) => kind,
        Err(e) => Kind::Broken(
            Error::data(format!("cannot read {}", path.display())).hint("check the file's permissions").caused_by(e),
        ),
    }
}

fn scan(path: &Path, size: u64) -> std::io::Result<Kind> {
    let mut file = File::open(path)?;
    let mut checks = Layout::ALL.map(|layout| LabelCheck::new(layout, size));
    let mut buffer = vec![0; BUFFER_BYTES.min(size as usize)];
    let mut start = 0;
    while start < size && checks.iter().any(|c| c.bad.is_none()) {
        let filled = read_full(&mut file, &mut buffer)?;
        if filled == 0 {
            break;
        }
        if start == 0
            && let Some(what) = packed(&buffer[..filled])
        {
            return Ok(Kind::Packed(what));
        }
        checks.iter_mut().for_each(|c| c.feed(start, &buffer[..filled]));
        start += filled as u64;
    }
    Ok(verdict(path, size, &checks))
}

/// Fills `buffer` as far as the file goes; the number of bytes read.
fn read_full(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// Recognises by their first bytes the other forms in which CIFAR is published.
pub(super) fn packed(start: &[u8]) -> Option<&'static str> {
    match start {
        [0x1f, 0x8b, ..] => Some("a gzip archive"),
        [b'P', b'K', 3, 4, ..] => Some("a zip archive"),
        [0x80, 2..=5, ..] => Some("a Python pickle"),
        _ if start.get(257..262) == Some(b"ustar") => Some("a tar archive"),
        _ => None,
    }
}

fn verdict(path: &Path, size: u64, checks: &[LabelCheck]) -> Kind {
    let whole: Vec<&LabelCheck> = checks.iter().filter(|c| c.records > 0 && c.rest == 0).collect();
    let fitting: Vec<&&LabelCheck> = whole.iter().filter(|c| c.bad.is_none()).collect();
    if let [one] = fitting[..] {
        return Kind::Records(one.layout);
    }
    if fitting.len() > 1 {
        return Kind::Broken(
            Error::data(format!(
                "{} can be read as CIFAR-10 and as CIFAR-100: size and every label fit both",
                path.display()
            ))
            .hint("the file is probably blank; unpack it again"),
        );
    }
    // Labels that are right in every whole record weigh more than a size that happens to fit the other layout.
    if let Some(cut) = checks.iter().find(|c| c.records > 0 && c.bad.is_none()) {
        let layout = cut.layout;
        return Kind::Broken(
            Error::data(format!(
                "{} is cut short: its {size} bytes are {} {} records of {} bytes and {} bytes more, expected \
                 whole records",
                path.display(),
                cut.records,
                layout.title(),
                layout.record_bytes(),
                cut.rest
            ))
            .hint("download and unpack it again; if it is something else, move it out of the folder"),
        );
    }
    // The layout whose labels held longest is the one to explain.
    let longest =
        whole.iter().filter_map(|c| c.bad.as_ref().map(|bad| (bad, c.layout))).max_by_key(|(bad, _)| bad.record);
    longest.map_or(Kind::Other, |(bad, layout)| Kind::Broken(bad.error(path, layout)))
}

/// Checks the labels of a file that arrives in pieces against one layout.
struct LabelCheck {
    layout: Layout,
    /// Whole records in the file, and the bytes left over.
    records: u64,
    rest: u64,
    /// The label byte to look at next.
    record: u64,
    byte: usize,
    bad: Option<BadLabel>,
}

impl LabelCheck {
    fn new(layout: Layout, size: u64) -> Self {
        let record_bytes = layout.record_bytes() as u64;
        LabelCheck { layout, records: size / record_bytes, rest: size % record_bytes, record: 0, byte: 0, bad: None }
    }

    /// Looks at the label bytes within `piece`, which starts at byte `start` of the file.
    fn feed(&mut self, start: u64, piece: &[u8]) {
        let labels = self.layout.labels();
        while self.bad.is_none() && self.record < self.records {
            let offset = self.record * self.layout.record_bytes() as u64 + self.byte as u64;
            let Some(&value) = piece.get((offset - start) as usize) else { return };
            if value >= labels[self.byte].classes {
                self.bad = Some(BadLabel { record: self.record, byte: self.byte, value });
            }
            self.byte += 1;
            if self.byte == labels.len() {
                (self.byte, self.record) = (0, self.record + 1);
            }
        }
    }
}

/// Reads the records of `files` (path, size in bytes), one file after the other, into one split.
///
/// Memory is taken for what the files hold and no more. The class of a CIFAR-100 record is its fine label.
pub(super) fn read(files: &[(PathBuf, u64)], layout: Layout) -> Result<Split> {
    let record_bytes = layout.record_bytes() as u64;
    let total = files.iter().map(|(_, size)| size / record_bytes).sum::<u64>() as usize;
    let mut split = Split { images: vec![0; total * PICTURE_BYTES], labels: Vec::with_capacity(total) };
    let mut pictures = split.images.chunks_exact_mut(PICTURE_BYTES);
    for (path, size) in files {
        let count = size / record_bytes;
        let failed = |e: std::io::Error| {
            Error::data(format!("cannot read the {count} records of {}", path.display()))
                .hint("check the disk, and that nothing changes the file meanwhile")
                .caused_by(e)
        };
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, File::open(path).map_err(failed)?);
        for (record, picture) in (0..count).zip(&mut pictures) {
            let mut labels = [0u8; 2];
            let labels = &mut labels[..layout.labels().len()];
            reader.read_exact(labels).map_err(failed)?;
            // Looked at again: the file may have changed since it was recognised.
            if let Some(byte) = (0..labels.len()).find(|&b| labels[b] >= layout.labels()[b].classes) {
                return Err(BadLabel { record, byte, value: labels[byte] }.error(path, layout));
            }
            split.labels.push(u16::from(labels[labels.len() - 1]));
            reader.read_exact(picture).map_err(failed)?;
        }
    }
    Ok(split)
}

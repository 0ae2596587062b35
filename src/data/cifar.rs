//! The binary version of CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): recognising its files by content, and reading them.
//!
//! A binary record is one label byte (CIFAR-10) or two (CIFAR-100: coarse, fine) and a picture of [`PICTURE_BYTES`]. A file is
//! nothing but records, so its size and its labels are all there is to recognise it by.

use std::io::{BufReader, Read};
use std::path::Path;

use super::file::DataFile;
use super::part::{Form, Kind, Layout, Part};
use super::{PICTURE_BYTES, Split};
use crate::error::{Error, Result};

const BUFFER_BYTES: usize = 1 << 20;

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

/// What `file` is as records of labels and pictures, read no further than needed.
///
/// # Errors
/// A failure to read.
pub(super) fn recognise(file: &DataFile) -> std::io::Result<Kind> {
    let size = file.size;
    let mut reader = file.open()?;
    let mut checks = Layout::ALL.map(|layout| LabelCheck::new(layout, size));
    let mut buffer = vec![0; BUFFER_BYTES.min(size as usize)];
    let mut start = 0;
    while start < size && checks.iter().any(|c| c.bad.is_none()) {
        let filled = read_full(&mut *reader, &mut buffer)?;
        if filled == 0 {
            break;
        }
        checks.iter_mut().for_each(|c| c.feed(start, &buffer[..filled]));
        start += filled as u64;
    }
    Ok(verdict(file, &checks))
}

/// Fills `buffer` as far as the file goes; the number of bytes read.
fn read_full(file: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
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

fn verdict(file: &DataFile, checks: &[LabelCheck]) -> Kind {
    let (path, size) = (&file.path, file.size);
    let whole: Vec<&LabelCheck> = checks.iter().filter(|c| c.records > 0 && c.rest == 0).collect();
    let fitting: Vec<&&LabelCheck> = whole.iter().filter(|c| c.bad.is_none()).collect();
    if let [one] = fitting[..] {
        let (layout, pictures) = (one.layout, one.records);
        return Kind::Pictures(Part { file: file.clone(), layout, form: Form::Binary, pictures });
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

/// Adds the records of `part` to `split`.
///
/// # Errors
/// A file that cannot be read, or has changed since it was recognised.
pub(super) fn read(part: &Part, split: &mut Split) -> Result<()> {
    let Part { file, layout, .. } = part;
    let failed = |e| file.unreadable(e);
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, file.open().map_err(failed)?);
    let mut labels = vec![0u8; layout.labels().len()];
    for record in 0..part.pictures {
        reader.read_exact(&mut labels).map_err(failed)?;
        // Looked at again: the file may have changed since it was recognised.
        if let Some(byte) = (0..labels.len()).find(|&b| labels[b] >= layout.labels()[b].classes) {
            return Err(BadLabel { record, byte, value: labels[byte] }.error(&file.path, *layout));
        }
        split.labels.push(u16::from(labels[labels.len() - 1]));
        let start = split.images.len();
        split.images.resize(start + PICTURE_BYTES, 0);
        reader.read_exact(&mut split.images[start..]).map_err(failed)?;
    }
    Ok(())
}

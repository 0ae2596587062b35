//! TensorBoard's event files: records of TFRecord framing, each a small protobuf message (`event.proto`, `summary.proto`).
//!
//! A record is its length (u64), the masked CRC32C of that, the message, and the masked CRC32C of the message, all
//! little-endian. Only what a run has to say is written: scalars, histograms, and where a run goes on.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A file of events that grows while a run trains. Every event goes out in one write.
#[derive(Debug)]
pub struct EventFile {
    file: std::fs::File,
    path: PathBuf,
}

/// Counts of values between limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Counts {
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Sum of the values.
    pub sum: f64,
    /// Sum of their squares.
    pub sum_squares: f64,
    /// Upper limit of each bucket, rising.
    pub limits: Vec<f64>,
    /// Values in each bucket.
    pub counts: Vec<f64>,
}

impl Counts {
    /// Of integer codes: a bucket for each code from the lowest to the highest.
    pub fn of_codes(codes: &[i8]) -> Counts {
        let (low, high) = codes.iter().fold((i8::MAX, i8::MIN), |(l, h), c| (l.min(*c), h.max(*c)));
        let mut counts = vec![0.0; if codes.is_empty() { 0 } else { (i32::from(high) - i32::from(low) + 1) as usize }];
        let (mut sum, mut sum_squares) = (0.0, 0.0);
        for code in codes {
            counts[(i32::from(*code) - i32::from(low)) as usize] += 1.0;
            sum += f64::from(*code);
            sum_squares += f64::from(*code).powi(2);
        }
        let limits = (0..counts.len()).map(|i| f64::from(low) + i as f64 + 0.5).collect();
        Counts { min: f64::from(low), max: f64::from(high), sum, sum_squares, limits, counts }
    }
}

impl EventFile {
    /// A new file in `folder`, which is made where it is missing; its name sorts behind those of earlier processes.
    ///
    /// `after` is the step that the run goes on from: TensorBoard forgets what earlier files say of later ones.
    ///
    /// # Errors
    /// A failure to write.
    pub fn create(folder: &Path, after: Option<u64>) -> std::io::Result<EventFile> {
        std::fs::create_dir_all(folder)?;
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let mut number = 0;
        let mut events = loop {
            let path = folder.join(format!("events.out.tfevents.{seconds:010}.cqat.{number:04}"));
            match std::fs::OpenOptions::new().write(true).create_new(true).open(&path) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                opened => break EventFile { file: opened?, path },
            }
        };
        let mut version = Message::default();
        version.bytes(3, b"brain.Event:2");
        events.event(0, &version)?;
        if let Some(step) = after {
            const START: u64 = 1;
            let (mut log, mut message) = (Message::default(), Message::default());
            log.integer(1, START);
            message.bytes(7, &log.0);
            events.event(step + 1, &message)?;
        }
        Ok(events)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Values with their tags at a step.
    ///
    /// # Errors
    /// A failure to write.
    pub fn scalars(&mut self, step: u64, values: &[(String, f64)]) -> std::io::Result<()> {
        let mut summary = Message::default();
        for (tag, value) in values {
            let mut entry = Message::default();
            entry.bytes(1, tag.as_bytes());
            entry.float(2, *value as f32);
            summary.bytes(1, &entry.0);
        }
        self.summary(step, &summary)
    }

    /// A histogram with its tag at a step.
    ///
    /// # Errors
    /// A failure to write.
    pub fn histogram(&mut self, step: u64, tag: &str, counts: &Counts) -> std::io::Result<()> {
        let mut histogram = Message::default();
        let total = counts.counts.iter().sum();
        for (field, value) in (1..).zip([counts.min, counts.max, total, counts.sum, counts.sum_squares]) {
            histogram.double(field, value);
        }
        histogram.doubles(6, &counts.limits);
        histogram.doubles(7, &counts.counts);
        let (mut entry, mut summary) = (Message::default(), Message::default());
        entry.bytes(1, tag.as_bytes());
        entry.bytes(5, &histogram.0);
        summary.bytes(1, &entry.0);
        self.summary(step, &summary)
    }

    fn summary(&mut self, step: u64, summary: &Message) -> std::io::Result<()> {
        let mut message = Message::default();
        message.bytes(5, &summary.0);
        self.event(step, &message)
    }

    /// An event of now with the fields of `what`.
    fn event(&mut self, step: u64, what: &Message) -> std::io::Result<()> {
        let mut event = Message::default();
        event.double(1, SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64()));
        event.integer(2, step);
        event.0.extend(&what.0);
        self.file.write_all(&record(&event.0))
    }
}

/// A TFRecord.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let parts: [&[u8]; 4] = [&length, &masked_crc(&length), data, &masked_crc(data)];
    parts.concat()
}

fn masked_crc(data: &[u8]) -> [u8; 4] {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// A protobuf message in the making.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u64, wire_type: u64) {
        self.varint(field << 3 | wire_type);
    }

    fn integer(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.key(field, 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
    }

    fn doubles(&mut self, field: u64, values: &[f64]) {
        let packed: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.bytes(field, &packed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What TensorBoard itself makes of whole files is the question of `tests/tensorboard.rs`.
    #[test]
    fn a_record_has_the_published_checksums() {
        // CRC32C("123456789") is 0xe3069283 (RFC 3720's polynomial).
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        let record = record(b"abc");
        assert_eq!(record.len(), 8 + 4 + 3 + 4);
        assert_eq!(record[..8], 3u64.to_le_bytes());
        assert_eq!(
            (record[8..12].to_vec(), record[15..].to_vec()),
            (masked_crc(&3u64.to_le_bytes()).to_vec(), masked_crc(b"abc").to_vec())
        );
    }

    #[test]
    fn codes_are_counted_one_by_one() {
        let counts = Counts::of_codes(&[-2, 0, 0, 1]);
        assert_eq!((counts.limits, counts.counts), (vec![-1.5, -0.5, 0.5, 1.5], vec![1.0, 0.0, 2.0, 1.0]));
        assert_eq!((counts.min, counts.max, counts.sum, counts.sum_squares), (-2.0, 1.0, -1.0, 5.0));
        assert!(Counts::of_codes(&[]).counts.is_empty());
        assert_eq!(Counts::of_codes(&[-128, 127]).counts.len(), 256);
    }
}

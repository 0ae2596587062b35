//! The built-in set: 1,200 training and 800 test pictures of Fashion-MNIST (Xiao, Rasul, Vollgraf, 2017).
//!
//! `assets/README.md` describes the format, where the pictures come from and their licence.

use std::io::Read;

use flate2::read::GzDecoder;

use super::{CHANNELS, Contents, PICTURE_BYTES, SIDE, Split};
use crate::error::{Error, Result};

static FILE: &[u8] = include_bytes!("../../assets/fashion-mnist-mini.bin.gz");

const CLASS_NAMES: [&str; 10] =
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];

const MAGIC: &[u8; 4] = b"FMMI";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 20;
/// Height and width of a picture in the file; [`BORDER`] zeros on each side make [`SIDE`].
const STORED_SIDE: usize = 28;
const STORED_BYTES: usize = STORED_SIDE * STORED_SIDE;
const BORDER: usize = (SIDE - STORED_SIDE) / 2;
/// Unpacking stops here: far above the content's 1.6 MB.
const MAX_CONTENT_BYTES: u64 = 16 << 20;

/// Unpacks the built-in set.
pub(super) fn read() -> Result<Contents> {
    parse(&unpack(FILE)?)
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::data(format!("the built-in data set is damaged: {what}"))
        .hint("build the program again from an unchanged copy of assets/fashion-mnist-mini.bin.gz")
}

fn unpack(file: &[u8]) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    GzDecoder::new(file)
        .take(MAX_CONTENT_BYTES)
        .read_to_end(&mut content)
        .map_err(|e| damaged("it does not unpack").caused_by(e))?;
    Ok(content)
}

fn parse(content: &[u8]) -> Result<Contents> {
    let Some((header, body)) = content.split_at_checked(HEADER_BYTES) else {
        return Err(damaged(format!("{} bytes, expected a header of {HEADER_BYTES}", content.len())));
    };
    let short = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let count = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
    if &header[..4] != MAGIC || short(4) != VERSION {
        return Err(damaged(format!(
            "it starts with {:02x?}, version {}, expected {MAGIC:02x?}, version {VERSION}",
            &header[..4],
            short(4)
        )));
    }
    let (classes, height, width) = (short(6), short(8), short(10));
    if [classes, height, width].map(usize::from) != [CLASS_NAMES.len(), STORED_SIDE, STORED_SIDE] {
        return Err(damaged(format!(
            "{classes} classes of {height}x{width} pictures, expected {} of {STORED_SIDE}x{STORED_SIDE}",
            CLASS_NAMES.len()
        )));
    }
    let (train, test) = (count(12), count(16));
    let expected = (train as u64 + test as u64) * (1 + STORED_BYTES as u64);
    if body.len() as u64 != expected {
        return Err(damaged(format!("{} bytes follow the header, expected {expected}", body.len())));
    }
    let (labels, pictures) = body.split_at(train + test);
    if let Some(i) = labels.iter().position(|&l| usize::from(l) >= CLASS_NAMES.len()) {
        return Err(damaged(format!("picture {i} has label {}, expected less than {}", labels[i], CLASS_NAMES.len())));
    }
    let (train_labels, test_labels) = labels.split_at(train);
    let (train_pictures, test_pictures) = pictures.split_at(train * STORED_BYTES);
    Ok(Contents {
        name: "fashion-mnist-mini".into(),
        class_names: CLASS_NAMES.map(String::from).to_vec(),
        train: widen(train_pictures, train_labels),
        test: widen(test_pictures, test_labels),
        sources: Vec::new(),
    })
}

/// Grey (N, 28, 28) to (N, 3, 32, 32): a border of zeros, and the same plane for each channel.
fn widen(pictures: &[u8], labels: &[u8]) -> Split {
    let mut images = vec![0; labels.len() * PICTURE_BYTES];
    for (stored, image) in pictures.chunks_exact(STORED_BYTES).zip(images.chunks_exact_mut(PICTURE_BYTES)) {
        for (y, row) in stored.chunks_exact(STORED_SIDE).enumerate() {
            let start = (y + BORDER) * SIDE + BORDER;
            image[start..start + STORED_SIDE].copy_from_slice(row);
        }
        for channel in 1..CHANNELS {
            image.copy_within(..SIDE * SIDE, channel * SIDE * SIDE);
        }
    }
    Split { side: SIDE, images, labels: labels.iter().map(|&l| u16::from(l)).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message for the built-in content after `damage`.
    fn message(damage: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut content = unpack(FILE).unwrap();
        damage(&mut content);
        let error = parse(&content).err().expect("damaged content must be refused");
        assert!(error.hint_text().unwrap().contains("build the program again"));
        error.to_string()
    }

    #[test]
    fn damaged_content_is_refused_by_what_is_wrong_with_it() {
        assert!(message(|c| c.truncate(19)).contains("19 bytes, expected a header of 20"));
        assert!(message(|c| c[0] = b'X').contains("expected [46, 4d, 4d, 49], version 1"));
        assert!(message(|c| c[4] = 2).contains("version 2, expected"));
        assert!(message(|c| c[8] = 29).contains("29x28 pictures, expected 10 of 28x28"));
        assert!(message(|c| c[12..20].fill(255)).contains("1570000 bytes follow the header, expected"));
        assert!(message(|c| c.truncate(c.len() - 1)).contains("1569999 bytes follow the header, expected 1570000"));
        assert!(message(|c| c[HEADER_BYTES + 1207] = 10).contains("picture 1207 has label 10, expected less than 10"));
    }

    #[test]
    fn a_file_that_is_not_gzip_is_refused() {
        for file in [&b"not gzip at all"[..], &FILE[..FILE.len() / 2]] {
            assert!(unpack(file).unwrap_err().to_string().contains("does not unpack"));
        }
    }
}

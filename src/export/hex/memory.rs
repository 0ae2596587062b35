//! One memory: codes in the lanes of words, as `$readmemh` reads them.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::{Error, Result};

/// Most lanes of a word: 16 codes of 8 bits are 128 bits.
const LANES: usize = 16;

/// Lanes of words that hold `channels` channels.
pub(in crate::export) fn lanes(channels: usize) -> usize {
    channels.min(LANES)
}

/// Integers of `bits` bits each, two's complement where signed. `row` integers that belong together (the channels of a pixel) begin
/// at a word and fill its lanes from the lowest bits; lanes that are left over hold 0.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::export) struct Memory {
    /// Path in the folder, without `hex/`.
    pub(in crate::export) name: String,
    /// What it holds.
    pub(in crate::export) holds: &'static str,
    /// How an integer is written, where it is not as it is.
    pub(in crate::export) encoding: Option<&'static str>,
    /// Order of the words, the slowest index first.
    pub(in crate::export) order: &'static str,
    /// Bits of an integer.
    pub(in crate::export) bits: u32,
    /// Whether they are in two's complement.
    pub(in crate::export) signed: bool,
    /// Integers in a row.
    pub(in crate::export) row: usize,
    /// Integers in a word.
    pub(in crate::export) lanes: usize,
    /// The integers.
    pub(in crate::export) values: Vec<i64>,
}

impl Memory {
    /// One signed integer in each word.
    pub(in crate::export) fn single(
        name: String,
        holds: &'static str,
        order: &'static str,
        bits: u32,
        values: impl IntoIterator<Item = impl Into<i64>>,
    ) -> Memory {
        let values = values.into_iter().map(Into::into).collect();
        Memory { name, holds, encoding: None, order, bits, signed: true, row: 1, lanes: 1, values }
    }

    /// Path in the folder.
    pub(in crate::export) fn path(&self) -> String {
        format!("hex/{}.hex", self.name)
    }

    fn words(&self) -> usize {
        self.values.len() / self.row * self.row.div_ceil(self.lanes)
    }

    fn word_bits(&self) -> u32 {
        self.lanes as u32 * self.bits
    }

    /// Its file: one word a line.
    ///
    /// # Errors
    /// An integer that its bits do not hold.
    pub(in crate::export) fn text(&self) -> Result<String> {
        let (least, most) = match self.signed {
            true => (-(1i64 << (self.bits - 1)), (1i64 << (self.bits - 1)) - 1),
            false => (0, (1i64 << self.bits) - 1),
        };
        if let Some(value) = self.values.iter().find(|v| !(least..=most).contains(v)) {
            return Err(Error::training(format!("{} holds {value}, expected {least} to {most}", self.name))
                .hint("make the model again with cqat quantize"));
        }
        let digits = self.word_bits().div_ceil(4) as usize;
        let mask = (1u128 << self.bits) - 1;
        let mut text = String::with_capacity(self.words() * (digits + 1));
        for word in self.values.chunks(self.row).flat_map(|row| row.chunks(self.lanes)) {
            let word = word.iter().rev().fold(0u128, |word, v| word << self.bits | (*v as u128 & mask));
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{word:0digits$x}");
        }
        Ok(text)
    }

    /// What a manifest says of it.
    pub(in crate::export) fn entry(&self) -> Value {
        let mut entry = json!({
            "file": self.path(),
            "holds": self.holds,
            "order": self.order,
            "bits": self.bits,
            "signed": self.signed,
            "lanes": self.lanes,
            "lane_order": "lane 0 in the lowest bits",
            "word_bits": self.word_bits(),
            "words": self.words(),
        });
        if let Some(encoding) = self.encoding {
            entry["encoding"] = encoding.into();
        }
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_documented_one() {
        let values = vec![1, -2, 15, -16, 3, -1];
        let (holds, order) = ("weights", "output channel");
        let (name, encoding) = ("x".into(), None);
        let memory = Memory { name, holds, encoding, order, bits: 5, signed: true, row: 3, lanes: 2, values };
        // 1, -2: 11110 00001; 15: 00000 01111; -16, 3: 00011 10000; -1: 00000 11111.
        assert_eq!(memory.text().unwrap(), "3c1\n00f\n070\n01f\n");
        assert_eq!((memory.words(), memory.word_bits()), (4, 10));
        let wide = Memory { bits: 4, ..memory.clone() };
        assert_eq!(wide.text().unwrap_err().to_string(), "x holds 15, expected -8 to 7");
        let unsigned = Memory { signed: false, ..memory };
        assert_eq!(unsigned.text().unwrap_err().to_string(), "x holds -2, expected 0 to 31");
    }

    #[test]
    fn a_word_is_as_wide_as_it_must_be() {
        let (holds, order) = ("codes", "pixel");
        let values = vec![-1; 16];
        let (name, encoding) = ("x".into(), None);
        let memory = Memory { name, holds, encoding, order, bits: 8, signed: true, row: 16, lanes: 16, values };
        assert_eq!(memory.text().unwrap(), format!("{}\n", "f".repeat(32)));
        let bias = Memory::single("b".into(), holds, order, 55, [-1i64, 1 << 53]);
        assert_eq!(bias.text().unwrap(), "7fffffffffffff\n20000000000000\n");
    }
}

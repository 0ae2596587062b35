//! Codes of any number of bits, packed.
//!
//! A row (an output channel) begins at a byte. Its codes follow each other, the first in the lowest bits, each in two's complement,
//! lowest bit first, over the edges of bytes. Odd codes `2 c + 1` are stored as c.

/// Bytes of a row of `count` codes.
pub(super) fn row_bytes(count: usize, bits: u32) -> usize {
    (count * bits as usize).div_ceil(8)
}

/// A code as it is stored.
pub(crate) fn stored_code(code: i8, odd: bool) -> i8 {
    if odd { (code - 1) >> 1 } else { code }
}

/// Rows of `count` codes, packed.
pub(crate) fn pack(codes: &[i8], count: usize, bits: u32, odd: bool) -> Vec<u8> {
    let row = row_bytes(count, bits);
    let mut bytes = vec![0u8; codes.len() / count * row];
    for (codes, bytes) in codes.chunks_exact(count).zip(bytes.chunks_exact_mut(row)) {
        for (i, code) in codes.iter().enumerate() {
            let word = u16::from(stored_code(*code, odd) as u8) & ((1 << bits) - 1);
            let (byte, shift) = (i * bits as usize / 8, i * bits as usize % 8);
            let word = word << shift;
            bytes[byte] |= word as u8;
            if let Some(next) = bytes.get_mut(byte + 1) {
                *next |= (word >> 8) as u8;
            }
        }
    }
    bytes
}

/// The inverse of [`pack`]; as wide integers, since odd codes of 8 bits pass those of 8 bits.
pub(super) fn unpack(bytes: &[u8], count: usize, bits: u32, odd: bool) -> Vec<i16> {
    let row = row_bytes(count, bits);
    let mut codes = Vec::with_capacity(bytes.len() / row * count);
    for bytes in bytes.chunks_exact(row) {
        for i in 0..count {
            let (byte, shift) = (i * bits as usize / 8, i * bits as usize % 8);
            let next = bytes.get(byte + 1).copied().unwrap_or(0);
            let word = (u16::from(bytes[byte]) | u16::from(next) << 8) >> shift;
            let code = ((word << (16 - bits)) as i16) >> (16 - bits);
            codes.push(if odd { 2 * code + 1 } else { code });
        }
    }
    codes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_back_from_any_number_of_bits() {
        for bits in 2..=8u32 {
            let span = 1i32 << bits;
            for count in [1, 3, 7, 8, 27] {
                let all: Vec<i8> = (0..3 * count as i32).map(|i| ((7 * i).rem_euclid(span) - span / 2) as i8).collect();
                let packed = pack(&all, count, bits, false);
                assert_eq!(packed.len(), 3 * (count * bits as usize).div_ceil(8));
                assert!(
                    unpack(&packed, count, bits, false).iter().eq(all
                        .iter()
                        .map(|c| i16::from(*c))
                        .collect::<Vec<_>>()
                        .iter())
                );
                if bits < 8 {
                    let odd: Vec<i8> = all.iter().map(|c| 2 * c + 1).collect();
                    let packed = pack(&odd, count, bits, true);
                    assert!(unpack(&packed, count, bits, true).iter().map(|c| *c as i8).eq(odd.iter().copied()));
                }
            }
        }
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        // 1, -2, 15, -16 in five bits: 00001, 11110, 01111, 10000; -1, 1, -4 in three: 111, 001, 100.
        assert_eq!(pack(&[1, -2, 15, -16], 4, 5, false), [0xc1, 0x3f, 0x08]);
        assert_eq!(pack(&[1, -2, 15, -16], 2, 5, false), [0xc1, 0x03, 0x0f, 0x02]);
        assert_eq!(pack(&[-1, 3, -7], 3, 3, true), [0x0f, 0x01]);
    }
}

//! Cases of integer inference: requantization at the edges of 64 bits, sums over pictures.

use super::{Case, bits, integers, unset};
use crate::integer::{Requantize, Window};
use crate::kernels::input::random;
use crate::kernels::requantize::{
    POOL_SUM, PoolParams, REQUANTIZE, RequantizeParams, Stored, pool_variant, residual, table,
};
use crate::kernels::{Format, flat_grid};

/// Pixels and channels of a case: more than a workgroup has, and no multiple of it.
const ROWS: usize = 37;
const CHANNELS: usize = 24;

/// Factors of all sizes, with both signs; the first ones at the limits.
fn channels() -> Vec<Requantize> {
    let signed = |seed: u32, c: u32| {
        let magnitude = (random(seed, c, 0) >> (1 + random(seed, c, 1) % 24)) as i32;
        if random(seed, c, 2).is_multiple_of(2) { magnitude } else { -magnitude }
    };
    let any = |c: u32| Requantize {
        multiplier: signed(1, c),
        shortcut: signed(2, c) >> 8,
        offset: i64::from(signed(3, c)) << (random(4, c, 0) % 23),
        shift: 1 + random(5, c, 0) % 48,
    };
    let mut all: Vec<Requantize> = (0..CHANNELS as u32).map(any).collect();
    all[0] = Requantize { multiplier: i32::MAX, shortcut: 0, offset: 1 << 53, shift: 48 };
    all[1] = Requantize { multiplier: -i32::MAX, shortcut: i32::MAX, offset: -(1 << 53), shift: 31 };
    all[2] = Requantize { multiplier: 1, shortcut: -1, offset: 0, shift: 1 };
    all[3] = Requantize { multiplier: 0, shortcut: 0, offset: 5 << 31, shift: 32 };
    all[4] = Requantize { multiplier: 1 << 30, shortcut: 1 << 20, offset: -7, shift: 33 };
    all
}

/// Words that hold whole numbers of up to 24 bits as f32 or, where `kept`, any i32.
fn sums(seed: u32, kept: bool, most: i32) -> Vec<u32> {
    let values = ROWS * CHANNELS;
    if !kept {
        return integers(values, seed, -most, most);
    }
    let integer = |i: u32| (random(seed, i, 0) as i32) >> (random(seed, i, 1) % 31);
    (0..values as u32).map(|i| integer(i).clamp(-most, most) as u32).collect()
}

pub(super) fn cases() -> Vec<Case> {
    let narrow = Window { base_lo: 0, base_hi: 255, shift: 0, round: false, lo: 0, hi: 15 };
    let dropped = Window { shift: 4, round: true, ..narrow };
    let offset = Window { base_lo: 3, base_hi: 200, shift: 0, round: false, lo: 3, hi: 200 };
    let all = Window { base_lo: i32::MIN, base_hi: i32::MAX, shift: 0, round: false, lo: i32::MIN, hi: i32::MAX };
    let mut cases = Vec::new();
    let kinds = [
        (residual::NONE, Format::F32),
        (residual::CODES, Format::U8),
        (residual::CODES, Format::U4),
        (residual::CODES, Format::I8),
        (residual::SUMS, Format::F32),
    ];
    let windows = [(narrow, Stored::U4), (dropped, Stored::U4), (offset, Stored::U8), (all, Stored::I32)];
    for (k, (kind, format)) in kinds.into_iter().enumerate() {
        for (i, (window, out)) in windows.into_iter().enumerate() {
            let kept = (k + i) % 2 == 1;
            let p = RequantizeParams {
                first4: 2,
                acc_kept: u32::from(kept),
                residual: kind,
                residual_format: format as u32,
                residual_kept: u32::from(kept),
                // The whole accumulator, and some that are too narrow.
                acc_bits: [32, 20, 12][k % 3],
                saturate: u32::from(out == Stored::U8),
                ..RequantizeParams::new(ROWS, CHANNELS, &window, out)
            };
            let most = if kept { i32::MAX } else { 1 << 24 };
            let x = match kind {
                residual::CODES => bits(format.words(ROWS * CHANNELS), 7),
                residual::SUMS => sums(8, kept, 1 << 20),
                _ => vec![0; 4],
            };
            // The channels of another layer come first.
            let table = [bits(40, 9), table(&channels())].concat();
            let name = format!("residual {kind} {format:?}, {out:?}, kept {kept}");
            let data = vec![sums(6, kept, most), x, table, unset(out.words(ROWS * CHANNELS))];
            let grid = flat_grid(p.items as usize);
            cases.push(Case::new(&REQUANTIZE, p.variant(), name, &p, grid, data).exact());
        }
    }
    for format in [Format::U8, Format::U4] {
        let (pictures, pixels) = (3, 16);
        let p = PoolParams {
            items: (pictures * CHANNELS / 4) as u32,
            cols4: CHANNELS as u32 / 4,
            pixels: pixels as u32,
            x_format: format as u32,
        };
        let data = vec![bits(format.words(pictures * pixels * CHANNELS), 10), unset(pictures * CHANNELS)];
        let grid = flat_grid(p.items as usize);
        cases.push(Case::new(&POOL_SUM, pool_variant(format), format!("{format:?}"), &p, grid, data).exact());
    }
    cases
}

//! Cases of integer inference: products of packed operands, requantization at the edges of 64 bits, sums over pictures.

use super::matrix::{conv_case_of, geometry, operand};
use super::{Case, bits, integers, unset};
use crate::config::Kernels;
use crate::integer::{Requantize, Window};
use crate::kernels::conv::ConvParams;
use crate::kernels::input::random;
use crate::kernels::requantize::{
    GROUP_WORDS, POOL_SUM, PoolParams, REQUANTIZE, RequantizeParams, Stored, pool_variant, residual, table,
};
use crate::kernels::select::{KernelFamily, select_conv};
use crate::kernels::{Caps, Format, flat_grid};

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
    // Many sums are halves, which round up.
    all[5] = Requantize { multiplier: 1 << 20, shortcut: -(1 << 23), offset: 0, shift: 24 };
    // Of sums of two large products that nearly cancel, f32 does not tell the code.
    all[6] = Requantize { multiplier: 751_619_277, shortcut: -751_619_277, offset: 99_999_999, shift: 30 };
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

/// Packed codes by packed weights, by every tiled kernel that may do them, with sums as f32 or kept as i32; the lane kernels take f32.
fn products(caps: &Caps) -> Vec<Case> {
    let operands = [
        (Format::U4, Format::I8, 0),
        (Format::U4, Format::I4, ConvParams::KEPT),
        (Format::U8, Format::I4, 0),
        (Format::I8, Format::I8, ConvParams::KEPT),
        (Format::F32, Format::I8, ConvParams::KEPT),
    ];
    let mut devices = vec![(caps.clone(), KernelFamily::Tiled)];
    devices.extend(KernelFamily::choose(Kernels::Lane, caps).ok().map(|lane| (caps.clone(), lane)));
    let mut cases = Vec::new();
    for (own, family) in &devices {
        for g in [[3, 9, 7, 40, 72, 3, 2], [5, 1, 1, 64, 104, 1, 1]].map(geometry) {
            for (x_format, packed, integer) in operands {
                let w_format = if *family == KernelFamily::Lane { Format::F32 } else { packed };
                let narrow = u32::from(!matches!(x_format, Format::U8 | Format::F32));
                let p = ConvParams { integer, narrow, w_format: w_format as u32, w_codes: 1, ..g.forward(x_format) };
                let mut seen = std::collections::BTreeSet::new();
                for (matrix, dot4) in [(own.matrix, false), (0, true), (0, false)] {
                    let choice = select_conv(&p, x_format, &Caps { matrix, dot4, ..own.clone() }, *family);
                    if seen.insert(choice.variant.shader) {
                        let x = operand(x_format, g.batch * g.from.len(), 1);
                        let w = integers(g.kernel * g.kernel * g.from.c * g.to.c, 2, -8, 7);
                        let name = format!("{x_format:?} by {w_format:?}");
                        cases.push(conv_case_of(choice, &name, &g, p, [x, w, unset(g.batch * g.to.len())]).exact());
                    }
                }
            }
        }
    }
    cases
}

pub(super) fn cases(caps: &Caps) -> Vec<Case> {
    let narrow = Window { base_lo: 0, base_hi: 255, shift: 0, round: false, lo: 0, hi: 15 };
    let dropped = Window { shift: 4, round: true, ..narrow };
    let offset = Window { base_lo: 3, base_hi: 200, shift: 0, round: false, lo: 3, hi: 200 };
    let all = Window { base_lo: i32::MIN, base_hi: i32::MAX, shift: 0, round: false, lo: i32::MIN, hi: i32::MAX };
    let mut cases = products(caps);
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
            let table = [bits(2 * GROUP_WORDS, 9), table(&channels())].concat();
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

//! Cases of everything that is not a matrix product.

use super::quantizers::{learned, quantizers};
use super::{A4, Case, bits, constant, integers, only, quarters, ranges, reals, step, unset};
use crate::kernels::activation::{
    self, ActParams, BackwardParams, ForwardParams, backward_variant, forward_variant, part_words,
};
use crate::kernels::head::{self, DistillParams, SoftmaxParams};
use crate::kernels::input::{self, AugmentParams};
use crate::kernels::norm::{self, BwdMergeParams, BwdParams, MergeParams, NormBranch, StatsParams};
use crate::kernels::{Format, Step, flat_grid};

/// Maxima before a kernel: some that will be passed, one that is out of reach.
pub(super) fn maxima() -> Vec<u32> {
    [0.0, 0.5, 1e-7, 0.0, 1e9].map(f32::to_bits).to_vec()
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    input_cases(&mut cases);
    norm_cases(&mut cases);
    activation_cases(&mut cases);
    head_cases(&mut cases);
    cases
}

fn input_cases(cases: &mut Vec<Case>) {
    for (crop_padding, flip, cutout, codes) in [(0, 0, 0, 0), (4, 1, 0, 0), (3, 1, 8, 1), (4, 0, 5, 0), (0, 1, 0, 1)] {
        let (batch, size) = (3u32, 12u32);
        let p = AugmentParams { batch, size, crop_padding, flip, cutout, codes, first: 2, pad: 0 };
        let pixels = (batch * size * size) as usize;
        let out = unset(if codes == 1 { pixels } else { 4 * pixels });
        let seeded = step(Step { seed: 77, ..Step::default() });
        let picks = vec![3, 0, 1];
        let data =
            vec![bits(pixels * 2 / 4, 1), bits(pixels * 2 / 4, 3), picks, seeded, bits(input::TABLE_WORDS, 2), out];
        let name = format!("crop {crop_padding} flip {flip} cutout {cutout} codes {codes}");
        cases.push(Case::new(&input::AUGMENT, only(&input::AUGMENT), name, &p, flat_grid(pixels), data).exact());
    }
}

fn norm_cases(cases: &mut Vec<Case>) {
    for (rows, cols4, chunk) in [(75u32, 2u32, 32u32), (64, 5, 32), (7, 16, 32)] {
        let (chunks, channels) = (rows.div_ceil(chunk), 4 * cols4);
        let shape = format!("{rows} x {channels}");
        let n = channels as usize;
        let part4 = 3;
        let p = StatsParams { rows, cols4, chunk, part4 };
        let others = constant(4 * part4 as usize, 7.0);
        let part = [others.clone(), unset(2 * chunks as usize * n)].concat();
        let grid = flat_grid((chunks * cols4) as usize);
        let data = vec![reals(rows as usize * n, 1, 90.0, 110.0), part];
        cases.push(Case::new(&norm::STATS, only(&norm::STATS), &shape, &p, grid, data));
        for branches in [1, 2] {
            let both = branches as usize;
            for (evaluate, x_row, w_scale, momentum, pow2) in
                [(0, -1, 0, 0.1, 0), (0, 1, 1, 0.1, 0), (0, -1, 1, 0.0, 0), (1, 1, 1, 0.1, 0), (0, 1, 1, 0.1, 1)]
            {
                let [main, projection] = norm_branches(cols4, x_row, w_scale);
                let eps = norm::EPS;
                let pad = [0; 3];
                let p = MergeParams {
                    channels,
                    rows,
                    chunk,
                    chunks,
                    evaluate,
                    branches,
                    eps,
                    momentum,
                    pow2,
                    pad,
                    main,
                    projection,
                };
                let data = vec![
                    reals(both * 2 * chunks as usize * n, 2, 0.5, 3.0),
                    reals(4 + 4 * n, 3, -1.0, 1.0),
                    reals(2 * n, 4, 0.1, 0.2),
                    ranges(2),
                    step(Step { index: 6, ..Step::default() }),
                    reals(4 * n, 5, 0.5, 2.0),
                    unset(both * 4 * n),
                    vec![0; 4],
                ];
                let name = format!("{shape} branches {branches} evaluate {evaluate} pow2 {pow2}");
                let grid = [cols4, branches, 1];
                cases.push(Case::new(&norm::MERGE, only(&norm::MERGE), name, &p, grid, data));
            }
            for (x_row, pow2) in [(-1, 0), (1, 0), (1, 1)] {
                let [main, projection] = norm_branches(cols4, x_row, 0);
                let p = BwdMergeParams { channels, rows, chunks, branches, pow2, pad: [0; 3], main, projection };
                let data = vec![
                    reals(part_words(chunks as usize, n), 6, -1.0, 1.0),
                    reals(4 + 4 * n, 7, -1.0, 1.0),
                    reals(both * 4 * n, 8, 0.1, 1.0),
                    ranges(2),
                    [constant(4, 7.0), unset(both * 2 * n)].concat(),
                    unset(both * 3 * n),
                    unset(n),
                    maxima(),
                ];
                let (name, grid) = (format!("{shape} branches {branches}"), [cols4, branches, 1]);
                cases.push(Case::new(&norm::BWD_MERGE, only(&norm::BWD_MERGE), name, &p, grid, data));
            }
            let words = rows as usize * n;
            for keep_max in [0, 1] {
                let projection = branches - 1;
                let p =
                    BwdParams { rows, cols4, chunk, projection, keep_max, max_row: 3, projection_max_row: 2, pad: 0 };
                let other = unset(if projection == 1 { words } else { 0 });
                let data = vec![
                    reals(words, 9, -1.0, 1.0),
                    reals(words, 10, -1.0, 1.0),
                    reals(words, 13, -1.0, 1.0),
                    reals(both * 4 * n, 11, 0.1, 1.0),
                    reals(both * 3 * n, 12, 0.1, 1.0),
                    unset(words),
                    [other, constant(4, 7.0)].concat(),
                    maxima(),
                ];
                let variant = norm::backward_variant(projection == 1, keep_max == 1);
                let name = format!("{shape} branches {branches}");
                cases.push(Case::new(&norm::BWD, variant, name, &p, grid, data));
            }
        }
    }
}

/// The batch norms of a main branch and of a projection, whose tensors lie in different orders.
fn norm_branches(cols4: u32, x_row: i32, w_scale: u32) -> [NormBranch; 2] {
    let main =
        NormBranch { affine4: 1, running4: 2 * cols4, scales4: 0, x_row, w_scale, health_slot: 1, max_row: 1, pad: 0 };
    let projection = NormBranch {
        affine4: 1 + 2 * cols4,
        running4: 0,
        scales4: cols4,
        x_row: 0,
        health_slot: 3,
        max_row: 4,
        ..main
    };
    [main, projection]
}

/// Shortcut kinds with the formats they come in.
const SHORTCUTS: [(u32, Format); 4] = [(0, Format::F32), (1, Format::U8), (1, Format::F32), (2, Format::F32)];

fn activation_cases(cases: &mut Vec<Case>) {
    let cols4 = 3u32;
    let n = 12usize;
    // A chunk that is a picture is never cut off.
    for (rows, chunk, pool) in [(75u32, 32u32, 0), (80, 16, 1)] {
        let items = (rows.div_ceil(chunk) * cols4) as usize;
        let words = rows as usize * n;
        for (shortcut, format) in SHORTCUTS {
            for quant in quantizers(A4).into_iter().chain(learned(A4)) {
                let y = || quarters(words, 1, -6, 6);
                let context = || quarters(8 * n, 2, -2, 2);
                let other = || match format {
                    Format::F32 => quarters(words, 3, -4, 4),
                    // Four-bit codes: larger ones make sums of squares inexact.
                    Format::U8 | Format::I8 | Format::U4 | Format::I4 => {
                        bits(format.words(words), 3).iter().map(|w| w & 0x0f0f_0f0f).collect()
                    }
                };
                let name = format!("shortcut {shortcut} {format:?} pool {pool} {quant:?}");
                let shortcut_row = if format == Format::U8 { 1 } else { -1 };
                let act = ActParams { range_row: 2, shortcut_row, shortcut, shortcut_format: format as u32, quant };
                for (measure, keep_max) in [(0, 0), (1, 0), (0, 1)] {
                    let p = ForwardParams { rows, cols4, chunk, measure, pool, keep_max, max_row: 1, pad: 0, act };
                    let out = unset(if quant.enabled == 1 { words / 4 } else { words });
                    let pooled = if pool == 1 && measure == 0 { unset(4 * items) } else { constant(4 * items, 7.0) };
                    let data = vec![y(), context(), other(), ranges(3), out, unset(8 * items), pooled, maxima()];
                    let variant = forward_variant(&p);
                    cases.push(Case::new(&activation::FORWARD, variant, &name, &p, flat_grid(items), data).exact());
                }
                let p = BackwardParams { rows, cols4, chunk, pool, act };
                let d = if pool == 1 { unset(words) } else { integers(words, 5, -9, 9) };
                let pooled = integers(4 * items, 6, -9, 9);
                let data =
                    vec![d, pooled, y(), context(), other(), ranges(3), unset(part_words(items / cols4 as usize, n))];
                let variant = backward_variant(&p);
                let case = Case::new(&activation::BACKWARD, variant, &name, &p, flat_grid(items), data);
                cases.push(if quant.delta == 0.0 { case.exact() } else { case });
            }
        }
    }
}

fn head_cases(cases: &mut Vec<Case>) {
    let heads =
        [(7u32, 10u32, 16u32, 0.1, 1, 7), (300, 100, 104, 0.0, 0, 270), (5, 3, 8, 0.2, 1, 4), (3, 150, 152, 0.0, 1, 3)];
    for (batch, classes, cols, smoothing, w_scale, valid) in heads {
        for backward in [0, 1] {
            let samples4 = 5;
            let p = SoftmaxParams { batch, classes, cols4: cols / 4, w_scale, smoothing, samples4, backward, pad: 0 };
            let n = (batch * cols) as usize;
            let ring = constant(4 * samples4 as usize, 7.0);
            // What does not count may be anything.
            let beyond = constant(((batch - valid) * cols) as usize, f32::INFINITY);
            let data = vec![
                [reals((valid * cols) as usize, 3, -4.0, 4.0), beyond].concat(),
                reals(2 * cols as usize, 4, 0.5, 1.5),
                reals(cols as usize, 5, -1.0, 1.0),
                (0..batch).map(|i| (i * 7) % classes).collect(),
                step(Step { valid, ring_slot: 2, ..Step::default() }),
                unset(n),
                [ring, unset(4 * batch as usize)].concat(),
                if backward == 1 { unset(cols as usize) } else { constant(cols as usize, 7.0) },
            ];
            let name = format!("batch {batch} classes {classes} backward {backward}");
            cases.push(Case::new(&head::SOFTMAX_CE, only(&head::SOFTMAX_CE), name, &p, [1, 1, 1], data));
        }
        let n = (batch * cols) as usize;
        let (cols4, bias4) = (cols / 4, 2);
        let p = DistillParams { batch, classes, cols4, w_scale, weight: 0.75, temperature: 3.0, bias4, pad: 0 };
        let data = vec![
            reals(n, 3, -4.0, 4.0),
            reals(n, 6, -4.0, 4.0),
            reals((cols + 8) as usize, 5, -1.0, 1.0),
            reals(2 * cols as usize, 4, 0.5, 1.5),
            step(Step { valid, ..Step::default() }),
            reals(n, 7, -1.0, 1.0),
            unset(cols as usize),
        ];
        let name = format!("batch {batch} classes {classes}");
        cases.push(Case::new(&head::DISTILL, only(&head::DISTILL), name, &p, [1, 1, 1], data));
    }
}

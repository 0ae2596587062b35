//! Cases of everything that is not a matrix product.

use bytemuck::Zeroable;

use super::{A4, Case, bits, constant, integers, only, quarters, ranges, reals, step, unset};
use crate::kernels::activation::{
    self, ActParams, BackwardParams, ForwardParams, backward_variant, forward_variant, part_words,
};
use crate::kernels::head::{self, DistillParams, SoftmaxParams};
use crate::kernels::input::{self, AugmentParams};
use crate::kernels::norm::{self, BwdMergeParams, BwdParams, MergeParams, NormBranch, StatsParams};
use crate::kernels::range::{self, BINS, HistogramParams, LearnedParams, RangeRow, TableRow, UpdateParams};
use crate::kernels::weights::{self, PrepareParams, ReduceParams, WeightRow, estimate};
use crate::kernels::{Format, Step, flat_grid};
use crate::quant::{Quant, ScaleRule, Tracking, form, learn, mask, rounding};

const W5: Quant = Quant {
    base_lo: -128,
    base_hi: 127,
    shift: 0,
    round_shift: 1,
    lo: -16,
    hi: 15,
    mask: mask::INT,
    enabled: 1,
    ..Quant::OFF
};
/// Every reduce mode and mask of a quantizer, and none.
fn quantizers(base: Quant) -> Vec<Quant> {
    let mut all = vec![Quant::OFF];
    for mask in [mask::INT, mask::REAL, mask::BASE8, mask::PASS] {
        for (shift, round_shift) in [(0, 1), (3, 0), (3, 1), (1, 1)] {
            all.push(Quant { shift, round_shift, mask, ..base });
        }
    }
    all
}

/// Quantizers with learned scales, and those whose codes are odd.
fn learned(base: Quant) -> Vec<Quant> {
    let real = Quant { base_lo: base.lo, base_hi: base.hi, mask: mask::REAL, ..base };
    let step = Quant { learn: learn::STEP, ..real };
    let mut all = vec![step, Quant { learn: learn::RANGE, ..real }, Quant { delta: 0.5, ..step }];
    if base.lo == 0 {
        all.push(Quant { learn: learn::STEP_AND_OFFSET, ..real });
    } else {
        all.push(Quant { form: form::ODD, delta: 0.25, ..step });
        all.push(Quant { form: form::ODD, ..real });
    }
    all
}

/// Maxima before a kernel: some that will be passed, one that is out of reach.
fn maxima() -> Vec<u32> {
    [0.0, 0.5, 1e-7, 0.0, 1e9].map(f32::to_bits).to_vec()
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    input_cases(&mut cases);
    weight_cases(&mut cases);
    reduce_cases(&mut cases);
    norm_cases(&mut cases);
    activation_cases(&mut cases);
    range_cases(&mut cases);
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

/// Two layers, one of them narrow: 36 x 8 words padded to 512, and 132 x 24 words padded to 3328.
fn weight_table(per_channel: u32, estimator: u32, quant: Quant) -> Vec<u32> {
    let rule = ScaleRule { levels: 127.0, factor: 4.0, pow2: 0, shift: quant.shift as i32 };
    let common = WeightRow {
        estimator,
        per_channel,
        quant,
        rule,
        sigmas: 3.0,
        fixed: 1.5,
        gradient_scale: 0.125,
        ..WeightRow::zeroed()
    };
    let table = [
        WeightRow {
            offset4: 0,
            rows: 36,
            cols4: 2,
            taps: 9,
            stats: 0,
            scales: 0,
            real_rows: 27,
            real_cols: 7,
            ..common
        },
        WeightRow {
            offset4: 128,
            rows: 132,
            cols4: 6,
            taps: 1,
            stats: 6,
            scales: 256,
            real_rows: 132,
            real_cols: 22,
            step_at: STEPS as u32 - 24,
            ..common
        },
    ];
    bytemuck::cast_slice::<WeightRow, u32>(&table).to_vec()
}

fn weight_cases(cases: &mut Vec<Case>) {
    let words = 512 + 3328;
    let stats_words = 4 * (6 + 3 * 3 * 6);
    let p = weights::StatsParams { layers: 2, chunk: weights::CHUNK as u32, pad: [0; 2] };
    let data = vec![weight_table(0, estimate::MAX, W5), integers(words, 4, -9, 9), unset(stats_words)];
    cases.push(Case::new(&weights::STATS, only(&weights::STATS), "two layers", &p, [1, 2, 1], data).exact());
    let estimators =
        [estimate::MAX, estimate::SIGMA, estimate::FIXED, estimate::HOST, estimate::LEARNED, estimate::TANH];
    for estimator in estimators {
        for (per_channel, frozen) in [(0, 0), (1, 0), (0, 1)] {
            let table = weight_table(per_channel, estimator, W5);
            let stats = reals(stats_words, 5, 0.5, 2.0);
            let frozen = step(Step { frozen, ..Step::default() });
            let data = vec![table, stats, frozen, reals(STEPS, 7, 0.1, 1.0), reals(512, 6, 0.1, 1.0)];
            let name = format!("estimator {estimator} per channel {per_channel}");
            cases.push(Case::new(&weights::SCALE, only(&weights::SCALE), name, &p, [2, 1, 1], data).each());
        }
    }
    let blocks: Vec<u32> = (0..words / 256).map(|b| u32::from(b >= 2)).collect();
    for quant in quantizers(W5).into_iter().chain(learned(W5)) {
        for quantize in [0, 1] {
            let keep_max = 1 - quantize;
            let p = PrepareParams { words: words as u32, quantize, keep_max, max_first: 2 };
            let table = weight_table(1, estimate::MAX, quant);
            // The padding between layers keeps what the outputs hold before.
            let out = || constant(words, 0.0);
            let data = vec![
                table,
                blocks.clone(),
                reals(words, 7, -2.0, 2.0),
                reals(512, 8, 5.0, 40.0),
                out(),
                out(),
                maxima(),
            ];
            let (name, grid) = (format!("{quant:?}"), flat_grid(words / 16));
            let variant = weights::prepare_variant(keep_max == 1);
            cases.push(Case::new(&weights::PREPARE, variant, name, &p, grid, data).exact());
        }
    }
    step_cases(cases);
}

/// Learned scales before and behind those of other layers: words of the arena of parameters.
const STEPS: usize = 60;

fn step_cases(cases: &mut Vec<Case>) {
    let words = 512 + 3328;
    let p = weights::StatsParams { layers: 2, chunk: weights::CHUNK as u32, pad: [0; 2] };
    let parts = 4 * (2 + 3 * 6);
    for quant in learned(W5) {
        let scales = || [[0.25; 8], [4.0; 8]].concat().iter().chain(&[0.5; 496]).map(|v: &f32| v.to_bits()).collect();
        let data = vec![
            weight_table(0, estimate::LEARNED, quant),
            quarters(words, 11, -6, 6),
            scales(),
            integers(words, 12, -9, 9),
            unset(parts),
        ];
        cases.push(Case::new(&weights::STEP, only(&weights::STEP), format!("{quant:?}"), &p, [1, 2, 1], data));
    }
    let quant = Quant { learn: learn::STEP, ..W5 };
    for (per_channel, frozen) in [(0, 0), (1, 0), (1, 1)] {
        let data = vec![
            weight_table(per_channel, estimate::LEARNED, quant),
            reals(parts, 13, -1.0, 1.0),
            step(Step { frozen, ..Step::default() }),
            constant(STEPS, 7.0),
        ];
        let name = format!("per channel {per_channel} frozen {frozen}");
        cases.push(Case::new(&weights::STEP_MERGE, only(&weights::STEP_MERGE), name, &p, [2, 1, 1], data));
    }
    // tanh differs in its last bits from device to device.
    let tanh = Quant { form: form::ODD_TANH, base_lo: -16, base_hi: 15, mask: mask::PASS, ..W5 };
    let blocks: Vec<u32> = (0..words / 256).map(|b| u32::from(b >= 2)).collect();
    let p = PrepareParams { words: words as u32, quantize: 1, keep_max: 0, max_first: 2 };
    let out = || constant(words, 0.0);
    let data = vec![
        weight_table(0, estimate::TANH, tanh),
        blocks,
        quarters(words, 7, -2, 2),
        constant(512, 15.75),
        out(),
        out(),
        maxima(),
    ];
    let (variant, grid) = (weights::prepare_variant(false), flat_grid(words / 16));
    cases.push(Case::new(&weights::PREPARE, variant, "tanh", &p, grid, data));
}

fn reduce_cases(cases: &mut Vec<Case>) {
    let words = 512 + 3328;
    let blocks: Vec<u32> = (0..words / 256).map(|b| u32::from(b >= 2)).collect();
    let odd = Quant { form: form::ODD, delta: 0.25, mask: mask::REAL, ..W5 };
    let tanh = Quant { form: form::ODD_TANH, mask: mask::PASS, ..W5 };
    for quant in quantizers(W5).into_iter().chain(learned(W5)).chain([odd, tanh]) {
        for (splits, x_row, quantize) in [(1, -1, 1), (3, 1, 1), (2, 1, 0)] {
            // The first layer alone, or both.
            let (first, count) = if splits == 2 { (0, 512) } else { (0, words as u32) };
            let p = ReduceParams { first, words: count, quantize, pad: 0 };
            let mut table = weight_table(0, estimate::MAX, quant);
            for (row, part4) in bytemuck::cast_slice_mut::<u32, WeightRow>(&mut table).iter_mut().zip([792, 0]) {
                (row.part4, row.splits, row.x_row) = (part4 * splits, splits, x_row);
            }
            let data = vec![
                table,
                blocks.clone(),
                integers(splits as usize * 4 * (72 + 792), 10, -99, 99),
                quarters(words, 11, -6, 6),
                [[0.25; 8], [4.0; 8]].concat().iter().chain(&[0.5; 496]).map(|v: &f32| v.to_bits()).collect(),
                ranges(2),
                constant(words, 0.0), // the padding between layers keeps it
            ];
            let (name, grid) = (format!("splits {splits} quantize {quantize} {quant:?}"), flat_grid(words / 4));
            let case = Case::new(&weights::REDUCE, only(&weights::REDUCE), name, &p, grid, data);
            cases.push(if quant == odd || quant == tanh { case } else { case.exact() });
        }
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
            for (evaluate, x_row, w_scale, momentum) in
                [(0, -1, 0, 0.1), (0, 1, 1, 0.1), (0, -1, 1, 0.0), (1, 1, 1, 0.1)]
            {
                let [main, projection] = norm_branches(cols4, x_row, w_scale);
                let eps = norm::EPS;
                let p =
                    MergeParams { channels, rows, chunk, chunks, evaluate, branches, eps, momentum, main, projection };
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
                let (name, grid) = (format!("{shape} branches {branches} evaluate {evaluate}"), [cols4, branches, 1]);
                cases.push(Case::new(&norm::MERGE, only(&norm::MERGE), name, &p, grid, data));
            }
            for x_row in [-1, 1] {
                let [main, projection] = norm_branches(cols4, x_row, 0);
                let p = BwdMergeParams { channels, rows, chunks, branches, main, projection };
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
                    Format::U8 | Format::I8 => bits(format.words(words), 3).iter().map(|w| w & 0x0f0f_0f0f).collect(),
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

fn range_cases(cases: &mut Vec<Case>) {
    let entry = |row, parts, part, pow2, shift| {
        let rule = ScaleRule { levels: 255.0, factor: 8.0, pow2, shift };
        TableRow {
            row,
            values: 64 * parts,
            parts,
            part,
            blocked_parts: parts / 2,
            blocked_part: part / 2,
            rule,
            ..TableRow::zeroed()
        }
    };
    for mode in 0..5 {
        for (frozen, use_sigma, pow2, shift) in [(0, 0, 0, 0), (0, 1, 0, 3), (0, 0, 1, 0), (1, 0, 0, 0)] {
            // The first entry is passed over.
            let table = [entry(0, 7, 0, 1, 2), entry(2, 100, 7, pow2, shift), entry(1, 30, 107, pow2, shift)];
            let (sigmas, ema, count_step) = (3.0, 0.9, u32::from(shift == 0));
            let p = UpdateParams { first: 1, count: 2, mode, use_sigma, sigmas, ema, count_step, pad: 0 };
            let frozen = step(Step { frozen, ..Step::default() });
            let table = bytemuck::cast_slice(&table).to_vec();
            let data = vec![
                table,
                reals(8 * 137, 1, 1.0, 9.0),
                reals(4 * 137, 2, 0.0, 2.0),
                frozen,
                reals(8, 3, 0.1, 1.0),
                ranges(3),
                constant(8, 7.0),
            ];
            let name = format!("mode {mode} sigma {use_sigma} pow2 {pow2}");
            cases.push(Case::new(&range::UPDATE, only(&range::UPDATE), name, &p, [2, 1, 1], data).each());
        }
    }
    learned_range_cases(cases);
    let p = HistogramParams { words4: 130, row: 1, pad: [0; 2] };
    let data = vec![quarters(520, 3, -1, 10), ranges(3), vec![0; 3 * BINS]];
    cases.push(Case::new(&range::HISTOGRAM, only(&range::HISTOGRAM), "", &p, flat_grid(130), data).exact());
}

fn learned_range_cases(cases: &mut Vec<Case>) {
    let entry = |row, step_at, learn, pow2| TableRow {
        row,
        values: 640,
        parts: 10,
        blocked_parts: 7 + row,
        blocked_part: 3,
        rule: ScaleRule { levels: 15.0, factor: 1.0, pow2, shift: 0 },
        learn,
        step_at,
        gradient_scale: 0.125,
        decay: 0.5,
        lowest_zero: -7,
        highest_zero: 7,
        ..TableRow::zeroed()
    };
    for pow2 in [rounding::NONE, rounding::POWER, rounding::WINDOW] {
        let table = [
            entry(2, 3, learn::STEP, pow2),
            entry(0, 4, learn::STEP_AND_OFFSET, pow2),
            entry(3, 0, learn::NOTHING, pow2),
            entry(1, 1, learn::RANGE, rounding::NONE),
        ];
        let table: Vec<u32> = bytemuck::cast_slice(&table).to_vec();
        let mut rows = ranges(4);
        bytemuck::cast_slice_mut::<u32, RangeRow>(&mut rows).iter_mut().for_each(|row| row.unit = 0.03);
        for frozen in [0, 1] {
            let step = step(Step { frozen, ..Step::default() });
            let name = format!("learned pow2 {pow2} frozen {frozen}");
            let p = LearnedParams { count: 4, pad: [0; 3] };
            let data = vec![table.clone(), reals(8, 3, 0.1, 1.0), step.clone(), rows.clone()];
            cases.push(Case::new(&range::LEARNED, only(&range::LEARNED), &name, &p, [1, 1, 1], data).each());
            let mode = Tracking::Hold as u32;
            let p =
                UpdateParams { first: 0, count: 4, mode, use_sigma: 0, sigmas: 0.0, ema: 0.0, count_step: 1, pad: 0 };
            let data = vec![
                table.clone(),
                reals(8 * 13, 1, 1.0, 9.0),
                reals(4 * 13, 2, 0.5, 2.0),
                step,
                reals(8, 3, 0.1, 1.0),
                rows.clone(),
                constant(8, 7.0),
            ];
            cases.push(Case::new(&range::UPDATE, only(&range::UPDATE), name, &p, [4, 1, 1], data).each());
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

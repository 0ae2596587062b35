//! Cases of the quantizers: scales and codes of weights, their gradients, ranges of activations.

use bytemuck::Zeroable;

use super::elementwise::maxima;
use super::{Case, constant, integers, only, quarters, ranges, reals, step, unset};
use crate::kernels::range::{self, BINS, HistogramParams, LearnedParams, RangeRow, TableRow, UpdateParams};
use crate::kernels::weights::{self, PrepareParams, ReduceParams, WeightRow, estimate};
use crate::kernels::{Step, flat_grid};
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
pub(super) fn quantizers(base: Quant) -> Vec<Quant> {
    let mut all = vec![Quant::OFF];
    for mask in [mask::INT, mask::REAL, mask::BASE8, mask::PASS] {
        for (shift, round_shift) in [(0, 1), (3, 0), (3, 1), (1, 1)] {
            all.push(Quant { shift, round_shift, mask, ..base });
        }
    }
    all
}

/// Quantizers with learned scales, and those whose codes are odd.
pub(super) fn learned(base: Quant) -> Vec<Quant> {
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

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    weight_cases(&mut cases);
    reduce_cases(&mut cases);
    range_cases(&mut cases);
    cases
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

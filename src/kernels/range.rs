//! Ranges of activation quantizers: their state, how a step moves it, and the histogram of calibration.

use bytemuck::{Pod, Zeroable};

use super::{Access, KernelDef, Twin};
use crate::quant::{Quant, ScaleRule, Tracking, learn};

/// Words of one row of the `ranges` tensor.
pub const RANGE_WORDS: usize = 12;
/// Bins of the calibration histogram.
pub const BINS: usize = 2048;

/// One row of the `ranges` tensor: the state of an activation quantizer.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
pub struct RangeRow {
    /// Tracked range, in value units.
    pub range: f32,
    /// Value of one stored code.
    pub scale: f32,
    /// `1 / step` of the base grid: values times this are base codes; `2^shift / scale`, see [`crate::quant::Scale`].
    pub inv_scale: f32,
    /// The last batch's observation.
    pub observed: f32,
    /// Sum over steps of the fraction of positive values above the top code.
    pub saturated: f32,
    /// Sum over steps of the fraction of gradient magnitude that the mask blocked.
    pub blocked: f32,
    /// Steps in the two sums.
    pub steps: f32,
    /// Batches seen by calibration.
    pub calibrated: f32,
    /// The code of the offset (LSQ+), a whole number.
    pub zero: f32,
    /// The step of the 8-bit grid that the window lies in (`cqat-auto`), as calibration found it; else 0. Where the rule says so, windows
    /// are counted in it.
    pub unit: f32,
    /// Padding.
    pub pad: [u32; 2],
}

impl RangeRow {
    /// Before calibration: scale 1.
    pub const UNIT: RangeRow = RangeRow {
        range: 0.0,
        scale: 1.0,
        inv_scale: 1.0,
        observed: 0.0,
        saturated: 0.0,
        blocked: 0.0,
        steps: 0.0,
        calibrated: 0.0,
        zero: 0.0,
        unit: 0.0,
        pad: [0; 2],
    };

    /// The quantizer with the row's offset.
    pub fn offset(&self, quant: &Quant) -> Quant {
        if quant.learn == learn::STEP_AND_OFFSET { quant.at_zero(self.zero as i32) } else { *quant }
    }
}

/// A row of the words of the `ranges` tensor.
pub fn row(ranges: &[f32], row: u32) -> RangeRow {
    bytemuck::pod_read_unaligned(bytemuck::cast_slice(&ranges[row as usize * RANGE_WORDS..][..RANGE_WORDS]))
}

/// Value of one code of the tensor with this row; 1 where there is none (-1).
pub fn scale_or_one(ranges: &[f32], row: i32) -> f32 {
    u32::try_from(row).map_or(1.0, |r| self::row(ranges, r).scale)
}

fn row_mut(ranges: &mut [f32], row: u32) -> &mut RangeRow {
    let words = &mut ranges[row as usize * RANGE_WORDS..][..RANGE_WORDS];
    bytemuck::from_bytes_mut(bytemuck::cast_slice_mut(words))
}

/// One activation quantizer of the table that `range_update` goes through (`TableRow` in `shared/range_table.wgsl`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
pub struct TableRow {
    /// Row of ranges.
    pub row: u32,
    /// Values of the activation in a batch.
    pub values: u32,
    /// Partial statistics.
    pub parts: u32,
    /// The first of them.
    pub part: u32,
    /// Partial sums of what is blocked.
    pub blocked_parts: u32,
    /// The first of them.
    pub blocked_part: u32,
    /// Scale rule.
    pub rule: ScaleRule,
    /// Copy of [`Quant::learn`].
    pub learn: u32,
    /// The parameter that is learned, and its gradient: the word of the arena. An offset follows a step.
    pub step_at: u32,
    /// Factor on that gradient.
    pub gradient_scale: f32,
    /// Weight decay of a learned range.
    pub decay: f32,
    /// See [`Quant::zeros`].
    pub lowest_zero: i32,
    /// See [`Quant::zeros`].
    pub highest_zero: i32,
}

/// Words of one partial statistic of `act_fwd`.
pub const SEEN_WORDS: usize = 8;
/// Words of one partial sum of what comes back: what is blocked, what reaches the quantizer, the gradients of its step and of its offset.
pub const BLOCKED_WORDS: usize = 4;

/// Parameters of `range_update`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct UpdateParams {
    /// First row of the table.
    pub first: u32,
    /// Rows: workgroups on the device, read by the twin.
    pub count: u32,
    /// [`Tracking`].
    pub mode: u32,
    /// 1: observe `mean + sigmas * deviation`, 0: the maximum.
    pub use_sigma: u32,
    /// For `use_sigma`.
    pub sigmas: f32,
    /// Weight of the old range in the moving average.
    pub ema: f32,
    /// 1: add to the saturation and mask statistics.
    pub count_step: u32,
    /// Padding.
    pub pad: u32,
}

/// `range_update.wgsl`.
pub static UPDATE: KernelDef = KernelDef {
    name: "range_update",
    bindings: &[
        ("table", Access::Read),
        ("seen", Access::Read),
        ("blocked", Access::Read),
        ("step", Access::Read),
        ("params", Access::Read),
        ("ranges", Access::ReadWrite),
        ("grads", Access::ReadWrite),
    ],
    params_bytes: size_of::<UpdateParams>(),
    twin: range_update,
};

fn range_update(t: &mut Twin) {
    let p: UpdateParams = t.params();
    let rows = t.words(0).chunks_exact(size_of::<TableRow>() / 4);
    let (seen, blocked, step) = (t.f32(1), t.f32(2), t.step(3));
    let params = t.f32(4);
    let (ranges, grads) = (t.f32_mut(5), t.f32_mut(6));
    for words in rows.skip(p.first as usize).take(p.count as usize) {
        let entry: TableRow = bytemuck::pod_read_unaligned(bytemuck::cast_slice(words));
        let parts = entry.part as usize..(entry.part + entry.parts) as usize;
        let (mut top, mut saturated, mut positive, mut sum, mut squares) = (0f32, 0f32, 0f32, 0f32, 0f32);
        let [mut stopped, mut reaching, mut by_step, mut by_offset] = [0f32; 4];
        for i in parts {
            let q = &seen[SEEN_WORDS * i..][..SEEN_WORDS];
            top = top.max(q[0]);
            saturated += q[1];
            positive += q[2];
            sum += q[4];
            squares += q[5];
        }
        for i in (entry.blocked_part as usize..).take(entry.blocked_parts as usize) {
            let q = &blocked[BLOCKED_WORDS * i..][..BLOCKED_WORDS];
            stopped += q[0];
            reaching += q[1];
            by_step += q[2];
            by_offset += q[3];
        }
        let mut observed = top;
        if p.use_sigma == 1 {
            let mean = sum / entry.values as f32;
            observed = mean + p.sigmas * (squares / entry.values as f32 - mean * mean).max(0.0).sqrt();
        }
        let row = row_mut(ranges, entry.row);
        if step.frozen == 0 && p.mode != Tracking::Hold as u32 {
            row.range = match p.mode {
                m if m == Tracking::Batch as u32 => observed,
                m if m == Tracking::Ema as u32 => p.ema * row.range + (1.0 - p.ema) * observed,
                m if m == Tracking::Max as u32 => row.range.max(observed),
                _ => row.range + (observed - row.range) / (row.calibrated + 1.0),
            };
            if p.mode == Tracking::Mean as u32 {
                row.calibrated += 1.0;
            }
            let s = entry.rule.scale(row.range);
            (row.scale, row.inv_scale) = (s.scale, s.inv_scale);
        }
        row.observed = observed;
        if p.count_step == 1 {
            row.saturated += saturated / positive.max(1.0);
            row.steps += 1.0;
            if reaching > 0.0 {
                row.blocked += stopped / reaching;
            }
            let at = entry.step_at as usize;
            let factor = if step.frozen == 1 { 0.0 } else { entry.gradient_scale };
            match entry.learn {
                learn::NOTHING => {}
                learn::RANGE => grads[at] = factor * (by_offset + entry.decay * params[at]),
                _ => grads[at] = factor * by_step,
            }
            if entry.learn == learn::STEP_AND_OFFSET {
                grads[at + 1] = factor * by_offset;
            }
        }
    }
}

/// Parameters of `range_learned`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct LearnedParams {
    /// Rows of the table.
    pub count: u32,
    /// Padding.
    pub pad: [u32; 3],
}

/// `range_learned.wgsl`.
pub static LEARNED: KernelDef = KernelDef {
    name: "range_learned",
    bindings: &[
        ("table", Access::Read),
        ("params", Access::Read),
        ("step", Access::Read),
        ("ranges", Access::ReadWrite),
    ],
    params_bytes: size_of::<LearnedParams>(),
    twin: range_learned,
};

fn range_learned(t: &mut Twin) {
    let p: LearnedParams = t.params();
    let rows = t.words(0).chunks_exact(size_of::<TableRow>() / 4);
    let (params, step) = (t.f32(1), t.step(2));
    let ranges = t.f32_mut(3);
    for words in rows.take(p.count as usize) {
        let entry: TableRow = bytemuck::pod_read_unaligned(bytemuck::cast_slice(words));
        if entry.learn == learn::NOTHING || step.frozen == 1 {
            continue;
        }
        let (rule, learned) = (entry.rule, params[entry.step_at as usize]);
        let row = row_mut(ranges, entry.row);
        let scale = match entry.learn {
            learn::RANGE => rule.scale(learned),
            _ => rule.scale_of_step(learned, row.unit),
        };
        row.range = if entry.learn == learn::RANGE { learned } else { rule.range_of_step(1.0 / scale.inv_scale) };
        (row.scale, row.inv_scale) = (scale.scale, scale.inv_scale);
        if entry.learn == learn::STEP_AND_OFFSET {
            let code = (params[entry.step_at as usize + 1] * scale.inv_scale).round_ties_even();
            row.zero = code.clamp(entry.lowest_zero as f32, entry.highest_zero as f32);
        }
    }
}

/// Parameters of `histogram`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct HistogramParams {
    /// vec4s of the tensor.
    pub words4: u32,
    /// Row of ranges, and of the counts.
    pub row: u32,
    /// Padding.
    pub pad: [u32; 2],
}

/// `histogram.wgsl`.
pub static HISTOGRAM: KernelDef = KernelDef {
    name: "histogram",
    bindings: &[("x", Access::Read), ("ranges", Access::Read), ("counts", Access::ReadWrite)],
    params_bytes: size_of::<HistogramParams>(),
    twin: histogram,
};

fn histogram(t: &mut Twin) {
    let p: HistogramParams = t.params();
    let (x, ranges) = (t.f32(0), t.f32(1));
    let counts = t.words_mut(2);
    let inv_width = BINS as f32 / row(ranges, p.row).range.max(1e-8);
    for v in &x[..p.words4 as usize * 4] {
        let bin = ((v * inv_width).max(0.0) as usize).min(BINS - 1);
        counts[p.row as usize * BINS + bin] += 1;
    }
}

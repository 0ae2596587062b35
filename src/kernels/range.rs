//! Ranges of activation quantizers: their state, how a step moves it, and the histogram of calibration.

use bytemuck::{Pod, Zeroable};

use super::{Access, KernelDef, Twin};
use crate::quant::{ScaleRule, Tracking};

/// Words of one row of the `ranges` tensor.
pub const RANGE_WORDS: usize = 8;
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
    };
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

/// Parameters of `range_update`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct UpdateParams {
    /// Partial statistics.
    pub parts: u32,
    /// Values in the tensor.
    pub values: u32,
    /// [`Tracking`].
    pub mode: u32,
    /// Row of ranges.
    pub row: u32,
    /// 1: observe `mean + sigmas * deviation`, 0: the maximum.
    pub use_sigma: u32,
    /// For `use_sigma`.
    pub sigmas: f32,
    /// Weight of the old range in the moving average.
    pub ema: f32,
    /// 1: add to the saturation statistics.
    pub count_step: u32,
    /// Scale rule.
    pub rule: ScaleRule,
}

/// `range_update.wgsl`.
pub static UPDATE: KernelDef = KernelDef {
    name: "range_update",
    bindings: &[("part", Access::Read), ("step", Access::Read), ("ranges", Access::ReadWrite)],
    params_bytes: size_of::<UpdateParams>(),
    twin: range_update,
};

fn range_update(t: &mut Twin) {
    let p: UpdateParams = t.params();
    let (part, step) = (t.f32(0), t.step(1));
    let ranges = t.f32_mut(2);
    let (mut top, mut saturated, mut positive, mut sum, mut squares) = (0f32, 0f32, 0f32, 0f32, 0f32);
    for q in part.chunks_exact(8).take(p.parts as usize) {
        top = top.max(q[0]);
        saturated += q[1];
        positive += q[2];
        sum += q[4];
        squares += q[5];
    }
    let mut seen = top;
    if p.use_sigma == 1 {
        let mean = sum / p.values as f32;
        seen = mean + p.sigmas * (squares / p.values as f32 - mean * mean).max(0.0).sqrt();
    }
    let row = row_mut(ranges, p.row);
    if step.frozen == 0 && p.mode != Tracking::Hold as u32 {
        row.range = match p.mode {
            m if m == Tracking::Batch as u32 => seen,
            m if m == Tracking::Ema as u32 => p.ema * row.range + (1.0 - p.ema) * seen,
            m if m == Tracking::Max as u32 => row.range.max(seen),
            _ => row.range + (seen - row.range) / (row.calibrated + 1.0),
        };
        if p.mode == Tracking::Mean as u32 {
            row.calibrated += 1.0;
        }
        let s = p.rule.scale(row.range);
        (row.scale, row.inv_scale) = (s.scale, s.inv_scale);
    }
    row.observed = seen;
    if p.count_step == 1 {
        row.saturated += saturated / positive.max(1.0);
        row.steps += 1.0;
    }
}

/// Parameters of `blocked_update`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct BlockedParams {
    /// Partial statistics.
    pub parts: u32,
    /// Row of ranges.
    pub row: u32,
    /// Padding.
    pub pad: [u32; 2],
}

/// `blocked_update.wgsl`.
pub static BLOCKED_UPDATE: KernelDef = KernelDef {
    name: "blocked_update",
    bindings: &[("part", Access::Read), ("ranges", Access::ReadWrite)],
    params_bytes: size_of::<BlockedParams>(),
    twin: blocked_update,
};

fn blocked_update(t: &mut Twin) {
    let p: BlockedParams = t.params();
    let part = t.f32(0);
    let ranges = t.f32_mut(1);
    let (mut blocked, mut reaching) = (0f32, 0f32);
    for q in part.chunks_exact(16).take(p.parts as usize) {
        blocked += q[12];
        reaching += q[13];
    }
    if reaching > 0.0 {
        row_mut(ranges, p.row).blocked += blocked / reaching;
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

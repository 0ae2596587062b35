//! Activations: sum of branches, ReLU and quantizer in one pass each way, and the range tracking around them.

use bytemuck::{Pod, Zeroable};

use super::{Access, Format, KernelDef, Twin, Variant};
use crate::net::Shortcut;
use crate::quant::{Quant, ScaleRule, Tracking};

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
    /// Value of one code.
    pub scale: f32,
    /// Factor from values to base codes.
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

/// Parameters of `act_fwd`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct ForwardParams {
    /// Pixels of the batch.
    pub rows: u32,
    /// Channels / 4.
    pub cols4: u32,
    /// Rows an invocation handles.
    pub chunk: u32,
    /// 1: statistics only.
    pub measure: u32,
    /// This activation's row of ranges.
    pub range_row: u32,
    /// The shortcut's row of ranges, -1: scale 1.
    pub shortcut_row: i32,
    /// What `shortcut` is: 0 none, 1 identity, 2 projection; fixed in the variant, read by the twin.
    pub shortcut: u32,
    /// [`Format`] of the shortcut; likewise.
    pub shortcut_format: u32,
    /// The quantizer; off: the output is f32.
    pub quant: Quant,
}

/// `act_fwd.wgsl`.
pub static FORWARD: KernelDef = KernelDef {
    name: "act_fwd",
    bindings: &[
        ("y", Access::Read),
        ("context", Access::Read),
        ("shortcut", Access::Read),
        ("shortcut_context", Access::Read),
        ("ranges", Access::Read),
        ("out", Access::ReadWrite),
        ("part", Access::ReadWrite),
    ],
    params_bytes: size_of::<ForwardParams>(),
    twin: forward,
};

/// Number of a shortcut's kind in the shaders.
pub fn shortcut_kind(s: Shortcut) -> u32 {
    match s {
        Shortcut::None => 0,
        Shortcut::Identity(_) => 1,
        Shortcut::Projection(_) => 2,
    }
}

/// Variant of `act_fwd`.
pub fn forward_variant(shortcut: u32, shortcut_format: Format, quantized: bool) -> Variant {
    let output = if quantized { "output_u8" } else { "output_f32" };
    Variant::only("act_fwd").with_const("SHORTCUT", shortcut).with_formats(&[shortcut_format.operand(), output])
}

/// Variant of `act_bwd`.
pub fn backward_variant(shortcut: u32, shortcut_format: Format) -> Variant {
    Variant::only("act_bwd").with_const("SHORTCUT", shortcut).with_formats(&[shortcut_format.operand()])
}

/// The value before the ReLU, its parts, and the xhat of both branches, for one element.
struct Branches<'a> {
    channels: usize,
    y: &'a [f32],
    context: &'a [f32],
    shortcut: &'a [u32],
    shortcut_context: &'a [f32],
    kind: u32,
    format: Format,
    identity_scale: f32,
}

impl Branches<'_> {
    fn shortcut(&self, i: usize) -> f32 {
        if self.kind == 0 { 0.0 } else { self.format.load(self.shortcut, i) }
    }

    fn z(&self, i: usize) -> f32 {
        let c = i % self.channels;
        let (mul, add) = match self.kind {
            2 => (self.shortcut_context[c], self.shortcut_context[self.channels + c]),
            _ => (self.identity_scale, 0.0),
        };
        self.y[i].mul_add(self.context[c], self.context[self.channels + c]) + self.shortcut(i).mul_add(mul, add)
    }

    fn xhat(&self, i: usize) -> f32 {
        let c = i % self.channels;
        self.y[i].mul_add(self.context[2 * self.channels + c], self.context[3 * self.channels + c])
    }

    fn shortcut_xhat(&self, i: usize) -> f32 {
        let c = i % self.channels;
        let k = self.shortcut_context;
        if self.kind == 2 { self.shortcut(i).mul_add(k[2 * self.channels + c], k[3 * self.channels + c]) } else { 0.0 }
    }
}

fn identity_scale(row: i32, ranges: &[f32]) -> f32 {
    if row >= 0 { ranges[row as usize * RANGE_WORDS + 1] } else { 1.0 }
}

fn forward(t: &mut Twin) {
    let p: ForwardParams = t.params();
    let ranges = t.f32(4);
    let b = Branches {
        channels: p.cols4 as usize * 4,
        y: t.f32(0),
        context: t.f32(1),
        shortcut: t.words(2),
        shortcut_context: t.f32(3),
        kind: p.shortcut,
        format: Format::from_number(p.shortcut_format),
        identity_scale: identity_scale(p.shortcut_row, ranges),
    };
    let out = t.words_mut(5);
    let part = t.f32_mut(6);
    let inv = ranges[p.range_row as usize * RANGE_WORDS + 2];
    for (item, o) in part.chunks_exact_mut(8).enumerate().take(p.rows.div_ceil(p.chunk) as usize * p.cols4 as usize) {
        let (chunk, col) = (item / p.cols4 as usize, item % p.cols4 as usize);
        let first = chunk * p.chunk as usize;
        let last = (first + p.chunk as usize).min(p.rows as usize);
        let (mut top, mut saturated, mut positive, mut sum, mut squares) = (0f32, 0f32, 0f32, 0f32, 0f32);
        for r in first..last {
            let mut word = 0;
            for k in 0..4 {
                let i = r * b.channels + col * 4 + k;
                let a = b.z(i).max(0.0);
                top = top.max(a);
                sum += a;
                squares += a * a;
                positive += f32::from(a > 0.0);
                if p.quant.enabled == 1 {
                    word |= (p.quant.code(a, inv) as u32 & 255) << (8 * k);
                    saturated += f32::from(p.quant.saturates(a, inv));
                } else if p.measure == 0 {
                    out[i] = a.to_bits();
                }
            }
            if p.quant.enabled == 1 && p.measure == 0 {
                out[r * p.cols4 as usize + col] = word;
            }
        }
        o.copy_from_slice(&[top, saturated, positive, 0.0, sum, squares, 0.0, 0.0]);
    }
}

/// Parameters of `act_bwd`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct BackwardParams {
    /// Pixels of the batch.
    pub rows: u32,
    /// Channels / 4.
    pub cols4: u32,
    /// Rows an invocation handles.
    pub chunk: u32,
    /// Padding.
    pub pad: u32,
    /// This activation's row of ranges.
    pub range_row: u32,
    /// The shortcut's row of ranges, -1: scale 1.
    pub shortcut_row: i32,
    /// What `shortcut` is; fixed in the variant, read by the twin.
    pub shortcut: u32,
    /// [`Format`] of the shortcut; likewise.
    pub shortcut_format: u32,
    /// The quantizer, for its mask.
    pub quant: Quant,
}

/// `act_bwd.wgsl`.
pub static BACKWARD: KernelDef = KernelDef {
    name: "act_bwd",
    bindings: &[
        ("d", Access::ReadWrite),
        ("y", Access::Read),
        ("context", Access::Read),
        ("shortcut", Access::Read),
        ("shortcut_context", Access::Read),
        ("ranges", Access::Read),
        ("part", Access::ReadWrite),
    ],
    params_bytes: size_of::<BackwardParams>(),
    twin: backward,
};

fn backward(t: &mut Twin) {
    let p: BackwardParams = t.params();
    let ranges = t.f32(5);
    let b = Branches {
        channels: p.cols4 as usize * 4,
        y: t.f32(1),
        context: t.f32(2),
        shortcut: t.words(3),
        shortcut_context: t.f32(4),
        kind: p.shortcut,
        format: Format::from_number(p.shortcut_format),
        identity_scale: identity_scale(p.shortcut_row, ranges),
    };
    let d = t.f32_mut(0);
    let part = t.f32_mut(6);
    let inv = ranges[p.range_row as usize * RANGE_WORDS + 2];
    for (item, o) in part.chunks_exact_mut(16).enumerate().take(p.rows.div_ceil(p.chunk) as usize * p.cols4 as usize) {
        let (chunk, col) = (item / p.cols4 as usize, item % p.cols4 as usize);
        let first = chunk * p.chunk as usize;
        let last = (first + p.chunk as usize).min(p.rows as usize);
        let [mut bias, mut gain, mut shortcut_gain] = [[0f32; 4]; 3];
        let (mut blocked, mut reaching) = (0f32, 0f32);
        for r in first..last {
            for k in 0..4 {
                let i = r * b.channels + col * 4 + k;
                let z = b.z(i);
                let alive = if z > 0.0 { d[i] } else { 0.0 };
                let mut dz = alive;
                if p.quant.enabled == 1 {
                    if !p.quant.passes(z, inv) {
                        dz = 0.0;
                    }
                    reaching += alive.abs();
                    blocked += (alive - dz).abs();
                }
                d[i] = dz;
                bias[k] += dz;
                gain[k] += dz * b.xhat(i);
                shortcut_gain[k] += dz * b.shortcut_xhat(i);
            }
        }
        o[..12].copy_from_slice([bias, gain, shortcut_gain].as_flattened());
        o[12..].copy_from_slice(&[blocked, reaching, 0.0, 0.0]);
    }
}

/// Parameters of `range_update`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct RangeUpdateParams {
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
pub static RANGE_UPDATE: KernelDef = KernelDef {
    name: "range_update",
    bindings: &[("part", Access::Read), ("step", Access::Read), ("ranges", Access::ReadWrite)],
    params_bytes: size_of::<RangeUpdateParams>(),
    twin: range_update,
};

fn range_update(t: &mut Twin) {
    let p: RangeUpdateParams = t.params();
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
    let row: &mut RangeRow =
        bytemuck::from_bytes_mut(bytemuck::cast_slice_mut(&mut ranges[p.row as usize * RANGE_WORDS..][..RANGE_WORDS]));
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
        ranges[p.row as usize * RANGE_WORDS + 5] += blocked / reaching;
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
    let inv_width = BINS as f32 / ranges[p.row as usize * RANGE_WORDS].max(1e-8);
    for v in &x[..p.words4 as usize * 4] {
        let bin = ((v * inv_width).max(0.0) as usize).min(BINS - 1);
        counts[p.row as usize * BINS + bin] += 1;
    }
}

//! Activations: sum of branches, ReLU and quantizer in one pass each way, and the range tracking around them.

use bytemuck::{Pod, Zeroable};

use super::{Access, Format, KernelDef, Twin, Variant, maxima, range};
use crate::net::Shortcut;
use crate::quant::Quant;

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
    /// 1: keep the largest value; likewise.
    pub keep_max: u32,
    /// Where.
    pub max_row: u32,
    /// Padding.
    pub pad: [u32; 2],
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
        ("maxima", Access::ReadWrite),
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
pub fn forward_variant(shortcut: u32, shortcut_format: Format, quantized: bool, keep_max: bool) -> Variant {
    let output = if quantized { "output_u8" } else { "output_f32" };
    let variant = Variant::only("act_fwd").with_const("SHORTCUT", shortcut).with_flag("KEEP_MAX", keep_max);
    variant.with_files(&[shortcut_format.operand(), output])
}

/// Variant of `act_bwd`.
pub fn backward_variant(shortcut: u32, shortcut_format: Format) -> Variant {
    Variant::only("act_bwd").with_const("SHORTCUT", shortcut).with_files(&[shortcut_format.operand()])
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
        identity_scale: range::scale_or_one(ranges, p.shortcut_row),
    };
    let out = t.words_mut(5);
    let part = t.f32_mut(6);
    let maxima = t.words_mut(7);
    let inv = range::row(ranges, p.range_row).inv_scale;
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
        if p.keep_max == 1 {
            maxima::record(&mut maxima[p.max_row as usize], top);
        }
        o.copy_from_slice(&[top, saturated, positive, 0.0, sum, squares, 0.0, 0.0]);
    }
}

/// What the way back needs of an activation (`ActParams` in `shared/act.wgsl`).
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct ActParams {
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

/// vec4s of a part of [`BACKWARD`].
pub const BACKWARD_PART: usize = 4;

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
    /// The activation.
    pub act: ActParams,
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
    let saved =
        Saved { y: t.f32(1), context: t.f32(2), shortcut: t.words(3), shortcut_context: t.f32(4), ranges: t.f32(5) };
    let (d, part) = (t.f32_mut(0), t.f32_mut(6));
    let chunks = (0..p.rows).step_by(p.chunk as usize).map(|first| first..(first + p.chunk).min(p.rows));
    back_through(&p.act, &saved, p.cols4 as usize, chunks.map(|rows| rows.map(|r| r as usize)), d, part);
}

/// What the forward pass has left.
pub(super) struct Saved<'a> {
    pub(super) y: &'a [f32],
    pub(super) context: &'a [f32],
    pub(super) shortcut: &'a [u32],
    pub(super) shortcut_context: &'a [f32],
    pub(super) ranges: &'a [f32],
}

/// Takes `d` back through an activation, and leaves a part for each of `chunks`, which are the rows that it sums, and four channels.
pub(super) fn back_through<R: Iterator<Item = usize> + Clone>(
    act: &ActParams,
    saved: &Saved,
    cols4: usize,
    chunks: impl Iterator<Item = R>,
    d: &mut [f32],
    part: &mut [f32],
) {
    let b = Branches {
        channels: 4 * cols4,
        y: saved.y,
        context: saved.context,
        shortcut: saved.shortcut,
        shortcut_context: saved.shortcut_context,
        kind: act.shortcut,
        format: Format::from_number(act.shortcut_format),
        identity_scale: range::scale_or_one(saved.ranges, act.shortcut_row),
    };
    let inv = range::row(saved.ranges, act.range_row).inv_scale;
    let items = chunks.flat_map(|rows| (0..cols4).map(move |col| (rows.clone(), col)));
    for ((rows, col), o) in items.zip(part.chunks_exact_mut(4 * BACKWARD_PART)) {
        let [mut bias, mut gain, mut shortcut_gain, mut blocked] = [[0f32; 4]; BACKWARD_PART];
        for r in rows {
            for k in 0..4 {
                let i = r * b.channels + col * 4 + k;
                let z = b.z(i);
                let alive = if z > 0.0 { d[i] } else { 0.0 };
                let mut dz = alive;
                if act.quant.enabled == 1 {
                    if !act.quant.passes(z, inv) {
                        dz = 0.0;
                    }
                    blocked[0] += (alive - dz).abs();
                    blocked[1] += alive.abs();
                }
                d[i] = dz;
                bias[k] += dz;
                gain[k] += dz * b.xhat(i);
                shortcut_gain[k] += dz * b.shortcut_xhat(i);
            }
        }
        o.copy_from_slice([bias, gain, shortcut_gain, blocked].as_flattened());
    }
}

//! Activations: sum of branches, ReLU and quantizer in one pass each way, and the range tracking around them.

use bytemuck::{Pod, Zeroable};

use super::{Access, Format, KernelDef, Twin, Variant, maxima, range};
use crate::net::Shortcut;
use crate::quant::{Quant, learn};

/// What a kernel needs of an activation (`ActParams` in `shared/act_params.wgsl`).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
pub struct ActParams {
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
    /// 1: a chunk is a picture, whose mean is wanted; fixed in the variant, read by the twin.
    pub pool: u32,
    /// 1: keep the largest value; likewise.
    pub keep_max: u32,
    /// Where.
    pub max_row: u32,
    /// Padding.
    pub pad: u32,
    /// The activation.
    pub act: ActParams,
}

/// `act_fwd.wgsl`.
pub static FORWARD: KernelDef = KernelDef {
    name: "act_fwd",
    bindings: &[
        ("y", Access::Read),
        ("context", Access::Read),
        ("shortcut", Access::Read),
        ("ranges", Access::Read),
        ("out", Access::ReadWrite),
        ("part", Access::ReadWrite),
        ("pooled", Access::ReadWrite),
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

impl ActParams {
    fn format(&self) -> Format {
        Format::from_number(self.shortcut_format)
    }

    /// The shared shader file for its shortcut.
    pub fn shortcut_file(&self) -> &'static str {
        match (self.shortcut, self.format()) {
            (0, _) => "shortcut_none",
            (1, Format::F32) => "shortcut_values",
            (1, Format::U8) => "shortcut_codes",
            (2, Format::F32) => "shortcut_projection",
            other => unreachable!("no shortcut is {other:?}"),
        }
    }
}

/// Variant of `act_fwd`.
pub fn forward_variant(p: &ForwardParams) -> Variant {
    let output = if p.act.quant.enabled == 1 { "output_u8" } else { "output_f32" };
    let variant = Variant::only("act_fwd").with_files(&[p.act.shortcut_file(), output]);
    variant.with_flag("POOL", p.pool == 1).with_flag("KEEP_MAX", p.keep_max == 1)
}

/// Variant of `act_bwd`.
pub fn backward_variant(p: &BackwardParams) -> Variant {
    Variant::only("act_bwd").with_files(&[p.act.shortcut_file()]).with_flag("POOL", p.pool == 1)
}

/// What the forward pass has left.
pub(super) struct Saved<'a> {
    pub(super) y: &'a [f32],
    pub(super) context: &'a [f32],
    pub(super) shortcut: &'a [u32],
    pub(super) ranges: &'a [f32],
}

/// The value before the ReLU, its parts, and the xhat of both branches, for one element.
struct Branches<'a> {
    channels: usize,
    saved: &'a Saved<'a>,
    kind: u32,
    format: Format,
    identity_scale: f32,
}

impl<'a> Branches<'a> {
    fn of(act: &ActParams, saved: &'a Saved, channels: usize) -> Self {
        let identity_scale = range::scale_or_one(saved.ranges, act.shortcut_row);
        Branches { channels, saved, kind: act.shortcut, format: act.format(), identity_scale }
    }

    /// Row `k` of the context at element `i`.
    fn context(&self, k: usize, i: usize) -> f32 {
        self.saved.context[k * self.channels + i % self.channels]
    }

    fn shortcut(&self, i: usize) -> f32 {
        if self.kind == 0 { 0.0 } else { self.format.load(self.saved.shortcut, i) }
    }

    fn z(&self, i: usize) -> f32 {
        let (mul, add) = match self.kind {
            2 => (self.context(4, i), self.context(5, i)),
            _ => (self.identity_scale, 0.0),
        };
        self.saved.y[i].mul_add(self.context(0, i), self.context(1, i)) + self.shortcut(i).mul_add(mul, add)
    }

    fn xhat(&self, i: usize) -> f32 {
        self.saved.y[i].mul_add(self.context(2, i), self.context(3, i))
    }

    fn shortcut_xhat(&self, i: usize) -> f32 {
        if self.kind == 2 { self.shortcut(i).mul_add(self.context(6, i), self.context(7, i)) } else { 0.0 }
    }
}

fn forward(t: &mut Twin) {
    let p: ForwardParams = t.params();
    let saved = Saved { y: t.f32(0), context: t.f32(1), shortcut: t.words(2), ranges: t.f32(3) };
    let b = Branches::of(&p.act, &saved, p.cols4 as usize * 4);
    let (out, part, pooled, maxima) = (t.words_mut(4), t.f32_mut(5), t.f32_mut(6), t.words_mut(7));
    let quantized = p.act.quant.enabled == 1;
    let range = range::row(saved.ranges, p.act.range_row);
    let quant = range.offset(&p.act.quant);
    for (item, o) in part.chunks_exact_mut(8).enumerate().take(p.rows.div_ceil(p.chunk) as usize * p.cols4 as usize) {
        let (chunk, col) = (item / p.cols4 as usize, item % p.cols4 as usize);
        let first = chunk * p.chunk as usize;
        let last = (first + p.chunk as usize).min(p.rows as usize);
        let (mut top, mut saturated, mut positive, mut sum, mut squares) = (0f32, 0f32, 0f32, 0f32, 0f32);
        let mut pool = [0f32; 4];
        for r in first..last {
            let mut word = 0;
            for (k, pool) in pool.iter_mut().enumerate() {
                let i = r * b.channels + col * 4 + k;
                let a = b.z(i).max(0.0);
                top = top.max(a);
                sum += a;
                squares += a * a;
                positive += f32::from(a > 0.0);
                if quantized {
                    let code = quant.code(a, range.inv_scale);
                    word |= (code as u32 & 255) << (8 * k);
                    *pool += code as f32;
                    saturated += f32::from(quant.saturates(a, range.inv_scale));
                } else {
                    *pool += a;
                    if p.measure == 0 {
                        out[i] = a.to_bits();
                    }
                }
            }
            if quantized && p.measure == 0 {
                out[r * p.cols4 as usize + col] = word;
            }
        }
        if p.pool == 1 && p.measure == 0 {
            let s = if quantized { range.scale } else { 1.0 };
            pooled[4 * item..][..4].copy_from_slice(&pool.map(|sum| sum * (s / p.chunk as f32)));
        }
        if p.keep_max == 1 {
            maxima::record(&mut maxima[p.max_row as usize], top);
        }
        o.copy_from_slice(&[top, saturated, positive, 0.0, sum, squares, 0.0, 0.0]);
    }
}

/// vec4s of a part of [`BACKWARD`].
const BACKWARD_PART: usize = 4;

/// Words of the parts that [`BACKWARD`] leaves of `chunks` times `channels`.
pub fn part_words(chunks: usize, channels: usize) -> usize {
    4 * BACKWARD_PART * chunks * (channels / 4)
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
    /// 1: a chunk is a picture, whose mean the gradient is of; fixed in the variant, read by the twin.
    pub pool: u32,
    /// The activation.
    pub act: ActParams,
}

/// `act_bwd.wgsl`.
pub static BACKWARD: KernelDef = KernelDef {
    name: "act_bwd",
    bindings: &[
        ("d", Access::ReadWrite),
        ("pooled", Access::Read),
        ("y", Access::Read),
        ("context", Access::Read),
        ("shortcut", Access::Read),
        ("ranges", Access::Read),
        ("part", Access::ReadWrite),
    ],
    params_bytes: size_of::<BackwardParams>(),
    twin: backward,
};

fn backward(t: &mut Twin) {
    let p: BackwardParams = t.params();
    let saved = Saved { y: t.f32(2), context: t.f32(3), shortcut: t.words(4), ranges: t.f32(5) };
    let (d, pooled, part) = (t.f32_mut(0), t.f32(1), t.f32_mut(6));
    let channels = p.cols4 as usize * 4;
    if p.pool == 1 {
        for (i, d) in d.iter_mut().enumerate().take(p.rows as usize * channels) {
            let picture = i / (p.chunk as usize * channels);
            *d = pooled[picture * channels + i % channels] * (1.0 / p.chunk as f32);
        }
    }
    let chunks = (0..p.rows).step_by(p.chunk as usize).map(|first| first..(first + p.chunk).min(p.rows));
    back_through(&p.act, &saved, channels, chunks.map(|rows| rows.map(|r| r as usize)), d, part);
}

/// Takes `d` back through an activation, and leaves a part for each of `chunks`, which are the rows that it sums, and four channels.
pub(super) fn back_through<R: Iterator<Item = usize> + Clone>(
    act: &ActParams,
    saved: &Saved,
    channels: usize,
    chunks: impl Iterator<Item = R>,
    d: &mut [f32],
    part: &mut [f32],
) {
    let b = Branches::of(act, saved, channels);
    let row = range::row(saved.ranges, act.range_row);
    let (quant, inv) = (row.offset(&act.quant), row.inv_scale);
    let items = chunks.flat_map(|rows| (0..channels / 4).map(move |col| (rows.clone(), col)));
    for ((rows, col), o) in items.zip(part.chunks_exact_mut(4 * BACKWARD_PART)) {
        let [mut bias, mut gain, mut shortcut_gain, mut common] = [[0f32; 4]; BACKWARD_PART];
        for r in rows {
            for k in 0..4 {
                let i = r * channels + col * 4 + k;
                let z = b.z(i);
                let alive = if z > 0.0 { d[i] } else { 0.0 };
                let mut dz = alive;
                if quant.enabled == 1 {
                    if !quant.passes(z, inv) {
                        dz = 0.0;
                    }
                    common[0] += (alive - dz).abs();
                    common[1] += alive.abs();
                    if quant.learn != learn::NOTHING {
                        let slopes = quant.slopes(z.max(0.0), inv);
                        common[2] += d[i] * slopes[0];
                        common[3] += d[i] * slopes[1];
                    }
                    dz *= quant.gradient_factor(dz, z, 0.0, inv);
                }
                d[i] = dz;
                bias[k] += dz;
                gain[k] += dz * b.xhat(i);
                shortcut_gain[k] += dz * b.shortcut_xhat(i);
            }
        }
        o.copy_from_slice([bias, gain, shortcut_gain, common].as_flattened());
    }
}

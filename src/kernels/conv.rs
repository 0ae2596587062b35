//! Convolution: forward and data gradient share one gather kernel.
//! [`super::select`] chooses their variants.

use bytemuck::{Pod, Zeroable};

use super::activation::{self, ActParams, Saved};
use super::{Access, Format, KernelDef, Twin, norm};
use crate::net::{Layer, Shape};

/// Parameters of `conv` (all variants).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
pub struct ConvParams {
    /// Pictures.
    pub batch: u32,
    /// Rows of the tensor that is read.
    pub in_h: u32,
    /// Columns.
    pub in_w: u32,
    /// Channels.
    pub in_c: u32,
    /// Rows of the tensor that is written.
    pub out_h: u32,
    /// Columns.
    pub out_w: u32,
    /// Channels.
    pub out_c: u32,
    /// Rows of one parity class of the output.
    pub q_h: u32,
    /// Columns of one parity class.
    pub q_w: u32,
    /// Parity classes per axis: 1, or the stride for a data gradient.
    pub parities: u32,
    /// Input distance between neighbouring outputs of one class.
    pub q_stride: u32,
    /// Kernel side.
    pub kernel: u32,
    /// Padding of the forward convolution.
    pub pad: u32,
    /// Stride of the forward convolution.
    pub stride: u32,
    /// 1: data gradient; [`ConvParams::TILES`].
    pub backward: u32,
    /// 1: add to what `out` holds.
    pub accumulate: u32,
    /// [`Format`] of `x`; fixed in the shader's variant, read by the twin.
    pub x_format: u32,
    /// First vec4 of `w` in its binding.
    pub w_base: u32,
    /// 1: both operands are integers whose sums may pass 2^24, so they are added as i32 and rounded to f32 once;
    /// [`ConvParams::KEPT`]; fixed in the variant, read by the twin.
    pub integer: u32,
    /// 1: `w` holds codes.
    pub w_codes: u32,
    /// Terms of f16 that a real operand may be split into for matrix units; 0: real operands are multiplied as f32. The twin always does.
    pub terms: u32,
    /// Row of the maxima of `x`, where that is real and has terms.
    pub x_max: u32,
    /// The same of `w`.
    pub w_max: u32,
    /// 1: `x` holds codes that fit in signed 8 bits.
    pub narrow: u32,
    /// Of [`CONV_NORM`]: first vec4 of the statistics in `part`.
    pub part4: u32,
    /// [`Format`] of `w`, fixed in the shader's variant, read by the twin.
    pub w_format: u32,
    /// Padding.
    pub pad_end: [u32; 2],
    /// Of [`CONV_ACT`]: the activation that the result goes back through.
    pub act: ActParams,
}

impl ConvParams {
    /// [`ConvParams::backward`] of the products of `super::winograd`: each place of a tile of `parities` x `parities` pixels has a
    /// matrix of its own.
    pub const TILES: u32 = 2;

    /// [`ConvParams::integer`] of sums that are added as i32 and stay that, in the words of `out`.
    pub const KEPT: u32 = 2;
}

/// A convolution as the network has it; both directions are derived from it.
#[derive(Debug, Clone, Copy)]
pub struct Geometry {
    /// Pictures.
    pub batch: usize,
    /// Forward input.
    pub from: Shape,
    /// Forward output.
    pub to: Shape,
    /// Kernel side.
    pub kernel: usize,
    /// Stride.
    pub stride: usize,
}

impl Geometry {
    /// A convolution on batches of `batch` pictures; the linear layer is one of a single pixel. `None` for other layers.
    pub fn of(layer: &Layer, batch: usize) -> Option<Geometry> {
        let point = |c| Shape { h: 1, w: 1, c };
        match layer {
            Layer::Conv(c) => Some(Geometry { batch, from: c.from, to: c.to, kernel: c.kernel, stride: c.stride }),
            Layer::Linear(l) => {
                Some(Geometry { batch, from: point(l.features), to: point(l.padded()), kernel: 1, stride: 1 })
            }
            Layer::Input(_) | Layer::Activation(_) | Layer::Pool(_) => None,
        }
    }

    pub(super) fn pad(&self) -> u32 {
        (self.kernel / 2) as u32
    }

    /// Multiply-adds of one direction, times two.
    pub fn flops(&self) -> u64 {
        2 * (self.batch * self.to.len() * self.kernel * self.kernel * self.from.c) as u64
    }

    /// Parameters of the forward convolution.
    ///
    /// `w` are codes where `x` are; see [`ConvParams::w_codes`] for others.
    pub fn forward(&self, x_format: Format) -> ConvParams {
        ConvParams {
            q_h: self.to.h as u32,
            q_w: self.to.w as u32,
            parities: 1,
            q_stride: self.stride as u32,
            x_format: x_format as u32,
            w_codes: u32::from(x_format != Format::F32),
            ..self.params(self.from, self.to)
        }
    }

    /// Parameters of the data gradient: reads the output's gradient, writes the input's.
    pub fn data_gradient(&self, accumulate: bool) -> ConvParams {
        ConvParams {
            q_h: self.from.h.div_ceil(self.stride) as u32,
            q_w: self.from.w.div_ceil(self.stride) as u32,
            parities: self.stride as u32,
            q_stride: 1,
            backward: 1,
            accumulate: u32::from(accumulate),
            ..self.params(self.to, self.from)
        }
    }

    fn params(&self, read: Shape, write: Shape) -> ConvParams {
        ConvParams {
            batch: self.batch as u32,
            in_h: read.h as u32,
            in_w: read.w as u32,
            in_c: read.c as u32,
            out_h: write.h as u32,
            out_w: write.w as u32,
            out_c: write.c as u32,
            kernel: self.kernel as u32,
            pad: self.pad(),
            stride: self.stride as u32,
            ..ConvParams::default()
        }
    }
}

/// The taps of one axis that reach an output of one parity; twin of `axis` in `shared/gather.wgsl`.
fn taps(p: &ConvParams, parity: u32) -> Vec<(u32, i32)> {
    if p.backward == 0 {
        return (0..p.kernel).map(|k| (k, k as i32 - p.pad as i32)).collect();
    }
    if p.backward == ConvParams::TILES {
        return vec![(parity, parity as i32)];
    }
    let first = (parity + p.pad) % p.stride;
    (first..p.kernel)
        .step_by(p.stride as usize)
        .enumerate()
        .map(|(t, k)| (k, ((parity + p.pad) / p.stride) as i32 - t as i32))
        .collect()
}

/// `conv_lane.wgsl`, `conv_tiled.wgsl`, `conv_dot4.wgsl`, `conv_coop.wgsl`.
pub static CONV: KernelDef = KernelDef {
    name: "conv",
    bindings: &[("x", Access::Read), ("w", Access::Read), ("maxima", Access::Read), ("out", Access::ReadWrite)],
    params_bytes: size_of::<ConvParams>(),
    twin: conv,
};

fn conv(t: &mut Twin) {
    product(&t.params(), t.words(0), t.words(1), t.f32_mut(3));
}

fn product(p: &ConvParams, x: &[u32], w: &[u32], out: &mut [f32]) {
    let [format, w_format] = [p.x_format, p.w_format].map(Format::from_number);
    let w_base = 4 * p.w_base as usize;
    let w: Vec<f32> =
        (w_base..w_base + (p.kernel * p.kernel * p.in_c * p.out_c) as usize).map(|i| w_format.load(w, i)).collect();
    let (ci, co) = (p.in_c as usize, p.out_c as usize);
    for n in 0..p.batch {
        for oy in 0..p.out_h {
            for ox in 0..p.out_w {
                let (qy, qx) = (oy / p.parities, ox / p.parities);
                let mut acc = vec![0f32; co];
                let mut exact = vec![0i32; co];
                for &(ky, dy) in &taps(p, oy % p.parities) {
                    for &(kx, dx) in &taps(p, ox % p.parities) {
                        let (iy, ix) = ((qy * p.q_stride) as i32 + dy, (qx * p.q_stride) as i32 + dx);
                        if iy < 0 || iy >= p.in_h as i32 || ix < 0 || ix >= p.in_w as i32 {
                            continue;
                        }
                        let base = ((n * p.in_h + iy as u32) * p.in_w + ix as u32) as usize * ci;
                        let tap = (ky * p.kernel + kx) as usize * ci * co;
                        for c in 0..ci {
                            let a = format.load(x, base + c);
                            let row = &w[tap + c * co..];
                            if p.integer > 0 {
                                exact.iter_mut().zip(row).for_each(|(s, b)| *s += a as i32 * *b as i32);
                            } else {
                                acc.iter_mut().zip(row).for_each(|(s, b)| *s += a * b);
                            }
                        }
                    }
                }
                if p.integer > 0 {
                    let kept = p.integer == ConvParams::KEPT;
                    acc = exact.iter().map(|&s| if kept { f32::from_bits(s as u32) } else { s as f32 }).collect();
                }
                let o = ((n * p.out_h + oy) * p.out_w + ox) as usize * co;
                for (o, s) in out[o..o + co].iter_mut().zip(&acc) {
                    *o = if p.accumulate == 1 { *o + s } else { *s };
                }
            }
        }
    }
}

/// As [`CONV`] forward, and leaves the statistics of its output as `norm_stats` does, of [`norm::FINISH_CHUNK`] rows each.
pub static CONV_NORM: KernelDef = KernelDef {
    name: "conv_norm",
    bindings: &[
        ("x", Access::Read),
        ("w", Access::Read),
        ("maxima", Access::Read),
        ("out", Access::ReadWrite),
        ("part", Access::ReadWrite),
    ],
    params_bytes: size_of::<ConvParams>(),
    twin: conv_norm,
};

fn conv_norm(t: &mut Twin) {
    let p: ConvParams = t.params();
    let (out, part) = (t.f32_mut(3), &mut t.f32_mut(4)[4 * p.part4 as usize..]);
    product(&p, t.words(0), t.words(1), out);
    let rows = (p.batch * p.out_h * p.out_w) as usize;
    norm::moments(out, [rows, norm::FINISH_CHUNK], p.out_c as usize, part);
}

/// As [`CONV`] for the last data gradient that an activation gets, and goes back through that as `act_bwd` does, of
/// [`norm::FINISH_CHUNK`] rows of a parity class each.
pub static CONV_ACT: KernelDef = KernelDef {
    name: "conv_act",
    bindings: &[
        ("x", Access::Read),
        ("w", Access::Read),
        ("maxima", Access::Read),
        ("out", Access::ReadWrite),
        ("y", Access::Read),
        ("context", Access::Read),
        ("shortcut", Access::Read),
        ("ranges", Access::Read),
        ("part", Access::ReadWrite),
    ],
    params_bytes: size_of::<ConvParams>(),
    twin: conv_act,
};

/// Parts that [`CONV_ACT`] leaves of four channels.
pub fn act_chunks(p: &ConvParams) -> usize {
    (p.parities * p.parities) as usize * ((p.batch * p.q_h * p.q_w) as usize).div_ceil(norm::FINISH_CHUNK)
}

fn conv_act(t: &mut Twin) {
    let p: ConvParams = t.params();
    let saved = Saved { y: t.f32(4), context: t.f32(5), shortcut: t.words(6), ranges: t.f32(7) };
    let (out, part) = (t.f32_mut(3), t.f32_mut(8));
    product(&p, t.words(0), t.words(1), out);
    let rows = p.batch * p.q_h * p.q_w;
    let chunks = (0..p.parities * p.parities)
        .flat_map(|class| (0..rows).step_by(norm::FINISH_CHUNK).map(move |first| (class, first)))
        .map(|(class, first)| {
            (first..(first + norm::FINISH_CHUNK as u32).min(rows)).filter_map(move |m| {
                let oy = m / p.q_w % p.q_h * p.parities + class / p.parities;
                let ox = m % p.q_w * p.parities + class % p.parities;
                let row = (m / (p.q_h * p.q_w) * p.out_h + oy) * p.out_w + ox;
                (oy < p.out_h && ox < p.out_w).then_some(row as usize)
            })
        });
    activation::back_through(&p.act, &saved, p.out_c as usize, chunks, out, part);
}

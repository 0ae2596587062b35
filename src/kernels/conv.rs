//! Convolution (forward and data gradient share one gather kernel), weight gradient, and its reduction.

use bytemuck::{Pod, Zeroable};

use super::{Access, Caps, Format, KernelDef, Overrides, Twin, Variant};
use crate::net::Shape;
use crate::quant::Quant;

/// Parameters of `conv` (both variants).
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
    /// 1: data gradient.
    pub backward: u32,
    /// 1: add to what `out` holds.
    pub accumulate: u32,
    /// [`Format`] of `x`; fixed in the shader's variant, read by the twin.
    pub x_format: u32,
    /// First vec4 of `x` in its binding (past the zero row of a texture).
    pub x_base: u32,
    /// First vec4 of `w` in its binding.
    pub w_base: u32,
    /// Padding.
    pub pad0: u32,
}

/// Pixels of a weight-gradient split are a multiple of this, so that unrolled loops never cross into the next one.
const WGRAD_CHUNK: usize = 16;

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
    fn pad(&self) -> u32 {
        (self.kernel / 2) as u32
    }

    /// Multiply-adds of one direction, times two.
    pub fn flops(&self) -> u64 {
        2 * (self.batch * self.to.len() * self.kernel * self.kernel * self.from.c) as u64
    }

    /// Parameters of the forward convolution.
    pub fn forward(&self, x_format: Format) -> ConvParams {
        ConvParams {
            q_h: self.to.h as u32,
            q_w: self.to.w as u32,
            parities: 1,
            q_stride: self.stride as u32,
            x_format: x_format as u32,
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

    /// Splits of the pixel range for the weight gradient, and pixels in each: a fixed rule, so results never depend on
    /// tuning.
    pub fn wgrad_splits(&self) -> (usize, usize) {
        let pixels = self.batch * self.to.pixels();
        let splits = (pixels / 4096).clamp(1, 32);
        let chunk = pixels.div_ceil(splits).next_multiple_of(WGRAD_CHUNK);
        (pixels.div_ceil(chunk), chunk)
    }

    /// Parameters of the weight gradient.
    pub fn weight_gradient(&self, x_format: Format) -> WgradParams {
        let (splits, chunk) = self.wgrad_splits();
        WgradParams {
            batch: self.batch as u32,
            in_h: self.from.h as u32,
            in_w: self.from.w as u32,
            in_c: self.from.c as u32,
            out_h: self.to.h as u32,
            out_w: self.to.w as u32,
            out_c: self.to.c as u32,
            kernel: self.kernel as u32,
            pad: self.pad(),
            stride: self.stride as u32,
            splits: splits as u32,
            chunk: chunk as u32,
            x_format: x_format as u32,
            x_base: 0,
            dy_base: 0,
            pad0: 0,
        }
    }
}

/// The taps of one axis that reach an output of one parity; twin of `axis` in `shared/gather.wgsl`.
fn taps(p: &ConvParams, parity: u32) -> Vec<(u32, i32)> {
    if p.backward == 0 {
        return (0..p.kernel).map(|k| (k, k as i32 - p.pad as i32)).collect();
    }
    let first = (parity + p.pad) % p.stride;
    (first..p.kernel)
        .step_by(p.stride as usize)
        .enumerate()
        .map(|(t, k)| (k, ((parity + p.pad) / p.stride) as i32 - t as i32))
        .collect()
}

/// `conv_lane.wgsl`, `conv_tiled.wgsl`.
pub static CONV: KernelDef = KernelDef {
    name: "conv",
    bindings: &[("x", Access::Read), ("w", Access::Read), ("out", Access::ReadWrite)],
    params_bytes: size_of::<ConvParams>(),
    twin: conv,
};

fn conv(t: &mut Twin) {
    let p: ConvParams = t.params();
    let (x, w) = (&t.words(0)[4 * p.x_base as usize..], &t.f32(1)[4 * p.w_base as usize..]);
    let out = t.f32_mut(2);
    let format = Format::from_number(p.x_format);
    let (ci, co) = (p.in_c as usize, p.out_c as usize);
    for n in 0..p.batch {
        for oy in 0..p.out_h {
            for ox in 0..p.out_w {
                let (qy, qx) = (oy / p.parities, ox / p.parities);
                let mut acc = vec![0f32; co];
                for &(ky, dy) in &taps(&p, oy % p.parities) {
                    for &(kx, dx) in &taps(&p, ox % p.parities) {
                        let (iy, ix) = ((qy * p.q_stride) as i32 + dy, (qx * p.q_stride) as i32 + dx);
                        if iy < 0 || iy >= p.in_h as i32 || ix < 0 || ix >= p.in_w as i32 {
                            continue;
                        }
                        let base = ((n * p.in_h + iy as u32) * p.in_w + ix as u32) as usize * ci;
                        let tap = (ky * p.kernel + kx) as usize * ci * co;
                        for c in 0..ci {
                            let a = format.load(x, base + c);
                            for (s, b) in acc.iter_mut().zip(&w[tap + c * co..]) {
                                *s += a * b;
                            }
                        }
                    }
                }
                let o = ((n * p.out_h + oy) * p.out_w + ox) as usize * co;
                for (o, s) in out[o..o + co].iter_mut().zip(&acc) {
                    *o = if p.accumulate == 1 { *o + s } else { *s };
                }
            }
        }
    }
}

/// Parameters of `wgrad` (both variants).
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct WgradParams {
    /// Pictures.
    pub batch: u32,
    /// Rows of the forward input.
    pub in_h: u32,
    /// Columns.
    pub in_w: u32,
    /// Channels.
    pub in_c: u32,
    /// Rows of the forward output.
    pub out_h: u32,
    /// Columns.
    pub out_w: u32,
    /// Channels.
    pub out_c: u32,
    /// Kernel side.
    pub kernel: u32,
    /// Padding.
    pub pad: u32,
    /// Stride.
    pub stride: u32,
    /// Parts of the pixel range.
    pub splits: u32,
    /// Output pixels in a part.
    pub chunk: u32,
    /// [`Format`] of `x`; fixed in the shader's variant, read by the twin.
    pub x_format: u32,
    /// First vec4 of `x` in its binding (past the zero row of a texture).
    pub x_base: u32,
    /// First vec4 of `dy` in its binding.
    pub dy_base: u32,
    /// Padding.
    pub pad0: u32,
}

/// `wgrad_lane.wgsl`, `wgrad_tiled.wgsl`.
pub static WGRAD: KernelDef = KernelDef {
    name: "wgrad",
    bindings: &[("x", Access::Read), ("dy", Access::Read), ("part", Access::ReadWrite)],
    params_bytes: size_of::<WgradParams>(),
    twin: wgrad,
};

fn wgrad(t: &mut Twin) {
    let p: WgradParams = t.params();
    let (x, dy) = (&t.words(0)[4 * p.x_base as usize..], &t.f32(1)[4 * p.dy_base as usize..]);
    let part = t.f32_mut(2);
    let format = Format::from_number(p.x_format);
    let (ci, co) = (p.in_c as usize, p.out_c as usize);
    let taps = p.kernel * p.kernel;
    let pixels = p.out_h * p.out_w;
    part[..(p.splits * taps) as usize * ci * co].fill(0.0);
    for split in 0..p.splits {
        for k in split * p.chunk..((split + 1) * p.chunk).min(p.batch * pixels) {
            let (n, oy, ox) = (k / pixels, k % pixels / p.out_w, k % p.out_w);
            for tap in 0..taps {
                let iy = (oy * p.stride + tap / p.kernel) as i32 - p.pad as i32;
                let ix = (ox * p.stride + tap % p.kernel) as i32 - p.pad as i32;
                if iy < 0 || iy >= p.in_h as i32 || ix < 0 || ix >= p.in_w as i32 {
                    continue;
                }
                let base = ((n * p.in_h + iy as u32) * p.in_w + ix as u32) as usize * ci;
                for c in 0..ci {
                    let a = format.load(x, base + c);
                    let o = ((split * taps + tap) as usize * ci + c) * co;
                    let g = &dy[k as usize * co..][..co];
                    for (s, b) in part[o..o + co].iter_mut().zip(g) {
                        *s += a * b;
                    }
                }
            }
        }
    }
}

/// Parameters of `wgrad_reduce`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct ReduceParams {
    /// vec4s of the gradient.
    pub words4: u32,
    /// Output channels / 4.
    pub cols4: u32,
    /// Parts to add.
    pub splits: u32,
    /// Row of ranges whose scale the input codes have, -1: 1.
    pub x_scale: i32,
    /// The weight quantizer, for its mask.
    pub quant: Quant,
}

/// `wgrad_reduce.wgsl`.
pub static WGRAD_REDUCE: KernelDef = KernelDef {
    name: "wgrad_reduce",
    bindings: &[
        ("part", Access::Read),
        ("weights", Access::Read),
        ("scales", Access::Read),
        ("ranges", Access::Read),
        ("grad", Access::ReadWrite),
    ],
    params_bytes: size_of::<ReduceParams>(),
    twin: wgrad_reduce,
};

fn wgrad_reduce(t: &mut Twin) {
    let p: ReduceParams = t.params();
    let (part, weights, scales, ranges) = (t.f32(0), t.f32(1), t.f32(2), t.f32(3));
    let grad = t.f32_mut(4);
    let (words, cols) = (p.words4 as usize * 4, p.cols4 as usize * 4);
    for i in 0..words {
        let mut g = (0..p.splits as usize).fold(0f32, |g, s| g + part[s * words + i]);
        if p.x_scale >= 0 {
            g *= ranges[p.x_scale as usize * 8 + 1];
        }
        if p.quant.enabled == 1 {
            g /= scales[i % cols];
            if !p.quant.passes(weights[i], scales[cols + i % cols]) {
                g = 0.0;
            }
        }
        grad[i] = g;
    }
}

/// A convolution kernel chosen for a device: the variant, how its operands are bound, how its grid is laid out.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Variant of [`CONV`] or [`WGRAD`].
    pub variant: Variant,
    /// Operands are textures of f32 values (else buffers, `x` in the format it is stored in).
    pub textures: bool,
    tile: Tile,
}

/// Rows and columns of the result that one workgroup computes.
#[derive(Debug, Clone, Copy)]
struct Tile {
    m: u32,
    n: u32,
}

impl Choice {
    /// Format of `x` as bound.
    pub fn x_format(&self, stored: Format) -> Format {
        if self.textures { Format::F32 } else { stored }
    }

    /// Workgroups of a convolution.
    pub fn conv_grid(&self, p: &ConvParams) -> [u32; 3] {
        let (rows, classes) = (p.batch * p.q_h * p.q_w, p.parities * p.parities);
        let (m, n) = (rows.div_ceil(self.tile.m), p.out_c.div_ceil(self.tile.n));
        if self.textures { [n, m, classes] } else { [m, n, classes] }
    }

    /// Workgroups of a weight gradient.
    pub fn wgrad_grid(&self, p: &WgradParams) -> [u32; 3] {
        let taps = p.kernel * p.kernel;
        let n = p.out_c.div_ceil(self.tile.n);
        if self.textures {
            [n, (taps * p.in_c).div_ceil(self.tile.m), p.splits]
        } else {
            [p.in_c.div_ceil(self.tile.m) * n, taps, p.splits]
        }
    }
}

/// Whether a device gets the lane kernels: software adapters with subgroups of a size the kernels are written for.
pub fn prefers_lane(caps: &Caps) -> bool {
    caps.software && matches!(caps.subgroup, 4 | 8 | 16)
}

/// Whether `conv` runs as `lane`. All convolutions of a plan agree, because they share the weight codes.
pub fn uses_lane(caps: &Caps, overrides: &Overrides) -> bool {
    match overrides.get("conv").map(String::as_str) {
        Some("tiled") => false,
        Some("lane") => matches!(caps.subgroup, 4 | 8 | 16),
        _ => prefers_lane(caps),
    }
}

/// Chooses the variant of `conv`: `lane` on software adapters (no barriers, operands in textures), `tiled` on real GPUs
/// (workgroup memory). Cooperative-matrix variants will come before both.
pub fn select_conv(p: &ConvParams, stored: Format, caps: &Caps, overrides: &Overrides) -> Choice {
    if uses_lane(caps, overrides) {
        let (columns, pixels) = match (caps.lane_pixels, p.out_c.is_multiple_of(32)) {
            (12.., _) => (4, 12),
            (_, true) => (8, 4),
            (_, false) => (4, 4),
        };
        let variant = lane_variant("conv_lane", caps).with_const("COLUMNS", columns).with_const("PIXELS", pixels);
        let tile = Tile { m: caps.subgroup * pixels, n: 4 * columns };
        return Choice { variant, textures: true, tile };
    }
    let (m, n) = if p.out_c.is_multiple_of(64) { (64, 64) } else { (128, 32) };
    let variant = tiled_variant("conv_tiled", stored).with_const("TILE_M", m).with_const("TILE_N", n);
    Choice { variant, textures: false, tile: Tile { m, n } }
}

/// Chooses the variant of `wgrad`, as [`select_conv`].
pub fn select_wgrad(p: &WgradParams, stored: Format, caps: &Caps, overrides: &Overrides) -> Choice {
    if uses_lane(caps, overrides) {
        let (columns, unroll) = match (caps.lane_pixels, p.out_c.is_multiple_of(32)) {
            (12.., true) => (8, 4),
            (_, true) => (8, 2),
            (_, false) => (4, 4),
        };
        let variant = lane_variant("wgrad_lane", caps).with_const("COLUMNS", columns).with_const("UNROLL", unroll);
        let tile = Tile { m: 4 * caps.subgroup, n: 4 * columns };
        return Choice { variant, textures: true, tile };
    }
    let tile = if p.in_c >= 64 && p.out_c >= 64 { 64 } else { 32 };
    let variant = tiled_variant("wgrad_tiled", stored).with_const("TILE", tile);
    Choice { variant, textures: false, tile: Tile { m: tile, n: tile } }
}

fn lane_variant(shader: &'static str, caps: &Caps) -> Variant {
    let variant = Variant { name: "lane".into(), ..Variant::only(shader) };
    variant.with_textures(&[0, 1]).with_const("LANES", caps.subgroup)
}

fn tiled_variant(shader: &'static str, stored: Format) -> Variant {
    Variant { name: "tiled".into(), ..Variant::only(shader) }.with_formats(&[stored.operand()])
}

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
    /// Padding.
    pub pad0: [u32; 3],
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
        let chunk = pixels.div_ceil(splits).next_multiple_of(4);
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
            pad0: [0; 3],
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
    let (x, w) = (t.words(0), t.f32(1));
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
    /// Padding.
    pub pad0: [u32; 3],
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
    let (x, dy) = (t.words(0), t.f32(1));
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

/// A convolution kernel chosen for a device: the variant, the operand format it reads and how its grid is laid out.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Variant of [`CONV`] or [`WGRAD`].
    pub variant: Variant,
    /// Format in which `x` must be bound.
    pub x_format: Format,
    tile: Tile,
}

#[derive(Debug, Clone, Copy)]
enum Tile {
    /// Outputs channels and pixels (or input channels) of one workgroup.
    Tiled { m: u32, n: u32 },
    /// Output channels and rows of one workgroup without barriers.
    Lane { m: u32, n: u32 },
}

impl Choice {
    /// Workgroups of a convolution.
    pub fn conv_grid(&self, p: &ConvParams) -> [u32; 3] {
        let rows = p.batch * p.q_h * p.q_w;
        let classes = p.parities * p.parities;
        match self.tile {
            Tile::Tiled { m, n } => [rows.div_ceil(m), p.out_c.div_ceil(n), classes],
            Tile::Lane { m, n } => [p.out_c / n, rows.div_ceil(m), classes],
        }
    }

    /// Workgroups of a weight gradient.
    pub fn wgrad_grid(&self, p: &WgradParams) -> [u32; 3] {
        let taps = p.kernel * p.kernel;
        match self.tile {
            Tile::Tiled { m, n } => [p.in_c.div_ceil(m) * p.out_c.div_ceil(n), taps, p.splits],
            Tile::Lane { m, n } => [(p.out_c / n) * p.in_c.div_ceil(m), taps, p.splits],
        }
    }
}

fn wants_lane(kernel: &str, caps: &Caps, overrides: &Overrides) -> bool {
    match overrides.get(kernel).map(String::as_str) {
        Some("lane") => true,
        Some("tiled") => false,
        _ => caps.software,
    }
}

/// Chooses the variant of `conv`: `lane` on software adapters (no barriers, f32 operands), `tiled` on real GPUs.
pub fn select_conv(p: &ConvParams, stored: Format, caps: &Caps, overrides: &Overrides) -> Choice {
    if wants_lane("conv", caps, overrides) {
        return lane_choice("conv_lane", p.out_c, 16);
    }
    let (m, n) = if p.out_c % 64 == 0 { (64, 64) } else { (128, 32) };
    let variant = Variant::only("conv_tiled")
        .with_formats(&[stored.operand()])
        .with_const("TILE_M", m)
        .with_const("TILE_N", n);
    Choice { variant: Variant { name: "tiled".into(), ..variant }, x_format: stored, tile: Tile::Tiled { m, n } }
}

/// Chooses the variant of `wgrad`, as [`select_conv`].
pub fn select_wgrad(p: &WgradParams, stored: Format, caps: &Caps, overrides: &Overrides) -> Choice {
    if wants_lane("wgrad", caps, overrides) {
        return lane_choice("wgrad_lane", p.out_c, [16, 8, 4].into_iter().find(|m| p.in_c.is_multiple_of(*m)).unwrap_or(4));
    }
    let tile = if p.in_c >= 64 && p.out_c >= 64 { 64 } else { 32 };
    let variant = Variant::only("wgrad_tiled").with_formats(&[stored.operand()]).with_const("TILE", tile);
    let tile = Tile::Tiled { m: tile, n: tile };
    Choice { variant: Variant { name: "tiled".into(), ..variant }, x_format: stored, tile }
}

fn lane_choice(shader: &'static str, out_c: u32, m: u32) -> Choice {
    let (lanes, width) = [(16, 4), (8, 4), (8, 2), (8, 1), (4, 1)]
        .into_iter()
        .find(|(lanes, width)| out_c.is_multiple_of(lanes * width))
        .expect("channels are stored in multiples of 4");
    let ty = ["f32", "vec2<f32>", "vec3<f32>", "vec4<f32>"][width as usize - 1];
    let variant = Variant::only(shader)
        .with_alias("Column", ty)
        .with_const("LANES", lanes)
        .with_const("WIDTH", width)
        .with_const("ROWS", m);
    let tile = Tile::Lane { m, n: lanes * width };
    Choice { variant: Variant { name: "lane".into(), ..variant }, x_format: Format::F32, tile }
}

//! Winograd's F(2x2, 3x3): a 3x3 convolution of stride 1 as 16 matrix products, which multiply 2.25 times less
//! (`winograd_weights`, `winograd_in`, `conv` of what these leave, `winograd_out`).
//!
//! Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016. Weights are transformed with 2G on both axes, so that
//! codes stay whole numbers; the result is divided by 4. Where `2 * 36 c_in w_max x_max < 2^24` every sum on the way is exact.

use bytemuck::{Pod, Zeroable};

use super::conv::{ConvParams, Geometry};
use super::{Access, Format, KernelDef, Twin, Variant};

/// Parameters of `winograd_in` and `winograd_out`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct TileParams {
    /// Tiles of 2 x 2 pixels that are handled together.
    pub tiles: u32,
    /// Of a picture, one below the other.
    pub tiles_h: u32,
    /// Side by side.
    pub tiles_w: u32,
    /// Channels / 4.
    pub cols4: u32,
    /// [`Format`] of the input; fixed in the variant, read by the twin.
    pub x_format: u32,
    /// 1: add to what `out` holds.
    pub accumulate: u32,
    /// The first of them in the batch.
    pub first: u32,
    /// Padding.
    pub pad: u32,
}

/// Parameters of `winograd_weights`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct WeightParams {
    /// First vec4 of the layer in `w`.
    pub w_base: u32,
    /// c_in * c_out / 4.
    pub items: u32,
    /// 1: data gradient.
    pub flip: u32,
    /// Padding.
    pub pad: u32,
}

/// The tiles of pictures of a 3x3 convolution of stride 1 and even sides, for `channels` channels.
pub fn tiles(g: &Geometry, channels: usize, x_format: Format, accumulate: bool) -> TileParams {
    let (tiles_h, tiles_w) = (g.to.h as u32 / 2, g.to.w as u32 / 2);
    TileParams {
        tiles: g.batch as u32 * tiles_h * tiles_w,
        tiles_h,
        tiles_w,
        cols4: channels as u32 / 4,
        x_format: x_format as u32,
        accumulate: u32::from(accumulate),
        first: 0,
        pad: 0,
    }
}

/// The 16 products between transformed tiles and weights, as a convolution: a picture of 4 lines and 4 pixels a tile, each of whose
/// 4 x 4 places in a tile has a matrix of its own.
pub fn product(tiles: u32, in_c: usize, out_c: usize) -> ConvParams {
    let (h, w) = (4, 4 * tiles);
    ConvParams {
        batch: 1,
        in_h: h,
        in_w: w,
        in_c: in_c as u32,
        out_h: h,
        out_w: w,
        out_c: out_c as u32,
        q_h: 1,
        q_w: tiles,
        parities: 4,
        q_stride: 4,
        kernel: 4,
        stride: 1,
        backward: ConvParams::TILES,
        ..ConvParams::default()
    }
}

/// `winograd_weights.wgsl`.
pub static WEIGHTS: KernelDef = KernelDef {
    name: "winograd_weights",
    bindings: &[("w", Access::Read), ("u", Access::ReadWrite)],
    params_bytes: size_of::<WeightParams>(),
    twin: weights,
};

/// 2 G.
const G2: [[f32; 3]; 4] = [[2.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, -1.0, 1.0], [0.0, 0.0, 2.0]];
/// Rows of the transposed B.
const B: [[f32; 4]; 4] = [[1.0, 0.0, -1.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, -1.0, 1.0, 0.0], [0.0, 1.0, 0.0, -1.0]];
/// Rows of the transposed A.
const A: [[f32; 4]; 2] = [[1.0, 1.0, 1.0, 0.0], [0.0, 1.0, -1.0, -1.0]];

/// `t d t^T` for the two rows of `t`.
fn transform<const N: usize>(rows: [&[f32; N]; 2], d: impl Fn(usize, usize) -> f32) -> f32 {
    let line = |y: usize| (0..N).map(|x| rows[1][x] * d(y, x)).sum::<f32>();
    (0..N).map(|y| rows[0][y] * line(y)).sum()
}

fn weights(t: &mut Twin) {
    let p: WeightParams = t.params();
    let (w, u) = (t.f32(0), t.f32_mut(1));
    let (w, words) = (&w[4 * p.w_base as usize..], 4 * p.items as usize);
    for i in 0..words {
        let tap = |y: usize, x: usize| w[i + words * if p.flip == 1 { 8 - (3 * y + x) } else { 3 * y + x }];
        for e in 0..16 {
            u[e * words + i] = transform([&G2[e / 4], &G2[e % 4]], tap);
        }
    }
}

/// `winograd_in.wgsl`.
pub static IN: KernelDef = KernelDef {
    name: "winograd_in",
    bindings: &[("x", Access::Read), ("v", Access::ReadWrite)],
    params_bytes: size_of::<TileParams>(),
    twin: tiles_in,
};

/// Variant of `winograd_in`.
pub fn in_variant(format: Format) -> Variant {
    Variant::only("winograd_in").with_files(&[format.operand()])
}

fn tiles_in(t: &mut Twin) {
    let p: TileParams = t.params();
    let format = Format::from_number(p.x_format);
    let (x, v) = (t.words(0), t.f32_mut(1));
    let channels = 4 * p.cols4 as usize;
    let [tiles, th, tw] = [p.tiles, p.tiles_h, p.tiles_w].map(|n| n as usize);
    for tile in 0..tiles {
        let place = p.first as usize + tile;
        let (n, ty, tx) = (place / (th * tw), place / tw % th, place % tw);
        for c in 0..channels {
            let pixel = |y: usize, x_: usize| {
                let (y, x_) = (2 * ty + y, 2 * tx + x_);
                let inside = (1..=2 * th).contains(&y) && (1..=2 * tw).contains(&x_);
                if inside { format.load(x, ((n * 2 * th + y - 1) * 2 * tw + x_ - 1) * channels + c) } else { 0.0 }
            };
            for e in 0..16 {
                v[(e / 4 * 4 * tiles + 4 * tile + e % 4) * channels + c] = transform([&B[e / 4], &B[e % 4]], pixel);
            }
        }
    }
}

/// `winograd_out.wgsl`.
pub static OUT: KernelDef = KernelDef {
    name: "winograd_out",
    bindings: &[("m", Access::Read), ("out", Access::ReadWrite)],
    params_bytes: size_of::<TileParams>(),
    twin: tiles_out,
};

fn tiles_out(t: &mut Twin) {
    let p: TileParams = t.params();
    let (m, out) = (t.f32(0), t.f32_mut(1));
    let channels = 4 * p.cols4 as usize;
    let [tiles, tw] = [p.tiles, p.tiles_w].map(|n| n as usize);
    for tile in 0..tiles {
        let place = p.first as usize + tile;
        for c in 0..channels {
            let product = |y: usize, x: usize| m[(y * 4 * tiles + 4 * tile + x) * channels + c];
            for e in 0..4 {
                let (y, x) = (2 * (place / tw) + e / 2, 2 * (place % tw) + e % 2);
                let o = &mut out[(y * 2 * tw + x) * channels + c];
                let sum = transform([&A[e / 2], &A[e % 2]], product) * 0.25;
                *o = if p.accumulate == 1 { *o + sum } else { sum };
            }
        }
    }
}

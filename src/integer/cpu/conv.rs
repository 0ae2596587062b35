//! A convolution of codes.
//!
//! Codes lie as `(H + 2, W + 2, C)` i16 with a border of zeros, so that the window of a kernel row is one contiguous
//! run of codes and padding costs nothing.

use crate::integer::IntegerConv;
use crate::net::Shape;

/// Output channels that are accumulated together.
const LANES: usize = 8;
/// Weight codes of two neighbouring inputs for [`LANES`] outputs.
type Block = [[i16; 2]; LANES];

/// Output pixels of a row that are accumulated together: with [`LANES`] channels each, what fits in vector registers.
const PIXELS: usize = 4;

/// Codes of one value with their border, channels in pairs.
pub(super) struct Codes {
    shape: Shape,
    pairs: Vec<[i16; 2]>,
}

impl Codes {
    pub(super) fn new(shape: Shape) -> Codes {
        Codes { shape, pairs: vec![[0; 2]; (shape.h + 2) * (shape.w + 2) * shape.c / 2] }
    }

    /// The pair that holds channel 0 of a pixel; rows and columns count from the border.
    fn at(&self, row: usize, column: usize) -> usize {
        (row * (self.shape.w + 2) + column) * self.shape.c / 2
    }

    /// Row `y` of the picture without its border, `(W, C)`.
    pub(super) fn row(&self, y: usize) -> &[i16] {
        let start = self.at(y + 1, 1);
        self.pairs[start..][..self.shape.w * self.shape.c / 2].as_flattened()
    }

    pub(super) fn row_mut(&mut self, y: usize) -> &mut [i16] {
        let start = self.at(y + 1, 1);
        self.pairs[start..][..self.shape.w * self.shape.c / 2].as_flattened_mut()
    }

    /// The pixels in order, C codes each.
    pub(super) fn pixels(&self) -> impl Iterator<Item = &[i16]> {
        (0..self.shape.h).flat_map(|y| self.row(y).chunks_exact(self.shape.c))
    }

    /// Codes of a raw picture `(3, H, W)`.
    pub(super) fn load(&mut self, image: &[u8], codes: &[[i8; 256]; 3]) {
        let Shape { h, w, c } = self.shape;
        for y in 0..h {
            let row = self.row_mut(y);
            for (channel, table) in codes.iter().enumerate() {
                let raw = &image[(channel * h + y) * w..][..w];
                for (pixel, byte) in row.chunks_exact_mut(c).zip(raw) {
                    pixel[channel] = i16::from(table[usize::from(*byte)]);
                }
            }
        }
    }
}

/// A convolution with its weights as the inner loop reads them: `(c_out / LANES, ky, kx * c_in / 2)`.
pub(super) struct Conv<'a> {
    pub(super) conv: &'a IntegerConv,
    packed: Vec<Block>,
}

/// Weight codes as the inner loop reads them: input channels in pairs, padding channels 0.
fn pack(conv: &IntegerConv) -> Vec<Block> {
    let IntegerConv { kernel, real_in, from, to, .. } = *conv;
    let taps = kernel * kernel;
    let code = |co: usize, ci: usize, tap: usize| match ci < real_in {
        true => i16::from(conv.weights.codes[(co * real_in + ci) * taps + tap]),
        false => 0,
    };
    let mut packed = Vec::with_capacity(to.c / LANES * taps * from.c / 2);
    for first in (0..to.c).step_by(LANES) {
        for tap in 0..taps {
            for ci in (0..from.c).step_by(2) {
                packed.push(std::array::from_fn(|lane| [0, 1].map(|k| code(first + lane, ci + k, tap))));
            }
        }
    }
    packed
}

impl<'a> Conv<'a> {
    pub(super) fn new(conv: &'a IntegerConv) -> Conv<'a> {
        Conv { conv, packed: pack(conv) }
    }

    /// Accumulators `(H, W, C)` of the output.
    pub(super) fn accumulate(&self, x: &Codes, out: &mut [i32]) {
        let IntegerConv { kernel, from, to, .. } = self.conv;
        let weights = kernel * kernel * from.c / 2;
        for (block, weights) in self.packed.chunks_exact(weights).enumerate() {
            for y in 0..to.h {
                let out = &mut out[y * to.w * to.c..][..to.w * to.c];
                let whole = to.w / PIXELS * PIXELS;
                for column in (0..whole).step_by(PIXELS) {
                    self.tile::<PIXELS>(x, weights, y, column, block, out);
                }
                for column in whole..to.w {
                    self.tile::<1>(x, weights, y, column, block, out);
                }
            }
        }
    }

    /// P neighbouring pixels of one block of channels.
    #[inline(always)]
    fn tile<const P: usize>(
        &self,
        x: &Codes,
        weights: &[Block],
        y: usize,
        column: usize,
        block: usize,
        out: &mut [i32],
    ) {
        let IntegerConv { kernel, stride, from, to, .. } = self.conv;
        let border = 1 - kernel / 2;
        let run = kernel * from.c / 2;
        let mut acc = [[0; LANES]; P];
        for (ky, weights) in weights.chunks_exact(run).enumerate() {
            let start = x.at(y * stride + ky + border, column * stride + border);
            let step = stride * from.c / 2;
            let windows: [&[[i16; 2]]; P] = std::array::from_fn(|p| &x.pairs[start + p * step..][..run]);
            for (k, w) in weights.iter().enumerate() {
                for (acc, window) in acc.iter_mut().zip(windows) {
                    multiply_add(acc, window[k], w);
                }
            }
        }
        for (p, acc) in acc.iter().enumerate() {
            out[(column + p) * to.c + block * LANES..][..LANES].copy_from_slice(acc);
        }
    }
}

/// `acc[lane] += a[0] * w[lane][0] + a[1] * w[lane][1]`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn multiply_add(acc: &mut [i32; LANES], a: [i16; 2], w: &Block) {
    use std::arch::x86_64::{__m128i, _mm_add_epi32, _mm_madd_epi16, _mm_set1_epi32};
    let [s0, s1]: [__m128i; 2] = bytemuck::cast(*acc);
    let [w0, w1]: [__m128i; 2] = bytemuck::cast(*w);
    // By hand, because the compiler does not find this instruction; convolutions ran 3 to 5 times slower without it.
    // SAFETY: SSE2 is part of every x86_64.
    *acc = bytemuck::cast(unsafe {
        let a = _mm_set1_epi32(bytemuck::cast(a));
        [_mm_add_epi32(s0, _mm_madd_epi16(a, w0)), _mm_add_epi32(s1, _mm_madd_epi16(a, w1))]
    });
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn multiply_add(acc: &mut [i32; LANES], a: [i16; 2], w: &Block) {
    let [a0, a1] = a.map(i32::from);
    for (s, [w0, w1]) in acc.iter_mut().zip(w) {
        *s += a0 * i32::from(*w0) + a1 * i32::from(*w1);
    }
}

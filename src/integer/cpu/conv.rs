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

/// Output pixels of a row that are accumulated together: with one or two blocks of channels each, what fits in vector registers.
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
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has it.
            return unsafe { self.accumulate_avx2(x, out) };
        }
        self.accumulate_by::<1>(x, out, multiply_add);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn accumulate_avx2(&self, x: &Codes, out: &mut [i32]) {
        self.accumulate_by::<2>(x, out, |acc, a, w| multiply_add_avx2(acc, a, w));
    }

    /// B blocks at a time.
    #[inline(always)]
    fn accumulate_by<const B: usize>(&self, x: &Codes, out: &mut [i32], multiply_add: impl MultiplyAdd) {
        let size = self.conv.kernel * self.conv.kernel * self.conv.from.c / 2;
        for (k, some) in self.packed.chunks(B * size).enumerate() {
            let blocks: [&[Block]; B] = std::array::from_fn(|b| some.get(b * size..(b + 1) * size).unwrap_or_default());
            if some.len() == B * size {
                self.rows(x, blocks, k * B, out, multiply_add);
            } else {
                for (b, block) in blocks.into_iter().enumerate().filter(|(_, block)| !block.is_empty()) {
                    self.rows(x, [block], k * B + b, out, multiply_add);
                }
            }
        }
    }

    /// All pixels of B blocks, of which the first has this number.
    #[inline(always)]
    fn rows<const B: usize>(
        &self,
        x: &Codes,
        blocks: [&[Block]; B],
        first: usize,
        out: &mut [i32],
        multiply_add: impl MultiplyAdd,
    ) {
        let to = self.conv.to;
        for (y, out) in out.chunks_exact_mut(to.w * to.c).enumerate() {
            let whole = to.w / PIXELS * PIXELS;
            for column in (0..whole).step_by(PIXELS) {
                self.tile::<PIXELS, B>(x, blocks, [y, column, first], out, multiply_add);
            }
            for column in whole..to.w {
                self.tile::<1, B>(x, blocks, [y, column, first], out, multiply_add);
            }
        }
    }

    /// P neighbouring pixels of B blocks, whose row `y` is `out`.
    #[inline(always)]
    fn tile<const P: usize, const B: usize>(
        &self,
        x: &Codes,
        blocks: [&[Block]; B],
        [y, column, first]: [usize; 3],
        out: &mut [i32],
        multiply_add: impl MultiplyAdd,
    ) {
        let IntegerConv { kernel, stride, from, to, .. } = self.conv;
        let border = 1 - kernel / 2;
        let run = kernel * from.c / 2;
        let mut acc = [[[0; LANES]; B]; P];
        for ky in 0..*kernel {
            let start = x.at(y * stride + ky + border, column * stride + border);
            let step = stride * from.c / 2;
            let windows: [&[[i16; 2]]; P] = std::array::from_fn(|p| &x.pairs[start + p * step..][..run]);
            let weights = blocks.map(|block| &block[ky * run..][..run]);
            for k in 0..run {
                for (acc, window) in acc.iter_mut().zip(windows) {
                    for (acc, weights) in acc.iter_mut().zip(weights) {
                        multiply_add(acc, window[k], &weights[k]);
                    }
                }
            }
        }
        for (p, acc) in acc.iter().enumerate() {
            out[(column + p) * to.c + first * LANES..][..B * LANES].copy_from_slice(acc.as_flattened());
        }
    }
}

/// One way to do [`multiply_add`].
trait MultiplyAdd: Fn(&mut [i32; LANES], [i16; 2], &Block) + Copy {}
impl<F: Fn(&mut [i32; LANES], [i16; 2], &Block) + Copy> MultiplyAdd for F {}

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

/// [`multiply_add`] with the instruction that does all lanes at once.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
fn multiply_add_avx2(acc: &mut [i32; LANES], a: [i16; 2], w: &Block) {
    use std::arch::x86_64::{__m256i, _mm256_add_epi32, _mm256_madd_epi16, _mm256_set1_epi32};
    let [s, w]: [__m256i; 2] = [bytemuck::cast(*acc), bytemuck::cast(*w)];
    let a = _mm256_set1_epi32(bytemuck::cast(a));
    *acc = bytemuck::cast(_mm256_add_epi32(s, _mm256_madd_epi16(a, w)));
}

/// `acc[lane] += a[0] * w[lane][0] + a[1] * w[lane][1]`.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn multiply_add(acc: &mut [i32; LANES], a: [i16; 2], w: &Block) {
    let [a0, a1] = a.map(i32::from);
    for (s, [w0, w1]) in acc.iter_mut().zip(w) {
        *s += a0 * i32::from(*w0) + a1 * i32::from(*w1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::integer::IntegerWeights;
    use crate::kernels::input::random;

    /// Each way to compute accumulators, on blocks that are no pair and rows that are no whole number of tiles.
    #[test]
    fn every_way_gives_the_sums_of_products() {
        for (kernel, stride, [h, w, from, to]) in [(3, 1, [5, 7, 4, 24]), (3, 2, [7, 9, 6, 8]), (1, 2, [6, 10, 8, 40])]
        {
            let number =
                |seed: u32, i: usize, most: i32| (random(seed, i as u32, 0) % (2 * most as u32 + 1)) as i32 - most;
            let codes: Vec<i8> = (0..to * from * kernel * kernel).map(|i| number(1, i, 127) as i8).collect();
            let weights = IntegerWeights::new(codes, 8, false, vec![1.0; to], 255, true).unwrap();
            let (from, to) = (Shape { h, w, c: from }, Shape { h: h.div_ceil(stride), w: w.div_ceil(stride), c: to });
            let name = "conv".to_string();
            let conv = IntegerConv { name, input: 0, kernel, stride, from, to, real_in: from.c, weights };
            let mut x = Codes::new(from);
            for y in 0..h {
                x.row_mut(y).iter_mut().enumerate().for_each(|(i, q)| *q = number(2, y * 1000 + i, 255) as i16);
            }
            let code = |y: usize, x_at: usize, c: usize| match (y.checked_sub(kernel / 2), x_at.checked_sub(kernel / 2))
            {
                (Some(y), Some(column)) if y < h && column < w => i32::from(x.row(y)[column * from.c + c]),
                _ => 0,
            };
            let product = |o: usize, ky: usize, kx: usize, c: usize| {
                let (pixel, co) = (o / to.c, o % to.c);
                let weight = conv.weights.codes[(co * from.c + c) * kernel * kernel + ky * kernel + kx];
                i32::from(weight) * code(pixel / to.w * stride + ky, pixel % to.w * stride + kx, c)
            };
            let taps = || (0..kernel).flat_map(|ky| (0..kernel).map(move |kx| (ky, kx)));
            let sum =
                |o: usize| taps().flat_map(|(ky, kx)| (0..from.c).map(move |c| product(o, ky, kx, c))).sum::<i32>();
            let want: Vec<i32> = (0..to.len()).map(sum).collect();
            let packed = Conv::new(&conv);
            let found = |compute: &dyn Fn(&mut [i32])| {
                let mut out = vec![i32::MIN; to.len()];
                compute(&mut out);
                out
            };
            assert!(found(&|out| packed.accumulate(&x, out)) == want, "{from:?}");
            assert!(found(&|out| packed.accumulate_by::<1>(&x, out, multiply_add)) == want, "{from:?}");
            assert!(found(&|out| packed.accumulate_by::<2>(&x, out, multiply_add)) == want, "{from:?}");
        }
    }
}

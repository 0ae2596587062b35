//! The folded network: exact integers with stored statistics, as hardware runs it.
//!
//! Batch norm, ReLU and quantizer of a layer become one requantization of its accumulators. With `acc = sum q_w q_a`
//! in 32 bits and `r` the shortcut's code (identity) or accumulator (projection), one floor shift, so one rounding,
//! half up:
//!
//! ```text
//! q = clamp((acc * M + r * M_r + B + 2^(n-1)) >> n, lo, hi)         lo = 0 is the ReLU
//!
//! M   = round(2^n * s_w s_a gamma / (sqrt(var + eps) s_out))        signed 32 bits per channel, may be 0 or negative
//! M_r = round(2^n * s_r / s_out)                                    identity: the ratio of the scales
//!     = M of the projection's own convolution and batch norm        projection
//! B   = round(2^n * (beta - mean gamma / sqrt(var + eps)) / s_out)  and the same of a projection; at most 53 bits
//! ```
//!
//! `n` is as large as a layer allows, at most [`MAX_SHIFT`]: multipliers fit signed 32 bits, `|B| <= 2^53` (also an
//! exact double), and for the largest accumulators that the weights can give the sum stays within `2^62`, so nothing
//! wraps in 64 bits. Rounding M moves the value of a code by at most `|acc| / 2^(n+1)`.
//!
//! `s_out` is the step of the base grid. Where the bit window drops low bits (`quant.reduce`), the formula gives the
//! base code, with the base grid's limits, and the window follows as in [`Quant::code`]: two roundings, as in
//! training.
//!
//! The picture enters as signed 8-bit codes ([`crate::normalisation::Normalisation::codes`]) and padding is code 0. The
//! average pool is an integer sum; `1 / (H W)` is part of the classifier's scale: `logit = acc * (s_w s_a / (H W)) +
//! bias` in 64-bit floating point, rounded to 32 bits. Fake quantization rounds half to even and in 32-bit floating
//! point, so codes differ only where a value lies on a rounding edge.

mod fold;
mod run;

use crate::data::{Split, picture_bytes};
use crate::net::Shape;
use crate::quant::Quant;
use crate::score::Evaluation;
use crate::{Error, Result};

pub use run::{LayerTrace, Trace};

/// Largest shift `n` of a requantization.
pub const MAX_SHIFT: u32 = 48;

/// Output channels that are accumulated together.
const LANES: usize = 8;
/// Weight codes of two neighbouring inputs for [`LANES`] outputs.
type Block = [[i16; 2]; LANES];

/// A network of integers. Values are numbered: 0 is the picture, `k + 1` the output of `layers[k]`.
#[derive(Debug, Clone)]
pub struct IntegerNet {
    /// Side of the square picture.
    pub size: usize,
    /// Input.
    pub input: IntegerInput,
    /// One per activation, in forward order.
    pub layers: Vec<IntegerLayer>,
    /// Pool and classifier.
    pub classifier: IntegerLinear,
}

/// How a picture becomes codes.
#[derive(Debug, Clone)]
pub struct IntegerInput {
    /// Code of every raw byte, per channel.
    pub codes: [[i8; 256]; 3],
    /// Value of one code.
    pub scale: f32,
    /// Largest magnitude of a code.
    pub largest: u32,
}

/// Convolution, batch norm, shortcut, ReLU and quantizer: what ends in codes.
#[derive(Debug, Clone)]
pub struct IntegerLayer {
    /// Name of the activation, such as `layer1.0.relu2`.
    pub name: String,
    /// The convolution on the main branch.
    pub conv: IntegerConv,
    /// The other branch.
    pub shortcut: IntegerShortcut,
    /// Requantization, per output channel.
    pub channels: Vec<Requantize>,
    /// The shift `n`, at least 1.
    pub shift: u32,
    /// Limits of the codes and, where low bits are dropped, the bit window.
    pub quant: Quant,
    /// Value of one code.
    pub scale: f32,
    /// Output shape.
    pub shape: Shape,
    /// Code of every base code.
    window: [u8; 256],
}

/// Factors of one output channel: `acc * multiplier + r * shortcut + offset`, see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requantize {
    /// M.
    pub multiplier: i32,
    /// `M_r`; 0 without a shortcut.
    pub shortcut: i32,
    /// B.
    pub offset: i64,
}

/// What is added to the main branch.
#[derive(Debug, Clone)]
pub enum IntegerShortcut {
    /// Nothing.
    None,
    /// The codes of a value.
    Identity(usize),
    /// The accumulators of a 1x1 convolution.
    Projection(IntegerConv),
}

/// A convolution of codes with padding `kernel / 2`.
#[derive(Debug, Clone)]
pub struct IntegerConv {
    /// Name, such as `layer1.0.conv1`.
    pub name: String,
    /// The value that it reads.
    pub input: usize,
    /// Kernel side, 1 or 3.
    pub kernel: usize,
    /// Stride.
    pub stride: usize,
    /// Input shape.
    pub from: Shape,
    /// Output shape.
    pub to: Shape,
    /// Input channels that carry data.
    pub real_in: usize,
    /// Weight codes, `(c_out, real_in, ky, kx)`.
    pub codes: Vec<i8>,
    /// Scale of the weights, per output channel.
    pub scales: Vec<f32>,
    /// Largest magnitude that an accumulator can reach with these weights, per output channel.
    pub largest: Vec<i64>,
    /// `(c_out / LANES, ky, kx * c_in / 2)`.
    packed: Vec<Block>,
}

/// Sum over all pixels, then the fully connected layer.
#[derive(Debug, Clone)]
pub struct IntegerLinear {
    /// Name, `fc`.
    pub name: String,
    /// The value that is pooled.
    pub input: usize,
    /// Input features.
    pub features: usize,
    /// Classes.
    pub classes: usize,
    /// Pixels in a pooled sum.
    pub pixels: usize,
    /// Weight codes, `(classes, features)`.
    pub codes: Vec<i8>,
    /// Factor from accumulators to logits, per class: `s_w * s_a / pixels`.
    pub scales: Vec<f64>,
    /// Bias, per class, in logits.
    pub bias: Vec<f32>,
    /// Largest magnitude that an accumulator can reach with these weights, per class.
    pub largest: Vec<i64>,
}

impl IntegerLayer {
    /// The code of one element of channel `c`; `r` is 0 without a shortcut.
    pub fn code(&self, c: usize, acc: i32, r: i32) -> u8 {
        self.window[self.base_code(&self.channels[c], acc, r)]
    }

    #[inline(always)]
    fn base_code(&self, k: &Requantize, acc: i32, r: i32) -> usize {
        let sum = i64::from(acc) * i64::from(k.multiplier) + i64::from(r) * i64::from(k.shortcut) + k.offset;
        let rounded = (sum + (1 << (self.shift - 1))) >> self.shift;
        rounded.clamp(i64::from(self.quant.base_lo), i64::from(self.quant.base_hi)) as usize
    }
}

impl IntegerConv {
    /// Bits of a two's complement accumulator that holds every sum these weights can give.
    pub fn accumulator_bits(&self) -> u32 {
        accumulator_bits(&self.largest)
    }
}

impl IntegerLinear {
    /// Bits of a two's complement accumulator that holds every sum these weights can give.
    pub fn accumulator_bits(&self) -> u32 {
        accumulator_bits(&self.largest)
    }
}

fn accumulator_bits(largest: &[i64]) -> u32 {
    let top = largest.iter().copied().max().unwrap_or(0);
    65 - top.leading_zeros()
}

impl IntegerNet {
    /// Loss without smoothing, top-1 and top-5 over a split, on all processors. Of equal logits the first class leads.
    ///
    /// # Errors
    /// Pictures of another size, a label that is no class of the network.
    pub fn evaluate(&self, split: &Split) -> Result<Evaluation> {
        let classes = self.classifier.classes;
        if split.side != self.size {
            return Err(Error::data(format!("the pictures have side {}, expected {}", split.side, self.size))
                .hint("evaluate on a data set with pictures of the network's size"));
        }
        if let Some(label) = split.labels.iter().find(|l| usize::from(**l) >= classes) {
            return Err(Error::data(format!("a picture has label {label}, expected less than {classes}"))
                .hint("evaluate on the data set that the run was trained on"));
        }
        let logits = self.run(&split.images)?;
        let mut evaluation = Evaluation::default();
        for (row, &label) in logits.chunks_exact(classes).zip(&split.labels) {
            let (sample, prediction) = score(row, usize::from(label));
            let t = &mut evaluation.totals;
            t.loss += sample[0];
            t.top1 += sample[1];
            t.top5 += sample[2];
            t.count += 1.0;
            evaluation.predictions.push(prediction);
        }
        Ok(evaluation)
    }

    /// Bytes of one picture, `(3, size, size)`.
    pub fn picture_bytes(&self) -> usize {
        picture_bytes(self.size)
    }
}

/// Loss, top-1 and top-5 of one row of logits, and the predicted class.
fn score(row: &[f32], label: usize) -> ([f64; 3], u32) {
    let best = (0..row.len()).fold(0, |b, c| if row[c] > row[b] { c } else { b });
    let top = f64::from(row[best]);
    let sum: f64 = row.iter().map(|v| (f64::from(*v) - top).exp()).sum();
    let before = |c: &usize| row[*c] > row[label] || (row[*c] == row[label] && *c < label);
    let rank = (0..row.len()).filter(before).count();
    let loss = sum.ln() - (f64::from(row[label]) - top);
    ([loss, f64::from(u8::from(rank == 0)), f64::from(u8::from(rank < 5))], best as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accumulators_need_a_sign_bit() {
        assert_eq!([0, 1, 127, 128, 4608 * 16 * 15].map(|top| accumulator_bits(&[0, top])), [1, 2, 8, 9, 22]);
    }

    #[test]
    fn equal_logits_rank_by_class() {
        let row = [1.0, 2.0, 2.0, 0.0, 0.0, 0.0];
        assert_eq!(score(&row, 1).1, 1);
        let tops = [0, 1, 2, 5].map(|label| score(&row, label).0).map(|s| (s[1], s[2]));
        assert_eq!(tops, [(0.0, 1.0), (1.0, 1.0), (0.0, 1.0), (0.0, 0.0)]);
        let sum: f64 = row.iter().map(|v: &f32| f64::from(*v).exp()).sum();
        assert!((score(&row, 0).0[0] - (sum.ln() - 1.0)).abs() < 1e-12);
    }
}

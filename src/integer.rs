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
//! `n` is as large as a channel allows, at most [`MAX_SHIFT`]: multipliers fit [`Multiplier`], `|B| <= 2^53` (also an
//! exact double), and for the largest accumulators that the weights can give the sum stays within `2^62`, so nothing
//! wraps in 64 bits. Rounding M moves the value of a code by at most `|acc| / 2^(n+1)`.
//!
//! `s_out` is the step of the base grid. Where the bit window drops low bits (`quant.reduce`), the formula gives the
//! base code, with the base grid's limits, and the window follows as in [`Quant::code`]: two roundings, as in
//! training.
//!
//! The picture enters as signed 8-bit codes ([`crate::normalisation::Normalisation::codes`]) and padding is code 0. The
//! average pool is an integer sum; `1 / (H W)` is part of the classifier's scale. Logits are 32-bit integers in units of `2^-f`
//! ([`IntegerLinear::fraction_bits`]), requantized by the same formula. Fake quantization rounds half to even and in 32-bit floating
//! point, so codes differ only where a value lies on a rounding edge.

mod accumulators;
mod cpu;
mod device;
mod fold;

use serde::{Deserialize, Serialize};

use crate::data::picture_bytes;
use crate::net::Shape;
use crate::quant::Quant;

pub use accumulators::{AccumulatorRange, Bounds};
pub use cpu::{LayerTrace, Trace};
pub use device::IntegerSession;

/// Largest shift `n` of a requantization.
pub const MAX_SHIFT: u32 = 48;

/// A network of integers: plain data, which whatever runs or writes it reads. Values are numbered: 0 is the picture, `k + 1` the
/// output of `layers[k]`.
#[derive(Debug, Clone, PartialEq)]
pub struct IntegerNet {
    /// Side of the square picture.
    pub size: usize,
    /// What its multipliers are.
    pub multiplier: Multiplier,
    /// How wide accumulators are.
    pub accumulator: Accumulator,
    /// Input.
    pub input: IntegerInput,
    /// One per activation, in forward order.
    pub layers: Vec<IntegerLayer>,
    /// Pool and classifier.
    pub classifier: IntegerLinear,
}

/// What multiplies accumulators and shortcuts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Multiplier {
    /// Signed 32-bit numbers.
    Bits32,
    /// Signed 16-bit numbers.
    Bits16,
    /// Nothing: each is 0 or a power of two up to 2^30 with a sign, and so another shift.
    Shift,
}

impl Multiplier {
    /// Whether a factor is one of these.
    pub fn has(self, factor: i32) -> bool {
        match self {
            Multiplier::Bits32 => true,
            Multiplier::Bits16 => i16::try_from(factor).is_ok(),
            Multiplier::Shift => factor == 0 || (factor > i32::MIN && factor.unsigned_abs().is_power_of_two()),
        }
    }
}

/// An accumulator, in two's complement. Partial sums may pass its ends: those of one that wraps come back, and of one that saturates
/// the whole sum does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accumulator {
    /// Its bits, 2 to 32.
    pub bits: u32,
    /// Whether sums beyond it saturate; else they wrap.
    pub saturates: bool,
}

impl Accumulator {
    /// One of 32 bits, which holds every sum.
    pub const WHOLE: Accumulator = Accumulator { bits: 32, saturates: false };

    /// What it holds of a sum.
    #[inline(always)]
    pub fn hold(&self, sum: i32) -> i32 {
        let spare = 32 - self.bits;
        match self.saturates {
            true => sum.clamp(i32::MIN >> spare, i32::MAX >> spare),
            false => (sum << spare) >> spare,
        }
    }
}

/// How a picture becomes codes.
#[derive(Debug, Clone, PartialEq)]
pub struct IntegerInput {
    /// Code of every raw byte, per channel.
    pub codes: [[i8; 256]; 3],
    /// Value of one code.
    pub scale: f32,
    /// Largest magnitude of a code.
    pub largest: u32,
}

impl IntegerInput {
    /// With these codes.
    pub fn new(codes: [[i8; 256]; 3], scale: f32) -> IntegerInput {
        let largest = codes.as_flattened().iter().map(|c| u32::from(c.unsigned_abs())).max().unwrap_or(0);
        IntegerInput { codes, scale, largest }
    }
}

/// Convolution, batch norm, shortcut, ReLU and quantizer: what ends in codes.
#[derive(Debug, Clone, PartialEq)]
pub struct IntegerLayer {
    /// Name of the activation, such as `layer1.0.relu2`.
    pub name: String,
    /// The convolution on the main branch.
    pub conv: IntegerConv,
    /// The other branch.
    pub shortcut: IntegerShortcut,
    /// Requantization, per output channel.
    pub channels: Vec<Requantize>,
    /// From base codes to codes.
    pub window: Window,
    /// Bits of a code, as configured.
    pub bits: u32,
    /// Value of one code.
    pub scale: f32,
    /// Output shape.
    pub shape: Shape,
}

/// Factors of one output channel, see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requantize {
    /// M.
    pub multiplier: i32,
    /// `M_r`; 0 without a shortcut.
    pub shortcut: i32,
    /// B.
    pub offset: i64,
    /// n, at least 1.
    pub shift: u32,
}

impl Requantize {
    /// Largest magnitude of B: integers up to here are exact in an f64.
    pub const LARGEST_OFFSET: i64 = 1 << 53;
    /// Largest magnitude of the sum before the shift.
    pub const LARGEST_SUM: i64 = 1 << 62;

    /// Whether 64 bits hold every sum of accumulators up to `main` and what is added up to `added`.
    pub fn is_sound(&self, main: i64, added: i64) -> bool {
        let product = |m: i32, largest: i64| i128::from(m).abs() * i128::from(largest);
        let offset = i128::from(self.offset).abs();
        let half = 1i128 << (self.shift - 1);
        let sum = product(self.multiplier, main) + product(self.shortcut, added) + offset + half;
        offset <= i128::from(Self::LARGEST_OFFSET) && sum <= i128::from(Self::LARGEST_SUM)
    }

    /// `(acc M + r M_r + B + 2^(n-1)) >> n`; `r` is 0 without a shortcut.
    #[inline(always)]
    pub fn apply(&self, acc: i32, r: i32) -> i64 {
        let sum = i64::from(acc) * i64::from(self.multiplier) + i64::from(r) * i64::from(self.shortcut) + self.offset;
        (sum + (1 << (self.shift - 1))) >> self.shift
    }
}

/// From base codes to codes: `clamp((clamp(base, base_lo, base_hi) + half) >> shift, lo, hi)`, where `half` is half a step or 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Lowest base code.
    pub base_lo: i32,
    /// Highest base code.
    pub base_hi: i32,
    /// Low bits that are dropped.
    pub shift: u32,
    /// Whether dropping them rounds half up; else it floors.
    pub round: bool,
    /// Lowest code.
    pub lo: i32,
    /// Highest code.
    pub hi: i32,
}

impl Window {
    /// Every 32-bit integer as it is.
    pub const ALL: Window =
        Window { base_lo: i32::MIN, base_hi: i32::MAX, shift: 0, round: false, lo: i32::MIN, hi: i32::MAX };

    /// That of a quantizer, its offset included.
    pub fn of(q: &Quant) -> Window {
        Window { base_lo: q.base_lo, base_hi: q.base_hi, shift: q.shift, round: q.round_shift == 1, lo: q.lo, hi: q.hi }
    }

    /// The code of a base code of any size.
    pub fn code(&self, base: i64) -> i32 {
        let base = base.clamp(i64::from(self.base_lo), i64::from(self.base_hi)) as i32;
        let half = if self.round && self.shift > 0 { 1 << (self.shift - 1) } else { 0 };
        ((base + half) >> self.shift).clamp(self.lo, self.hi)
    }
}

/// What is added to the main branch.
#[derive(Debug, Clone, PartialEq)]
pub enum IntegerShortcut {
    /// Nothing.
    None,
    /// The codes of a value.
    Identity(usize),
    /// The accumulators of a 1x1 convolution.
    Projection(IntegerConv),
}

/// Codes of weights.
#[derive(Debug, Clone, PartialEq)]
pub struct IntegerWeights {
    /// The codes, `(c_out, c_in, ky, kx)` or `(classes, features)`.
    pub codes: Vec<i8>,
    /// Bits of a code.
    pub bits: u32,
    /// Whether all codes are odd: `2 c + 1` of a `bits`-bit number c.
    pub odd: bool,
    /// Value of one code, per output channel.
    pub scales: Vec<f32>,
    /// Largest magnitude that an accumulator can reach with these weights, per output channel.
    pub largest: Vec<i64>,
}

/// A convolution of codes with padding `kernel / 2`.
#[derive(Debug, Clone, PartialEq)]
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
    /// Weights, `(c_out, real_in, ky, kx)`.
    pub weights: IntegerWeights,
}

/// Sum over all pixels, then the fully connected layer.
#[derive(Debug, Clone, PartialEq)]
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
    /// Weights, `(classes, features)`.
    pub weights: IntegerWeights,
    /// From accumulators to logits, per class.
    pub channels: Vec<Requantize>,
    /// f: a logit is an integer times `2^-f`.
    pub fraction_bits: u32,
}

impl IntegerLayer {
    /// The convolution whose accumulators are added.
    pub fn projection(&self) -> Option<&IntegerConv> {
        match &self.shortcut {
            IntegerShortcut::Projection(conv) => Some(conv),
            IntegerShortcut::None | IntegerShortcut::Identity(_) => None,
        }
    }

    /// Its convolutions: the main one and, where there is one, the projection.
    pub fn convs(&self) -> impl Iterator<Item = &IntegerConv> {
        std::iter::once(&self.conv).chain(self.projection())
    }
}

impl IntegerWeights {
    /// Weights of which `scales.len()` rows multiply codes of magnitude up to `largest`, below 0 too where `signed`.
    ///
    /// # Errors
    /// The largest sum, where 32 bits do not hold it.
    pub fn new(
        codes: Vec<i8>,
        bits: u32,
        odd: bool,
        scales: Vec<f32>,
        largest: i64,
        signed: bool,
    ) -> std::result::Result<IntegerWeights, i64> {
        let bound = |row: &[i8]| {
            let sum = |sign: i64| row.iter().map(|w| (sign * i64::from(*w)).max(0)).sum::<i64>();
            let (up, down) = (sum(1), sum(-1));
            largest * if signed { up + down } else { up.max(down) }
        };
        let largest: Vec<i64> = codes.chunks_exact(codes.len() / scales.len()).map(bound).collect();
        match largest.iter().find(|sum| **sum > i64::from(i32::MAX)) {
            Some(sum) => Err(*sum),
            None => Ok(IntegerWeights { codes, bits, odd, scales, largest }),
        }
    }

    /// Codes of one output channel or class.
    pub fn row_len(&self) -> usize {
        self.codes.len() / self.scales.len()
    }

    /// Bits of a two's complement accumulator that holds every sum these weights can give.
    pub fn accumulator_bits(&self) -> u32 {
        let top = self.largest.iter().copied().max().unwrap_or(0);
        65 - top.leading_zeros()
    }
}

impl IntegerLinear {
    /// A logit as a number.
    pub fn logit(&self, integer: i32) -> f32 {
        (f64::from(integer) * 2f64.powi(-(self.fraction_bits as i32))) as f32
    }
}

impl IntegerNet {
    /// Weights of every convolution and of the classifier, by name, in forward order.
    pub fn weights(&self) -> Vec<(&str, &IntegerWeights)> {
        let convs = self.layers.iter().flat_map(IntegerLayer::convs);
        let mut all: Vec<_> = convs.map(|conv| (conv.name.as_str(), &conv.weights)).collect();
        all.push((self.classifier.name.as_str(), &self.classifier.weights));
        all
    }

    /// Shape of value `number`: 0 is the picture, of four channels.
    pub fn value_shape(&self, number: usize) -> Shape {
        match number {
            0 => Shape { h: self.size, w: self.size, c: 4 },
            k => self.layers[k - 1].shape,
        }
    }

    /// Bytes of one picture, `(3, size, size)`.
    pub fn picture_bytes(&self) -> usize {
        picture_bytes(self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accumulators_need_a_sign_bit() {
        let bits = |top| {
            let none = IntegerWeights { codes: vec![], bits: 5, odd: false, scales: vec![], largest: vec![0, top] };
            none.accumulator_bits()
        };
        assert_eq!([0, 1, 127, 128, 4608 * 16 * 15].map(bits), [1, 2, 8, 9, 22]);
    }
}

//! How wide accumulators have to be: for any weights, for these, and for pictures that were seen.

use super::{IntegerConv, IntegerLayer, IntegerNet, IntegerWeights};
use crate::cost::accumulator_bits;

/// Bits of the accumulators of a convolution or classifier, in two's complement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Name, such as `layer1.0.conv1`.
    pub layer: String,
    /// Bits of a weight code.
    pub weight_bits: u32,
    /// Weights.
    pub weights: usize,
    /// For any weights of these bits, whatever the picture.
    pub data_free: u32,
    /// For these weights, whatever the picture.
    pub tight: u32,
}

impl IntegerNet {
    /// Of every layer, in the order of [`IntegerNet::weights`].
    pub fn accumulator_bounds(&self) -> Vec<Bounds> {
        let largest = |value: usize| match value {
            0 => u64::from(self.input.largest),
            k => self.layers[k - 1].window.hi as u64,
        };
        let of = |name: &str, w: &IntegerWeights, input: u64| {
            let terms = w.row_len();
            let weight = if w.odd { (1 << w.bits) - 1 } else { 1 << (w.bits - 1) };
            Bounds {
                layer: name.into(),
                weight_bits: w.bits,
                weights: w.codes.len(),
                data_free: accumulator_bits(terms as u64, weight, input),
                tight: w.accumulator_bits(),
            }
        };
        let conv = |c: &IntegerConv| of(&c.name, &c.weights, largest(c.input));
        let convs = self.layers.iter().flat_map(IntegerLayer::convs);
        let c = &self.classifier;
        convs.map(conv).chain([of(&c.name, &c.weights, largest(c.input) * c.pixels as u64)]).collect()
    }
}

/// The least and the largest of some sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccumulatorRange {
    /// The least.
    pub least: i32,
    /// The largest.
    pub largest: i32,
}

impl AccumulatorRange {
    /// Those of no sums.
    pub const NONE: AccumulatorRange = AccumulatorRange { least: i32::MAX, largest: i32::MIN };

    pub(super) fn see(&mut self, sums: &[i32]) {
        let [least, largest] = sums.iter().fold([self.least, self.largest], |[l, h], s| [l.min(*s), h.max(*s)]);
        *self = AccumulatorRange { least, largest };
    }

    pub(super) fn join(&mut self, other: AccumulatorRange) {
        *self = AccumulatorRange { least: self.least.min(other.least), largest: self.largest.max(other.largest) };
    }

    /// Bits of a two's complement accumulator that holds both.
    pub fn bits(&self) -> u32 {
        let magnitude = |v: i32| if v < 0 { !v } else { v };
        33 - magnitude(self.least).max(magnitude(self.largest)).leading_zeros()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_need_a_sign_bit() {
        let bits = |least, largest| AccumulatorRange { least, largest }.bits();
        assert_eq!([bits(0, 0), bits(-1, 0), bits(-128, 127), bits(-129, 0), bits(0, 128)], [1, 1, 8, 9, 9]);
        let mut e = AccumulatorRange::NONE;
        e.see(&[3, -7]);
        e.join(AccumulatorRange { least: -2, largest: 9 });
        assert_eq!(e, AccumulatorRange { least: -7, largest: 9 });
    }
}

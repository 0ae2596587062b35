//! Folding: weights to codes, batch norm and scales to multipliers, offsets and shifts. All factors are made in 64-bit
//! floating point from the stored 32-bit values.

use super::{
    Accumulator, IntegerConv, IntegerInput, IntegerLayer, IntegerLinear, IntegerNet, IntegerShortcut, IntegerWeights,
    MAX_SHIFT, Multiplier, Requantize, Window,
};
use crate::kernels::norm::{EPS, pow2_factor};
use crate::kernels::range::RangeRow;
use crate::net::{Activation, Layer, LayerId, Linear, Net, Shortcut};
use crate::normalisation::Normalisation;
use crate::quant::{Quant, QuantSpec, Quantizer, form};
use crate::safetensors_io::{Tensors, expect};
use crate::tensors;
use crate::{Error, Result};

/// Most fraction bits of a logit: as fine as a 32-bit float of that size.
const MOST_FRACTION_BITS: i32 = 20;
/// Logits stay below this, so that differences of two do too.
const LARGEST_LOGIT: f64 = (1u64 << 30) as f64;

impl IntegerNet {
    /// Folds a quantized network with the stored statistics, weight scales and activation ranges of `tensors`, named as
    /// in [`crate::session::Session::state`].
    ///
    /// # Errors
    /// A layer, activation or input that is not quantized; ranges that were never calibrated; a tensor that is missing,
    /// has another shape or is not finite; factors that such multipliers cannot express.
    pub fn fold(
        net: &Net,
        spec: &QuantSpec,
        tensors: &Tensors,
        normalisation: &Normalisation,
        multiplier: Multiplier,
    ) -> Result<IntegerNet> {
        let input = Self::input_of(net, spec)?;
        let scale = input.rule.scale(normalisation.range()).scale;
        let input = IntegerInput::new(normalisation.codes(&input), scale);
        let picture =
            Value { number: 0, scale: f64::from(input.scale), largest: i64::from(input.largest), signed: true };
        let mut values = vec![None; net.layers.len()];
        values[0] = Some(picture);
        let mut fold = Fold { net, spec, tensors, values, multiplier };
        let mut layers = Vec::new();
        for (id, a) in net.activations() {
            let layer = fold.activation(id, a)?;
            let (scale, largest) = (f64::from(layer.scale), i64::from(layer.window.hi));
            layers.push(layer);
            fold.values[id] = Some(Value { number: layers.len(), scale, largest, signed: false });
        }
        let (id, linear) = net.linear();
        let classifier = fold.linear(id, linear)?;
        Ok(IntegerNet { size: net.size, multiplier, accumulator: Accumulator::WHOLE, input, layers, classifier })
    }

    /// Whether a network with these quantizers can be folded once it is trained.
    ///
    /// # Errors
    /// An input, layer or activation that is not quantized.
    pub fn check(net: &Net, spec: &QuantSpec) -> Result<()> {
        Self::input_of(net, spec).map(|_| ())
    }

    /// The input quantizer of a network that is quantized throughout.
    fn input_of(net: &Net, spec: &QuantSpec) -> Result<Quantizer> {
        for (id, layer) in net.layers.iter().enumerate() {
            if !matches!(layer, Layer::Input(_) | Layer::Pool(_)) && spec.layer(id).is_none() {
                return Err(Error::config(format!(
                    "{} is not quantized, expected every layer to be for integer evaluation",
                    layer.name()
                ))
                .hint("train with quant.first_last=eight or same"));
            }
        }
        spec.input.ok_or_else(|| {
            Error::config("the network sees a float picture (quant.input is none), expected 8-bit codes")
                .hint("train with quant.input=signed8")
        })
    }
}

/// Codes that a layer reads.
#[derive(Debug, Clone, Copy)]
struct Value {
    number: usize,
    /// Value of one code.
    scale: f64,
    /// Largest magnitude of a code.
    largest: i64,
    signed: bool,
}

/// Batch norm of accumulators, in real numbers: `acc * mul + add`.
struct Affine {
    mul: Vec<f64>,
    add: Vec<f64>,
}

/// One output channel in units of the output's base grid, with the largest `|acc|` and `|r|`.
#[derive(Debug, Clone, Copy, Default)]
struct Channel {
    main: f64,
    shortcut: f64,
    offset: f64,
    largest_main: i64,
    largest_shortcut: i64,
}

struct Fold<'a> {
    net: &'a Net,
    spec: &'a QuantSpec,
    tensors: &'a Tensors,
    values: Vec<Option<Value>>,
    multiplier: Multiplier,
}

impl Fold<'_> {
    fn value(&self, id: LayerId) -> Value {
        self.values[id].expect("layers come in forward order")
    }

    fn quantizer(&self, id: LayerId) -> &Quantizer {
        self.spec.layer(id).expect("fold begins with a check that every layer is quantized")
    }

    /// A tensor of finite values.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<&[f32]> {
        let data = expect(self.tensors, name, shape)?;
        match data.iter().find(|v| !v.is_finite()) {
            Some(v) => Err(Error::training(format!("tensor {name} holds {v}, expected finite values"))
                .hint("the run diverged; fold an earlier checkpoint")),
            None => Ok(data),
        }
    }

    /// The stored range of an activation.
    fn range(&self, name: &str, quant: &Quant) -> Result<RangeRow> {
        let row = tensors::range(self.tensors, name, quant)?;
        let untouched = row.range == RangeRow::UNIT.range && row.scale == RangeRow::UNIT.scale;
        if untouched || !(row.scale > 0.0 && row.inv_scale > 0.0) {
            return Err(Error::training(format!("the range of {name} was never calibrated"))
                .hint("fold a checkpoint of the quantized phase: calibration comes first in it"));
        }
        Ok(row)
    }

    /// Weights in the file's order, which multiply `input`.
    fn weights(&self, id: LayerId, shape: &[usize], input: Value) -> Result<IntegerWeights> {
        let name = self.net.layers[id].name();
        let Quantizer { quant, bits, .. } = *self.quantizer(id);
        let weights = self.tensor(&format!("{name}.weight"), shape)?;
        let [scales, inverse] = tensors::weight_scales(self.tensors, "", name, shape[0])?;
        if scales.iter().chain(inverse).any(|s| !(*s > 0.0 && s.is_finite())) {
            return Err(Error::training(format!("a weight scale of {name} is not positive"))
                .hint("the checkpoint is damaged; fold an earlier one"));
        }
        let codes = tensors::weight_codes(weights, inverse, &quant);
        let odd = quant.form != form::PLAIN;
        IntegerWeights::new(codes, bits, odd, scales.to_vec(), input.largest, input.signed).map_err(|sum| {
            Error::config(format!("an accumulator of {name} can reach {sum}, expected at most 2^31 - 1"))
                .hint("lower network.width or the bits of its weights or inputs")
        })
    }

    fn conv(&self, id: LayerId) -> Result<(IntegerConv, Affine)> {
        let c = self.net.conv(id);
        let input = self.value(c.input);
        let shape = [c.to.c, c.real_in, c.kernel, c.kernel];
        let weights = self.weights(id, &shape, input)?;
        let norm = |part: &str| self.tensor(&format!("{}.{part}", c.norm), &[c.to.c]);
        let (gamma, beta) = (norm("weight")?, norm("bias")?);
        let (mean, variance) = (norm("running_mean")?, norm("running_var")?);
        if variance.iter().any(|v| *v < 0.0) {
            return Err(Error::training(format!("{}.running_var is negative", c.norm))
                .hint("the checkpoint is damaged; fold an earlier one"));
        }
        let factor = |k: usize| {
            if self.spec.config.pow2_norm {
                return f64::from(pow2_factor(gamma[k], variance[k]));
            }
            f64::from(gamma[k]) / (f64::from(variance[k]) + f64::from(EPS)).sqrt()
        };
        let affine = Affine {
            mul: (0..c.to.c).map(|k| f64::from(weights.scales[k]) * input.scale * factor(k)).collect(),
            add: (0..c.to.c).map(|k| f64::from(beta[k]) - f64::from(mean[k]) * factor(k)).collect(),
        };
        let conv = IntegerConv {
            name: c.name.clone(),
            input: input.number,
            kernel: c.kernel,
            stride: c.stride,
            from: c.from,
            to: c.to,
            real_in: c.real_in,
            weights,
        };
        Ok((conv, affine))
    }

    fn activation(&self, id: LayerId, a: &Activation) -> Result<IntegerLayer> {
        let Quantizer { quant, bits, .. } = *self.quantizer(id);
        let row = self.range(&a.name, &quant)?;
        let quant = row.offset(&quant);
        let inv = f64::from(row.inv_scale);
        let (conv, main) = self.conv(a.main)?;
        let mut channels: Vec<Channel> = (0..a.shape.c)
            .map(|k| Channel {
                main: main.mul[k] * inv,
                offset: main.add[k] * inv,
                largest_main: conv.weights.largest[k],
                ..Channel::default()
            })
            .collect();
        let shortcut = match a.shortcut {
            Shortcut::None => IntegerShortcut::None,
            Shortcut::Identity(from) => {
                let value = self.value(from);
                for c in &mut channels {
                    (c.shortcut, c.largest_shortcut) = (value.scale * inv, value.largest);
                }
                IntegerShortcut::Identity(value.number)
            }
            Shortcut::Projection(from) => {
                let (projection, other) = self.conv(from)?;
                for (k, c) in channels.iter_mut().enumerate() {
                    (c.shortcut, c.largest_shortcut) = (other.mul[k] * inv, projection.weights.largest[k]);
                    c.offset += other.add[k] * inv;
                }
                IntegerShortcut::Projection(projection)
            }
        };
        let channels = self.requantize(&a.name, &channels)?;
        let (name, shape, window) = (a.name.clone(), a.shape, Window::of(&quant));
        Ok(IntegerLayer { name, conv, shortcut, channels, window, bits, scale: row.scale, shape })
    }

    fn linear(&self, id: LayerId, l: &Linear) -> Result<IntegerLinear> {
        let Layer::Pool(pool) = &self.net.layers[l.input] else {
            return Err(Error::config(format!("{} does not read a pool", l.name)).hint("fold a residual network"));
        };
        let input = self.value(pool.input);
        let pixels = pool.from.pixels();
        let pooled = Value { largest: input.largest * pixels as i64, ..input };
        let weights = self.weights(id, &[l.classes, l.features], pooled)?;
        let bias = self.tensor(&format!("{}.bias", l.name), &[l.classes])?;
        let scale = |c: usize| f64::from(weights.scales[c]) * input.scale / pixels as f64;
        let bound = |c: usize| weights.largest[c] as f64 * scale(c) + f64::from(bias[c]).abs();
        let bound = (0..l.classes).map(bound).fold(0.0, f64::max);
        let fits = |f: &i32| bound * 2f64.powi(*f) < LARGEST_LOGIT;
        let fraction = (0..=MOST_FRACTION_BITS).rev().find(fits).ok_or_else(|| {
            Error::training(format!("a logit can reach {bound:.3e}, expected less than {LARGEST_LOGIT:.3e}"))
                .hint("the run diverged; fold an earlier checkpoint")
        })?;
        let one = 2f64.powi(fraction);
        let channels: Vec<Channel> = (0..l.classes)
            .map(|c| Channel {
                main: scale(c) * one,
                offset: f64::from(bias[c]) * one,
                largest_main: weights.largest[c],
                ..Channel::default()
            })
            .collect();
        Ok(IntegerLinear {
            name: l.name.clone(),
            input: input.number,
            features: l.features,
            classes: l.classes,
            pixels,
            channels: self.requantize(&l.name, &channels)?,
            weights,
            fraction_bits: fraction as u32,
        })
    }

    /// The integers of each channel of layer `name`.
    fn requantize(&self, name: &str, channels: &[Channel]) -> Result<Vec<Requantize>> {
        let one = |(k, c): (usize, &Channel)| {
            let integers = requantize(c, self.multiplier).ok_or_else(|| {
                let bits = if self.multiplier == Multiplier::Bits16 { 16 } else { 32 };
                Error::training(format!("{name}: a factor of channel {k} is too large for {bits}-bit multipliers"))
                    .hint("a running variance near 0 or a tiny activation range does this; fold another checkpoint")
            })?;
            let fits = |factor| self.multiplier.has(factor);
            if !(fits(integers.multiplier) && fits(integers.shortcut)) {
                let factor = if fits(integers.multiplier) { c.shortcut } else { c.main };
                return Err(Error::training(format!(
                    "{name}: a factor of channel {k} is {factor}, expected a power of two: it would need a multiplier"
                ))
                .hint(
                    "train for shifts (cqat presets cqat-shift: quant.pow2_norm), or take multipliers of 16 or 32 bits",
                ));
            }
            Ok(integers)
        };
        channels.iter().enumerate().map(one).collect()
    }
}

/// The integers of a channel at the largest shift at which they fit. `None` where not even a shift of 1 does.
fn requantize(c: &Channel, multiplier: Multiplier) -> Option<Requantize> {
    let most = match multiplier {
        Multiplier::Bits32 | Multiplier::Shift => f64::from(i32::MAX),
        Multiplier::Bits16 => f64::from(i16::MAX),
    };
    let at = |v: f64, shift: u32| (v * 2f64.powi(shift as i32)).round();
    let fits = |shift: &u32| {
        let [m, r, b] = [c.main, c.shortcut, c.offset].map(|v| at(v, *shift).abs());
        let sum = m * c.largest_main as f64 + r * c.largest_shortcut as f64 + b + 2f64.powi(*shift as i32);
        m <= most && r <= most && b <= Requantize::LARGEST_OFFSET as f64 && sum <= Requantize::LARGEST_SUM as f64
    };
    let shift = (1..=MAX_SHIFT).rev().find(fits)?;
    let [multiplier, shortcut, offset] = [c.main, c.shortcut, c.offset].map(|v| at(v, shift));
    Some(Requantize { multiplier: multiplier as i32, shortcut: shortcut as i32, offset: offset as i64, shift })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(c: Channel) -> Option<Requantize> {
        requantize(&c, Multiplier::Bits32)
    }

    #[test]
    fn the_shift_is_the_largest_that_fits() {
        let one = Channel { main: 0.75, largest_main: 1000, ..Channel::default() };
        assert_eq!(of(one), Some(Requantize { multiplier: 3 << 29, shortcut: 0, offset: 0, shift: 31 }));
        let narrow = requantize(&one, Multiplier::Bits16);
        assert_eq!(narrow, Some(Requantize { multiplier: 3 << 13, shortcut: 0, offset: 0, shift: 15 }));
        let k = of(Channel { main: 1.0 / 3.0, shortcut: -1.5, offset: 2.25, ..one });
        let want = Requantize { multiplier: 357_913_941, shortcut: -3 << 29, offset: 9 << 28, shift: 30 };
        assert_eq!(k, Some(want));
    }

    #[test]
    fn zero_factors_take_the_largest_shift_and_offsets_stay_exact() {
        let zero = Channel { offset: 3.0, ..Channel::default() };
        assert_eq!(of(zero).unwrap().shift, MAX_SHIFT);
        let far = Channel { offset: 1024.0, ..zero };
        assert_eq!(of(far), Some(Requantize { multiplier: 0, shortcut: 0, offset: 1 << 53, shift: 43 }));
        assert_eq!(of(Channel { main: 3e9, ..zero }), None);
    }

    #[test]
    fn two_full_branches_do_not_overflow() {
        let top = i64::from(i32::MAX);
        let full = Channel { main: 0.9, shortcut: -0.9, offset: 9.0, largest_main: top, largest_shortcut: top };
        let k = of(full).unwrap();
        assert_eq!(k.shift, 30);
        let sum = i128::from(k.multiplier) * i128::from(top) * 2 + i128::from(k.offset) + (1 << (k.shift - 1));
        assert!(sum < 1 << 62);
    }
}

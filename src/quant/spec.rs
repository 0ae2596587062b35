//! Which layer of a network has which quantizer.

use std::f32::consts::SQRT_2;

use super::{Quant, ScaleRule, form, learn, mask, rounding};
use crate::config::{Estimator, FirstLast, InputQuant, LayerBits, Mask, Method, QuantConfig, Reduce};
use crate::net::{Layer, LayerId, Net};

/// One quantizer with its scale rule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantizer {
    /// Bit-width of the stored code.
    pub bits: u32,
    /// Integer side.
    pub quant: Quant,
    /// Scale side.
    pub rule: ScaleRule,
}

/// Every quantizer of a network, by layer.
#[derive(Debug, Clone)]
pub struct QuantSpec {
    /// The configuration it was made from.
    pub config: QuantConfig,
    /// Input quantizer: signed 8 bits of the normalised picture.
    pub input: Option<Quantizer>,
    /// Per layer: the weight quantizer of a convolution or linear layer, the quantizer of an activation.
    pub layers: Vec<Option<Quantizer>>,
}

impl QuantSpec {
    /// Decides bit-width, window and scale rule of every quantizer of `net`. `None` where `quant.method` is `none`.
    ///
    /// # Errors
    /// A key of `quant.layers` that names no layer of the network, or bits that the layer does not have.
    pub fn new(config: &QuantConfig, net: &Net) -> crate::Result<Option<QuantSpec>> {
        if config.method == Method::None {
            return Ok(None);
        }
        config.layers.iter().try_for_each(|(name, bits)| check_override(net, name, bits))?;
        let last = net.last_activation();
        let layers = (0..net.layers.len())
            .map(|id| match &net.layers[id] {
                Layer::Conv(c) => weight_quantizer(config, &c.name, edge(net, id), c.kernel == 1),
                Layer::Linear(l) => weight_quantizer(config, &l.name, true, false),
                Layer::Activation(a) => activation_quantizer(config, &a.name, id == last),
                Layer::Input(_) | Layer::Pool(_) => None,
            })
            .collect();
        let input = (config.input == InputQuant::Signed8).then(|| Quantizer {
            bits: 8,
            quant: signed(8, config.base_bits.max(8), true, Reduce::Saturate, 0, mask::PASS),
            rule: match config.pow2_norm {
                // The nearest power of two above: nothing is clipped.
                true => ScaleRule { levels: 127.0, factor: SQRT_2, pow2: rounding::POWER, ..ScaleRule::UNIT },
                false => ScaleRule { levels: 127.0, ..ScaleRule::UNIT },
            },
        });
        Ok(Some(QuantSpec { config: config.clone(), input, layers }))
    }

    /// The largest magnitude that any partial sum of a layer's integer products can have: inputs of the sum, times the
    /// largest weight code, times the largest input code. `None` where the layer multiplies floating-point values.
    pub fn largest_sum(&self, net: &Net, id: LayerId) -> Option<u64> {
        let weights = self.layer(id)?.quant;
        let (input, terms) = match &net.layers[id] {
            Layer::Conv(c) => (c.input, c.kernel * c.kernel * c.from.c),
            Layer::Linear(_) | Layer::Activation(_) | Layer::Input(_) | Layer::Pool(_) => return None,
        };
        let codes = match &net.layers[input] {
            Layer::Input(_) => self.input?.quant,
            _ => self.layer(input)?.quant,
        };
        Some(terms as u64 * u64::from(weights.max_abs()) * u64::from(codes.max_abs()))
    }

    /// The quantizer of one layer, where it has one.
    pub fn layer(&self, id: LayerId) -> Option<&Quantizer> {
        self.layers[id].as_ref()
    }
}

/// Convolutions and the classifier have weights, ReLUs have activations, the rest has no bits of its own.
fn check_override(net: &Net, name: &str, bits: &LayerBits) -> crate::Result<()> {
    let wrong = |what: &str, hint: &str| Err(crate::Error::config(format!("`quant.layers.{name}` {what}")).hint(hint));
    match net.layers.iter().find(|l| l.name() == name) {
        None => {
            let known: Vec<&str> = net.layers.iter().map(Layer::name).collect();
            wrong("names no layer of this network", &format!("the layers are {}", known.join(", ")))
        }
        Some(Layer::Conv(_) | Layer::Linear(_)) if bits.activation_bits.is_some() => wrong(
            "has activation_bits, expected weight_bits: activations belong to a ReLU",
            "name the ReLU, such as layer1.0.relu1, or set weight_bits",
        ),
        Some(Layer::Activation(_)) if bits.weight_bits.is_some() => wrong(
            "has weight_bits, expected activation_bits: a ReLU has no weights",
            "name the convolution, such as layer1.0.conv1, or set activation_bits",
        ),
        Some(Layer::Input(_) | Layer::Pool(_)) => wrong(
            "has bits, but that layer has no quantizer of its own",
            "quant.input chooses the picture's; the pooled vector takes the codes of the last ReLU",
        ),
        Some(_) => Ok(()),
    }
}

fn edge(net: &Net, id: LayerId) -> bool {
    matches!(&net.layers[id], Layer::Conv(c) if matches!(net.layers[c.input], Layer::Input(_)))
}

fn mask_number(mask: Mask) -> u32 {
    match mask {
        Mask::Int => mask::INT,
        Mask::Real => mask::REAL,
        Mask::Base8 => mask::BASE8,
        Mask::Pass => mask::PASS,
    }
}

/// Bits of a layer: the override, else the edge rule, else the default. `None`: stays in float.
fn bits_of(config: &QuantConfig, over: Option<u32>, edge: bool, usual: u32) -> Option<u32> {
    match (over, edge, config.first_last) {
        (Some(bits), _, _) => Some(bits),
        (None, true, FirstLast::Float) => None,
        (None, true, FirstLast::Eight) => Some(8),
        _ => Some(usual),
    }
}

fn weight_quantizer(config: &QuantConfig, name: &str, edge: bool, projection: bool) -> Option<Quantizer> {
    let over = config.layers.get(name).and_then(|l| l.weight_bits);
    let usual = if projection { config.shortcut_bits.unwrap_or(config.weight_bits) } else { config.weight_bits };
    let bits = bits_of(config, over, edge, usual)?;
    let base = config.base(bits);
    let w = &config.weights;
    // Odd codes of 8 bits would need 9.
    let odd = bits < 8 && (config.squashes_weights() || config.method == Method::Ewgs);
    let squashed = odd && config.squashes_weights();
    let learns = config.learns_weight_scales();
    let narrow = !odd && (w.narrow || bits >= base && !learns); // a full-width signed code keeps the grid symmetric
    let mut quant = signed(bits, base, narrow, config.reduce, config.shift(bits), mask_number(config.weight_mask()));
    quant.form = match (odd, squashed) {
        (false, _) => form::PLAIN,
        (true, false) => form::ODD,
        (true, true) => form::ODD_TANH,
    };
    if learns {
        quant.learn = learn::STEP;
        quant.delta = if config.method == Method::Ewgs { config.ewgs_delta } else { 0.0 };
    }
    let levels = match learns && base == bits {
        true if odd => ((1u32 << bits) - 1) as f32 / 2.0, // of steps from 0 to the last value
        true if config.method != Method::CqatAuto => (1u32 << (bits - 1)) as f32, // as LSQ+ has it
        _ => ((1u32 << (base - 1)) - 1) as f32,
    };
    let rule = ScaleRule {
        levels: if squashed { ((1u32 << bits) - 1) as f32 } else { levels },
        factor: config.weight_factor(bits),
        pow2: rounding_of(config, w.pow2, config.weight_estimator(), learns),
        shift: if odd { -1 } else { quant.shift as i32 },
    };
    Some(Quantizer { bits, quant, rule })
}

fn activation_quantizer(config: &QuantConfig, name: &str, last: bool) -> Option<Quantizer> {
    let over = config.layers.get(name).and_then(|l| l.activation_bits);
    let bits = bits_of(config, over, last, config.activation_bits)?;
    let base = config.base(bits);
    let a = &config.activations;
    let shift = config.shift(bits);
    let quant = Quant {
        base_lo: 0,
        base_hi: (1 << base) - 1,
        shift,
        round_shift: u32::from(config.reduce != Reduce::DropLsbFloor),
        lo: 0,
        hi: (1 << bits) - 1,
        mask: mask_number(config.activation_mask()),
        enabled: 1,
        learn: match config.method {
            Method::Pact => learn::RANGE,
            Method::LsqPlus => learn::STEP_AND_OFFSET,
            _ if config.learns_activation_scales() => learn::STEP,
            _ => learn::NOTHING,
        },
        delta: if config.method == Method::Ewgs { config.ewgs_delta } else { 0.0 },
        ..Quant::OFF
    };
    let rule = ScaleRule {
        levels: ((1u32 << base) - 1) as f32,
        factor: config.activation_factor(bits),
        pow2: rounding_of(config, a.pow2, config.activation_estimator(), quant.learn != learn::NOTHING),
        shift: shift as i32,
    };
    Some(Quantizer { bits, quant, rule })
}

/// Of a learned scale, `fixed_pow2` is only the start.
fn rounding_of(config: &QuantConfig, pow2: bool, estimator: Estimator, learned: bool) -> u32 {
    let fixed = estimator == Estimator::FixedPow2 && !learned;
    match pow2 || fixed {
        false => rounding::NONE,
        true if config.method == Method::CqatAuto && !fixed => rounding::WINDOW,
        true => rounding::POWER,
    }
}

fn signed(bits: u32, base: u32, narrow: bool, reduce: Reduce, shift: u32, mask: u32) -> Quant {
    let (hi, base_hi) = ((1i32 << (bits - 1)) - 1, (1i32 << (base - 1)) - 1);
    Quant {
        base_lo: if narrow && bits == base { -base_hi } else { -base_hi - 1 },
        base_hi,
        shift,
        round_shift: u32::from(reduce != Reduce::DropLsbFloor),
        lo: if narrow { -hi } else { -hi - 1 },
        hi,
        mask,
        enabled: 1,
        ..Quant::OFF
    }
}

//! What a network costs in hardware, from its shapes and bit-widths alone: multiply-accumulates, bit operations, memory,
//! accumulator bits, and a model of the energy of its arithmetic. Nothing here is measured.

use serde::Serialize;

use crate::net::{Layer, LayerId, Net};
use crate::quant::{QuantSpec, Quantizer};

/// Bits of a value that is not quantized.
pub const FLOAT_BITS: u32 = 32;

/// How every figure of energy is labelled.
pub const MODEL_LABEL: &str = "model, not measurement";

/// Where the model comes from, in a line.
pub const MODEL_SOURCE: &str =
    "arithmetic alone, no memory traffic: Horowitz 2014, 45 nm, and the fits of QKeras for other widths";

/// Costs of one layer for one picture.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerCost {
    /// Name of the convolution, the classifier, or the activation.
    pub name: String,
    /// Multiply-accumulates, padding channels left out.
    pub macs: u64,
    /// Weights, without batch norm and bias.
    pub weights: u64,
    /// Bits of a weight; 0 where there is none.
    pub weight_bits: u32,
    /// Bits of a value that the weights multiply; 0 where there are no weights.
    pub input_bits: u32,
    /// Bit operations: `macs * weight_bits * input_bits`.
    pub bops: u64,
    /// Bits of all weights.
    pub weight_memory_bits: u64,
    /// Bits of the output that stays in memory between two layers: that of the picture and of activations; 0 elsewhere.
    pub output_memory_bits: u64,
    /// Bits of a signed accumulator that no input overflows; none where a sum is of floating-point values.
    pub accumulator_bits: Option<u32>,
    /// Energy of the multiply-accumulates in pJ, after [`MODEL_SOURCE`].
    pub energy_pj: f64,
}

/// Costs of a network for one picture.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cost {
    /// Layers that compute or keep something, in forward order.
    pub layers: Vec<LayerCost>,
    /// Multiply-accumulates.
    pub macs: u64,
    /// Bit operations (float: 32 x 32).
    pub bops: u64,
    /// Bits of all weights of convolutions and classifier.
    pub weight_memory_bits: u64,
    /// Bits of the largest tensor between two layers.
    pub largest_activation_bits: u64,
    /// Bits of all tensors between two layers.
    pub activation_memory_bits: u64,
    /// The widest accumulator; none where no layer adds integers.
    pub accumulator_bits: Option<u32>,
    /// Energy of the arithmetic in pJ, after [`MODEL_SOURCE`].
    pub energy_pj: f64,
}

impl Cost {
    /// Costs of `net` with the quantizers of `spec`; without, in float.
    pub fn of(net: &Net, spec: Option<&QuantSpec>) -> Cost {
        let layers: Vec<LayerCost> = (0..net.layers.len()).filter_map(|id| layer_cost(net, spec, id)).collect();
        let sum = |f: fn(&LayerCost) -> u64| layers.iter().map(f).sum();
        Cost {
            macs: sum(|l| l.macs),
            bops: sum(|l| l.bops),
            weight_memory_bits: sum(|l| l.weight_memory_bits),
            largest_activation_bits: layers.iter().map(|l| l.output_memory_bits).max().unwrap_or(0),
            activation_memory_bits: sum(|l| l.output_memory_bits),
            accumulator_bits: layers.iter().filter_map(|l| l.accumulator_bits).max(),
            energy_pj: layers.iter().map(|l| l.energy_pj).sum(),
            layers,
        }
    }
}

/// Bits of a signed accumulator for `terms` products of weights up to `weight` and inputs up to `input` in magnitude:
/// `ceil(log2(terms * weight * input + 1)) + 1`. It needs no weights, so it holds for any.
pub fn accumulator_bits(terms: u64, weight: u64, input: u64) -> u32 {
    // ceil(log2(n + 1)) is the length of n in bits.
    u64::BITS - (terms * weight * input).leading_zeros() + 1
}

/// Energy of one integer multiply-accumulate in pJ: a multiplier of `weight_bits` by `input_bits`, an adder as wide as the
/// accumulator. The fits of QKeras are of squares of b bits; b is the geometric mean of the two widths here, which keeps the
/// quadratic term that of `weight_bits * input_bits`.
pub fn integer_mac_pj(weight_bits: u32, input_bits: u32, accumulator_bits: u32) -> f64 {
    let product = f64::from(weight_bits * input_bits);
    0.002_995 * product + 0.001_04 * product.sqrt() + 0.003_125 * f64::from(accumulator_bits)
}

/// Energy of one multiply-accumulate of f32 in pJ.
pub const FLOAT_MAC_PJ: f64 = 3.7 + 0.9;

fn layer_cost(net: &Net, spec: Option<&QuantSpec>, id: LayerId) -> Option<LayerCost> {
    let name = net.layers[id].name().to_string();
    let kept = |values: usize, q: Option<Quantizer>| LayerCost {
        name: name.clone(),
        macs: 0,
        weights: 0,
        weight_bits: 0,
        input_bits: 0,
        bops: 0,
        weight_memory_bits: 0,
        output_memory_bits: values as u64 * u64::from(bits(q)),
        accumulator_bits: None,
        energy_pj: 0.0,
    };
    let own = || spec.and_then(|s| s.layer(id).copied());
    match &net.layers[id] {
        // Pixels are bytes; what the first layer multiplies is what the quantizer of the picture makes of them.
        Layer::Input(i) => Some(kept(i.shape.pixels() * 3, spec.and_then(|s| s.input))),
        Layer::Activation(a) => Some(kept(a.shape.len(), own())),
        Layer::Pool(_) => None,
        Layer::Conv(c) => {
            let terms = c.kernel * c.kernel * c.real_in;
            Some(products(&name, c.to.pixels(), terms, c.to.c, own(), input_of(net, spec, c.input)))
        }
        Layer::Linear(l) => Some(products(&name, 1, l.features, l.classes, own(), input_of(net, spec, l.input))),
    }
}

/// What a layer's weights multiply: its quantizer, and how many codes are added up before (the pool's pixels).
fn input_of(net: &Net, spec: Option<&QuantSpec>, id: LayerId) -> (Option<Quantizer>, u64) {
    match &net.layers[id] {
        Layer::Input(_) => (spec.and_then(|s| s.input), 1),
        Layer::Pool(p) => (input_of(net, spec, p.input).0, p.from.pixels() as u64),
        _ => (spec.and_then(|s| s.layer(id).copied()), 1),
    }
}

/// `outputs` sums of `terms` products for each of `positions`.
fn products(
    name: &str,
    positions: usize,
    terms: usize,
    outputs: usize,
    weight: Option<Quantizer>,
    (input, added): (Option<Quantizer>, u64),
) -> LayerCost {
    let (weights, terms) = ((terms * outputs) as u64, terms as u64);
    let macs = positions as u64 * weights;
    let (weight_bits, input_bits) = (bits(weight), bits(input));
    let accumulator = weight.zip(input).map(|(w, a)| {
        let largest = |q: Quantizer| u64::from(q.quant.max_abs());
        accumulator_bits(terms, largest(w), largest(a) * added)
    });
    let mac_pj = accumulator.map_or(FLOAT_MAC_PJ, |width| integer_mac_pj(weight_bits, input_bits, width));
    LayerCost {
        name: name.to_string(),
        macs,
        weights,
        weight_bits,
        input_bits,
        bops: macs * u64::from(weight_bits * input_bits),
        weight_memory_bits: weights * u64::from(weight_bits),
        output_memory_bits: 0,
        accumulator_bits: accumulator,
        energy_pj: macs as f64 * mac_pj,
    }
}

fn bits(q: Option<Quantizer>) -> u32 {
    q.map_or(FLOAT_BITS, |q| q.bits)
}

/// A count in engineering units of 1000, three digits: `11.2 G`, `568 M`; below 1000 as it is.
pub fn engineering(value: f64) -> String {
    let units = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    // What rounds to the next unit, or to a digit more, is that.
    let (scaled, unit) =
        units.iter().find(|(size, _)| value >= 0.9995 * *size).map_or((value, ""), |(s, u)| (value / s, *u));
    let digits = if scaled >= 99.95 || value == 0.0 {
        0
    } else if scaled >= 9.995 {
        1
    } else {
        2
    };
    format!("{scaled:.digits$} {unit}").trim_end().to_string()
}

/// Bits as bytes in units of 1000: `7.03 MB`.
pub fn bytes_text(bits: u64) -> String {
    let text = engineering(bits as f64 / 8.0);
    if text.ends_with(char::is_alphabetic) { format!("{text}B") } else { format!("{text} B") }
}

/// Energy in pJ with a unit: `1.23 mJ`, `87.0 µJ`.
pub fn energy_text(pj: f64) -> String {
    let units = [(1e9, "mJ"), (1e6, "µJ"), (1e3, "nJ")];
    let (size, unit) = units.into_iter().find(|(size, _)| pj >= *size).unwrap_or((1.0, "pJ"));
    format!("{:.2} {unit}", pj / size)
}

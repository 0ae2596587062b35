//! A convolution layer in Verilog with a test bench for every layer of the network, beside the memories.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

use super::{Files, Golden, hex};
use crate::integer::{Accumulator, IntegerConv, IntegerLayer, IntegerNet, IntegerShortcut, Multiplier};
use crate::model::Model;
use crate::{Error, Result};

macro_rules! asset {
    ($path:literal) => {
        ($path, include_str!(concat!("../../assets/export/verilog/", $path)))
    };
}

const ASSETS: [(&str, &str); 7] = [
    asset!("Makefile"),
    asset!("rtl/cqat_mac.v"),
    asset!("rtl/cqat_requantize.v"),
    asset!("rtl/cqat_datapath.v"),
    asset!("rtl/cqat_conv.v"),
    asset!("tb/tb_conv.v"),
    asset!("tb/area.sh"),
];

/// Follows what the memories' own says.
const README: &str = include_str!("../../assets/export/verilog/README.md");

/// Its files, and what the manifest says of the memories.
///
/// # Errors
/// As [`hex::files`]; accumulators of fewer than 32 bits and projections larger than 1x1, which the datapath does not have.
pub(super) fn files(model: &Model, golden: &Golden) -> Result<(Files, Value)> {
    let net = &model.net;
    if net.accumulator != Accumulator::WHOLE {
        let bits = net.accumulator.bits;
        return Err(Error::config(format!("the model's accumulators have {bits} bits, expected 32"))
            .hint("the Verilog layer holds every sum: export the model as cqat quantize wrote it"));
    }
    let (mut files, memories) = hex::files(model, golden)?;
    files.insert("README.md", format!("{}{README}", hex::README));
    for (path, text) in ASSETS {
        files.insert(path, text);
    }
    for layer in &net.layers {
        files.insert(format!("tb/layers/{}/layer.vh", layer.name), layer_file(net, layer)?);
    }
    files.insert("model.mk", settings(net, golden));
    Ok((files, memories))
}

/// A value as a layer reads it: the name of its golden vectors, the bits of its codes, whether they are signed.
fn source(net: &IntegerNet, value: usize) -> (&str, u32, bool) {
    match value.checked_sub(1).map(|k| &net.layers[k]) {
        None => ("input", 8, true),
        Some(layer) => (&layer.name, hex::code_bits(layer), false),
    }
}

/// Parameters of one convolution.
struct Branch {
    in_w: usize,
    stride: usize,
    lanes: usize,
    groups: usize,
    a_bits: u32,
    a_signed: bool,
    a_words: usize,
    w_bits: u32,
    w_words: usize,
    odd: bool,
    acc_bits: u32,
}

impl Branch {
    /// Of a projection where there is none.
    const NONE: Branch = Branch {
        in_w: 1,
        stride: 1,
        lanes: 1,
        groups: 1,
        a_bits: 1,
        a_signed: false,
        a_words: 1,
        w_bits: 1,
        w_words: 1,
        odd: false,
        acc_bits: 4,
    };

    fn of(net: &IntegerNet, conv: &IntegerConv) -> Branch {
        let (_, a_bits, a_signed) = source(net, conv.input);
        let lanes = hex::lanes(conv.real_in);
        let groups = conv.real_in.div_ceil(lanes);
        let w_bits = conv.weights.bits;
        Branch {
            in_w: conv.from.w,
            stride: conv.stride,
            lanes,
            groups,
            a_bits,
            a_signed,
            a_words: conv.from.pixels() * groups,
            w_bits,
            w_words: conv.to.c * conv.kernel * conv.kernel * groups,
            odd: conv.weights.odd,
            // All sums that these weights can give, and what cqat_mac needs.
            acc_bits: conv.weights.accumulator_bits().max(a_bits + w_bits + 2),
        }
    }

    fn parameters(&self, prefix: &str) -> Vec<(String, usize)> {
        let all = [
            ("IN_W", self.in_w),
            ("STRIDE", self.stride),
            ("LANES", self.lanes),
            ("GROUPS", self.groups),
            ("A_BITS", self.a_bits as usize),
            ("A_SIGNED", self.a_signed.into()),
            ("A_WORDS", self.a_words),
            ("W_BITS", self.w_bits as usize),
            ("W_WORDS", self.w_words),
            ("ODD", self.odd.into()),
            ("ACC_BITS", self.acc_bits as usize),
        ];
        all.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)).collect()
    }
}

/// `layer.vh`.
///
/// # Errors
/// A projection larger than 1x1.
fn layer_file(net: &IntegerNet, layer: &IntegerLayer) -> Result<String> {
    let (conv, main) = (&layer.conv, Branch::of(net, &layer.conv));
    let (kind, projection, name, added) = match &layer.shortcut {
        IntegerShortcut::None => (0, Branch::NONE, "", None),
        IntegerShortcut::Identity(value) => (1, Branch::NONE, "", Some(*value)),
        IntegerShortcut::Projection(p) if p.kernel == 1 => (2, Branch::of(net, p), p.name.as_str(), Some(p.input)),
        IntegerShortcut::Projection(p) => {
            let (name, side) = (&p.name, p.kernel);
            return Err(Error::config(format!("the projection {name} is {side}x{side}, expected 1x1"))
                .hint("the Verilog layer has no larger ones; cqat export --format hex has the memories alone"));
        }
    };
    let (added, s_bits, _) = added.map_or(("", 1, false), |value| source(net, value));
    let r_bits = [1, s_bits + 1, projection.acc_bits][kind];
    let (shape, channels) = (layer.shape, layer.shape.c);
    let lanes = hex::lanes(channels);
    let groups = channels.div_ceil(lanes);
    let words = shape.pixels() * groups;
    let longest = [main.a_words, main.w_words, projection.a_words, projection.w_words, words].into_iter().max();
    // One bit more than the longest memory's, so that what lies left of and above the picture is beyond its sides.
    let address_bits = usize::BITS - longest.unwrap_or(0).leading_zeros() + 1;
    let window = &layer.window;
    let others = [
        ("IN_H", conv.from.h),
        ("OUT_H", shape.h),
        ("OUT_W", shape.w),
        ("OUT_C", channels),
        ("KERNEL", conv.kernel),
        ("ADDRESS_BITS", address_bits as usize),
        ("SHORTCUT", kind),
        ("S_LANES", lanes),
        ("S_BITS", s_bits as usize),
        ("S_WORDS", words),
        ("R_BITS", r_bits as usize),
        ("MUL_BITS", hex::multiplier_bits(net) as usize),
        ("POWERS", usize::from(net.multiplier == Multiplier::Shift)),
        ("BIAS_BITS", hex::BIAS_BITS as usize),
        ("SHIFT_BITS", hex::SHIFT_BITS as usize),
        ("BASE_LO", window.base_lo as usize),
        ("BASE_HI", window.base_hi as usize),
        ("WINDOW_SHIFT", window.shift as usize),
        ("WINDOW_ROUND", window.round.into()),
        ("LO", window.lo as usize),
        ("HI", window.hi as usize),
        ("Q_BITS", hex::code_bits(layer) as usize),
        ("Q_LANES", lanes),
        ("Q_WORDS", words),
    ];
    let (input, _, _) = source(net, conv.input);
    let names = [
        ("LAYER", layer.name.as_str()),
        ("CONV", &conv.name),
        ("INPUT", input),
        ("PROJECTION", name),
        ("ADDED", added),
    ];
    let mut text = String::from("// Parameters of cqat_conv for this layer, and the names of its memories.\n");
    // Writing to a string cannot fail.
    for (name, value) in names {
        let _ = writeln!(text, "localparam {name} = \"{value}\";");
    }
    let numbers = main.parameters("").into_iter().chain(projection.parameters("P_"));
    for (name, value) in numbers.chain(others.map(|(name, value)| (name.to_string(), value))) {
        let _ = writeln!(text, "localparam {name} = {value};");
    }
    Ok(text)
}

/// `model.mk`: layers, the picture that is run unless others are asked for, and what `make area` compares.
fn settings(net: &IntegerNet, golden: &Golden) -> String {
    let layers: Vec<&str> = net.layers.iter().map(|layer| layer.name.as_str()).collect();
    let codes = golden.trace.input.len() / golden.count();
    // The picture that shows most.
    let different = |k: &usize| golden.trace.input[k * codes..][..codes].iter().collect::<BTreeSet<_>>().len();
    let picture = (0..golden.count()).rev().max_by_key(different).unwrap_or(0);
    // The narrowest multiplier of the network, and the longest sum.
    let convs = net.layers.iter().map(|layer| &layer.conv);
    let bits = convs.map(|c| (c.weights.bits, source(net, c.input).1, c.weights.odd));
    let (w_bits, a_bits, odd) = bits.min_by_key(|(w, a, _)| w * a).unwrap_or((8, 8, false));
    let terms = net.layers.iter().map(|l| l.conv.kernel * l.conv.kernel * l.conv.real_in).max().unwrap_or(1);
    let acc = |largest: usize, a: u32| 65 - (terms * largest * ((1 << a) - 1)).leading_zeros();
    let largest = if odd { (1 << w_bits) - 1 } else { 1 << (w_bits - 1) };
    format!(
        "LAYERS ?= {}\n# Picture of the golden vectors; {} are there.\nPICTURES ?= {picture}\n\n\
         # What make area compares: bits of weights, codes and accumulators, for the longest sum of the network; multipliers of MUL bits, or\n\
         # of powers of two.\n\
         TERMS = {terms}\nNARROW_W = {w_bits}\nNARROW_A = {a_bits}\nNARROW_ODD = {}\nNARROW_ACC = {}\nWIDE_ACC = {}\nMUL = {}\nPOWERS = {}\n",
        layers.join(" "),
        golden.count(),
        u32::from(odd),
        acc(largest, a_bits),
        acc(128, 8),
        hex::multiplier_bits(net),
        u32::from(net.multiplier == Multiplier::Shift),
    )
}

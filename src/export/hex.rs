//! `$readmemh` memories of every layer, with golden vectors.

mod memory;

use serde_json::Value;

use super::{Files, Golden};
use crate::integer::{IntegerConv, IntegerLayer, IntegerNet, IntegerShortcut, IntegerWeights, Multiplier, Requantize};
use crate::model::{Model, stored_code};
use crate::{Error, Result};

pub(super) use memory::lanes;

use memory::Memory;

/// What the folder holds.
pub(super) const README: &str = include_str!("../../assets/export/hex/README.md");

/// Bits of `|B| <= 2^53` and a sign.
pub(super) const BIAS_BITS: u32 = 55;
/// Bits of a shift, which is 1 to 48.
pub(super) const SHIFT_BITS: u32 = 6;
/// Bits of accumulators, sums and logits in golden vectors.
const ACC_BITS: u32 = 32;

const HINT: &str = "make the model again with cqat quantize";
const PIXELS: &str = "row, column, group of channels";
const CHANNELS: &str = "output channel";

/// Its files, and what the manifest says of the memories.
///
/// # Errors
/// Names of layers that make the same file.
pub(super) fn files(model: &Model, golden: &Golden) -> Result<(Files, Value)> {
    let mut files = Files::default();
    let mut entries = Vec::new();
    for memory in memories(&model.net, golden) {
        if files.get(&memory.path()).is_some() {
            let what = format!("two layers of the model would write {}, expected different names", memory.path());
            return Err(Error::training(what).hint(HINT));
        }
        files.insert(memory.path(), memory.text()?);
        entries.push(memory.entry());
    }
    files.insert("README.md", README);
    Ok((files, entries.into()))
}

/// Bits of a multiplier of accumulators or shortcuts; of a power of two as [`power`] says it.
pub(super) fn multiplier_bits(net: &IntegerNet) -> u32 {
    match net.multiplier {
        Multiplier::Bits16 => 16,
        Multiplier::Bits32 => 32,
        Multiplier::Shift => 6,
    }
}

/// What [`power`] does.
const POWER: &str = "a power of two: the exponent plus one in the low five bits, 0 for 0; and 32 for a negative one";

/// A power of two up to 2^30 with a sign in six bits.
fn power(factor: i32) -> i64 {
    let sign = if factor < 0 { 32 } else { 0 };
    factor.unsigned_abs().checked_ilog2().map_or(0, |exponent| sign | i64::from(exponent + 1))
}

/// Bits of the unsigned codes of a layer.
pub(super) fn code_bits(layer: &IntegerLayer) -> u32 {
    (32 - layer.window.hi.leading_zeros()).max(1)
}

fn memories(net: &IntegerNet, golden: &Golden) -> Vec<Memory> {
    let mut all =
        vec![Memory::single("input.codes".into(), "codes of bytes", "colour, byte", 8, net.input.codes.concat())];
    for layer in &net.layers {
        all.push(conv_weights(&layer.conv));
        factors(net, &layer.conv.name, &layer.channels, &mut all);
        let added = |name: String| {
            multipliers(net, name, "multipliers of what is added", layer.channels.iter().map(|k| k.shortcut))
        };
        match &layer.shortcut {
            IntegerShortcut::None => {}
            IntegerShortcut::Identity(_) => all.push(added(format!("{}.shortcut", layer.conv.name))),
            IntegerShortcut::Projection(p) => all.extend([conv_weights(p), added(format!("{}.mul", p.name))]),
        }
    }
    let c = &net.classifier;
    let rows = stored(&c.weights).collect();
    all.push(weights(&c.name, "class, group of features", &c.weights, c.features, rows));
    factors(net, &c.name, &c.channels, &mut all);
    (0..golden.count()).for_each(|picture| vectors(net, golden, picture, &mut all));
    all
}

/// Codes as they are stored: c of odd ones, `2 c + 1`.
fn stored(weights: &IntegerWeights) -> impl Iterator<Item = i64> {
    weights.codes.iter().map(|code| i64::from(stored_code(*code, weights.odd)))
}

fn weights(name: &str, order: &'static str, weights: &IntegerWeights, row: usize, values: Vec<i64>) -> Memory {
    let encoding = weights.odd.then_some("odd weights 2 c + 1: the c");
    let (name, holds) = (format!("{name}.codes"), "weights");
    Memory { name, holds, encoding, order, bits: weights.bits, signed: true, row, lanes: lanes(row), values }
}

/// `(c_out, c_in, ky, kx)` becomes `(c_out, ky, kx, c_in)`, as codes lie in their values.
fn conv_weights(c: &IntegerConv) -> Memory {
    let (taps, from) = (c.kernel * c.kernel, c.real_in);
    let codes: Vec<i64> = stored(&c.weights).collect();
    let row = |channel: usize, tap: usize| (0..from).map(move |i| (channel * from + i) * taps + tap);
    let order = (0..c.to.c).flat_map(|channel| (0..taps).flat_map(move |tap| row(channel, tap)));
    let values = order.map(|at| codes[at]).collect();
    weights(&c.name, "output channel, kernel row, kernel column, group of input channels", &c.weights, from, values)
}

fn multipliers(net: &IntegerNet, name: String, holds: &'static str, values: impl Iterator<Item = i32>) -> Memory {
    let bits = multiplier_bits(net);
    match net.multiplier {
        Multiplier::Shift => Memory {
            signed: false,
            encoding: Some(POWER),
            ..Memory::single(name, holds, CHANNELS, bits, values.map(power))
        },
        Multiplier::Bits16 | Multiplier::Bits32 => Memory::single(name, holds, CHANNELS, bits, values),
    }
}

fn factors(net: &IntegerNet, name: &str, channels: &[Requantize], all: &mut Vec<Memory>) {
    let named = |part: &str| format!("{name}.{part}");
    let values = channels.iter().map(|k| k.multiplier);
    all.push(multipliers(net, named("mul"), "multipliers of accumulators", values));
    all.push(Memory::single(named("bias"), "biases", CHANNELS, BIAS_BITS, channels.iter().map(|k| k.offset)));
    let shifts = channels.iter().map(|k| k.shift);
    let shift = Memory::single(named("shift"), "shifts", CHANNELS, SHIFT_BITS, shifts);
    all.push(Memory { signed: false, ..shift });
}

/// The part of `values` that is of one picture.
fn part<T>(values: &[T], picture: usize, pictures: usize) -> &[T] {
    let size = values.len() / pictures;
    &values[picture * size..][..size]
}

/// Golden vectors of one picture.
fn vectors(net: &IntegerNet, golden: &Golden, picture: usize, all: &mut Vec<Memory>) {
    let trace = &golden.trace;
    let name = |of: &str| format!("golden/{picture}/{of}");
    let sums = |of: String, holds, order, values: &[i32]| {
        let values = part(values, picture, golden.count()).iter().copied();
        Memory::single(name(&of), holds, order, ACC_BITS, values)
    };
    let codes = |of: &str, holds, bits, signed, row, values: Vec<i64>| {
        let (name, lanes) = (name(of), lanes(row));
        Memory { name, holds, encoding: None, order: PIXELS, bits, signed, row, lanes, values }
    };
    let raw = part(&golden.images, picture, golden.count());
    let pixels = net.size * net.size;
    let bytes = (0..3 * pixels).map(|at| raw[at % 3 * pixels + at / 3].into()).collect();
    all.push(codes("picture", "bytes of the picture", 8, false, 3, bytes));
    let input = part(&trace.input, picture, golden.count()).iter().map(|q| i64::from(*q)).collect();
    all.push(codes("input", "codes of the picture", 8, true, 3, input));
    const SUMS: &str = "row, column, channel";
    for (layer, t) in net.layers.iter().zip(&trace.layers) {
        all.push(sums(format!("{}.acc", layer.conv.name), "accumulators", SUMS, &t.accumulators));
        if let Some(p) = layer.projection() {
            all.push(sums(format!("{}.acc", p.name), "accumulators", SUMS, &t.projection));
        }
        let values = part(&t.codes, picture, golden.count()).iter().map(|q| i64::from(*q)).collect();
        all.push(codes(&layer.name, "codes", code_bits(layer), false, layer.shape.c, values));
    }
    all.push(sums("pooled".into(), "sums over the pixels", "feature", &trace.pooled));
    all.push(sums(format!("{}.acc", net.classifier.name), "accumulators", "class", &trace.classifier));
    all.push(sums("logits".into(), "logits", "class", &trace.logits));
}

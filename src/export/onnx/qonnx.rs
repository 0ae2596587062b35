//! Quantizers as `Quant` nodes of QONNX (Pappalardo et al. 2022, arXiv:2206.07527), which have any number of bits.

use super::graph::{Graph, Wire, int, string};
use super::proto::data_type;
use super::{Dialect, QONNX};
use crate::export::factors::{Weights, base_scale, single, values};
use crate::integer::{IntegerInput, IntegerLayer, IntegerWeights};
use crate::{Error, Result};

pub struct Qonnx;

/// What a `Quant` node does: `clip(round(x / scale + zero)) - zero`, times scale.
struct Quant<'a> {
    bits: u32,
    signed: bool,
    narrow: bool,
    scales: &'a [f32],
    shape: &'a [usize],
    zero: i32,
    rounding: &'a str,
}

impl Quant<'_> {
    /// Its constants and attributes.
    fn parts(&self, graph: &mut Graph, name: &str) -> Result<([String; 3], Vec<super::proto::Attribute>)> {
        let constants = [
            graph.constant(format!("{name}.scale"), self.shape, self.scales)?,
            graph.constant(format!("{name}.zero"), &[], &[self.zero as f32])?,
            graph.constant(format!("{name}.bits"), &[], &[self.bits as f32])?,
        ];
        let attributes = vec![
            int("signed", self.signed.into()),
            int("narrow", self.narrow.into()),
            string("rounding_mode", self.rounding),
        ];
        Ok((constants, attributes))
    }

    /// Quantizes `real` to `output`.
    fn node(&self, graph: &mut Graph, real: &Wire, output: &str) -> Result<Wire> {
        let ([scale, zero, bits], attributes) = self.parts(graph, output)?;
        let output = Wire { name: output.into(), ..real.clone() };
        graph.node_of(QONNX, "Quant", &[&real.name, &scale, &zero, &bits], attributes, output)
    }
}

/// Bits of a two's complement number that holds every code: odd codes `2 c + 1` need one more than c.
fn signed_bits(weights: &IntegerWeights) -> u32 {
    weights.bits + u32::from(weights.odd)
}

impl Dialect for Qonnx {
    /// The package reads shapes without an open side.
    fn batch(&self) -> Option<i64> {
        Some(1)
    }

    fn highest(&self, weights: &IntegerWeights) -> i32 {
        (1 << (signed_bits(weights) - 1)) - 1
    }

    fn picture(&self, graph: &mut Graph, input: &IntegerInput, index: &Wire) -> Result<Wire> {
        let values = values(input.codes.as_flattened(), &[input.scale]);
        let table = graph.constant("input.table", &[768], &values)?;
        let real = Wire::new("input.real", data_type::FLOAT, &index.shape);
        let real = graph.node("Gather", &[&table, &index.name], vec![int("axis", 0)], real)?;
        let quant = Quant {
            bits: 8,
            signed: true,
            narrow: input.largest < 128,
            scales: &[input.scale],
            shape: &[],
            zero: 0,
            rounding: "ROUND",
        };
        quant.node(graph, &real, "input")
    }

    fn weights(
        &self,
        graph: &mut Graph,
        name: &str,
        shape: &[usize],
        integers: &IntegerWeights,
        weights: &Weights,
    ) -> Result<String> {
        let real = graph.constant(format!("{name}.real"), shape, &weights.values())?;
        let mut per_row = vec![1; shape.len()];
        per_row[0] = shape[0];
        let bits = signed_bits(integers);
        let lowest = weights.codes.iter().copied().min().map_or(0, i32::from);
        let quant = Quant {
            bits,
            signed: true,
            narrow: lowest > -(1 << (bits - 1)),
            scales: &weights.scales,
            shape: &per_row,
            zero: 0,
            rounding: "ROUND",
        };
        let output = Wire::new(format!("{name}.weight"), data_type::FLOAT, shape);
        let ([scale, zero, bits], attributes) = quant.parts(graph, &output.name)?;
        graph.constant_node_of(QONNX, "Quant", &[&real, &scale, &zero, &bits], attributes, output)
    }

    fn activation(&self, graph: &mut Graph, layer: &IntegerLayer, real: &Wire) -> Result<Wire> {
        let (name, window) = (&layer.name, &layer.window);
        let base_scale = base_scale(layer.scale, window);
        let base = [single(name, base_scale)?];
        let quant = |bits, scales, zero, rounding| Quant {
            bits,
            signed: false,
            narrow: false,
            scales,
            shape: &[],
            zero,
            rounding,
        };
        if window.shift == 0 {
            let [lo, hi] = [window.code(i64::MIN), window.code(i64::MAX)];
            // The offset of LSQ+ moves all codes, and the ReLU takes those below 0.
            let zero = ((1 << layer.bits) - 1) - hi;
            if lo != (-zero).max(0) {
                return Err(refused(layer));
            }
            return quant(layer.bits, &base, zero, "HALF_UP").node(graph, real, name);
        }
        let base_bits = (window.base_hi + 1).ilog2();
        let full = |hi: i32, bits: u32| hi == (1 << bits) - 1;
        if [window.base_lo, window.lo] != [0, 0] || !full(window.base_hi, base_bits) || !full(window.hi, layer.bits) {
            return Err(refused(layer));
        }
        // Base codes lie on the edges where low bits are dropped, so both steps are in whole numbers, which floating point keeps.
        let per_unit = graph.constant(format!("{name}.per_unit"), &[], &[single(name, 1.0 / base_scale)?])?;
        let units = Wire { name: format!("{name}.units"), ..real.clone() };
        let units = graph.node("Mul", &[&real.name, &per_unit], vec![], units)?;
        let whole = quant(base_bits, &[1.0], 0, "HALF_UP").node(graph, &units, &format!("{name}.base"))?;
        let rounding = if window.round { "HALF_UP" } else { "FLOOR" };
        let step = [(1 << window.shift) as f32];
        let codes = quant(layer.bits, &step, 0, rounding).node(graph, &whole, &format!("{name}.window"))?;
        let unit = graph.constant(format!("{name}.unit"), &[], &base)?;
        graph.node("Mul", &[&codes.name, &unit], vec![], Wire { name: name.clone(), ..codes.clone() })
    }
}

fn refused(layer: &IntegerLayer) -> Error {
    let w = &layer.window;
    Error::config(format!(
        "{}: codes from {} to {} of {} bits, of base codes from {} to {}, are no range that a Quant node has",
        layer.name, w.lo, w.hi, layer.bits, w.base_lo, w.base_hi
    ))
    .hint("export with --format onnx, which looks such codes up in a table")
}

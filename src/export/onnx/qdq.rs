//! Quantizers as pairs of QuantizeLinear and DequantizeLinear, of the standard operators alone.

use super::Dialect;
use super::graph::{Graph, Wire, int};
use super::proto::data_type;
use crate::Result;
use crate::export::factors::{Weights, base_scale, single};
use crate::integer::{IntegerInput, IntegerLayer, IntegerWeights, Window};

pub struct Qdq;

impl Dialect for Qdq {
    fn batch(&self) -> Option<i64> {
        None
    }

    fn highest(&self, _weights: &IntegerWeights) -> i32 {
        i8::MAX.into()
    }

    fn picture(&self, graph: &mut Graph, input: &IntegerInput, index: &Wire) -> Result<Wire> {
        let table = graph.constant("input.table", &[768], input.codes.as_flattened())?;
        let codes = Wire::new("input.codes", data_type::INT8, &index.shape);
        let codes = graph.node("Gather", &[&table, &index.name], vec![int("axis", 0)], codes)?;
        let scale = graph.constant("input.scale", &[], &[input.scale])?;
        let zero = graph.constant("input.zero", &[], &[0i8])?;
        let values = Wire::new("input", data_type::FLOAT, &index.shape);
        graph.node("DequantizeLinear", &[&codes.name, &scale, &zero], vec![], values)
    }

    fn weights(
        &self,
        graph: &mut Graph,
        name: &str,
        shape: &[usize],
        _integers: &IntegerWeights,
        weights: &Weights,
    ) -> Result<String> {
        let codes = graph.constant(format!("{name}.codes"), shape, &weights.codes)?;
        let rows = [weights.scales.len()];
        let scales = graph.constant(format!("{name}.scale"), &rows, &weights.scales)?;
        let zero = graph.constant(format!("{name}.zero"), &rows, &vec![0i8; rows[0]])?;
        let output = Wire::new(format!("{name}.weight"), data_type::FLOAT, shape);
        graph.constant_node_of("", "DequantizeLinear", &[&codes, &scales, &zero], vec![int("axis", 0)], output)
    }

    fn activation(&self, graph: &mut Graph, layer: &IntegerLayer, real: &Wire) -> Result<Wire> {
        let name = &layer.name;
        let zero = graph.constant(format!("{name}.zero"), &[], &[0u8])?;
        let base = graph.constant(
            format!("{name}.base_scale"),
            &[],
            &[single(name, base_scale(layer.scale, &layer.window))?],
        )?;
        let out = Wire::new(format!("{name}.base"), data_type::UINT8, &real.shape);
        let base = graph.node("QuantizeLinear", &[&real.name, &base, &zero], vec![], out)?;
        let codes = codes(graph, name, &layer.window, base)?;
        let scale = graph.constant(format!("{name}.scale"), &[], &[layer.scale])?;
        let out = Wire::new(name, data_type::FLOAT, &real.shape);
        graph.node("DequantizeLinear", &[&codes.name, &scale, &zero], vec![], out)
    }
}

/// Codes of base codes: clipped, or looked up where a window drops low bits.
fn codes(graph: &mut Graph, name: &str, window: &Window, base: Wire) -> Result<Wire> {
    let out = Wire { name: format!("{name}.codes"), ..base.clone() };
    if window.shift > 0 {
        let table: Vec<u8> = (0..256).map(|base| window.code(base) as u8).collect();
        let table = graph.constant(format!("{name}.window"), &[256], &table)?;
        let index = Wire { name: format!("{name}.index"), element: data_type::INT32, shape: base.shape.clone() };
        let index = graph.node("Cast", &[&base.name], vec![int("to", data_type::INT32.into())], index)?;
        return graph.node("Gather", &[&table, &index.name], vec![int("axis", 0)], out);
    }
    let [lo, hi] = [window.code(i64::MIN), window.code(i64::MAX)].map(|code| code as u8);
    if [lo, hi] == [0, 255] {
        return Ok(base);
    }
    let lo = graph.constant(format!("{name}.lo"), &[], &[lo])?;
    let hi = graph.constant(format!("{name}.hi"), &[], &[hi])?;
    graph.node("Clip", &[&base.name, &lo, &hi], vec![], out)
}

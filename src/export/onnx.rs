//! ONNX graphs of a model, from bytes to logits, in two dialects. docs/hardware.md says what in them is exact.

mod graph;
mod network;
mod proto;
mod qdq;
mod qonnx;
#[cfg(test)]
mod tests;

use prost::Message as _;
use serde_json::json;

use super::Files;
use super::factors::Weights;
use crate::integer::{Accumulator, IntegerInput, IntegerLayer, IntegerNet, IntegerShortcut, IntegerWeights};
use crate::model::Model;
use crate::{Error, Result};
use graph::{Graph, Wire};
use proto::Entry;

/// Version of the standard operators: the first with a scale per channel, which most readers have.
const OPSET: i64 = 13;
/// Version of the file format that came with them.
const IR_VERSION: i64 = 7;
/// Domain of the operators of QONNX.
const QONNX: &str = "qonnx.custom_op.general";

/// How quantizers are written.
trait Dialect {
    /// How many pictures a graph takes; none: any number.
    fn batch(&self) -> Option<i64>;
    /// The highest code that such weights can have.
    fn highest(&self, weights: &IntegerWeights) -> i32;
    /// Real values of a picture whose codes have these places in the table.
    ///
    /// # Errors
    /// As [`Graph::constant`], here and in all that follow.
    fn picture(&self, graph: &mut Graph, input: &IntegerInput, index: &Wire) -> Result<Wire>;
    /// Real values of weights of layer `name`; their name.
    fn weights(
        &self,
        graph: &mut Graph,
        name: &str,
        shape: &[usize],
        integers: &IntegerWeights,
        weights: &Weights,
    ) -> Result<String>;
    /// Quantized real values of a layer.
    ///
    /// # Errors
    /// Codes that the dialect cannot express.
    fn activation(&self, graph: &mut Graph, layer: &IntegerLayer, real: &Wire) -> Result<Wire>;
}

/// With pairs of QuantizeLinear and DequantizeLinear.
///
/// # Errors
/// Accumulators that are narrower than sums; factors that 32-bit floating point does not hold.
pub(super) fn qdq(model: &Model) -> Result<Files> {
    files(model, &qdq::Qdq, &[("", OPSET)])
}

/// With the `Quant` nodes of QONNX.
///
/// # Errors
/// As [`qdq`], and windows of codes that have no such node.
pub(super) fn qonnx(model: &Model) -> Result<Files> {
    files(model, &qonnx::Qonnx, &[("", OPSET), (QONNX, 1)])
}

fn files(model: &Model, dialect: &dyn Dialect, opsets: &[(&str, i64)]) -> Result<Files> {
    if model.net.accumulator != Accumulator::WHOLE {
        return Err(Error::config(format!(
            "the model has accumulators of {} bits, expected 32: ONNX has no others",
            model.net.accumulator.bits
        ))
        .hint("export a model with whole accumulators, as cqat quantize makes it"));
    }
    let opset = |(domain, version): &(&str, i64)| proto::OperatorSet { domain: (*domain).into(), version: *version };
    let message = proto::Model {
        ir_version: IR_VERSION,
        producer_name: "cqat".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        doc_string: "image: RGB bytes (N, 3, H, W), row by row; logits: (N, classes)".into(),
        graph: Some(network::graph(&model.net, dialect)?),
        opset_import: opsets.iter().map(opset).collect(),
        metadata_props: metadata(model),
    };
    let mut files = Files::default();
    files.insert("model.onnx", message.encode_to_vec());
    Ok(files)
}

fn metadata(model: &Model) -> Vec<Entry> {
    let source = &model.source;
    let entry = |key: &str, value: String| Entry { key: format!("cqat.{key}"), value };
    vec![
        entry("program", source.program.clone()),
        entry("run", source.run.clone()),
        entry("config", source.config.clone()),
        entry("data_sha256", source.data_sha256.clone()),
        entry("classes", json!(model.class_names).to_string()),
        entry("bits", bits(&model.net).to_string()),
    ]
}

/// Bits of every convolution's weights, of every activation and of the classifier, by name.
fn bits(net: &IntegerNet) -> serde_json::Value {
    let mut all = serde_json::Map::from_iter([("input".into(), json!(8))]);
    let mut insert = |name: &str, bits: u32| all.insert(name.into(), json!(bits));
    for layer in &net.layers {
        insert(&layer.conv.name, layer.conv.weights.bits);
        if let IntegerShortcut::Projection(conv) = &layer.shortcut {
            insert(&conv.name, conv.weights.bits);
        }
        insert(&layer.name, layer.bits);
    }
    insert(&net.classifier.name, net.classifier.weights.bits);
    all.into()
}

//! Graphs, decoded from their bytes.

use std::collections::BTreeSet;

use super::*;
use crate::integer::{IntegerConv, IntegerLinear, Multiplier, Requantize, Window};
use crate::model::Source;
use crate::net::Shape;
use crate::normalisation::Normalisation;

const SHAPE: Shape = Shape { h: 4, w: 4, c: 4 };

fn weights(codes: Vec<i8>, rows: usize) -> IntegerWeights {
    IntegerWeights::new(codes, 8, false, vec![0.5; rows], 15, false).unwrap()
}

fn conv(name: &str, input: usize, kernel: usize, real_in: usize) -> IntegerConv {
    let codes = (0..4 * real_in * kernel * kernel).map(|k| (k % 7) as i8 - 3).collect();
    IntegerConv {
        name: name.into(),
        input,
        kernel,
        stride: 1,
        from: SHAPE,
        to: SHAPE,
        real_in,
        weights: weights(codes, 4),
    }
}

fn layer(name: &str, conv: IntegerConv, shortcut: IntegerShortcut, window: Window) -> IntegerLayer {
    let channel = |multiplier| Requantize { multiplier, shortcut: 3 << 18, offset: 1 << 20, shift: 20 };
    let channels = [1 << 10, -(1 << 9), 0, 3 << 8].map(channel).to_vec();
    IntegerLayer { name: name.into(), conv, shortcut, channels, window, bits: 4, scale: 0.25, shape: SHAPE }
}

const CLIP: Window = Window { base_lo: 0, base_hi: 255, shift: 0, round: false, lo: 0, hi: 15 };
const OFFSET: Window = Window { base_lo: 2, base_hi: 17, lo: 2, hi: 17, ..CLIP };
const DROP: Window = Window { shift: 4, ..CLIP };

/// A stem, a layer with an identity, one with a projection; the stem's channel 1 has a negative factor and a code of -128.
fn model() -> Model {
    let mut stem = conv("conv1", 0, 3, 3);
    stem.weights.codes[27] = -128;
    let projection = IntegerShortcut::Projection(conv("layer1.0.downsample.0", 2, 1, 4));
    let channel = Requantize { multiplier: 1 << 20, shortcut: 0, offset: 7 << 10, shift: 20 };
    let net = IntegerNet {
        size: 4,
        multiplier: Multiplier::Bits32,
        accumulator: Accumulator::WHOLE,
        input: IntegerInput {
            codes: [0, 1, 2].map(|c| std::array::from_fn(|v| (v as i32 / 2 - 60 + c) as i8)),
            scale: 0.125,
            largest: 127,
        },
        layers: vec![
            layer("stem", stem, IntegerShortcut::None, CLIP),
            layer("layer1.0.relu1", conv("layer1.0.conv1", 1, 3, 4), IntegerShortcut::Identity(1), OFFSET),
            layer("layer1.0.relu2", conv("layer1.0.conv2", 2, 3, 4), projection, DROP),
        ],
        classifier: IntegerLinear {
            name: "fc".into(),
            input: 3,
            features: 4,
            classes: 2,
            pixels: 16,
            weights: weights(vec![1, -2, 3, -4, 5, -6, 7, -8], 2),
            channels: vec![channel; 2],
            fraction_bits: 10,
        },
    };
    Model {
        net,
        class_names: vec!["a".into(), "b".into()],
        normalisation: Normalisation::NEUTRAL,
        source: Source { run: "some-run".into(), ..Source::default() },
    }
}

fn decoded(files: Result<Files>) -> proto::Model {
    let bytes = files.unwrap().get("model.onnx").unwrap().to_vec();
    let model = proto::Model::decode(&bytes[..]).unwrap();
    assert_eq!(model.encode_to_vec(), bytes);
    model
}

fn node<'a>(graph: &'a proto::Graph, name: &str) -> &'a proto::Node {
    graph.node.iter().find(|node| node.name == name).unwrap_or_else(|| panic!("no node {name}"))
}

fn floats(graph: &proto::Graph, name: &str) -> Vec<f32> {
    raw(graph, name).as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn raw<'a>(graph: &'a proto::Graph, name: &str) -> &'a [u8] {
    let tensor = graph.initializer.iter().find(|t| t.name == name).unwrap_or_else(|| panic!("no constant {name}"));
    tensor.raw_data.as_deref().unwrap()
}

/// Every name is written once, and before it is read.
fn check_order(graph: &proto::Graph) {
    let mut known: BTreeSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(known.len(), graph.initializer.len());
    known.insert(&graph.input[0].name);
    for node in &graph.node {
        assert!(node.input.iter().all(|name| known.contains(name.as_str())), "{node:?}");
        assert!(node.output.iter().all(|name| known.insert(name)), "{node:?}");
    }
    assert!(known.contains("logits"));
    assert_eq!(graph.output[0].name, "logits");
    // Each but the last node's has its type and shape.
    assert_eq!(graph.value_info.len() + 1, graph.node.len());
}

#[test]
fn standard_operators_hold_the_integers() {
    let model = decoded(qdq(&model()));
    let props: Vec<&str> = model.metadata_props.iter().map(|p| p.value.as_str()).collect();
    assert!(props.contains(&"some-run") && props.contains(&r#"["a","b"]"#), "{props:?}");
    let graph = model.graph.unwrap();
    check_order(&graph);
    assert!(graph.node.iter().all(|node| node.domain.is_empty()));
    // Byte v of channel c reads place 256 c + v.
    assert_eq!(raw(&graph, "input.table")[256 + 10], (10 / 2 - 60 + 1) as i8 as u8);
    // Row 1 keeps its codes and gets a sign, row 2 is worth nothing, row 3 is as it was.
    let codes = raw(&graph, "conv1.codes");
    assert_eq!((codes[27] as i8, &codes[54..81], codes[81] as i8), (-128, &[0; 27][..], 81 % 7 - 3));
    assert_eq!(floats(&graph, "conv1.sign"), [1.0, -1.0, 1.0, 1.0]);
    assert_eq!(floats(&graph, "conv1.scale")[..2], [0.25 / 1024.0 / 0.125, 0.25 / 2048.0 / 0.125]);
    // Row 1 of another layer is turned around.
    assert_eq!(raw(&graph, "layer1.0.conv1.codes")[36] as i8, -(36 % 7 - 3));
    assert_eq!(floats(&graph, "conv1.bias"), [0.25; 4]);
    // A code of the shortcut is worth 3/4 of a step here.
    assert_eq!(floats(&graph, "layer1.0.relu1.shortcut_factor"), [0.75; 4]);
    assert_eq!((raw(&graph, "stem.lo"), raw(&graph, "stem.hi")), (&[0][..], &[15][..]));
    assert_eq!((raw(&graph, "layer1.0.relu1.lo"), raw(&graph, "layer1.0.relu1.hi")), (&[2][..], &[17][..]));
    assert_eq!(
        raw(&graph, "layer1.0.relu2.window")[..33],
        [[0; 16], [1; 16]].concat().into_iter().chain([2]).collect::<Vec<u8>>()[..]
    );
    assert_eq!(floats(&graph, "layer1.0.relu2.base_scale"), [0.25 / 16.0]);
    assert_eq!(floats(&graph, "fc.scale"), [(16.0 / 1024.0) / 0.25; 2]);
    assert_eq!(node(&graph, "conv1").attribute[1].ints, [1; 4]);
    assert_eq!(node(&graph, "layer1.0.downsample.0").attribute[1].ints, [0; 4]);
}

#[test]
fn quant_nodes_have_the_bits() {
    let model = decoded(qonnx(&model()));
    assert_eq!(model.opset_import[1].domain, QONNX);
    let graph = model.graph.unwrap();
    check_order(&graph);
    let quants = graph.node.iter().filter(|node| node.op_type == "Quant" && node.domain == QONNX).count();
    // The input, five weights, three activations, one of them in two steps.
    assert_eq!(quants, 1 + 5 + 4);
    let of = |name: &str| ["bits", "zero", "scale"].map(|part| floats(&graph, &format!("{name}.{part}"))[0]);
    assert_eq!(of("stem"), [4.0, 0.0, 0.25]);
    assert_eq!(of("layer1.0.relu1"), [4.0, -2.0, 0.25]);
    assert_eq!(of("layer1.0.relu2.base"), [8.0, 0.0, 1.0]);
    assert_eq!(of("layer1.0.relu2.window"), [4.0, 0.0, 16.0]);
    let rounding = |name: &str| node(&graph, name).attribute[2].s.clone().unwrap();
    assert_eq!((rounding("stem"), rounding("layer1.0.relu2.window")), (b"HALF_UP".to_vec(), b"FLOOR".to_vec()));
    // -128 is outside the narrow range.
    assert_eq!(node(&graph, "conv1.weight").attribute[1].i, Some(0));
    assert_eq!(node(&graph, "fc.weight").attribute[1].i, Some(1));
    assert_eq!(node(&graph, "input").attribute[1].i, Some(1));
    let mut lowest = self::model();
    lowest.net.input.codes[2][0] = -128;
    lowest.net.input.largest = 128;
    assert_eq!(node(&decoded(qonnx(&lowest)).graph.unwrap(), "input").attribute[1].i, Some(0));
}

#[test]
fn what_a_graph_cannot_express_is_refused() {
    let mut wrong = model();
    wrong.net.layers[0].window = Window { lo: 1, hi: 15, ..CLIP };
    let error = qonnx(&wrong).unwrap_err();
    assert!(error.to_string().starts_with("stem: codes from 1 to 15 of 4 bits"), "{error}");
    assert!(error.hint_text().unwrap().contains("--format onnx"));
    qdq(&wrong).unwrap();
    let mut tiny = model();
    tiny.net.layers[0].scale = 1e-40;
    assert!(qdq(&tiny).unwrap_err().to_string().starts_with("a factor of "));
    let mut twice = model();
    twice.net.layers[1].conv.name = "conv1".into();
    let error = qdq(&twice).unwrap_err();
    assert!(error.to_string().starts_with("two tensors of the graph are called conv1."), "{error}");
    assert_eq!(
        error.hint_text(),
        Some("a layer has the name of a part of another one: rename it, or make the model again with cqat quantize")
    );
    wrong.net.accumulator = Accumulator { bits: 16, saturates: true };
    assert!(qdq(&wrong).unwrap_err().to_string().contains("accumulators of 16 bits"));
}

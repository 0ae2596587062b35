//! The walk over a network: everything but its quantizers.

use super::Dialect;
use super::graph::{Graph, Wire, int, ints};
use super::proto::{self, Attribute, data_type};
use crate::Result;
use crate::export::factors::{Units, Weights, single};
use crate::integer::{IntegerConv, IntegerLayer, IntegerNet, IntegerShortcut, IntegerWeights};
use crate::net::Shape;

/// A factor this near to 1 is none. Adding a value as it is takes the factor 1, but scales in 32-bit floating point and `M_r` are rounded:
/// with multipliers of 32 bits that is less than this, which of 255 steps is 1/16,000 of a step. `M_r` of 16 bits may be off by more; such
/// a factor is kept.
const NEAR_ONE: f64 = 1.0 / (1 << 22) as f64;

/// The graph of a network, from bytes `image` (N, 3, H, W) to `logits` (N, classes).
pub fn graph(net: &IntegerNet, dialect: &dyn Dialect) -> Result<proto::Graph> {
    let mut graph = Graph::new("cqat", dialect.batch());
    let image = Wire::new("image", data_type::UINT8, &[3, net.size, net.size]);
    let picture = picture(&mut graph, net, dialect, &image)?;
    let mut walk = Walk { graph, dialect, values: vec![Value { wire: picture, scale: f64::from(net.input.scale) }] };
    for layer in &net.layers {
        let wire = walk.layer(layer)?;
        walk.values.push(Value { wire, scale: f64::from(layer.scale) });
    }
    let logits = walk.classifier(net)?;
    walk.graph.finish(&image, &logits, "logits")
}

/// The values of a picture's codes: bytes look their code up, each channel in its own part of one table.
fn picture(graph: &mut Graph, net: &IntegerNet, dialect: &dyn Dialect, image: &Wire) -> Result<Wire> {
    let at = |name: &str| Wire::new(name, data_type::INT32, &image.shape);
    let to = int("to", data_type::INT32.into());
    let bytes = graph.node("Cast", &[&image.name], vec![to], at("image.int32"))?;
    let first = graph.constant("image.first", &[3, 1, 1], &[0i32, 256, 512])?;
    let index = graph.node("Add", &[&bytes.name, &first], vec![], at("image.index"))?;
    dialect.picture(graph, &net.input, &index)
}

/// A tensor of real numbers, each a code times `scale`.
struct Value {
    wire: Wire,
    scale: f64,
}

struct Walk<'a> {
    graph: Graph,
    dialect: &'a dyn Dialect,
    values: Vec<Value>,
}

impl Walk<'_> {
    fn layer(&mut self, layer: &IntegerLayer) -> Result<Wire> {
        let units = Units::of_layer(layer)?;
        let mut sum = self.conv(&layer.conv, &units.main, Some(&units.bias))?;
        let other = match &layer.shortcut {
            IntegerShortcut::None => None,
            IntegerShortcut::Identity(value) => Some(self.identity(&layer.name, *value, &units.shortcut)?),
            IntegerShortcut::Projection(conv) => Some(self.conv(conv, &units.shortcut, None)?),
        };
        if let Some(other) = other {
            let out = Wire { name: format!("{}.sum", layer.name), ..sum.clone() };
            sum = self.graph.node("Add", &[&sum.name, &other.name], vec![], out)?;
        }
        let out = Wire { name: format!("{}.relu", layer.name), ..sum.clone() };
        let relu = self.graph.node("Relu", &[&sum.name], vec![], out)?;
        self.dialect.activation(&mut self.graph, layer, &relu)
    }

    /// A value, of which a code is worth `units` here.
    fn identity(&mut self, layer: &str, value: usize, units: &[f64]) -> Result<Wire> {
        let Value { wire, scale } = &self.values[value];
        let factors: Vec<f64> = units.iter().map(|unit| unit / scale).collect();
        if factors.iter().all(|f| (f - 1.0).abs() <= NEAR_ONE) {
            return Ok(wire.clone());
        }
        let factors = factors.into_iter().map(|f| single(layer, f)).collect::<Result<Vec<f32>>>()?;
        let factors = self.graph.constant(format!("{layer}.shortcut_factor"), &[factors.len(), 1, 1], &factors)?;
        let out = Wire { name: format!("{layer}.shortcut"), ..wire.clone() };
        self.graph.node("Mul", &[&wire.name, &factors], vec![], out)
    }

    /// A convolution, and its bias.
    fn conv(&mut self, conv: &IntegerConv, units: &[f64], bias: Option<&[f32]>) -> Result<Wire> {
        let Value { wire, scale } = &self.values[conv.input];
        let (input, scale) = (wire.name.clone(), *scale);
        let [kernel, stride, pad] = [conv.kernel, conv.stride, conv.kernel / 2].map(|side| side as i64);
        let Shape { h, w, c } = conv.to;
        let product = Product {
            op: "Conv",
            attributes: vec![
                ints("kernel_shape", &[kernel; 2]),
                ints("pads", &[pad; 4]),
                ints("strides", &[stride; 2]),
            ],
            name: &conv.name,
            shape: &[conv.to.c, conv.real_in, conv.kernel, conv.kernel],
            integers: &conv.weights,
            output: Wire::new(&conv.name, data_type::FLOAT, &[c, h, w]),
        };
        self.product(product, &input, scale, units, bias)
    }

    /// The mean over the pixels, and the fully connected layer.
    fn classifier(&mut self, net: &IntegerNet) -> Result<Wire> {
        let linear = &net.classifier;
        let Value { wire, scale } = &self.values[linear.input];
        // An accumulator sums pixels, the pool takes their mean.
        let scale = scale / linear.pixels as f64;
        let of = |name: &str, shape: &[usize]| Wire::new(name, data_type::FLOAT, shape);
        let mean = of("pool.mean", &[linear.features, 1, 1]);
        let mean = self.graph.node("GlobalAveragePool", &[&wire.name], vec![], mean)?;
        let flat = vec![int("axis", 1)];
        let pooled = self.graph.node("Flatten", &[&mean.name], flat, of("pool", &[linear.features]))?;
        let units = Units::of_linear(linear)?;
        let product = Product {
            op: "Gemm",
            attributes: vec![int("transB", 1)],
            name: &linear.name,
            shape: &[linear.classes, linear.features],
            integers: &linear.weights,
            output: of(&linear.name, &[linear.classes]),
        };
        self.product(product, &pooled.name, scale, &units.main, Some(&units.bias))
    }

    /// Sums of products of weights with `input`, of which a code is worth `scale`, and their bias.
    fn product(
        &mut self,
        product: Product,
        input: &str,
        scale: f64,
        units: &[f64],
        bias: Option<&[f32]>,
    ) -> Result<Wire> {
        let Product { op, attributes, name, shape, integers, output } = product;
        let weights = Weights::new(name, integers, units, scale, self.dialect.highest(integers))?;
        let tensor = self.dialect.weights(&mut self.graph, name, shape, integers, &weights)?;
        let mut per_row = vec![1; output.shape.len()];
        per_row[0] = units.len();
        let mut result = self.graph.node(op, &[input, &tensor], attributes, output)?;
        let mut then = |op: &str, part: &str, values: &[f32]| -> Result<()> {
            let constant = self.graph.constant(format!("{name}.{part}"), &per_row, values)?;
            let output = Wire { name: format!("{name}.with_{part}"), ..result.clone() };
            result = self.graph.node(op, &[&result.name, &constant], vec![], output)?;
            Ok(())
        };
        if let Some(signs) = &weights.signs {
            then("Mul", "sign", signs)?;
        }
        // As a node of its own: onnxruntime rounds the bias of a convolution to whole accumulators, which moves codes.
        if let Some(bias) = bias {
            then("Add", "bias", bias)?;
        }
        Ok(result)
    }
}

/// A convolution or a fully connected layer.
struct Product<'a> {
    op: &'a str,
    attributes: Vec<Attribute>,
    name: &'a str,
    shape: &'a [usize],
    integers: &'a IntegerWeights,
    output: Wire,
}

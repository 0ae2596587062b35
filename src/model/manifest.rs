//! The manifest of a model file, and what it makes of the tensors.

use std::collections::BTreeMap;

use safetensors::tensor::Dtype;
use serde::{Deserialize, Serialize};

use super::codes::{pack, row_bytes};
use super::reader::Reader;
use super::{FORMAT_VERSION, Model, Source, Tensor, Tensors};
use crate::integer::{
    Accumulator, IntegerConv, IntegerLayer, IntegerShortcut, IntegerWeights, Multiplier, Requantize, Window,
};
use crate::net::Shape;
use crate::normalisation::Normalisation;
use crate::{Error, Result};

/// The only operation of a layer so far.
const OP: &str = "conv_requantize";

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) format_version: u32,
    pub(super) source: Source,
    pub(super) classes: Vec<String>,
    /// Height and width of the picture.
    pub(super) size: usize,
    pub(super) normalisation: Normalisation,
    pub(super) multiplier: Multiplier,
    pub(super) accumulator: Accumulator,
    pub(super) input: InputEntry,
    pub(super) layers: Vec<LayerEntry>,
    pub(super) classifier: ClassifierEntry,
    /// Hashes of the tensors' bytes.
    pub(super) sha256: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InputEntry {
    pub(super) bits: u32,
    pub(super) scale: f32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LayerEntry {
    pub(super) op: String,
    pub(super) name: String,
    pub(super) conv: ConvEntry,
    pub(super) shortcut: ShortcutEntry,
    pub(super) window: Window,
    pub(super) bits: u32,
    pub(super) scale: f32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConvEntry {
    pub(super) name: String,
    /// The value that it reads: 0 is the picture, k + 1 the output of layer k.
    pub(super) input: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    /// Height, width and channels of what it reads.
    pub(super) from: [usize; 3],
    /// The same of what it writes.
    pub(super) to: [usize; 3],
    pub(super) bits: u32,
    pub(super) odd: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum ShortcutEntry {
    None,
    Identity(usize),
    Projection(ConvEntry),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClassifierEntry {
    pub(super) name: String,
    pub(super) input: usize,
    pub(super) features: usize,
    pub(super) classes: usize,
    /// Pixels in a pooled sum.
    pub(super) pixels: usize,
    pub(super) bits: u32,
    pub(super) odd: bool,
    pub(super) fraction_bits: u32,
}

pub(super) fn wrong(what: String) -> Error {
    Error::training(what).hint("make the model again with cqat quantize")
}

/// Little-endian words of any type.
fn bytes<T: bytemuck::NoUninit>(values: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

impl Manifest {
    /// Of a model, hashes not yet filled in, with its tensors.
    pub(super) fn of(model: &Model) -> (Manifest, Tensors) {
        let net = &model.net;
        let mut tensors = Tensors::new();
        let mut insert = |name: String, dtype: Dtype, shape: &[usize], bytes: Vec<u8>| {
            tensors.insert(name, Tensor { dtype, shape: shape.to_vec(), bytes });
        };
        insert("input.codes".into(), Dtype::I8, &[3, 256], bytes(net.input.codes.as_flattened()));
        let mut weights = |name: &str, w: &IntegerWeights| {
            let (rows, count) = (w.scales.len(), w.row_len());
            let packed = pack(&w.codes, count, w.bits, w.odd);
            insert(format!("{name}.codes"), Dtype::U8, &[rows, row_bytes(count, w.bits)], packed);
            insert(format!("{name}.scale"), Dtype::F32, &[rows], bytes(&w.scales));
        };
        for (name, w) in net.weights() {
            weights(name, w);
        }
        let mut factors = |name: &str, channels: &[Requantize]| {
            let shape = [channels.len()];
            let of = |f: fn(&Requantize) -> i32| bytes(&channels.iter().map(f).collect::<Vec<_>>());
            insert(format!("{name}.mul"), Dtype::I32, &shape, of(|k| k.multiplier));
            insert(format!("{name}.shift"), Dtype::I32, &shape, of(|k| k.shift as i32));
            let bias: Vec<i64> = channels.iter().map(|k| k.offset).collect();
            insert(format!("{name}.bias"), Dtype::I64, &shape, bytes(&bias));
        };
        net.layers.iter().for_each(|layer| factors(&layer.conv.name, &layer.channels));
        factors(&net.classifier.name, &net.classifier.channels);
        for layer in &net.layers {
            let name = match &layer.shortcut {
                IntegerShortcut::None => continue,
                IntegerShortcut::Identity(_) => format!("{}.shortcut", layer.conv.name),
                IntegerShortcut::Projection(p) => format!("{}.mul", p.name),
            };
            let factors: Vec<i32> = layer.channels.iter().map(|k| k.shortcut).collect();
            insert(name, Dtype::I32, &[factors.len()], bytes(&factors));
        }
        let c = &net.classifier;
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            source: model.source.clone(),
            classes: model.class_names.clone(),
            size: net.size,
            normalisation: model.normalisation,
            multiplier: net.multiplier,
            accumulator: net.accumulator,
            input: InputEntry { bits: 8, scale: net.input.scale },
            layers: net.layers.iter().map(LayerEntry::of).collect(),
            classifier: ClassifierEntry {
                name: c.name.clone(),
                input: c.input,
                features: c.features,
                classes: c.classes,
                pixels: c.pixels,
                bits: c.weights.bits,
                odd: c.weights.odd,
                fraction_bits: c.fraction_bits,
            },
            sha256: BTreeMap::new(),
        };
        (manifest, tensors)
    }

    /// Of its text.
    ///
    /// # Errors
    /// A newer version, an operation that this program does not have, what is no manifest.
    pub(super) fn parse(text: &str) -> Result<Manifest> {
        let value: serde_json::Value =
            serde_json::from_str(text).map_err(|e| wrong("its manifest is no JSON".into()).caused_by(e))?;
        match value["format_version"].as_u64() {
            Some(v) if v == u64::from(FORMAT_VERSION) => {}
            v => {
                let found = v.map_or("none".to_string(), |v| v.to_string());
                return Err(Error::training(format!("has format_version {found}, expected {FORMAT_VERSION}"))
                    .hint("a newer program wrote it: use that one, or fold the run again with this one"));
            }
        }
        for layer in value["layers"].as_array().into_iter().flatten() {
            if let Some(op) = layer["op"].as_str().filter(|op| *op != OP) {
                let name = layer["name"].as_str().unwrap_or("?").escape_debug();
                return Err(Error::training(format!("its layer {name} is a {}, expected {OP}", op.escape_debug()))
                    .hint("this program has no such layer: use the one that wrote the file"));
            }
        }
        serde_json::from_value(value).map_err(|e| wrong("its manifest lacks something".into()).caused_by(e))
    }

    /// The model of these tensors.
    ///
    /// # Errors
    /// Tensors that are missing or have another type or shape, and what no network can be.
    pub(super) fn model(self, tensors: &Tensors) -> Result<Model> {
        let reader = Reader { tensors, manifest: &self };
        let net = reader.net()?;
        Ok(Model { net, class_names: self.classes, normalisation: self.normalisation, source: self.source })
    }
}

pub(super) fn sides(shape: Shape) -> [usize; 3] {
    [shape.h, shape.w, shape.c]
}

pub(super) fn shape([h, w, c]: [usize; 3]) -> Shape {
    Shape { h, w, c }
}

impl ConvEntry {
    fn of(c: &IntegerConv) -> ConvEntry {
        ConvEntry {
            name: c.name.clone(),
            input: c.input,
            kernel: c.kernel,
            stride: c.stride,
            from: [c.from.h, c.from.w, c.real_in],
            to: sides(c.to),
            bits: c.weights.bits,
            odd: c.weights.odd,
        }
    }
}

impl LayerEntry {
    fn of(layer: &IntegerLayer) -> LayerEntry {
        LayerEntry {
            op: OP.into(),
            name: layer.name.clone(),
            conv: ConvEntry::of(&layer.conv),
            shortcut: match &layer.shortcut {
                IntegerShortcut::None => ShortcutEntry::None,
                IntegerShortcut::Identity(value) => ShortcutEntry::Identity(*value),
                IntegerShortcut::Projection(p) => ShortcutEntry::Projection(ConvEntry::of(p)),
            },
            window: layer.window,
            bits: layer.bits,
            scale: layer.scale,
        }
    }
}

//! A C99 engine (`assets/export/c`), the network as tables for it, golden vectors and a Makefile that compares.

use std::fmt::Write as _;

use super::{Files, Golden};
use crate::integer::{IntegerConv, IntegerLayer, IntegerNet, IntegerShortcut, IntegerWeights, Requantize};
use crate::model::{Model, pack};
use crate::{Error, Result};

/// Files that are the same for every network.
const ENGINE: [(&str, &str); 5] = [
    ("cqat.h", include_str!("../../assets/export/c/cqat.h")),
    ("cqat.c", include_str!("../../assets/export/c/cqat.c")),
    ("check.c", include_str!("../../assets/export/c/check.c")),
    ("Makefile", include_str!("../../assets/export/c/Makefile")),
    ("README.md", include_str!("../../assets/export/c/README.md")),
];

/// Its files.
///
/// # Errors
/// More values than the engine can number.
pub(super) fn files(model: &Model, golden: &Golden) -> Result<Files> {
    let net = &model.net;
    let values: usize = (0..=net.layers.len()).map(|k| value_len(net, k)).sum();
    if i32::try_from(values).is_err() {
        return Err(Error::config(format!("the network has {values} values, expected at most 2^31 - 1"))
            .hint("export a network for smaller pictures"));
    }
    let mut files = Files::default();
    for (path, text) in ENGINE {
        files.insert(path, text);
    }
    files.insert("model.h", header(net, golden.count()));
    files.insert("model.c", tables(net));
    vectors(net, golden, &mut files);
    Ok(files)
}

/// Codes of value `k`; the picture has three channels here.
fn value_len(net: &IntegerNet, k: usize) -> usize {
    if k == 0 { net.picture_bytes() } else { net.value_shape(k).len() }
}

fn header(net: &IntegerNet, pictures: usize) -> String {
    format!(
        "/* The network of model.c. */\n#ifndef CQAT_MODEL_H\n#define CQAT_MODEL_H\n\n#include \"cqat.h\"\n\n\
         #define CQAT_SIZE {} /* height and width of a picture */\n\
         #define CQAT_CLASSES {}\n\
         #define CQAT_FRACTION_BITS {} /* a logit is an integer times 2^-CQAT_FRACTION_BITS */\n\
         #define CQAT_PICTURES {pictures} /* golden ones */\n\n\
         extern const cqat_network cqat_model;\nextern const cqat_memory cqat_model_memory;\n\n#endif\n",
        net.size, net.classifier.classes, net.classifier.fraction_bits,
    )
}

fn tables(net: &IntegerNet) -> String {
    let mut text = String::from("#include \"model.h\"\n\n");
    let codes: Vec<String> = net.input.codes.iter().map(|c| format!("\t{{ {} }},\n", list(c))).collect();
    let _ = write!(text, "static const int8_t input_codes[3][256] = {{\n{}}};\n\n", codes.concat());
    for (k, layer) in net.layers.iter().enumerate() {
        let _ = writeln!(text, "/* {} */", layer.name);
        for (conv, part) in layer.convs().zip(["", "_projection"]) {
            weights(&mut text, &format!("weights_{k}{part}"), &conv.weights);
        }
        channels(&mut text, &format!("channels_{k}"), &layer.channels);
    }
    let c = &net.classifier;
    let _ = writeln!(text, "/* {} */", c.name);
    weights(&mut text, "weights_classifier", &c.weights);
    channels(&mut text, "channels_classifier", &c.channels);
    text += "static const cqat_layer layers[] = {\n";
    net.layers.iter().enumerate().for_each(|(k, layer)| text += &entry(k, layer));
    text += "};\n\n";
    let offsets: Vec<usize> = (0..=net.layers.len())
        .scan(0, |at, k| {
            let from = *at;
            *at += value_len(net, k);
            Some(from)
        })
        .collect();
    let _ = write!(text, "static const int32_t offsets[] = {{ {} }};\n\n", list(&offsets));
    let _ = write!(
        text,
        "const cqat_network cqat_model = {{\n\t{}, input_codes, {}, {}, {}, layers,\n\t{{ \"{}\", {}, {}, {}, {}, {}, {}, \
         {}, weights_classifier, channels_classifier }},\n\toffsets,\n}};\n\n",
        net.size,
        net.accumulator.bits,
        i32::from(net.accumulator.saturates),
        net.layers.len(),
        c.name,
        c.input,
        c.pixels,
        c.features,
        c.classes,
        c.weights.bits,
        i32::from(c.weights.odd),
        c.fraction_bits,
    );
    let widest = net.layers.iter().map(|l| l.shape.len()).max().unwrap_or(1);
    let longest = net.weights().iter().map(|(_, w)| w.row_len()).max().unwrap_or(1);
    let values: usize = (0..=net.layers.len()).map(|k| value_len(net, k)).sum();
    let _ = write!(
        text,
        "static int16_t values[{values}], row[{longest}];\n\
         static int32_t accumulators[{widest}], projection[{widest}], pooled[{}], classifier[{}];\n\
         const cqat_memory cqat_model_memory = {{ values, accumulators, projection, row, pooled, classifier }};\n",
        c.features, c.classes
    );
    text
}

fn list<T: std::fmt::Display>(numbers: &[T]) -> String {
    numbers.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

/// Rows of packed weights: `cqat_weights` of the engine reads them.
fn weights(text: &mut String, name: &str, w: &IntegerWeights) {
    let count = w.row_len();
    let _ = writeln!(text, "static const uint32_t {name}[] = {{");
    for row in w.codes.chunks_exact(count) {
        let mut bytes = pack(row, count, w.bits, w.odd);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let words: Vec<u32> = bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        for words in words.chunks(12) {
            let words: Vec<String> = words.iter().map(|w| format!("0x{w:08x}")).collect();
            let _ = writeln!(text, "\t{},", words.join(", "));
        }
    }
    text.push_str("};\n");
}

/// `i32::MIN` has no literal in C.
fn int(v: i32) -> String {
    if v == i32::MIN { "INT32_MIN".into() } else { v.to_string() }
}

fn channels(text: &mut String, name: &str, channels: &[Requantize]) {
    let _ = writeln!(text, "static const cqat_requantize {name}[] = {{");
    for k in channels {
        let [m, r] = [k.multiplier, k.shortcut].map(int);
        let _ = writeln!(text, "\t{{ {m}, {r}, INT64_C({}), {} }},", k.offset, k.shift);
    }
    text.push_str("};\n\n");
}

fn conv(c: &IntegerConv, weights: &str) -> String {
    let sides = [c.kernel, c.stride, c.from.h, c.from.w, c.real_in, c.to.h, c.to.w, c.to.c];
    let (bits, odd) = (c.weights.bits, i32::from(c.weights.odd));
    format!("{{ \"{}\", {}, {}, {bits}, {odd}, {weights} }}", c.name, c.input, list(&sides))
}

fn entry(k: usize, layer: &IntegerLayer) -> String {
    const NONE: &str = "{ 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }";
    let (kind, identity, projection) = match &layer.shortcut {
        IntegerShortcut::None => ("CQAT_NO_SHORTCUT", 0, NONE.to_string()),
        IntegerShortcut::Identity(value) => ("CQAT_IDENTITY", *value, NONE.to_string()),
        IntegerShortcut::Projection(p) => ("CQAT_PROJECTION", 0, conv(p, &format!("weights_{k}_projection"))),
    };
    let main = conv(&layer.conv, &format!("weights_{k}"));
    let w = &layer.window;
    let window = [w.base_lo, w.base_hi, w.shift as i32, i32::from(w.round), w.lo, w.hi].map(int).join(", ");
    format!(
        "\t{{ \"{}\",\n\t\t{main},\n\t\t{kind}, {identity}, {projection},\n\t\tchannels_{k}, {{ {window} }} }},\n",
        layer.name
    )
}

/// Golden vectors: pictures as bytes, codes as 8 bits, all else as little-endian 32 bits; picture after picture, `(H, W, C)`.
fn vectors(net: &IntegerNet, golden: &Golden, files: &mut Files) {
    let words = |values: &[i32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
    let mut insert = |name: String, bytes: Vec<u8>| files.insert(format!("vectors/{name}.bin"), bytes);
    let t = &golden.trace;
    insert("pictures".into(), golden.images.clone());
    insert("input".into(), t.input.iter().map(|q| *q as u8).collect());
    for (layer, t) in net.layers.iter().zip(&t.layers) {
        insert(format!("{}.accumulators", layer.name), words(&t.accumulators));
        if !t.projection.is_empty() {
            insert(format!("{}.projection", layer.name), words(&t.projection));
        }
        insert(format!("{}.codes", layer.name), t.codes.clone());
    }
    insert("pooled".into(), words(&t.pooled));
    insert("classifier".into(), words(&t.classifier));
    insert("logits".into(), words(&t.logits));
}

//! Exports: folders of files that other tools read, all made of the same integers. docs/hardware.md has their formats.

mod c;
mod factors;
mod folder;
mod golden;
mod hex;
mod onnx;
mod state;
mod verilog;

use serde_json::{Value, json};

use crate::evaluate::Loaded;
use crate::model::{Model, Source};
use crate::{Error, Result};

pub use folder::{Files, check_free};
pub use golden::Golden;

/// What is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A C99 engine, the network's tables and golden vectors.
    C,
    /// `$readmemh` memories of every layer and golden vectors.
    Hex,
    /// Those, a synthesizable convolution layer and a test bench.
    Verilog,
    /// An ONNX graph of standard operators.
    Onnx,
    /// An ONNX graph with the quantizers of QONNX.
    Qonnx,
    /// Tensors by torchvision's names.
    Safetensors,
}

impl Format {
    /// Name on the command line and in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Format::C => "c",
            Format::Hex => "hex",
            Format::Verilog => "verilog",
            Format::Onnx => "onnx",
            Format::Qonnx => "qonnx",
            Format::Safetensors => "safetensors",
        }
    }

    /// Whether golden vectors are part of it.
    pub fn has_vectors(self) -> bool {
        match self {
            Format::C | Format::Hex | Format::Verilog => true,
            Format::Onnx | Format::Qonnx | Format::Safetensors => false,
        }
    }
}

/// The files of a model, with `manifest.json`: the format, the model's manifest, the names of the golden pictures where it has some, and
/// the hashes of all other files.
///
/// # Errors
/// What the format cannot express.
pub fn model(model: &Model, golden: &Golden, format: Format) -> Result<Files> {
    let memories = |(files, memories): (Files, Value)| (files, Some(memories));
    let (mut files, memories) = match format {
        Format::C => (c::files(model, golden)?, None),
        Format::Hex => memories(hex::files(model, golden)?),
        Format::Verilog => memories(verilog::files(model, golden)?),
        Format::Onnx => (onnx::qdq(model)?, None),
        Format::Qonnx => (onnx::qonnx(model)?, None),
        Format::Safetensors => (state::of_model(model)?, None),
    };
    let mut manifest = json!({
        "format": format.name(),
        "format_version": 1,
        "model": model.manifest()?,
        "sha256": files.hashes(),
    });
    if format.has_vectors() {
        manifest["pictures"] = json!(golden.names);
    }
    if let Some(memories) = memories {
        manifest["memories"] = memories;
    }
    files.insert("manifest.json", format!("{manifest:#}\n"));
    Ok(files)
}

/// The files of a run, with `manifest.json`: the format, where the tensors come from, and their file's hash.
///
/// # Errors
/// A format that is made of integers; a checkpoint that lacks what its configuration needs.
pub fn run(loaded: &Loaded, name: &str, format: Format) -> Result<Files> {
    if format != Format::Safetensors {
        return Err(Error::config(format!("{name} is a run, but {} is made of a model's integers", format.name()))
            .hint(format!("make a model of it and export that: cqat quantize {name} --out MODEL")));
    }
    let mut files = state::of_run(loaded)?;
    let meta = &loaded.checkpoint.meta;
    let source = Source {
        program: meta.program.clone(),
        run: name.into(),
        config: meta.config.clone(),
        data_sha256: meta.data_sha256.clone(),
    };
    let manifest = json!({
        "format": format.name(),
        "format_version": 1,
        "source": source,
        "quantized": loaded.quantized(),
        "sha256": files.hashes(),
    });
    files.insert("manifest.json", format!("{manifest:#}\n"));
    Ok(files)
}

//! Exports: folders of files that other tools read, all made of the same integers. docs/hardware.md has their formats.

mod c;
mod folder;
mod golden;
mod onnx;

use std::path::Path;

use serde_json::json;

use crate::Result;
use crate::model::Model;

pub use folder::Files;
pub use golden::Golden;

/// What is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A C99 engine, the network's tables and golden vectors.
    C,
    /// An ONNX graph of standard operators.
    Onnx,
    /// An ONNX graph with the quantizers of QONNX.
    Qonnx,
}

impl Format {
    /// Name on the command line and in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Format::C => "c",
            Format::Onnx => "onnx",
            Format::Qonnx => "qonnx",
        }
    }
}

/// The files of a model, with `manifest.json`: the format, the model's manifest, the names of the golden pictures, and the hashes of
/// all other files.
///
/// # Errors
/// What the format cannot express.
pub fn model(model: &Model, golden: &Golden, format: Format) -> Result<Files> {
    let mut files = match format {
        Format::C => c::files(model, golden),
        Format::Onnx => onnx::qdq(model),
        Format::Qonnx => onnx::qonnx(model),
    }?;
    let manifest = json!({
        "format": format.name(),
        "format_version": 1,
        "pictures": golden.names,
        "model": model.manifest()?,
        "sha256": files.hashes(),
    });
    files.insert("manifest.json", format!("{manifest:#}\n"));
    Ok(files)
}

/// Refuses a folder that is there, before anything is computed.
///
/// # Errors
/// A folder or file of that name, no folder around it.
pub fn check_free(folder: &Path) -> Result<()> {
    folder::check_free(folder)
}

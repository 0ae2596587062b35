//! Exports: folders of files that other tools read, all made of the same integers. docs/hardware.md has their formats.

mod c;
mod folder;
mod golden;
mod hex;
mod verilog;

use std::path::Path;

use serde_json::{Value, json};

use crate::Result;
use crate::model::Model;

pub use folder::Files;
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
}

impl Format {
    /// Name on the command line and in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Format::C => "c",
            Format::Hex => "hex",
            Format::Verilog => "verilog",
        }
    }
}

/// The files of a model, with `manifest.json`: the format, the model's manifest, the names of the golden pictures, and the hashes of
/// all other files.
///
/// # Errors
/// What the format cannot express.
pub fn model(model: &Model, golden: &Golden, format: Format) -> Result<Files> {
    // What a format says of its files beside their hashes.
    let (mut files, memories) = match format {
        Format::C => (c::files(model, golden)?, Value::Null),
        Format::Hex => hex::files(model, golden)?,
        Format::Verilog => verilog::files(model, golden)?,
    };
    let mut manifest = json!({
        "format": format.name(),
        "format_version": 1,
        "pictures": golden.names,
        "model": model.manifest()?,
        "sha256": files.hashes(),
    });
    if !memories.is_null() {
        manifest["memories"] = memories;
    }
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

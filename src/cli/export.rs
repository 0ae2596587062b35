//! `cqat export`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

use super::Global;
use super::interrupts::Interrupts;
use crate::evaluate::Loaded;
use crate::export::{self, Format, Golden};
use crate::model::Model;
use crate::{Error, Result};

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// A model file (see `cqat quantize`); for safetensors a run folder or a checkpoint file too
    model: PathBuf,
    /// What other tools read
    #[arg(long, value_enum)]
    format: FormatName,
    /// The folder; it must not exist yet
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: PathBuf,
    /// PNG or JPEG pictures for the golden vectors; default: four that are made
    #[arg(long, value_name = "IMAGE", num_args = 1..)]
    image: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatName {
    /// A C99 engine, the network's tables, golden vectors, a Makefile
    C,
    /// Memories for $readmemh of every layer, golden vectors
    Hex,
    /// Those, a convolution layer in Verilog, a test bench, a Makefile
    Verilog,
    /// An ONNX graph with QuantizeLinear and DequantizeLinear
    Onnx,
    /// An ONNX graph with the Quant nodes of QONNX
    Qonnx,
    /// Tensors by torchvision's names, with codes and scales
    Safetensors,
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Format {
        match name {
            FormatName::C => Format::C,
            FormatName::Hex => Format::Hex,
            FormatName::Verilog => Format::Verilog,
            FormatName::Onnx => Format::Onnx,
            FormatName::Qonnx => Format::Qonnx,
            FormatName::Safetensors => Format::Safetensors,
        }
    }
}

impl ExportArgs {
    pub(super) fn run(&self, _global: &Global) -> Result<()> {
        let _interrupts = Interrupts::take("leaving; what is not whole is removed");
        export::check_free(&self.out)?;
        let format = Format::from(self.format);
        if !self.image.is_empty() && !format.has_vectors() {
            return Err(Error::config(format!("--image is for golden vectors, but {} has none", format.name()))
                .hint("leave --image out"));
        }
        let files = if Model::is_at(&self.model) {
            let model = Model::read(&self.model)?;
            let golden = match format.has_vectors() {
                true => Golden::new(&model.net, &self.image)?,
                false => Golden::default(),
            };
            export::model(&model, &golden, format)
        } else {
            export::run(&Loaded::read(&self.model)?, &self.model.display().to_string(), format)
        }?;
        files.write(&self.out)?;
        println!("{}", self.out.display());
        Ok(())
    }
}

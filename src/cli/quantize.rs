//! `cqat quantize`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum, ValueHint};
use serde_json::json;

use super::Global;
use crate::evaluate::Loaded;
use crate::files::check_free;
use crate::integer::{IntegerNet, Multiplier};
use crate::model::{Model, Source};
use crate::{Error, Result};

#[derive(Debug, Args)]
pub(super) struct QuantizeArgs {
    /// A run folder, or a checkpoint file
    run: PathBuf,
    /// The model file
    #[arg(long, value_name = "MODEL", value_hint = ValueHint::FilePath)]
    out: PathBuf,
    /// What multiplies accumulators: numbers of 32 or 16 bits, or shifts alone, for which the run must have been trained
    #[arg(long, value_enum, default_value = "32")]
    multiplier: MultiplierName,
    /// Overwrite the file if it exists
    #[arg(long)]
    force: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MultiplierName {
    #[value(name = "32")]
    Bits32,
    #[value(name = "16")]
    Bits16,
    Shift,
}

impl From<MultiplierName> for Multiplier {
    fn from(name: MultiplierName) -> Multiplier {
        match name {
            MultiplierName::Bits32 => Multiplier::Bits32,
            MultiplierName::Bits16 => Multiplier::Bits16,
            MultiplierName::Shift => Multiplier::Shift,
        }
    }
}

impl QuantizeArgs {
    pub(super) fn run(&self, global: &Global) -> Result<()> {
        check_free(&self.out, self.force)?;
        if Model::is_at(&self.run) {
            return Err(Error::config(format!("{} is a model, expected a run", self.run.display()))
                .hint("it is folded already: name the run that it was made of"));
        }
        let loaded = Loaded::read(&self.run)?;
        let run = self.run.display();
        if !loaded.quantized() {
            return Err(Error::training(format!("{run} has no quantized network yet: its checkpoint is still float"))
                .hint("go on training until the quantized phase"));
        }
        if !loaded.frozen() {
            return Err(Error::training(format!("the ranges of {run} are not frozen: training would still move them"))
                .hint("go on training to its end; with quant.freeze=never nothing freezes them: train with before_last_epoch"));
        }
        let class_names = loaded.class_names();
        let net = loaded.fold(class_names.len(), self.multiplier.into())?;
        let meta = &loaded.checkpoint.meta;
        let source = Source {
            program: env!("CARGO_PKG_VERSION").into(),
            run: run.to_string(),
            config: meta.config.clone(),
            data_sha256: meta.data_sha256.clone(),
        };
        let model = Model { net, class_names, normalisation: meta.normalisation, source };
        model.write(&self.out)?;
        if self.json {
            println!("{:#}", summary(&model.net, &self.out));
            return Ok(());
        }
        if !global.quiet {
            print(&model.net);
        }
        println!("model: {}", self.out.display());
        Ok(())
    }
}

fn summary(net: &IntegerNet, file: &Path) -> serde_json::Value {
    let layers = net.accumulator_bounds().into_iter().map(|b| {
        json!({
            "layer": b.layer, "weights": b.weights, "bits": b.weight_bits, "accumulator_bits": b.tight,
            "accumulator_bits_data_free": b.data_free,
        })
    });
    let layers: Vec<_> = layers.collect();
    json!({ "model": file.display().to_string(), "multiplier": net.multiplier, "layers": layers })
}

fn print(net: &IntegerNet) {
    println!("{:24} {:>9} {:>5} {:>16} {:>12}", "layer", "weights", "bits", "accumulator bits", "data-free");
    for b in net.accumulator_bounds() {
        println!("{:24} {:>9} {:>5} {:>16} {:>12}", b.layer, b.weights, b.weight_bits, b.tight, b.data_free);
    }
    println!(
        "accumulator bits: two's complement, for the largest sums that these weights can give; data-free: any weights of so many bits"
    );
}

//! `cqat eval`.

mod details;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use details::Details;
use serde_json::json;

use super::{Global, train};
use crate::config::Config;
use crate::evaluate::{Kind, Subject};
use crate::exec::Device;
use crate::gpu::{self, Gpu};
use crate::integer::Accumulator;
use crate::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SplitName {
    Test,
    Val,
    Train,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum KindName {
    /// The float network, with running statistics
    Float,
    /// Fake quantization with running statistics and stored scales, on the device
    FakeQuant,
    /// Stored statistics and the integer arithmetic of hardware, on the CPU
    Folded,
}

impl From<KindName> for Kind {
    fn from(name: KindName) -> Kind {
        match name {
            KindName::Float => Kind::Float,
            KindName::FakeQuant => Kind::FakeQuant,
            KindName::Folded => Kind::Folded,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct EvalArgs {
    /// A run folder, a checkpoint file, or a model file
    #[arg(value_name = "RUN|MODEL")]
    run: PathBuf,
    /// Folder or archive of the data set; default: the run's, else CQAT_DATA
    #[arg(long, value_name = "PLACE")]
    data: Option<PathBuf>,
    /// Which pictures
    #[arg(long, value_enum, default_value = "test")]
    split: SplitName,
    /// Which arithmetic of a run; default: fake_quant for a quantized one, float for a float one
    #[arg(long, value_enum)]
    kind: Option<KindName>,
    #[command(flatten)]
    integers: IntegerArgs,
    /// Of a model: bits of the accumulators of each layer, and the least and largest sums of these pictures, on the CPU
    #[arg(long)]
    layers: bool,
    /// Of a model, on the CPU: beside the fake quantization (on a device) of the run that it was made of, with the codes of each layer that differ
    #[arg(long, value_name = "RUN")]
    against: Option<PathBuf>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// How the integers of a model file are computed.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct IntegerArgs {
    /// Of a model: what computes; the integers are the same
    #[arg(long, value_enum, default_value = "auto")]
    engine: Engine,
    /// Of a model: bits of every accumulator, 2 to 32; default: those in the file, 32
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u32).range(2..=32))]
    accumulator_bits: Option<u32>,
    /// Of a model: what becomes of sums that an accumulator does not hold
    #[arg(long, value_enum, default_value = "wrap", requires = "accumulator_bits")]
    overflow: Overflow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engine {
    /// A device where there is a GPU or --device is given, else the CPU: several times as fast as a software adapter
    Auto,
    /// A device
    Device,
    /// The CPU
    Cpu,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Overflow {
    Wrap,
    Saturate,
}

impl IntegerArgs {
    /// Reads what is to be scored or to classify, with accumulators as wished.
    ///
    /// # Errors
    /// As [`Subject::read`]; wishes for a model beside a run.
    pub(super) fn subject(&self, path: &Path) -> Result<Subject> {
        let mut subject = Subject::read(path)?;
        let saturates = self.overflow == Overflow::Saturate;
        match &mut subject {
            Subject::Model(model, _) => {
                if let Some(bits) = self.accumulator_bits {
                    model.net.accumulator = Accumulator { bits, saturates };
                }
            }
            Subject::Run(_) if self.accumulator_bits.is_some() || self.engine != Engine::Auto => {
                return Err(Error::config(format!(
                    "{} is a run, expected a model file beside --engine and --accumulator-bits",
                    path.display()
                ))
                .hint("make one: cqat quantize RUN --out MODEL; or --kind folded for a run's integers on the CPU"));
            }
            Subject::Run(_) => {}
        }
        Ok(subject)
    }

    /// The device that a network of this kind runs on; `None`: the CPU.
    ///
    /// # Errors
    /// As [`Global::open`]; a wish for a device and for none.
    pub(super) fn device(&self, kind: Kind, global: &Global, config: &Config) -> Result<Option<Gpu>> {
        if self.engine == Engine::Cpu && global.device.is_some() {
            return Err(Error::config("--device is for a device, but --engine is cpu").hint("leave one of them out"));
        }
        let on_device = match (kind, self.engine) {
            (Kind::Folded, _) | (Kind::Integer, Engine::Cpu) => false,
            (Kind::Integer, Engine::Auto) => global.device.is_some() || gpu::list().iter().any(|a| !a.software),
            (Kind::Integer, Engine::Device) | (Kind::Float | Kind::FakeQuant, _) => true,
        };
        on_device.then(|| global.open(Some(config))).transpose()
    }
}

impl EvalArgs {
    pub(super) fn run(&self, global: &Global) -> Result<()> {
        let subject = self.integers.subject(&self.run)?;
        if matches!(subject, Subject::Run(_)) && (self.layers || self.against.is_some()) {
            return Err(Error::config(format!(
                "{} is a run, expected a model file beside --layers and --against",
                self.run.display()
            ))
            .hint("make one: cqat quantize RUN --out MODEL"));
        }
        if (self.layers || self.against.is_some()) && self.integers.engine == Engine::Device {
            return Err(Error::config("--engine is device, but --layers and --against need the integers of the CPU")
                .hint("leave --engine out: the integers are the same"));
        }
        let kind = subject.kind(self.kind.map(Kind::from))?;
        let (data, found) = train::load_run_data(subject.config(), self.data.as_ref(), global.quiet)?;
        let same_data = data.sha256 == subject.data_sha256();
        if !same_data {
            let message = format!("{found} holds other pictures ({}) than the run was trained on", data.name);
            if self.data.is_none() {
                return Err(Error::data(message)
                    .hint("point --data at the run's data set; --data also scores other pictures on purpose"));
            }
            let names = subject.class_names();
            let others =
                if data.class_names == names { "" } else { ", of other classes: its labels mean something else" };
            log::warn!("{message}{others}");
        }
        let split = match self.split {
            SplitName::Test => &data.test,
            SplitName::Train => &data.train,
            SplitName::Val => data.val.as_ref().ok_or_else(|| {
                Error::config("this run held no validation pictures back").hint("train with --set data.validation=5000")
            })?,
        };
        let config = subject.config();
        let gpu = match (self.against.is_some(), self.layers) {
            (true, _) => Some(global.open(Some(config))?),
            (false, true) => None,
            (false, false) => self.integers.device(kind, global, config)?,
        };
        let device = gpu.as_ref().map(|g| g as &dyn Device);
        let classes = train::run_classes(subject.config(), &data)?;
        let mut details = Details::default();
        let evaluation = match &subject {
            Subject::Model(model, _) if self.layers || self.against.is_some() => {
                details = Details::of(model, split, self.layers, self.against.as_deref(), device)?;
                details.evaluation.clone()
            }
            _ => subject.with_network(kind, classes, device, split.len(), |network| network.evaluate(split))?,
        };
        let t = evaluation.totals;
        let gpu = gpu.as_ref().filter(|_| !details.on_cpu);
        let adapter = gpu.map_or("CPU", |g| &g.summary.name);
        if self.json {
            let mut object = json!({
                "top1": t.top1_percent(), "top5": t.top5_percent(), "loss": t.mean_loss(), "samples": t.count as u64,
                "kind": kind.name(), "data": data.name, "same_data": same_data, "adapter": adapter,
            });
            details.add_to(&mut object);
            println!("{object}");
        } else {
            println!(
                "{} {}: top-1 {:.2} %, top-5 {:.2} %, loss {:.4} over {} pictures ({adapter})",
                data.name,
                kind.name(),
                t.top1_percent(),
                t.top5_percent(),
                t.mean_loss(),
                t.count
            );
            details.print();
        }
        Ok(())
    }
}

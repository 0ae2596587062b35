//! `cqat eval`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{Global, train};
use crate::evaluate::{Kind, Loaded};
use crate::exec::Device;
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
    /// A run folder, or a checkpoint file
    run: PathBuf,
    /// Folder or archive of the data set; default: the run's, else CQAT_DATA
    #[arg(long, value_name = "PLACE")]
    data: Option<PathBuf>,
    /// Which pictures
    #[arg(long, value_enum, default_value = "test")]
    split: SplitName,
    /// Which arithmetic; default: fake_quant for a quantized run, float for a float one
    #[arg(long, value_enum)]
    kind: Option<KindName>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl EvalArgs {
    pub(super) fn run(&self, global: &Global) -> Result<()> {
        let loaded = Loaded::read(&self.run)?;
        let (data, found) = train::load_run_data(&loaded.config, self.data.as_ref(), global.quiet)?;
        let same_data = data.sha256 == loaded.checkpoint.meta.data_sha256;
        if !same_data {
            let message = format!("{found} holds other pictures ({}) than the run was trained on", data.name);
            if self.data.is_none() {
                return Err(Error::data(message)
                    .hint("point --data at the run's data set; --data also scores other pictures on purpose"));
            }
            let names = loaded.class_names();
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
        let kind = match self.kind {
            Some(kind) => kind.into(),
            None => loaded.default_kind(),
        };
        let gpu = (kind != Kind::Folded).then(|| global.open(Some(&loaded.config))).transpose()?;
        let classes = train::run_classes(&loaded.config, &data)?;
        let evaluation = loaded.evaluate(kind, split, classes, gpu.as_ref().map(|g| g as &dyn Device))?;
        let t = evaluation.totals;
        let adapter = gpu.as_ref().map_or("CPU reference", |g| &g.summary.name);
        if self.json {
            println!(
                "{}",
                json!({
                    "top1": t.top1_percent(), "top5": t.top5_percent(), "loss": t.mean_loss(), "samples": t.count as u64,
                    "kind": kind.name(), "data": data.name, "same_data": same_data, "adapter": adapter,
                })
            );
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
        }
        Ok(())
    }
}

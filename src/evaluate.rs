//! Evaluation of a finished (or stopped) run.

use std::path::Path;

use crate::checkpoint::{Checkpoint, Phase};
use crate::config::Config;
use crate::data::Split;
use crate::exec::Device;
use crate::integer::IntegerNet;
use crate::net::Net;
use crate::quant::QuantSpec;
use crate::run::RunFolder;
use crate::session::{Evaluation, Form, Session};
use crate::setup::{lower_for_evaluation, network};
use crate::tensors;
use crate::{Error, Result};

/// Which arithmetic an evaluation uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The float network, with running statistics
    Float,
    /// Fake quantization with running statistics and stored scales, on the device
    FakeQuant,
    /// Stored statistics and the integer arithmetic of hardware, on the CPU
    Folded,
}

impl Kind {
    /// Name in results.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Float => "float",
            Kind::FakeQuant => "fake_quant",
            Kind::Folded => "folded",
        }
    }
}

/// A checkpoint with its configuration.
pub struct Loaded {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Its run's configuration.
    pub config: Config,
}

impl Loaded {
    /// Reads a run folder's last checkpoint, or a checkpoint file.
    ///
    /// # Errors
    /// A folder without a run or a checkpoint, or a damaged one.
    pub fn read(path: &Path) -> Result<Loaded> {
        let file = if path.is_dir() {
            let folder = RunFolder::open(path)?;
            if !folder.last().exists() {
                return Err(Error::training(format!("{} has no checkpoint yet", path.display()))
                    .hint("it stopped before its first step: train it first"));
            }
            folder.last()
        } else {
            path.to_path_buf()
        };
        let checkpoint = Checkpoint::read(&file)?;
        let config = checkpoint.config()?;
        Ok(Loaded { checkpoint, config })
    }

    /// Whether its quantizers have ranges.
    pub fn quantized(&self) -> bool {
        self.checkpoint.meta.position.calibrated && self.checkpoint.meta.position.phase == Phase::Quant
    }

    /// Scores `split`. `device` is needed unless the kind is folded.
    ///
    /// # Errors
    /// A quantized kind of a float run, a network that cannot become integers, a device error.
    pub fn evaluate(
        &self,
        kind: Kind,
        split: &Split,
        classes: usize,
        device: Option<&dyn Device>,
    ) -> Result<Evaluation> {
        if kind != Kind::Float && !self.quantized() {
            return Err(Error::training(format!(
                "{} needs a quantized checkpoint, this one is still float",
                kind.name()
            ))
            .hint("go on training until the quantized phase, or use --kind float"));
        }
        if kind == Kind::Folded {
            let (net, spec) = network(&self.config, classes)?;
            let spec =
                spec.ok_or_else(|| Error::config("folded evaluation needs a quantizer, but quant.method is none"))?;
            let integers =
                IntegerNet::fold(&net, &spec, &self.checkpoint.tensors, &self.checkpoint.meta.normalisation)?;
            return integers.evaluate(split);
        }
        let device = device.ok_or_else(|| Error::device("this evaluation needs a device"))?;
        let lowered = lower_for_evaluation(&self.config, classes, device.caps())?;
        let mut session = Session::new(&lowered, device.load(&lowered.plan)?, &self.checkpoint.meta.normalisation);
        session.set_state(&self.checkpoint.tensors)?;
        let form = if kind == Kind::Float { Form::Float } else { Form::Quantized };
        session.evaluate(form, split, true)
    }

    /// Mean over the narrow activations of the fraction of positive values above the top code, in the last epoch; `None`
    /// where no quantized epoch has counted them.
    pub fn mean_saturation(&self, net: &Net, spec: &QuantSpec) -> Option<f64> {
        let fraction = |(id, a): (usize, &crate::net::Activation)| {
            spec.layer(id).filter(|q| q.bits < 8)?;
            let row = tensors::range(&self.checkpoint.tensors, &a.name).ok()?;
            (row.steps > 0.0).then(|| f64::from(row.saturated / row.steps))
        };
        let all: Vec<f64> = net.activations().filter_map(fraction).collect();
        (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
    }
}

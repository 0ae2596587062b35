//! Evaluation of a finished (or stopped) run.

use std::path::Path;

use crate::checkpoint::{Checkpoint, Phase};
use crate::config::{Config, Method};
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
        if kind == Kind::Folded {
            return self.integers(classes)?.evaluate(split);
        }
        self.on_device(kind, classes, device, |session, form| session.evaluate(form, split, true))
    }

    /// Logits (N, classes) of the pictures of a split. `device` is needed unless the kind is folded.
    ///
    /// # Errors
    /// As [`Loaded::evaluate`].
    pub fn logits(&self, kind: Kind, split: &Split, classes: usize, device: Option<&dyn Device>) -> Result<Vec<f32>> {
        if kind == Kind::Folded {
            return self.integers(classes)?.run(&split.images);
        }
        self.on_device(kind, classes, device, |session, form| session.logits(form, split))
    }

    /// The network in integers.
    fn integers(&self, classes: usize) -> Result<IntegerNet> {
        self.check_kind(Kind::Folded)?;
        let (net, spec) = network(&self.config, classes)?;
        let spec =
            spec.ok_or_else(|| Error::config("folded evaluation needs a quantizer, but quant.method is none"))?;
        IntegerNet::fold(&net, &spec, &self.checkpoint.tensors, &self.checkpoint.meta.normalisation)
    }

    /// What `work` makes of the network on `device`.
    fn on_device<T>(
        &self,
        kind: Kind,
        classes: usize,
        device: Option<&dyn Device>,
        work: impl FnOnce(&mut Session, Form) -> Result<T>,
    ) -> Result<T> {
        self.check_kind(kind)?;
        let device = device.ok_or_else(|| Error::device("this evaluation needs a device"))?;
        let lowered = lower_for_evaluation(&self.config, classes, device.caps())?;
        let mut session = Session::new(&lowered, device.load(&lowered.plan)?, &self.checkpoint.meta.normalisation);
        session.set_state(&self.checkpoint.tensors)?;
        work(&mut session, if kind == Kind::Float { Form::Float } else { Form::Quantized })
    }

    fn check_kind(&self, kind: Kind) -> Result<()> {
        if kind == Kind::Float || self.quantized() {
            return Ok(());
        }
        Err(Error::training(format!("{} needs a quantized checkpoint, this one is still float", kind.name()))
            .hint("go on training until the quantized phase, or use --kind float"))
    }

    /// The arithmetic of the run's own evaluation.
    pub fn default_kind(&self) -> Kind {
        match self.config.quant.method != Method::None && self.quantized() {
            true => Kind::FakeQuant,
            false => Kind::Float,
        }
    }

    /// Names of the classes, one for each of the network's outputs.
    pub fn class_names(&self) -> Vec<String> {
        let names = &self.checkpoint.meta.class_names;
        let classes = self.config.network.classes.map_or(names.len(), |n| n as usize);
        (0..classes).map(|c| names.get(c).cloned().unwrap_or_else(|| format!("class {c}"))).collect()
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

//! Evaluation of a finished (or stopped) run, or of a model file.

mod against;

use std::path::Path;

use crate::checkpoint::{Checkpoint, Phase};
use crate::config::{Config, Method};
use crate::data::Split;
use crate::exec::Device;
use crate::integer::{IntegerNet, IntegerSession, Multiplier};
use crate::model::Model;
use crate::net::Net;
use crate::quant::QuantSpec;
use crate::run::RunFolder;
use crate::score::Evaluation;
use crate::session::{Form, Session};
use crate::setup::{lower_for_evaluation, lower_integers_for_evaluation, network};
use crate::{Error, Result, tensors};

pub use against::{Against, Mismatch, against};

/// What is scored, or classifies pictures: a run's checkpoint, or a model file.
pub enum Subject {
    /// A run's.
    Run(Box<Loaded>),
    /// A model, and the configuration of its run.
    Model(Box<Model>, Box<Config>),
}

impl Subject {
    /// Reads a run folder, a checkpoint or a model file.
    ///
    /// # Errors
    /// As [`Loaded::read`] and [`Model::read`].
    pub fn read(path: &Path) -> Result<Subject> {
        if !Model::is_at(path) {
            return Ok(Subject::Run(Box::new(Loaded::read(path)?)));
        }
        let model = Model::read(path)?;
        let config = Config::from_yaml(&model.source.config, &path.display().to_string(), &[])?;
        config.validate()?;
        Ok(Subject::Model(Box::new(model), Box::new(config)))
    }

    /// The configuration of its run.
    pub fn config(&self) -> &Config {
        match self {
            Subject::Run(loaded) => &loaded.config,
            Subject::Model(_, config) => config,
        }
    }

    /// Height and width of its pictures.
    pub fn side(&self) -> usize {
        match self {
            Subject::Run(loaded) => loaded.config.data.size as usize,
            Subject::Model(model, _) => model.net.size,
        }
    }

    /// Names of the classes, one for each of the network's outputs.
    pub fn class_names(&self) -> Vec<String> {
        match self {
            Subject::Run(loaded) => loaded.class_names(),
            Subject::Model(model, _) => model.class_names.clone(),
        }
    }

    /// Hash of the data set that it was trained on.
    pub fn data_sha256(&self) -> &str {
        match self {
            Subject::Run(loaded) => &loaded.checkpoint.meta.data_sha256,
            Subject::Model(model, _) => &model.source.data_sha256,
        }
    }

    /// Its arithmetic; `wanted` is that of a run.
    ///
    /// # Errors
    /// A wish for other arithmetic than a model has.
    pub fn kind(&self, wanted: Option<Kind>) -> Result<Kind> {
        match (self, wanted) {
            (Subject::Run(loaded), wanted) => Ok(wanted.unwrap_or_else(|| loaded.default_kind())),
            (Subject::Model(..), None) => Ok(Kind::Integer),
            (Subject::Model(..), Some(kind)) => {
                Err(Error::config(format!("--kind is {}, but a model has integers alone", kind.name()))
                    .hint("leave --kind out, or name the run that the model was made of"))
            }
        }
    }

    /// What `work` makes of the network in the arithmetic `kind`, on the CPU without a `device`, for up to `pictures` at a time.
    ///
    /// # Errors
    /// As [`Loaded::with_network`], and those of `work`.
    pub fn with_network<T>(
        &self,
        kind: Kind,
        classes: usize,
        device: Option<&dyn Device>,
        pictures: usize,
        work: impl FnOnce(&mut Network) -> Result<T>,
    ) -> Result<T> {
        match (self, device) {
            (Subject::Run(loaded), device) => loaded.with_network(kind, classes, device, work),
            (Subject::Model(model, _), None) => work(&mut Network::Integers(&model.net)),
            (Subject::Model(model, config), Some(device)) => {
                let batch = pictures.clamp(1, config.train.batch as usize);
                let lowered = lower_integers_for_evaluation(&model.net, config, device.caps(), batch)?;
                let session = IntegerSession::new(&model.net, &lowered, device.load(&lowered.plan)?)?;
                work(&mut Network::IntegersOnDevice(session))
            }
        }
    }
}

/// Which arithmetic an evaluation uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The float network, with running statistics
    Float,
    /// Fake quantization with running statistics and stored scales, on the device
    FakeQuant,
    /// Stored statistics and the integer arithmetic of hardware, on the CPU
    Folded,
    /// The integers of a model file
    Integer,
}

impl Kind {
    /// Name in results.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Float => "float",
            Kind::FakeQuant => "fake_quant",
            Kind::Folded => "folded",
            Kind::Integer => "integer",
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

/// A network that is ready to see pictures.
pub enum Network<'a> {
    /// In integers, on the CPU.
    Integers(&'a IntegerNet),
    /// In integers, on a device.
    IntegersOnDevice(IntegerSession<'a>),
    /// In this form, on a device.
    OnDevice(Session<'a>, Form),
}

impl Network<'_> {
    /// Scores a split.
    ///
    /// # Errors
    /// A device error, a loss that is not finite, an interruption.
    pub fn evaluate(&mut self, split: &Split) -> Result<Evaluation> {
        match self {
            Network::Integers(net) => net.evaluate(split),
            Network::IntegersOnDevice(session) => session.evaluate(split),
            Network::OnDevice(session, form) => session.evaluate(*form, split, true),
        }
    }

    /// Logits of the pictures of a split.
    ///
    /// # Errors
    /// A device error, an interruption.
    pub fn logits(&mut self, split: &Split) -> Result<Logits> {
        let of = |net: &IntegerNet, integers: Vec<i32>| Logits {
            numbers: net.numbers(&integers),
            integers: Some(IntegerLogits { integers, fraction_bits: net.classifier.fraction_bits }),
        };
        match self {
            Network::Integers(net) => Ok(of(net, net.run(&split.images)?)),
            Network::IntegersOnDevice(session) => Ok(of(session.net(), session.run(&split.images)?)),
            Network::OnDevice(session, form) => Ok(Logits { numbers: session.logits(*form, split)?, integers: None }),
        }
    }
}

/// Logits of pictures, `(N, classes)`.
pub struct Logits {
    /// As numbers.
    pub numbers: Vec<f32>,
    /// Where they are integers, these.
    pub integers: Option<IntegerLogits>,
}

/// The same as integers.
pub struct IntegerLogits {
    /// The integers.
    pub integers: Vec<i32>,
    /// [`crate::integer::IntegerLinear::fraction_bits`].
    pub fraction_bits: u32,
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
        self.with_network(kind, classes, device, |network| network.evaluate(split))
    }

    /// What `work` makes of the network in the arithmetic `kind`. `device` is needed unless the kind is folded.
    ///
    /// # Errors
    /// As [`Loaded::evaluate`], and those of `work`.
    pub fn with_network<T>(
        &self,
        kind: Kind,
        classes: usize,
        device: Option<&dyn Device>,
        work: impl FnOnce(&mut Network) -> Result<T>,
    ) -> Result<T> {
        if kind != Kind::Float && !self.quantized() {
            return Err(Error::training(format!(
                "{} needs a quantized checkpoint, this one is still float",
                kind.name()
            ))
            .hint("go on training until the quantized phase, or use --kind float"));
        }
        let Checkpoint { tensors, meta } = &self.checkpoint;
        if kind == Kind::Folded {
            return work(&mut Network::Integers(&self.fold(classes, Multiplier::Bits32)?));
        }
        let device = device.ok_or_else(|| {
            Error::device(format!("{} needs a device", kind.name())).hint("the kind folded runs on the CPU")
        })?;
        let lowered = lower_for_evaluation(&self.config, classes, device.caps())?;
        let mut session = Session::new(&lowered, device.load(&lowered.plan)?, &meta.normalisation);
        session.set_state(tensors)?;
        let form = if kind == Kind::Float { Form::Float } else { Form::Quantized };
        work(&mut Network::OnDevice(session, form))
    }

    /// The integers of a quantized network of so many classes.
    ///
    /// # Errors
    /// A run without quantizers, what [`IntegerNet::fold`] refuses.
    pub fn fold(&self, classes: usize, multiplier: Multiplier) -> Result<IntegerNet> {
        let (net, spec) = network(&self.config, classes)?;
        let spec = spec.ok_or_else(|| {
            Error::config("integers need a quantizer, but quant.method is none").hint("use --kind float")
        })?;
        let Checkpoint { tensors, meta } = &self.checkpoint;
        IntegerNet::fold(&net, &spec, tensors, &meta.normalisation, multiplier)
    }

    /// Whether its ranges stand still: training would not have moved them any more.
    pub fn frozen(&self) -> bool {
        let at = self.checkpoint.meta.position;
        let is_trained = self.config.train.quant_epochs > 0;
        self.quantized() && (!is_trained || self.config.freezes_ranges(at.epoch))
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
            let q = spec.layer(id).filter(|q| q.bits < 8)?;
            let row = tensors::range(&self.checkpoint.tensors, &a.name, &q.quant).ok()?;
            (row.steps > 0.0).then(|| f64::from(row.saturated / row.steps))
        };
        let all: Vec<f64> = net.activations().filter_map(fraction).collect();
        (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
    }
}

//! Sensitivity: how much each layer's quantizer costs by itself, by quantizing one tensor of the trained float network at a time.
//!
//! Each measurement is an ordinary network whose [`QuantSpec`] has one quantizer and leaves all others out: it is lowered, calibrated
//! as the run's method does it, and scored. Nothing is trained: this is post-training quantization.

use std::path::Path;

use serde::Serialize;

use crate::checkpoint;
use crate::config::{Config, FirstLast, Method};
use crate::data::{DataSet, Split, epoch_permutation};
use crate::evaluate::Loaded;
use crate::exec::Device;
use crate::net::{Layer, LayerId};
use crate::normalisation::Normalisation;
use crate::quant::QuantSpec;
use crate::run::RunFolder;
use crate::safetensors_io::Tensors;
use crate::score::Totals;
use crate::session::{Form, Session};
use crate::setup::{lower_spec, network};
use crate::{Error, Result, interrupt, tensors};

/// Bits of weights and activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bits {
    /// Of weights.
    pub weights: u32,
    /// Of activations.
    pub activations: u32,
}

/// The float network of a run.
pub struct Start {
    /// Configuration of the run, with the quantizers that are tried.
    pub config: Config,
    /// Parameters and running statistics.
    tensors: Tensors,
    normalisation: Normalisation,
    /// Hash of the data that it was trained on.
    pub data_sha256: String,
    /// The file that it came from.
    pub source: String,
    classes: usize,
}

/// The network with one tensor quantized.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Name of the layer.
    pub layer: String,
    /// `weight` or `activation`.
    pub tensor: &'static str,
    /// Bits of a code.
    pub bits: u32,
    /// Top-1 in percent.
    pub top1: f64,
    /// Top-1 of the float network minus that, in points.
    pub drop: f64,
    /// Mean loss minus that of the float network.
    pub loss_rise: f64,
}

/// All rows, the most sensitive first.
#[derive(Debug, Clone, Serialize)]
pub struct Sensitivity {
    /// Top-1 of the float network in percent.
    pub float_top1: f64,
    /// Its mean loss.
    pub float_loss: f64,
    /// Pictures that were scored.
    pub pictures: usize,
    /// The tensors.
    pub rows: Vec<Row>,
}

impl Start {
    /// The end of a run's float phase, or its last checkpoint. `bits`, where given, are those of every layer, the first and the last
    /// too; else each layer has its own. A float run's layers get the quantizers of `quant` in its configuration, which are those of `cqat`
    /// unless it says otherwise.
    ///
    /// # Errors
    /// A folder without a run or checkpoint, bits out of range.
    pub fn read(run: &Path, bits: Option<Bits>) -> Result<Start> {
        let Loaded { checkpoint, mut config } = Loaded::read(run)?;
        let float = if run.is_dir() { Some(RunFolder::open(run)?.float()).filter(|f| f.exists()) } else { None };
        let mut tensors = match &float {
            Some(file) => checkpoint::start(file)?,
            None => checkpoint.tensors.clone(),
        };
        tensors.retain(|name, _| !tensors::is_training_state(name));
        let source =
            float.unwrap_or_else(|| if run.is_dir() { run.join("last.safetensors") } else { run.to_path_buf() });
        if config.quant.method == Method::None {
            config.quant.method = Method::default();
        }
        if let Some(bits) = bits {
            config.quant.weight_bits = bits.weights;
            config.quant.activation_bits = bits.activations;
            (config.quant.first_last, config.quant.shortcut_bits) = (FirstLast::Same, None);
            config.quant.layers.clear();
        }
        config.validate()?;
        let classes = config.network.classes.map_or(checkpoint.meta.class_names.len(), |n| n as usize);
        Ok(Start {
            config,
            tensors,
            normalisation: checkpoint.meta.normalisation,
            data_sha256: checkpoint.meta.data_sha256,
            source: source.display().to_string(),
            classes,
        })
    }

    /// The quantized tensors, in forward order.
    ///
    /// # Errors
    /// A configuration that does not fit the network.
    pub fn tensors(&self) -> Result<Vec<LayerId>> {
        let (net, spec) = network(&self.config, self.classes)?;
        let spec = spec.ok_or_else(|| Error::config("quant.method is none").hint("name a method"))?;
        Ok((0..net.layers.len()).filter(|id| spec.layer(*id).is_some()).collect())
    }

    /// Scores of the float network.
    ///
    /// # Errors
    /// A device error, an interruption.
    pub fn float(&self, device: &dyn Device, split: &Split) -> Result<Totals> {
        let (net, _) = network(&self.config, self.classes)?;
        let lowered = lower_spec(&self.config, &net, None, device.caps())?;
        let mut session = Session::new(&lowered, device.load(&lowered.plan)?, &self.normalisation);
        session.set_state(&self.tensors)?;
        Ok(session.evaluate(Form::Float, split, true)?.totals)
    }

    /// The row of the tensor `id`, whose quantizer is calibrated on training pictures of `data` and scored on `split`.
    ///
    /// # Errors
    /// A device error, an interruption.
    pub fn row(&self, device: &dyn Device, data: &DataSet, split: &Split, id: LayerId, float: &Totals) -> Result<Row> {
        let (net, spec) = network(&self.config, self.classes)?;
        let Some((spec, q)) = spec.and_then(|s| {
            let q = *s.layer(id)?;
            Some((only(s, id), q))
        }) else {
            return Err(
                Error::config(format!("{} has no quantizer", net.layers[id].name())).hint("quant.layers gives it bits")
            );
        };
        let lowered = lower_spec(&self.config, &net, Some(&spec), device.caps())?;
        let mut session = Session::new(&lowered, device.load(&lowered.plan)?, &self.normalisation);
        session.set_state(&self.tensors)?;
        let order = epoch_permutation(data.train.len(), self.config.train.seed, 0);
        let available = data.train.len() / lowered.batch;
        let is_activation = matches!(net.layers[id], Layer::Activation(_));
        // Scales of weights need no pictures.
        let batches = if is_activation { (self.config.quant.calibration_batches as usize).min(available) } else { 0 };
        interrupt::check()?;
        session.calibrate(&data.train, &order, batches)?;
        let totals = session.evaluate(Form::Quantized, split, true)?.totals;
        Ok(Row {
            layer: net.layers[id].name().into(),
            tensor: if is_activation { "activation" } else { "weight" },
            bits: q.bits,
            top1: totals.top1_percent(),
            drop: float.top1_percent() - totals.top1_percent(),
            loss_rise: totals.mean_loss() - float.mean_loss(),
        })
    }
}

/// Quantizers of which only that of layer `id` is left.
fn only(mut spec: QuantSpec, id: LayerId) -> QuantSpec {
    spec.input = None;
    spec.layers.iter_mut().enumerate().filter(|(other, _)| *other != id).for_each(|(_, q)| *q = None);
    spec
}

impl Sensitivity {
    /// Of these measurements: the largest drop first; of equal ones, the largest rise of the loss.
    pub fn new(float: &Totals, mut rows: Vec<Row>) -> Sensitivity {
        rows.sort_by(|a, b| b.drop.total_cmp(&a.drop).then(b.loss_rise.total_cmp(&a.loss_rise)));
        Sensitivity {
            float_top1: float.top1_percent(),
            float_loss: float.mean_loss(),
            pictures: float.count as usize,
            rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Net;

    #[test]
    fn one_quantizer_is_left() {
        let net = Net::resnet(8, 8, 10, 32).unwrap();
        let config = Config::load("cqat", &["quant.input=signed8".into()]).unwrap();
        let all = QuantSpec::new(&config.quant, &net).unwrap().unwrap();
        assert!(all.input.is_some() && all.layers.iter().flatten().count() == 10 + 7);
        for id in (0..net.layers.len()).filter(|id| all.layer(*id).is_some()) {
            let one = only(all.clone(), id);
            let left: Vec<usize> = (0..net.layers.len()).filter(|other| one.layer(*other).is_some()).collect();
            assert_eq!((left, one.input.is_none()), (vec![id], true));
        }
    }
}

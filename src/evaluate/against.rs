//! A model's integers beside the fake quantization of the run that it was made of: how many codes differ, and what that changes.

use super::Loaded;
use crate::data::{Split, in_order};
use crate::exec::Device;
use crate::integer::IntegerNet;
use crate::kernels::{Format, Step};
use crate::model::Model;
use crate::score::{Evaluation, Totals};
use crate::session::{Form, Session};
use crate::setup::lower_watched;
use crate::{Error, Result, interrupt};

/// Pictures whose values are all kept at a time.
const BATCH: usize = 16;

/// Both evaluations of the same pictures.
#[derive(Debug, Clone)]
pub struct Against {
    /// In integers.
    pub integer: Evaluation,
    /// In fake quantization, with running statistics: 32-bit floating point, rounded half to even.
    pub fake_quant: Evaluation,
    /// In fake quantization with each batch's own statistics, as a training step computes.
    pub batch_statistics: Totals,
    /// Codes of each layer in integers and in fake quantization.
    pub layers: Vec<Mismatch>,
}

/// Codes of a layer that differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Name of the layer.
    pub layer: String,
    /// Codes.
    pub codes: u64,
    /// Those that differ.
    pub differ: u64,
    /// The largest difference.
    pub largest_difference: u32,
}

impl Against {
    /// Pictures that both put in the same class.
    pub fn same_class(&self) -> usize {
        self.integer.predictions.iter().zip(&self.fake_quant.predictions).filter(|(a, b)| a == b).count()
    }
}

/// Evaluates `split` in the integers of `model`, on the CPU, and in the fake quantization of its run `loaded`, on a device.
///
/// # Errors
/// A run that does not fold to this model; what [`Loaded::evaluate`] refuses; a device error, an interruption.
pub fn against(model: &Model, loaded: &Loaded, split: &Split, device: &dyn Device) -> Result<Against> {
    let net = &model.net;
    let folded = loaded.fold(net.classifier.classes, net.multiplier)?;
    if (IntegerNet { accumulator: net.accumulator, ..folded }) != *net {
        return Err(Error::config("the model was not made of this run as it is now")
            .hint("name the run and the checkpoint that it was made of, or fold the run again: cqat quantize"));
    }
    net.fits(split)?;
    let lowered = lower_watched(&loaded.config, net.classifier.classes, device.caps(), BATCH, true)?;
    let programs = lowered.quantized.ok_or_else(|| {
        Error::training("a model needs a quantized run").hint("report this as a bug: it was folded just now")
    })?;
    let values: Vec<_> = net
        .layers
        .iter()
        .map(|layer| lowered.plan.bound(programs.evaluate, &format!("{}.value", layer.name)))
        .collect::<Option<_>>()
        .ok_or_else(|| Error::training("the plan keeps no codes").hint("report this as a bug"))?;
    let mut session = Session::new(&lowered, device.load(&lowered.plan)?, &loaded.checkpoint.meta.normalisation);
    session.set_state(&loaded.checkpoint.tensors)?;
    let mut layers: Vec<Mismatch> = net
        .layers
        .iter()
        .map(|layer| Mismatch { layer: layer.name.clone(), codes: 0, differ: 0, largest_difference: 0 })
        .collect();
    let (mut logits, mut fake_quant) = (Vec::new(), Evaluation::default());
    let bytes = split.picture_bytes();
    for (images, labels) in split.images.chunks(lowered.batch * bytes).zip(split.labels.chunks(lowered.batch)) {
        let part = Split { side: split.side, images: images.to_vec(), labels: labels.to_vec() };
        fake_quant.join(session.evaluate(Form::Quantized, &part, true)?);
        let trace = net.run_layers(images)?;
        for ((found, tensor), integers) in layers.iter_mut().zip(&values).zip(&trace.layers) {
            let words = session.executor().read(*tensor)?;
            for (i, code) in integers.codes.iter().enumerate() {
                let apart = (Format::U8.load(&words, i) as i32).abs_diff(i32::from(*code));
                found.codes += 1;
                found.differ += u64::from(apart > 0);
                found.largest_difference = found.largest_difference.max(apart);
            }
        }
        logits.extend(trace.logits);
    }
    let integer = Evaluation::of_logits(&net.numbers(&logits), net.classifier.classes, &split.labels);
    Ok(Against { integer, fake_quant, batch_statistics: batch_statistics(loaded, split, net, device)?, layers })
}

/// Training steps of length 0, of the size that the run was trained with: pictures as they are, ranges and scales as stored,
/// without the pictures that do not fill a batch.
fn batch_statistics(loaded: &Loaded, split: &Split, net: &IntegerNet, device: &dyn Device) -> Result<Totals> {
    let batch = (loaded.config.train.batch as usize).min(split.len());
    let lowered = lower_watched(&loaded.config, net.classifier.classes, device.caps(), batch, false)?;
    let mut session = Session::new(&lowered, device.load(&lowered.plan)?, &loaded.checkpoint.meta.normalisation);
    session.set_state(&loaded.checkpoint.tensors)?;
    let mut totals = Totals::default();
    let order = in_order(split.len());
    for indices in order.chunks_exact(lowered.batch) {
        interrupt::check()?;
        session.train_step(Form::Quantized, split, indices, Step { frozen: 1, ..Step::default() })?;
        session.drain(&mut totals)?;
    }
    Ok(totals)
}

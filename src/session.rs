//! One network on one executor: uploads, steps, calibration, evaluation. Knows nothing of run folders or epochs.

mod calibrate;
mod histogram;
mod search;
mod state;

pub use histogram::ActivationCounts;
pub use state::Norms;

use crate::data::{Batches, Split};
use crate::exec::{Executor, ExecutorExt};
use crate::interrupt;
use crate::kernels::Step;
use crate::kernels::input::{CUT_WORD, TABLE_WORDS};
use crate::kernels::range::{RANGE_WORDS, RangeRow};
use crate::normalisation::Normalisation;
use crate::plan::TensorId;
use crate::plan::layout::RING;
use crate::plan::lower::{Lowered, ProgramSet};
use crate::quant::Scale;
use crate::safetensors_io::Tensors;
use crate::score::{Evaluation, Totals};
use crate::tensors;
use crate::{Error, Result};

/// Writes everything that is constant for a run, and unit scales and empty statistics.
pub fn upload_constants(lowered: &Lowered, exec: &mut dyn Executor, normalisation: &Normalisation) {
    let layout = &lowered.layout;
    exec.write_as(layout.table, &layout.rows);
    exec.write(layout.blocks, &layout.block_rows());
    exec.write_as(layout.range_table, &layout.range_entries);
    exec.write_as(layout.clip, &[1f32, 0.0, 0.0, 0.0]);
    exec.write(layout.in_order, &(0..lowered.batch as u32).collect::<Vec<_>>());
    exec.write(layout.health, &vec![0; lowered.net.layers.len()]);
    for w in &layout.weights {
        exec.write_as(w.scales, &[vec![1f32; 2 * w.c_out], vec![0.0; w.c_out]].concat());
    }
    let mut rows = vec![RangeRow::UNIT; lowered.plan.tensor(layout.ranges).words / RANGE_WORDS];
    let mut values = vec![0f32; TABLE_WORDS];
    for (i, v) in values[..CUT_WORD].iter_mut().enumerate() {
        *v = normalisation.value(i / 256, (i % 256) as u8);
    }
    exec.write_as(layout.input_tables.0, &values);
    if let Some(input) = lowered.quant.as_ref().and_then(|q| q.input) {
        let range = normalisation.range();
        let Scale { scale, inv_scale } = input.rule.scale(range);
        rows[0] = RangeRow { range, scale, inv_scale, ..RangeRow::UNIT };
        let mut codes = vec![0i32; TABLE_WORDS];
        for (i, code) in normalisation.codes(&input).as_flattened().iter().enumerate() {
            codes[i] = i32::from(*code);
        }
        exec.write_as(layout.input_tables.1, &codes);
    }
    exec.write_as(layout.ranges, &rows);
}

/// Writes parameters and running statistics: the tensors of these names, `prefix` before each.
///
/// # Errors
/// A tensor that is missing or has another shape; nothing is written then.
pub fn load_parameters(lowered: &Lowered, exec: &mut dyn Executor, from: &Tensors, prefix: &str) -> Result<()> {
    network_words(lowered, from, prefix, false)?.iter().for_each(|(tensor, words)| exec.write_as(*tensor, words));
    Ok(())
}

/// Writes the parameters and running statistics of the network to learn from, where the plan has one.
///
/// # Errors
/// A tensor that is missing or has another shape; nothing is written then.
pub fn load_teacher(lowered: &Lowered, exec: &mut dyn Executor, from: &Tensors) -> Result<()> {
    let Some(teacher) = lowered.layout.teacher else { return Ok(()) };
    for (tensor, words) in network_words(lowered, from, "", false)? {
        let to = if tensor == lowered.layout.params { teacher.params } else { teacher.running };
        exec.write_as(to, &words);
    }
    Ok(())
}

/// Words of the parameters, the running statistics and, on demand, the scales of each layer's weights, with the tensors that
/// take them.
fn network_words(lowered: &Lowered, from: &Tensors, prefix: &str, scales: bool) -> Result<Vec<(TensorId, Vec<f32>)>> {
    let (plan, layout) = (&lowered.plan, &lowered.layout);
    let params = tensors::insert(plan, layout, plan.tensor(layout.params).words, from, prefix)?;
    let running = tensors::insert_running(plan, layout, plan.tensor(layout.running).words, from, prefix)?;
    let weights = layout.weights.iter().filter(|_| scales);
    let scales = weights.map(|w| Ok((w.scales, tensors::scales(from, w, prefix)?)));
    [Ok((layout.params, params)), Ok((layout.running, running))].into_iter().chain(scales).collect()
}

/// Which form of the network runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Float.
    Float,
    /// Quantized.
    Quantized,
}

/// What to do about values that are not finite.
pub const NOT_FINITE_HINT: &str =
    "the last checkpoint is intact; lower train.float.lr or train.quant.lr, or lengthen the warm-up";

/// A network on an executor.
pub struct Session<'a> {
    /// The lowered network.
    pub lowered: &'a Lowered,
    exec: Box<dyn Executor + 'a>,
    images: Vec<u32>,
    labels: Vec<u32>,
    pending: Vec<u32>,
    /// Where the metrics of the next batch go in the ring.
    next_slot: u32,
}

impl<'a> Session<'a> {
    /// Uploads the constants.
    pub fn new(lowered: &'a Lowered, mut exec: Box<dyn Executor + 'a>, normalisation: &Normalisation) -> Session<'a> {
        upload_constants(lowered, exec.as_mut(), normalisation);
        Session { lowered, exec, images: Vec::new(), labels: Vec::new(), pending: Vec::new(), next_slot: 0 }
    }

    /// Gives the network that the quantized one learns from.
    ///
    /// # Errors
    /// As [`load_teacher`].
    pub fn set_teacher(&mut self, from: &Tensors) -> Result<()> {
        load_teacher(self.lowered, self.exec.as_mut(), from)
    }

    /// The executor, for reading single tensors.
    pub fn executor(&mut self) -> &mut dyn Executor {
        self.exec.as_mut()
    }

    fn programs(&self, form: Form) -> Result<ProgramSet> {
        match form {
            Form::Float => Ok(self.lowered.float),
            Form::Quantized => self.lowered.quantized.ok_or_else(|| {
                Error::config("this run has no quantizer (quant.method is none)")
                    .hint("start from a preset such as cqat")
            }),
        }
    }

    /// Puts the training pictures where the plan has them: those that it keeps on the device are sent there.
    pub fn keep(&mut self, training: &Split) {
        let Some(resident) = self.lowered.layout.resident else { return };
        let halves = training.images.split_at((resident.first * training.picture_bytes()).min(training.images.len()));
        for (part, bytes) in resident.parts.into_iter().zip([halves.0, halves.1]) {
            let mut words = vec![0u32; bytes.len().div_ceil(4)];
            bytemuck::cast_slice_mut::<u32, u8>(&mut words)[..bytes.len()].copy_from_slice(bytes);
            self.exec.write(part, &words);
        }
    }

    fn feed(&mut self, split: &Split, indices: &[u32], step: Step) {
        split.gather(indices, &mut self.images, &mut self.labels);
        self.exec.write(self.lowered.layout.images, &self.images);
        self.hand_over(step);
    }

    /// Writes the labels of the batch and what changes from step to step.
    fn hand_over(&mut self, step: Step) {
        self.exec.write(self.lowered.layout.labels, &self.labels);
        self.exec.write_as(self.lowered.layout.step, &[step]);
    }

    /// One training step on the pictures `indices` of `split`, in as many batches as they fill; their metrics wait for
    /// [`Session::drain`].
    ///
    /// # Errors
    /// A device error.
    pub fn train_step(&mut self, form: Form, split: &Split, indices: &[u32], step: Step) -> Result<()> {
        let programs = self.programs(form)?;
        for (k, batch) in (0u32..).zip(indices.chunks(self.lowered.batch)) {
            let slot = self.next_slot;
            self.next_slot = (slot + 1) % RING as u32;
            let seed = step.seed ^ k.wrapping_mul(0x9e37_79b9); // other random changes in each batch
            let gradient_decay = k as f32 / (k + 1) as f32;
            let valid = batch.len() as u32;
            let step = Step { seed, ring_slot: slot, valid, gradient_decay, ..step };
            match self.lowered.layout.resident {
                Some(resident) => {
                    split.labels_of(batch, &mut self.labels);
                    self.exec.write(resident.picks, batch);
                    self.hand_over(step);
                }
                None => self.feed(split, batch, step),
            }
            self.pending.push(slot);
            self.exec.run(programs.train)?;
        }
        programs.update.map_or(Ok(()), |update| self.exec.run(update))
    }

    /// Batches whose metrics have not been read.
    pub fn undrained(&self) -> usize {
        self.pending.len()
    }

    /// Reads the metrics of the steps since the last call and adds them to `totals`.
    ///
    /// # Errors
    /// A device error, or a loss that is not finite: then the message names the layer that went first.
    pub fn drain(&mut self, totals: &mut Totals) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let ring = self.exec.read_f32(self.lowered.layout.ring)?;
        let rows: Vec<&[f32]> = self.pending.iter().map(|&s| &ring[4 * s as usize..][..4]).collect();
        // A loss can stay finite where a ReLU turns NaN into 0, so the layers are asked as well.
        let broken = self.first_broken_layer()?;
        if broken.is_some() || rows.iter().any(|r| !r[0].is_finite()) {
            let place = broken.unwrap_or("no batch norm saw it: the classifier went first".into());
            return Err(Error::training(format!("the loss is not finite: {place}")).hint(NOT_FINITE_HINT));
        }
        rows.iter().for_each(|r| totals.add(r));
        self.pending.clear();
        Ok(())
    }

    /// Where values first were not finite in a training step, if any.
    ///
    /// # Errors
    /// A device error.
    pub fn first_broken_layer(&mut self) -> Result<Option<String>> {
        let health = self.exec.read(self.lowered.layout.health)?;
        let first = health.iter().enumerate().filter(|(_, s)| **s > 0).min_by_key(|(layer, s)| (**s, *layer));
        Ok(first.map(|(layer, step)| {
            let name = self.lowered.net.layers[layer].name();
            format!("the batch statistics of layer {name} went first, in step {step}")
        }))
    }

    /// Evaluates a split.
    ///
    /// `frozen` keeps the stored weight scales; otherwise those that need no search on the host are made anew from the
    /// weights, and stored.
    ///
    /// # Errors
    /// A device error, a loss that is not finite, or [`crate::ErrorKind::Interrupted`].
    pub fn evaluate(&mut self, form: Form, split: &Split, frozen: bool) -> Result<Evaluation> {
        let mut evaluation = Evaluation::default();
        self.forward(form, split, frozen, |session, count| {
            let samples = session.exec.read_f32(session.lowered.layout.samples)?;
            for s in samples.chunks_exact(4).take(count) {
                evaluation.totals.add(&[s[0], s[1], s[2], 1.0]);
                evaluation.predictions.push(s[3] as u32);
            }
            Ok(())
        })?;
        if !evaluation.totals.loss.is_finite() {
            // A label counts as first where no logit is above its own, and none is above a NaN.
            return Err(Error::training("the loss of the evaluation is not finite, so its accuracy means nothing")
                .hint("use an earlier checkpoint; a lower learning rate keeps the next run from it"));
        }
        Ok(evaluation)
    }

    /// Logits (N, classes) of the pictures of a split, with the stored scales.
    ///
    /// # Errors
    /// A device error, or [`crate::ErrorKind::Interrupted`].
    pub fn logits(&mut self, form: Form, split: &Split) -> Result<Vec<f32>> {
        let linear = self.lowered.net.linear().1;
        let (padded, classes) = (linear.padded(), linear.classes);
        let mut logits = Vec::with_capacity(split.len() * classes);
        self.forward(form, split, true, |session, count| {
            let words = session.exec.read_f32(session.lowered.layout.logits)?;
            words.chunks_exact(padded).take(count).for_each(|row| logits.extend(&row[..classes]));
            Ok(())
        })?;
        Ok(logits)
    }

    /// Codes of the weights as they are; `frozen` as for [`Session::evaluate`].
    ///
    /// # Errors
    /// A device error.
    pub fn prepare_weights(&mut self, form: Form, frozen: bool) -> Result<()> {
        let weights = self.programs(form)?.weights;
        self.exec.write_as(self.lowered.layout.step, &[Step { frozen: u32::from(frozen), ..Step::default() }]);
        self.exec.run(weights)
    }

    /// Evaluates the network on a split batch by batch; `after` reads what a batch of so many pictures left behind.
    fn forward(
        &mut self,
        form: Form,
        split: &Split,
        frozen: bool,
        mut after: impl FnMut(&mut Self, usize) -> Result<()>,
    ) -> Result<()> {
        let programs = self.programs(form)?;
        self.prepare_weights(form, frozen)?;
        let mut step = Step { frozen: u32::from(frozen), ..Step::default() };
        let order = crate::data::in_order(split.len());
        for indices in Batches::evaluation(&order, self.lowered.batch)? {
            interrupt::check()?;
            step.valid = indices.len() as u32;
            self.feed(split, indices, step);
            self.exec.run(programs.evaluate)?;
            after(self, indices.len())?;
        }
        Ok(())
    }
}

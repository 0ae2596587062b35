//! One network on one executor: uploads, steps, calibration, evaluation. Knows nothing of run folders or epochs.

use std::collections::BTreeMap;

use crate::config::Estimator;
use crate::data::{Batches, DataSet, Split};
use crate::exec::{Executor, ExecutorExt};
use crate::kernels::Step;
use crate::kernels::activation::{BINS, RANGE_WORDS, RangeRow};
use crate::kernels::weights::estimate;
use crate::net::Layer;
use crate::plan::ProgramId;
use crate::plan::layout::RING;
use crate::plan::lower::{Lowered, ProgramSet, effective_estimator};
use crate::quant::{QuantSpec, Quantizer, Scale};
use crate::tensors::{self, NamedTensor, Tensors};
use crate::{Error, Result};

/// Normalisation of the input, in units of 0..1.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Normalisation {
    /// Mean of each channel.
    pub mean: [f32; 3],
    /// Standard deviation of each channel.
    pub std: [f32; 3],
}

impl Normalisation {
    /// For runs without data (benchmarks).
    pub const NEUTRAL: Normalisation = Normalisation { mean: [0.5; 3], std: [0.25; 3] };

    /// That of a data set.
    pub fn of(data: &DataSet) -> Normalisation {
        Normalisation { mean: data.mean, std: data.std }
    }

    /// Value of a raw byte.
    pub fn value(&self, channel: usize, raw: u8) -> f32 {
        ((f64::from(raw) / 255.0 - f64::from(self.mean[channel])) / f64::from(self.std[channel])) as f32
    }

    /// Largest magnitude that a picture can have: the range of the input quantizer.
    pub fn range(&self) -> f32 {
        (0..3).flat_map(|c| [self.value(c, 0).abs(), self.value(c, 255).abs()]).fold(0.0, f32::max)
    }

    /// Input code of every raw byte, per channel: what an integer engine is fed.
    pub fn codes(&self, input: &Quantizer) -> [[i8; 256]; 3] {
        let scale = input.rule.scale(self.range());
        [0, 1, 2].map(|c| std::array::from_fn(|raw| input.quant.code(self.value(c, raw as u8), scale.inv_scale) as i8))
    }
}

/// Writes everything that is constant for a run, and unit scales and empty statistics.
pub fn upload_constants(lowered: &Lowered, exec: &mut dyn Executor, normalisation: &Normalisation) {
    let layout = &lowered.layout;
    exec.write_as(layout.table, &layout.rows);
    exec.write(layout.blocks, &layout.block_rows());
    exec.write(layout.health, &vec![0; lowered.net.layers.len()]);
    exec.write_as(layout.scales, &vec![1f32; lowered.plan.tensor(layout.scales).words]);
    let mut rows = vec![RangeRow::UNIT; lowered.plan.tensor(layout.ranges).words / RANGE_WORDS];
    let mut values = vec![0f32; 769];
    for (i, v) in values[..768].iter_mut().enumerate() {
        *v = normalisation.value(i / 256, (i % 256) as u8);
    }
    exec.write_as(layout.input_tables.0, &values);
    if let Some(input) = lowered.quant.as_ref().and_then(|q| q.input) {
        let range = normalisation.range();
        let Scale { scale, inv_scale } = input.rule.scale(range);
        rows[0] = RangeRow { range, scale, inv_scale, ..RangeRow::UNIT };
        let mut codes = vec![0i32; 769];
        for (i, code) in normalisation.codes(&input).as_flattened().iter().enumerate() {
            codes[i] = i32::from(*code);
        }
        exec.write_as(layout.input_tables.1, &codes);
    }
    exec.write_as(layout.ranges, &rows);
}

/// Which form of the network runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Float.
    Float,
    /// Quantized.
    Quantized,
}

/// Sums over pictures.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Totals {
    /// Sum of losses.
    pub loss: f64,
    /// Pictures whose label came first.
    pub top1: f64,
    /// Pictures whose label was among the first five.
    pub top5: f64,
    /// Pictures.
    pub count: f64,
}

impl Totals {
    /// Adds one row of the metrics ring.
    pub fn add(&mut self, row: &[f32]) {
        self.loss += f64::from(row[0]);
        self.top1 += f64::from(row[1]);
        self.top5 += f64::from(row[2]);
        self.count += f64::from(row[3]);
    }

    /// Mean loss.
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.count
    }

    /// Top-1 in percent.
    pub fn top1_percent(&self) -> f64 {
        100.0 * self.top1 / self.count
    }

    /// Top-5 in percent.
    pub fn top5_percent(&self) -> f64 {
        100.0 * self.top5 / self.count
    }
}

/// An evaluation.
#[derive(Debug, Clone, Default)]
pub struct Evaluation {
    /// Sums.
    pub totals: Totals,
    /// Predicted class of every picture.
    pub predictions: Vec<u32>,
}

/// What to do about values that are not finite.
pub const NOT_FINITE_HINT: &str =
    "the last checkpoint is intact; lower train.float.lr or train.quant.lr, or lengthen the warm-up";

/// A network on an executor.
pub struct Session<'a> {
    /// The lowered network.
    pub lowered: &'a Lowered,
    exec: Box<dyn Executor + 'a>,
    images: Vec<u8>,
    labels: Vec<u32>,
    pending: Vec<u32>,
}

impl<'a> Session<'a> {
    /// Uploads the constants.
    pub fn new(lowered: &'a Lowered, mut exec: Box<dyn Executor + 'a>, normalisation: &Normalisation) -> Session<'a> {
        upload_constants(lowered, exec.as_mut(), normalisation);
        Session { lowered, exec, images: Vec::new(), labels: Vec::new(), pending: Vec::new() }
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

    fn feed(&mut self, split: &Split, indices: &[u32], step: Step) {
        split.gather(indices, &mut self.images, &mut self.labels);
        let layout = &self.lowered.layout;
        self.exec.write_as(layout.images, &self.images);
        self.exec.write(layout.labels, &self.labels);
        self.exec.write_as(layout.step, &[step]);
    }

    /// One training step on the pictures `indices` of `split`; its metrics wait for [`Session::drain`].
    ///
    /// # Errors
    /// A device error.
    pub fn train_step(&mut self, form: Form, split: &Split, indices: &[u32], step: Step) -> Result<()> {
        let slot = step.index % RING as u32;
        let programs = self.programs(form)?;
        self.feed(split, indices, Step { ring_slot: slot, valid: indices.len() as u32, ..step });
        self.pending.push(slot);
        self.exec.run(programs.train)
    }

    /// Steps whose metrics have not been read.
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
            format!("the batch statistics of layer {name} went first, in step {}", step - 1)
        }))
    }

    /// Evaluates a split.
    ///
    /// `frozen` keeps the stored weight scales; otherwise they are made anew from the weights.
    ///
    /// # Errors
    /// A device error, or a loss that is not finite.
    pub fn evaluate(&mut self, form: Form, split: &Split, frozen: bool) -> Result<Evaluation> {
        let programs = self.programs(form)?;
        let layout = &self.lowered.layout;
        let mut step = Step { frozen: u32::from(frozen), ..Step::default() };
        self.exec.write_as(layout.step, &[step]);
        self.exec.run(programs.weights)?;
        let order = crate::data::in_order(split.len());
        let mut evaluation = Evaluation::default();
        for indices in Batches::evaluation(&order, self.lowered.batch)? {
            step.valid = indices.len() as u32;
            self.feed(split, indices, step);
            self.exec.run(programs.evaluate)?;
            let samples = self.exec.read_f32(layout.samples)?;
            for s in samples.chunks_exact(4).take(indices.len()) {
                evaluation.totals.add(&[s[0], s[1], s[2], 1.0]);
                evaluation.predictions.push(s[3] as u32);
            }
        }
        if !evaluation.totals.loss.is_finite() {
            // A label counts as first where no logit is above its own, and none is above a NaN.
            return Err(Error::training("the loss of the evaluation is not finite, so its accuracy means nothing")
                .hint("use an earlier checkpoint; a lower learning rate keeps the next run from it"));
        }
        Ok(evaluation)
    }

    /// Finds the first ranges from `batches` batches of float forward passes over `order`, and the first weight scales.
    ///
    /// # Errors
    /// A device error, or a run without a quantizer.
    pub fn calibrate(&mut self, split: &Split, order: &[u32], batches: usize) -> Result<()> {
        let (observe, count) = self
            .lowered
            .calibrate
            .ok_or_else(|| Error::config("calibration needs a quantizer, but quant.method is none"))?;
        let spec = self.lowered.quant.as_ref().expect("a network with a calibration program has quantizers");
        let batches: Vec<&[u32]> = Batches::training(order, self.lowered.batch)?.take(batches).collect();
        let valid = self.lowered.batch as u32;
        for indices in &batches {
            self.feed(split, indices, Step { valid, ..Step::default() });
            self.exec.run(observe)?;
        }
        let counted = |e: Estimator| matches!(e, Estimator::Percentile | Estimator::Mse);
        if counted(spec.config.activations.estimator) {
            let histogram = self.lowered.layout.histogram;
            let words = self.lowered.plan.tensor(histogram).words;
            self.exec.write(histogram, &vec![0; words]);
            for indices in &batches {
                self.feed(split, indices, Step { valid, ..Step::default() });
                self.exec.run(count)?;
            }
        }
        self.finish_ranges(spec)?;
        self.refresh_weight_scales(spec)?;
        let programs = self.programs(Form::Quantized)?;
        self.exec.write_as(self.lowered.layout.step, &[Step::default()]);
        self.exec.run(programs.weights)
    }

    /// Ranges that the host decides: percentile, mean squared error, fixed windows.
    fn finish_ranges(&mut self, spec: &QuantSpec) -> Result<()> {
        let layout = &self.lowered.layout;
        let mut rows: Vec<RangeRow> = bytemuck::cast_vec(self.exec.read(layout.ranges)?);
        let histogram = self.exec.read(layout.histogram)?;
        let a = &spec.config.activations;
        for (id, _) in self.lowered.net.activations() {
            let Some(q) = spec.layer(id) else { continue };
            let at = layout.range_rows[id].expect("an activation has a row of ranges") as usize;
            let row = &mut rows[at];
            let counts = || Histogram { counts: &histogram[at * BINS..][..BINS], range: row.range };
            let range = match effective_estimator(spec, q) {
                Estimator::Percentile => counts().percentile(f64::from(a.percentile)),
                Estimator::Mse => counts().best_range(q),
                Estimator::FixedPow2 => q.rule.levels / q.rule.factor * (a.fixed_log2_scale as f32).exp2(),
                Estimator::Max | Estimator::EmaMax | Estimator::KSigma => row.range,
            };
            let s = q.rule.scale(range);
            *row = RangeRow { range, scale: s.scale, inv_scale: s.inv_scale, observed: row.observed, ..RangeRow::UNIT };
        }
        self.exec.write_as(layout.ranges, &rows);
        Ok(())
    }

    /// Weight scales that the host decides (percentile, mse), from the weights as they are.
    ///
    /// # Errors
    /// A device error.
    pub fn refresh_weight_scales(&mut self, spec: &QuantSpec) -> Result<()> {
        let layout = &self.lowered.layout;
        if layout.rows.iter().all(|r| r.estimator != estimate::HOST) {
            return Ok(());
        }
        let params = self.exec.read_f32(layout.decayed)?;
        let w = &spec.config.weights;
        for (row, weights) in layout.rows.iter().zip(&layout.weights) {
            let Some(q) = spec.layer(weights.layer).filter(|_| row.estimator == estimate::HOST) else { continue };
            let values = &params[row.offset4 as usize * 4..][..weights.words()];
            let channels = weights.c_out;
            let range_of = |values: &[f32]| {
                let top = values.iter().fold(0f32, |m, v| m.max(v.abs()));
                let histogram = MagnitudeHistogram::new(values, top);
                match w.estimator {
                    Estimator::Mse => histogram.view().best_range(q),
                    _ => histogram.view().percentile(f64::from(w.percentile)),
                }
            };
            let scales: Vec<Scale> = if row.per_channel == 1 {
                let column = |c: usize| values.iter().skip(c).step_by(channels).copied().collect::<Vec<f32>>();
                (0..channels).map(|c| q.rule.scale(range_of(&column(c)))).collect()
            } else {
                vec![q.rule.scale(range_of(values)); channels]
            };
            let words: Vec<f32> = scales.iter().map(|s| s.scale).chain(scales.iter().map(|s| s.inv_scale)).collect();
            self.exec.write_as(weights.scales, &words);
        }
        Ok(())
    }

    /// Rows of activation ranges by layer name, statistics included.
    ///
    /// # Errors
    /// A device error.
    pub fn ranges(&mut self) -> Result<BTreeMap<String, RangeRow>> {
        let rows: Vec<RangeRow> = bytemuck::cast_vec(self.exec.read(self.lowered.layout.ranges)?);
        let named = self.lowered.net.layers.iter().enumerate().filter_map(|(id, l)| {
            let row = self.lowered.layout.range_rows[id]?;
            matches!(l, Layer::Input(_) | Layer::Activation(_)).then(|| (l.name().to_string(), rows[row as usize]))
        });
        Ok(named.collect())
    }

    /// Sets the statistics of all ranges to zero, at the start of an epoch.
    ///
    /// # Errors
    /// A device error.
    pub fn reset_statistics(&mut self) -> Result<()> {
        let layout = &self.lowered.layout;
        let mut rows: Vec<RangeRow> = bytemuck::cast_vec(self.exec.read(layout.ranges)?);
        for row in &mut rows {
            (row.saturated, row.blocked, row.steps) = (0.0, 0.0, 0.0);
        }
        self.exec.write_as(layout.ranges, &rows);
        Ok(())
    }

    /// Everything that a checkpoint keeps: parameters and running statistics by torchvision name, `momentum.*`, and with a
    /// quantizer `quant.*` (rows of ranges, scales of weights).
    ///
    /// # Errors
    /// A device error.
    pub fn state(&mut self) -> Result<Tensors> {
        let (plan, layout) = (&self.lowered.plan, &self.lowered.layout);
        let mut out = tensors::extract(plan, layout, &self.exec.read_f32(layout.params)?);
        out.extend(tensors::extract_running(plan, layout, &self.exec.read_f32(layout.running)?));
        let momentum = tensors::extract(plan, layout, &self.exec.read_f32(layout.velocity)?);
        out.extend(momentum.into_iter().map(|(name, t)| (format!("momentum.{name}"), t)));
        if self.lowered.quant.is_some() {
            for (name, row) in self.ranges()? {
                let data = bytemuck::cast_slice::<RangeRow, f32>(&[row]).to_vec();
                out.insert(format!("quant.{name}.range"), NamedTensor { shape: vec![RANGE_WORDS], data });
            }
            let scales = self.exec.read_f32(layout.scales)?;
            for w in &layout.weights {
                let data = scales[plan.offset(w.scales)..][..2 * w.c_out].to_vec();
                out.insert(format!("quant.{}.scales", w.name), NamedTensor { shape: vec![2, w.c_out], data });
            }
        }
        Ok(out)
    }

    /// Loads parameters and running statistics; momentum and quantizer state too where `tensors` has them.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape; nothing is changed then.
    pub fn set_state(&mut self, state: &Tensors) -> Result<()> {
        let (plan, layout) = (&self.lowered.plan, &self.lowered.layout);
        let words = plan.tensor(layout.params).words;
        let params = tensors::insert(plan, layout, words, state, "")?;
        let running = tensors::insert_running(plan, layout, plan.tensor(layout.running).words, state, "")?;
        let momentum = match state.keys().any(|k| k.starts_with("momentum.")) {
            true => tensors::insert(plan, layout, words, state, "momentum.")?,
            false => vec![0.0; words],
        };
        self.exec.write_as(layout.params, &params);
        self.exec.write_as(layout.running, &running);
        self.exec.write_as(layout.velocity, &momentum);
        self.set_quantizer_state(state)
    }

    fn set_quantizer_state(&mut self, state: &Tensors) -> Result<()> {
        let layout = &self.lowered.layout;
        let mut rows: Vec<RangeRow> = bytemuck::cast_vec(self.exec.read(layout.ranges)?);
        for (id, layer) in self.lowered.net.layers.iter().enumerate() {
            let Some(row) = layout.range_rows[id] else { continue };
            if let Some(t) = state.get(&format!("quant.{}.range", layer.name())).filter(|t| t.data.len() == RANGE_WORDS)
            {
                rows[row as usize] = bytemuck::pod_read_unaligned(bytemuck::cast_slice(&t.data));
            }
        }
        self.exec.write_as(layout.ranges, &rows);
        for w in &layout.weights {
            if let Some(t) = state.get(&format!("quant.{}.scales", w.name)).filter(|t| t.data.len() == 2 * w.c_out) {
                self.exec.write_as(w.scales, &t.data);
            }
        }
        Ok(())
    }

    /// Sets the momentum to zero, at the start of a phase.
    pub fn reset_momentum(&mut self) {
        let words = self.lowered.plan.tensor(self.lowered.layout.velocity).words;
        self.exec.write(self.lowered.layout.velocity, &vec![0; words]);
    }

    /// Runs one program, for benchmarks and tests.
    ///
    /// # Errors
    /// A device error.
    pub fn run(&mut self, program: ProgramId) -> Result<()> {
        self.exec.run(program)
    }
}

/// Counts of magnitudes in equal bins over `[0, range]`.
struct Histogram<'a> {
    counts: &'a [u32],
    range: f32,
}

impl Histogram<'_> {
    fn centre(&self, bin: usize) -> f32 {
        (bin as f32 + 0.5) * self.range / self.counts.len() as f32
    }

    /// The magnitude that a fraction `p` of the values does not exceed (upper edge of its bin).
    fn percentile(&self, p: f64) -> f32 {
        let total: u64 = self.counts.iter().map(|&c| u64::from(c)).sum();
        let wanted = (p * total as f64).ceil() as u64;
        let mut seen = 0;
        for (bin, &c) in self.counts.iter().enumerate() {
            seen += u64::from(c);
            if seen >= wanted {
                return (bin + 1) as f32 * self.range / self.counts.len() as f32;
            }
        }
        self.range
    }

    /// The range, of 200 tried, whose quantizer has the smallest mean squared error; the range factor does not enter, since
    /// the scale itself is what is searched.
    fn best_range(&self, q: &Quantizer) -> f32 {
        let error = |range: f32| {
            let s = q.rule.scale(range);
            let bins = self.counts.iter().enumerate().filter(|(_, c)| **c > 0);
            bins.map(|(bin, &c)| {
                let v = self.centre(bin);
                let d = f64::from(v - q.quant.code(v, s.inv_scale) as f32 * s.scale);
                f64::from(c) * d * d
            })
            .sum::<f64>()
        };
        // The widest window of interest puts the whole range on the stored codes.
        let widest = self.range * q.rule.levels / (q.rule.factor * (q.quant.hi << q.quant.shift).max(1) as f32);
        let candidates = (1..=200).map(|k| widest * k as f32 / 200.0);
        let best = candidates.map(|r| (error(r), r)).min_by(|a, b| a.0.total_cmp(&b.0));
        best.map_or(self.range, |(_, r)| r)
    }
}

/// A histogram made on the host, of weights.
struct MagnitudeHistogram {
    counts: Vec<u32>,
    range: f32,
}

impl MagnitudeHistogram {
    fn new(values: &[f32], range: f32) -> Self {
        let mut counts = vec![0; BINS];
        for v in values {
            counts[((v.abs() / range.max(f32::MIN_POSITIVE) * BINS as f32) as usize).min(BINS - 1)] += 1;
        }
        MagnitudeHistogram { counts, range }
    }

    fn view(&self) -> Histogram<'_> {
        Histogram { counts: &self.counts, range: self.range }
    }
}

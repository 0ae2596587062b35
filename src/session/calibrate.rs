//! First ranges and scales: what a quantizer needs before its first step.

use super::search::{Histogram, WeightHistogram};
use super::{Form, Session};
use crate::config::{Estimator, Method, QuantConfig};
use crate::data::{Batches, Split};
use crate::exec::ExecutorExt;
use crate::kernels::Step;
use crate::kernels::range::{BINS, RangeRow};
use crate::kernels::weights::estimate;
use crate::quant::{QuantSpec, Quantizer, Scale, learn};
use crate::{Error, Result};

impl Session<'_> {
    /// Finds the first ranges from `batches` batches of float forward passes over `order`, and the first weight scales.
    ///
    /// # Errors
    /// A device error, or a run without a quantizer.
    pub fn calibrate(&mut self, split: &Split, order: &[u32], batches: usize) -> Result<()> {
        let (observe, count) = self.lowered.calibrate.ok_or_else(|| {
            Error::config("calibration needs a quantizer, but quant.method is none")
                .hint("start from a preset such as cqat")
        })?;
        let spec = self.lowered.quant.as_ref().expect("a network with a calibration program has quantizers");
        let counted = matches!(spec.config.activation_estimator(), Estimator::Percentile | Estimator::Mse);
        let batches = if counted { batches.min(self.countable_batches()) } else { batches };
        let batches: Vec<&[u32]> = Batches::training(order, self.lowered.batch)?.take(batches).collect();
        let valid = self.lowered.batch as u32;
        for indices in &batches {
            self.feed(split, indices, Step { valid, ..Step::default() });
            self.exec.run(observe)?;
        }
        if counted {
            let histogram = self.lowered.layout.histogram;
            let words = self.lowered.plan.tensor(histogram).words;
            self.exec.write(histogram, &vec![0; words]);
            for indices in &batches {
                self.feed(split, indices, Step { valid, ..Step::default() });
                self.exec.run(count)?;
            }
        }
        self.finish_ranges(spec)?;
        self.host_scales(spec, estimate::HOST)?;
        self.host_scales(spec, estimate::LEARNED)?;
        let programs = self.programs(Form::Quantized)?;
        self.exec.write_as(self.lowered.layout.step, &[Step::default()]);
        self.exec.run(programs.weights)?;
        if let Some(average) = self.lowered.layout.average {
            let scales = self.exec.read(self.lowered.layout.scales)?;
            self.exec.write(average.scales, &scales);
        }
        Ok(())
    }

    /// Histograms count in 32 bits, and in a sparse tensor nearly all values may fall into one bin.
    pub(super) fn countable_batches(&self) -> usize {
        let largest = self.lowered.net.activations().map(|(_, a)| a.shape.len()).max().unwrap_or(1);
        u32::MAX as usize / (largest * self.lowered.batch)
    }

    /// First ranges of activations: those that the host decides, and the parameters where they are learned.
    fn finish_ranges(&mut self, spec: &QuantSpec) -> Result<()> {
        let layout = &self.lowered.layout;
        let mut rows: Vec<RangeRow> = bytemuck::cast_vec(self.exec.read(layout.ranges)?);
        let histogram = self.exec.read(layout.histogram)?;
        let mut learned = self.steps()?;
        for (id, _) in self.lowered.net.activations() {
            let Some(q) = spec.layer(id) else { continue };
            let at = layout.range_rows[id].expect("an activation has a row of ranges") as usize;
            let row = &mut rows[at];
            let counts = Histogram { counts: &histogram[at * BINS..][..BINS], negative: &[], range: row.range };
            let range = first_range(&spec.config, q, row.range, &counts);
            let unit = window_unit(&spec.config, q, row.range);
            let s = q.rule.scale(range);
            *row = RangeRow {
                range,
                scale: s.scale,
                inv_scale: s.inv_scale,
                observed: row.observed,
                unit,
                ..RangeRow::UNIT
            };
            if let Some(entry) = layout.steps.iter().flat_map(|s| &s.entries).find(|e| e.layer == id) {
                learned[entry.first] = if q.quant.learn == learn::RANGE { range } else { 1.0 / s.inv_scale };
            }
        }
        self.exec.write_as(layout.ranges, &rows);
        self.set_steps(&learned)
    }

    /// The learned scales; none where nothing is learned.
    fn steps(&mut self) -> Result<Vec<f32>> {
        self.lowered.layout.steps.as_ref().map_or(Ok(Vec::new()), |s| self.exec.read_f32(s.params))
    }

    /// Writes the learned scales, and their averages.
    fn set_steps(&mut self, words: &[f32]) -> Result<()> {
        let layout = &self.lowered.layout;
        let Some(steps) = &layout.steps else { return Ok(()) };
        self.exec.write_as(steps.params, words);
        if let Some(average) = layout.average {
            let mut params = self.exec.read_f32(average.params)?;
            params[steps.offset..][..words.len()].copy_from_slice(words);
            self.exec.write_as(average.params, &params);
        }
        Ok(())
    }

    /// Weight scales that the host decides (percentile, mse), from the weights as they are.
    ///
    /// # Errors
    /// A device error.
    pub fn refresh_weight_scales(&mut self, spec: &QuantSpec) -> Result<()> {
        self.host_scales(spec, estimate::HOST)
    }

    /// Scales of the weights of layers with this estimator, from the weights as they are; of learned ones the start.
    fn host_scales(&mut self, spec: &QuantSpec, estimator: u32) -> Result<()> {
        let layout = &self.lowered.layout;
        if layout.rows.iter().all(|r| r.estimator != estimator) {
            return Ok(());
        }
        let params = self.exec.read_f32(layout.decayed)?;
        let mut learned = self.steps()?;
        for (row, weights) in layout.rows.iter().zip(&layout.weights) {
            let Some(q) = spec.layer(weights.layer).filter(|_| row.estimator == estimator) else { continue };
            let values = &params[row.offset4 as usize * 4..][..weights.words()];
            let channels = weights.c_out;
            let real = |channel: Option<usize>| -> Vec<f32> {
                let kept = |i: usize| weights.is_real(i) && channel.is_none_or(|c| i % channels == c);
                values.iter().enumerate().filter(|(i, _)| kept(*i)).map(|(_, v)| *v).collect()
            };
            let starts: Vec<WeightStart> = if row.per_channel == 1 {
                (0..channels).map(|c| weight_start(&spec.config, q, &real(Some(c)))).collect()
            } else {
                vec![weight_start(&spec.config, q, &real(None)); channels]
            };
            let parts: [fn(&WeightStart) -> f32; 3] = [|s| s.scale.scale, |s| s.scale.inv_scale, |s| s.unit];
            let words: Vec<f32> = parts.into_iter().flat_map(|part| starts.iter().map(part)).collect();
            self.exec.write_as(weights.scales, &words);
            if let Some(entry) = layout.steps.iter().flat_map(|s| &s.entries).find(|e| e.layer == weights.layer) {
                let steps = learned[entry.first..][..entry.words].iter_mut();
                steps.zip(&starts).for_each(|(step, start)| *step = 1.0 / start.scale.inv_scale);
            }
        }
        self.set_steps(&learned)
    }
}

/// The first range of an activation, of which calibration has `observed` and counted values.
fn first_range(config: &QuantConfig, q: &Quantizer, observed: f32, counts: &Histogram) -> f32 {
    match (config.method, config.activation_estimator()) {
        (Method::Dorefa, _) => 1.0,
        (Method::Pact, _) => config.pact_alpha,
        (Method::CqatAuto, Estimator::Mse) => counts.best_window(q),
        (_, Estimator::Mse) => counts.best_range(q),
        (_, Estimator::Percentile) => counts.percentile(f64::from(config.activations.percentile)),
        (_, Estimator::FixedPow2) => q.rule.range_of_step((config.activations.fixed_log2_scale as f32).exp2()),
        (_, Estimator::MeanAbs) => q.rule.range_of_step(mean_step(q, observed)),
        (_, Estimator::Max | Estimator::EmaMax | Estimator::KSigma) => observed,
    }
}

/// The scale of weights that the host decides, and the step of the grid that their window lies in, see [`RangeRow::unit`].
#[derive(Debug, Clone, Copy)]
struct WeightStart {
    scale: Scale,
    unit: f32,
}

fn weight_start(config: &QuantConfig, q: &Quantizer, values: &[f32]) -> WeightStart {
    let histogram = WeightHistogram::new(values);
    let counts = histogram.view();
    let mean = |f: fn(f64) -> f64| values.iter().map(|v| f(f64::from(*v))).sum::<f64>() / values.len().max(1) as f64;
    let range = match config.weight_estimator() {
        Estimator::Mse if config.method == Method::CqatAuto => counts.best_window(q),
        Estimator::Mse => counts.best_range(q),
        Estimator::Percentile => counts.percentile(f64::from(config.weights.percentile)),
        Estimator::FixedPow2 => q.rule.range_of_step((config.weights.fixed_log2_scale as f32).exp2()),
        Estimator::MeanAbs => q.rule.range_of_step(mean_step(q, mean(f64::abs) as f32)),
        Estimator::KSigma => {
            let (first, second) = (mean(|v| v), mean(|v| v * v));
            (first.abs() + f64::from(config.weights.sigmas) * (second - first * first).max(0.0).sqrt()) as f32
        }
        Estimator::Max | Estimator::EmaMax => counts.range,
    };
    WeightStart { scale: q.rule.scale(range), unit: window_unit(config, q, counts.range) }
}

/// The step of the base grid whose ends are the largest value `largest`, of a tensor with a window inside that grid; else 0.
fn window_unit(config: &QuantConfig, q: &Quantizer, largest: f32) -> f32 {
    let is_window = config.method == Method::CqatAuto && q.quant.base_hi > q.quant.hi;
    if is_window { largest / q.rule.levels } else { 0.0 }
}

/// The first step of LSQ (Esser et al. 2020, section 2.1): 2 mean |x| / sqrt(hi).
fn mean_step(q: &Quantizer, mean: f32) -> f32 {
    2.0 * mean / q.quant.highest().sqrt()
}

//! First ranges and scales: what a quantizer needs before its first step.

use super::{Form, Session};
use crate::config::Estimator;
use crate::data::{Batches, Split};
use crate::exec::ExecutorExt;
use crate::kernels::Step;
use crate::kernels::range::{BINS, RangeRow};
use crate::kernels::weights::estimate;
use crate::quant::{QuantSpec, Quantizer, Scale};
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
        let counted = matches!(spec.config.activations.estimator, Estimator::Percentile | Estimator::Mse);
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
        self.refresh_weight_scales(spec)?;
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
            let range = match a.estimator {
                Estimator::Percentile => counts().percentile(f64::from(a.percentile)),
                Estimator::Mse => counts().best_range(q),
                Estimator::FixedPow2 => q.rule.range_of_step((a.fixed_log2_scale as f32).exp2()),
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
            let real = || values.iter().enumerate().filter(|(i, _)| weights.is_real(*i));
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
                let column =
                    |c: usize| real().filter(|(i, _)| i % channels == c).map(|(_, v)| *v).collect::<Vec<f32>>();
                (0..channels).map(|c| q.rule.scale(range_of(&column(c)))).collect()
            } else {
                vec![q.rule.scale(range_of(&real().map(|(_, v)| *v).collect::<Vec<f32>>())); channels]
            };
            let words: Vec<f32> = scales.iter().map(|s| s.scale).chain(scales.iter().map(|s| s.inv_scale)).collect();
            self.exec.write_as(weights.scales, &words);
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::net::Net;

    #[test]
    fn a_percentile_is_the_upper_edge_of_its_bin() {
        let h = Histogram { counts: &[10, 0, 80, 10], range: 4.0 };
        assert_eq!([0.05, 0.1, 0.11, 0.9, 0.91, 1.0].map(|p| h.percentile(p)), [1.0, 1.0, 3.0, 3.0, 4.0, 4.0]);
        let values: Vec<f32> = (1..=1000).map(|i| if i % 2 == 0 { i as f32 } else { -(i as f32) }).collect();
        let found = MagnitudeHistogram::new(&values, 1000.0).view().percentile(0.9);
        assert!((899.0..=901.0).contains(&found), "{found}");
    }

    /// Uniform values are best covered by equal steps: 16 codes over [0, 1] reach to 15/15.5.
    #[test]
    fn the_best_range_of_uniform_values_covers_them() {
        let net = Net::resnet(8, 8, 10, 32).unwrap();
        let config = Config::load("cqat", &[]).unwrap();
        let spec = QuantSpec::new(&config.quant, &net).unwrap().unwrap();
        let (id, _) = net.activations().next().unwrap();
        let q = spec.layer(id).unwrap();
        let counts = vec![5; BINS];
        let range = Histogram { counts: &counts, range: 1.0 }.best_range(q);
        let top = q.rule.scale(range).scale * q.quant.hi as f32;
        assert!((top - 15.0 / 15.5).abs() < 0.02, "the window reaches to {top}");
        // One far value among many small ones is not worth the resolution.
        let mut counts = vec![0; BINS];
        counts[..BINS / 20].fill(1000);
        counts[BINS - 1] = 1;
        let range = Histogram { counts: &counts, range: 1.0 }.best_range(q);
        assert!(q.rule.scale(range).scale * q.quant.hi as f32 <= 0.1);
    }
}

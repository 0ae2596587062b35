//! Histograms of magnitudes, and the ranges that are searched for in them.

use crate::kernels::range::BINS;
use crate::quant::{Quantizer, Scale, rounding};

/// Ranges that a search tries.
const CANDIDATES: u32 = 200;

/// Counts of magnitudes in equal bins over `[0, range]`.
pub(super) struct Histogram<'a> {
    /// Of values that are not negative.
    pub(super) counts: &'a [u32],
    /// Of negative ones: none, or as many bins.
    pub(super) negative: &'a [u32],
    pub(super) range: f32,
}

impl Histogram<'_> {
    fn centre(&self, bin: usize) -> f32 {
        (bin as f32 + 0.5) * self.range / self.counts.len() as f32
    }

    /// The magnitude that a fraction `p` of the values does not exceed (upper edge of its bin).
    pub(super) fn percentile(&self, p: f64) -> f32 {
        let of = |counts: &[u32], bin: usize| counts.get(bin).map_or(0, |&c| u64::from(c));
        let both = |bin: usize| of(self.counts, bin) + of(self.negative, bin);
        let total: u64 = (0..self.counts.len()).map(both).sum();
        let wanted = (p * total as f64).ceil() as u64;
        let mut seen = 0;
        for bin in 0..self.counts.len() {
            seen += both(bin);
            if seen >= wanted {
                return (bin + 1) as f32 * self.range / self.counts.len() as f32;
            }
        }
        self.range
    }

    /// The range, of 200 tried, whose quantizer has the smallest mean squared error; the range factor does not enter, since
    /// the scale itself is what is searched.
    pub(super) fn best_range(&self, q: &Quantizer) -> f32 {
        // The widest window of interest puts the whole range on the stored codes.
        let highest = q.quant.highest().max(0.5) * (1u32 << q.quant.shift) as f32;
        let widest = self.range * q.rule.levels / (q.rule.factor * highest);
        self.best((1..=CANDIDATES).map(|k| widest * k as f32 / CANDIDATES as f32), q)
    }

    /// The range, of windows inside the base grid, with the smallest mean squared error: its step is that of the base grid (the range over
    /// its codes) times 1 to 2^(base bits - bits), in powers of two where the rule rounds to those.
    pub(super) fn best_window(&self, q: &Quantizer) -> f32 {
        let room = ((q.quant.base_hi + 1) / (q.quant.hi + 1)).ilog2();
        if q.rule.pow2 == rounding::WINDOW {
            return self.best((0..=room).map(|k| self.range * (1u32 << k) as f32), q);
        }
        let factor = |k: u32| (room as f32 * k as f32 / CANDIDATES as f32).exp2();
        self.best((0..=CANDIDATES).map(|k| self.range * factor(k)), q)
    }

    /// Of these ranges, the one whose quantizer has the smallest error.
    fn best(&self, ranges: impl Iterator<Item = f32>, q: &Quantizer) -> f32 {
        let best = ranges.map(|r| (self.error(q, q.rule.scale(r)), r)).min_by(|a, b| a.0.total_cmp(&b.0));
        best.map_or(self.range, |(_, r)| r)
    }

    /// Sum of the squared differences between the values and their quantized values.
    fn error(&self, q: &Quantizer, s: Scale) -> f64 {
        let of = |counts: &[u32], sign: f32| {
            let bins = counts.iter().enumerate().filter(|(_, c)| **c > 0);
            bins.map(|(bin, &c)| {
                let v = sign * self.centre(bin);
                let d = f64::from(v - q.quant.code(v, s.inv_scale) as f32 * s.scale);
                f64::from(c) * d * d
            })
            .sum::<f64>()
        };
        of(self.counts, 1.0) + of(self.negative, -1.0)
    }
}

/// A histogram made on the host, of weights.
pub(super) struct WeightHistogram {
    /// Of weights that are not negative, and of those that are.
    counts: [Vec<u32>; 2],
    range: f32,
}

impl WeightHistogram {
    pub(super) fn new(values: &[f32]) -> Self {
        let range = values.iter().fold(0f32, |m, v| m.max(v.abs()));
        let mut counts = [vec![0; BINS], vec![0; BINS]];
        for v in values {
            let bin = ((v.abs() / range.max(f32::MIN_POSITIVE) * BINS as f32) as usize).min(BINS - 1);
            counts[usize::from(*v < 0.0)][bin] += 1;
        }
        WeightHistogram { counts, range }
    }

    pub(super) fn view(&self) -> Histogram<'_> {
        let [counts, negative] = &self.counts;
        Histogram { counts, negative, range: self.range }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::net::Net;
    use crate::quant::QuantSpec;

    #[test]
    fn a_percentile_is_the_upper_edge_of_its_bin() {
        let h = Histogram { counts: &[10, 0, 80, 10], negative: &[], range: 4.0 };
        assert_eq!([0.05, 0.1, 0.11, 0.9, 0.91, 1.0].map(|p| h.percentile(p)), [1.0, 1.0, 3.0, 3.0, 4.0, 4.0]);
        let values: Vec<f32> = (1..=1000).map(|i| if i % 2 == 0 { i as f32 } else { -(i as f32) }).collect();
        let found = WeightHistogram::new(&values).view().percentile(0.9);
        assert!((899.0..=901.0).contains(&found), "{found}");
    }

    /// Against PyTorch's search of every window (`assets/golden/make_methods.py`).
    #[test]
    fn the_best_window_is_the_one_with_the_least_squared_error() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/golden/methods.json");
        let file: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let net = Net::resnet(8, 8, 10, 32).unwrap();
        for window in file["windows"].as_array().unwrap() {
            let (name, bits) = (window["name"].as_str().unwrap(), &window["bits"]);
            let x: Vec<f32> = window["x"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
            let found = |pow2: bool| {
                let sets = [
                    "quant.method=cqat-auto".to_string(),
                    format!("quant.{name}.pow2={pow2}"),
                    format!("quant.weight_bits={bits}"),
                    format!("quant.activation_bits={bits}"),
                ];
                let spec = QuantSpec::new(&Config::load("cqat", &sets).unwrap().quant, &net).unwrap().unwrap();
                let layer = if name == "weights" { "layer1.0.conv1" } else { "layer1.0.relu1" };
                let q = *spec.layer(net.layers.iter().position(|l| l.name() == layer).unwrap()).unwrap();
                let histogram = WeightHistogram::new(&x);
                let range = histogram.view().best_window(&q);
                let s = q.rule.scale(range);
                let error = x.iter().map(|v| f64::from(v - q.quant.code(*v, s.inv_scale) as f32 * s.scale).powi(2));
                (range / histogram.range, error.sum::<f64>())
            };
            let (best, (_, error)) = (window["error"].as_f64().unwrap(), found(false));
            assert!((best * 0.999..best * 1.01).contains(&error), "{name} {bits}: error {error}, the best is {best}");
            let (factor, _) = found(true);
            assert_eq!(f64::from(factor), 2f64.powi(window["shift"].as_i64().unwrap() as i32), "{name} {bits}");
        }
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
        let range = Histogram { counts: &counts, negative: &[], range: 1.0 }.best_range(q);
        let top = q.rule.scale(range).scale * q.quant.hi as f32;
        assert!((top - 15.0 / 15.5).abs() < 0.02, "the window reaches to {top}");
        // One far value among many small ones is not worth the resolution.
        let mut counts = vec![0; BINS];
        counts[..BINS / 20].fill(1000);
        counts[BINS - 1] = 1;
        let range = Histogram { counts: &counts, negative: &[], range: 1.0 }.best_range(q);
        assert!(q.rule.scale(range).scale * q.quant.hi as f32 <= 0.1);
    }
}

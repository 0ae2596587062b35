//! Histograms of magnitudes, and the ranges that are searched for in them.

use crate::kernels::range::BINS;
use crate::quant::{Quantizer, Scale, rounding};

/// Ranges that a search tries.
const CANDIDATES: u32 = 200;

/// Counts of magnitudes in equal bins over `[0, range]`.
pub(super) struct Histogram<'a> {
    pub(super) counts: &'a [u32],
    pub(super) range: f32,
}

impl Histogram<'_> {
    fn centre(&self, bin: usize) -> f32 {
        (bin as f32 + 0.5) * self.range / self.counts.len() as f32
    }

    /// The magnitude that a fraction `p` of the values does not exceed (upper edge of its bin).
    pub(super) fn percentile(&self, p: f64) -> f32 {
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
        let bins = self.counts.iter().enumerate().filter(|(_, c)| **c > 0);
        bins.map(|(bin, &c)| {
            let v = self.centre(bin);
            let d = f64::from(v - q.quant.code(v, s.inv_scale) as f32 * s.scale);
            f64::from(c) * d * d
        })
        .sum::<f64>()
    }
}

/// A histogram made on the host, of weights.
pub(super) struct MagnitudeHistogram {
    counts: Vec<u32>,
    range: f32,
}

impl MagnitudeHistogram {
    pub(super) fn new(values: &[f32]) -> Self {
        let range = values.iter().fold(0f32, |m, v| m.max(v.abs()));
        let mut counts = vec![0; BINS];
        for v in values {
            counts[((v.abs() / range.max(f32::MIN_POSITIVE) * BINS as f32) as usize).min(BINS - 1)] += 1;
        }
        MagnitudeHistogram { counts, range }
    }

    pub(super) fn view(&self) -> Histogram<'_> {
        Histogram { counts: &self.counts, range: self.range }
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
        let h = Histogram { counts: &[10, 0, 80, 10], range: 4.0 };
        assert_eq!([0.05, 0.1, 0.11, 0.9, 0.91, 1.0].map(|p| h.percentile(p)), [1.0, 1.0, 3.0, 3.0, 4.0, 4.0]);
        let values: Vec<f32> = (1..=1000).map(|i| if i % 2 == 0 { i as f32 } else { -(i as f32) }).collect();
        let found = MagnitudeHistogram::new(&values).view().percentile(0.9);
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

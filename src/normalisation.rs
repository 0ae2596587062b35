//! The input as the network sees it: raw bytes to numbers of mean 0 and deviation 1, or to codes.

use crate::data::DataSet;
use crate::quant::Quantizer;

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

    /// Whether every byte has a finite value.
    pub fn is_usable(&self) -> bool {
        let channel = |c: usize| self.std[c] > 0.0 && self.value(c, 0).is_finite() && self.value(c, 255).is_finite();
        (0..3).all(channel)
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

//! From exact requantizations back to real numbers: what one unit of an accumulator is worth, and weights whose scales say so.

use crate::integer::{IntegerLayer, IntegerLinear, IntegerWeights, Requantize, Window};
use crate::{Error, Result};

/// Weights of which every row has a scale above 0: a negative factor of a row is in its codes.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    /// Codes, in the order of [`IntegerWeights::codes`].
    pub codes: Vec<i8>,
    /// Value of one code, per row.
    pub scales: Vec<f32>,
    /// 1 or -1 a row, where a row has a code whose negative does not fit: what the row's sums are multiplied by.
    pub signs: Option<Vec<f32>>,
}

impl Weights {
    /// Weights that multiply values of which a code is worth `input`, and give sums of which a unit of the accumulator of row k is worth
    /// `units[k]`. Codes up to `highest` fit. `name` is that of the layer, for errors.
    ///
    /// # Errors
    /// As [`single`].
    pub fn new(name: &str, weights: &IntegerWeights, units: &[f64], input: f64, highest: i32) -> Result<Weights> {
        let mut codes = weights.codes.clone();
        let mut signs = vec![1.0; units.len()];
        let count = codes.len() / units.len();
        for ((row, unit), sign) in codes.chunks_exact_mut(count).zip(units).zip(&mut signs) {
            if *unit == 0.0 {
                row.fill(0);
            } else if *unit < 0.0 {
                let fits = row.iter().all(|code| -i32::from(*code) <= highest);
                if fits {
                    row.iter_mut().for_each(|code| *code = -*code);
                } else {
                    *sign = -1.0;
                }
            }
        }
        // A row of zeros is worth nothing at any scale, and none may be 0.
        let scale = |unit: &f64| if *unit == 0.0 { Ok(1.0) } else { single(name, unit.abs() / input) };
        let scales = units.iter().map(scale).collect::<Result<_>>()?;
        Ok(Weights { codes, scales, signs: signs.contains(&-1.0).then_some(signs) })
    }

    /// The weights as real numbers.
    pub fn values(&self) -> Vec<f32> {
        values(&self.codes, &self.scales)
    }
}

/// Codes times scales, of which each is that of one row.
pub fn values(codes: &[i8], scales: &[f32]) -> Vec<f32> {
    let rows = codes.chunks_exact(codes.len() / scales.len()).zip(scales);
    rows.flat_map(|(row, scale)| row.iter().map(move |code| f32::from(*code) * scale)).collect()
}

/// A factor of layer `name` in 32-bit floating point, which the files hold.
///
/// # Errors
/// One that is too large for it, not a number, or so small that its bits would be lost, but not 0.
pub fn single(name: &str, factor: f64) -> Result<f32> {
    let rounded = factor as f32;
    if factor == 0.0 || rounded.is_normal() {
        return Ok(rounded);
    }
    let [least, most] = [f32::MIN_POSITIVE, f32::MAX];
    Err(Error::training(format!("a factor of {name} is {factor:.3e}, expected 0 or a size from {least:.3e} to {most:.3e}"))
        .hint("a running variance near 0 or a tiny range does this: fold another checkpoint, or export the integers with --format c"))
}

/// A multiplier of `k` as a real number.
fn real(multiplier: i64, k: &Requantize) -> f64 {
    multiplier as f64 * 2f64.powi(-(k.shift as i32))
}

/// What a layer's numbers are worth, per channel, in the units of its output.
#[derive(Debug, Clone, PartialEq)]
pub struct Units {
    /// One unit of the accumulator.
    pub main: Vec<f64>,
    /// One unit of what the shortcut adds.
    pub shortcut: Vec<f64>,
    /// The bias itself.
    pub bias: Vec<f32>,
}

impl Units {
    /// Of a layer.
    ///
    /// # Errors
    /// As [`single`].
    pub fn of_layer(layer: &IntegerLayer) -> Result<Units> {
        Units::new(&layer.name, &layer.channels, base_scale(layer.scale, &layer.window))
    }

    /// Of the classifier.
    ///
    /// # Errors
    /// As [`single`].
    pub fn of_linear(linear: &IntegerLinear) -> Result<Units> {
        Units::new(&linear.name, &linear.channels, 2f64.powi(-(linear.fraction_bits as i32)))
    }

    fn new(name: &str, channels: &[Requantize], unit: f64) -> Result<Units> {
        let of = |f: fn(&Requantize) -> i64| channels.iter().map(|k| real(f(k), k) * unit).collect::<Vec<f64>>();
        Ok(Units {
            main: of(|k| i64::from(k.multiplier)),
            shortcut: of(|k| i64::from(k.shortcut)),
            bias: of(|k| k.offset).into_iter().map(|bias| single(name, bias)).collect::<Result<_>>()?,
        })
    }
}

/// Value of one base code, where one code is worth `scale`.
pub fn base_scale(scale: f32, window: &Window) -> f64 {
    f64::from(scale) * 2f64.powi(-(window.shift as i32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(codes: &[i8]) -> IntegerWeights {
        IntegerWeights::new(codes.to_vec(), 8, false, vec![1.0; 3], 1, false).unwrap()
    }

    #[test]
    fn negative_factors_turn_codes_around_where_they_fit() {
        let units = [2.0, -0.5, 0.0];
        let turned = Weights::new("conv1", &weights(&[-128, 1, -127, 5, 9, 9]), &units, 0.25, 127).unwrap();
        assert_eq!(turned.codes, [-128, 1, 127, -5, 0, 0]);
        assert_eq!(turned.values()[..4], [-1024.0, 8.0, 254.0, -10.0]);
        assert_eq!((turned.scales, turned.signs), (vec![8.0, 2.0, 1.0], None));
        let kept = Weights::new("conv1", &weights(&[-16, 1, -16, 5, 9, 9]), &units, 0.25, 15).unwrap();
        assert_eq!(kept.codes, [-16, 1, -16, 5, 0, 0]);
        assert_eq!((kept.scales, kept.signs), (vec![8.0, 2.0, 1.0], Some(vec![1.0, -1.0, 1.0])));
    }

    #[test]
    fn factors_that_lose_bits_are_refused() {
        assert_eq!(
            ["1", "-2e-38", "3e38", "0"].map(|f| single("conv1", f.parse().unwrap()).unwrap()),
            [1.0, -2e-38, 3e38, 0.0]
        );
        for factor in [1e-38, -1e-300, 1e39, f64::NAN, f64::INFINITY] {
            let error = single("conv1", factor).unwrap_err();
            let start = format!("a factor of conv1 is {factor:.3e}, expected 0 or a size from 1.175e-38");
            assert!(error.to_string().starts_with(&start), "{error}");
            assert!(error.hint_text().unwrap().contains("fold another checkpoint"));
        }
        assert!(Weights::new("conv1", &weights(&[1; 6]), &[1.0, 1e-40, 1.0], 0.25, 127).is_err());
    }
}

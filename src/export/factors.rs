//! From exact requantizations back to real numbers: what one unit of an accumulator is worth, and weights whose scales say so.

use crate::integer::{IntegerLayer, IntegerLinear, IntegerWeights, Requantize};

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
    /// `units[k]`. Codes up to `highest` fit.
    pub fn new(weights: &IntegerWeights, units: &[f64], input: f64, highest: i32) -> Weights {
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
        let scale = |unit: &f64| if *unit == 0.0 { 1.0 } else { (unit.abs() / input) as f32 };
        let scales = units.iter().map(scale).collect();
        Weights { codes, scales, signs: signs.contains(&-1.0).then_some(signs) }
    }
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
    pub fn of_layer(layer: &IntegerLayer) -> Units {
        Units::new(&layer.channels, base_scale(layer))
    }

    /// Of the classifier.
    pub fn of_linear(linear: &IntegerLinear) -> Units {
        Units::new(&linear.channels, 2f64.powi(-(linear.fraction_bits as i32)))
    }

    fn new(channels: &[Requantize], unit: f64) -> Units {
        let of = |f: fn(&Requantize) -> i64| channels.iter().map(|k| real(f(k), k) * unit).collect::<Vec<f64>>();
        Units {
            main: of(|k| i64::from(k.multiplier)),
            shortcut: of(|k| i64::from(k.shortcut)),
            bias: of(|k| k.offset).into_iter().map(|bias| bias as f32).collect(),
        }
    }
}

/// Value of one base code of a layer's output.
pub fn base_scale(layer: &IntegerLayer) -> f64 {
    f64::from(layer.scale) * 2f64.powi(-(layer.window.shift as i32))
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
        let turned = Weights::new(&weights(&[-128, 1, -127, 5, 9, 9]), &units, 0.25, 127);
        assert_eq!(turned.codes, [-128, 1, 127, -5, 0, 0]);
        assert_eq!((turned.scales, turned.signs), (vec![8.0, 2.0, 1.0], None));
        let kept = Weights::new(&weights(&[-16, 1, -16, 5, 9, 9]), &units, 0.25, 15);
        assert_eq!(kept.codes, [-16, 1, -16, 5, 0, 0]);
        assert_eq!((kept.scales, kept.signs), (vec![8.0, 2.0, 1.0], Some(vec![1.0, -1.0, 1.0])));
    }
}

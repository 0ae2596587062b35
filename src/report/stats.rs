//! Means over seeds: standard deviation, interval of the mean, and whether two means can be told apart.

use serde::Serialize;

/// Mean of a few equal experiments.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Mean {
    /// Number of values.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// Standard deviation (n - 1); none of one value.
    pub deviation: Option<f64>,
    /// Half of the 95 % interval of the mean, by Student's t; none of one value.
    pub half_width: Option<f64>,
}

impl Mean {
    /// Of `values`; none where there are none.
    pub fn of(values: &[f64]) -> Option<Mean> {
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let deviation = (n > 1).then(|| {
            let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
            (squares / (n - 1) as f64).sqrt()
        });
        let half_width = deviation.map(|s| student_t95((n - 1) as f64) * s / (n as f64).sqrt());
        Some(Mean { n, mean, deviation, half_width })
    }

    /// Whether this mean is larger than `other` by more than chance explains: the 95 % interval of the difference (Welch's t)
    /// lies above 0. None where either has one value, or neither varies: nothing is known then.
    pub fn exceeds(&self, other: &Mean) -> Option<bool> {
        let part = |m: &Mean| m.deviation.map(|s| s * s / m.n as f64);
        let (a, b) = (part(self)?, part(other)?);
        let difference = self.mean - other.mean;
        if a + b == 0.0 {
            return None; // equal scores of few pictures are no proof that seeds make no difference
        }
        let freedom = (a + b).powi(2) / (a * a / (self.n - 1) as f64 + b * b / (other.n - 1) as f64);
        Some(difference > student_t95(freedom) * (a + b).sqrt())
    }
}

/// Student's t that 95 % of the values do not pass on either side, for `freedom` degrees of freedom, 1 or more. Between whole
/// degrees the one below is taken: the interval is not too narrow.
pub fn student_t95(freedom: f64) -> f64 {
    const TABLE: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
        2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
    ];
    match (freedom + 1e-9) as usize {
        0 => TABLE[0],
        whole if whole <= TABLE.len() => TABLE[whole - 1],
        // The first terms of its expansion about the normal quantile; off by less than 0.001 here.
        _ => 1.959_964 + 2.372 / freedom + 2.823 / (freedom * freedom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_three_seeds_is_wide() {
        let m = Mean::of(&[61.0, 62.0, 63.0]).unwrap();
        assert_eq!((m.n, m.mean, m.deviation), (3, 62.0, Some(1.0)));
        assert!((m.half_width.unwrap() - 4.303 / 3f64.sqrt()).abs() < 1e-12);
        let one = Mean::of(&[61.0]).unwrap();
        assert_eq!((one.deviation, one.half_width, Mean::of(&[])), (None, None, None));
    }

    #[test]
    fn means_within_chance_are_not_told_apart() {
        let of = |values: &[f64]| Mean::of(values).unwrap();
        let (low, near, far) = (of(&[60.0, 61.0, 62.0]), of(&[61.0, 62.0, 63.0]), of(&[70.0, 71.0, 72.0]));
        assert_eq!((near.exceeds(&low), far.exceeds(&low), low.exceeds(&far)), (Some(false), Some(true), Some(false)));
        assert_eq!((far.exceeds(&of(&[1.0])), of(&[2.0, 2.0]).exceeds(&of(&[1.0, 1.0]))), (None, None));
    }

    #[test]
    fn the_quantile_falls_to_that_of_the_normal_distribution() {
        let known = [
            (1.0, 12.706),
            (2.9, 4.303),
            (13.999_999_999_999_998, 2.145),
            (30.0, 2.042),
            (40.0, 2.021),
            (120.0, 1.980),
            (1e9, 1.960),
        ];
        for (freedom, t) in known {
            assert!((student_t95(freedom) - t).abs() < 0.001, "{freedom}: {}", student_t95(freedom));
        }
    }
}

//! Checks of results against what they should be.

/// One comparison: a line of a report.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Check {
    /// What was compared: a kernel and variant, a group of tensors.
    pub name: String,
    /// Worst error.
    pub error: f64,
    /// Allowed error; 0 demands equality.
    pub limit: f64,
    /// Where the worst error is.
    pub detail: String,
}

impl Check {
    /// Whether the error is within the limit.
    pub fn passed(&self) -> bool {
        self.error <= self.limit // false for NaN
    }
}

/// `|a - b| / |b|`.
pub fn relative_l2(got: &[f32], want: &[f32]) -> f64 {
    let square = |v: f64| v * v;
    let (difference, norm) = got
        .iter()
        .zip(want)
        .fold((0.0, 0.0), |(d, n), (g, w)| (d + square(f64::from(*g) - f64::from(*w)), n + square(f64::from(*w))));
    (difference / f64::max(norm, 1e-60)).sqrt()
}

/// The worst relative error of any value; infinite where one differs from 0 that should not.
pub fn worst_relative(got: &[f32], want: &[f32]) -> f64 {
    let error =
        |(g, w): (&f32, &f32)| if g == w { 0.0 } else { ((f64::from(*g) - f64::from(*w)) / f64::from(*w)).abs() };
    got.iter().zip(want).map(error).fold(0.0, |worst, e| if e > worst || e.is_nan() { e } else { worst })
}

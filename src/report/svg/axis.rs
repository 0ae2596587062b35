//! Axes: what part of the numbers they show, and where their ticks are.

/// An axis from its lower to its upper end.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    label: String,
    low: f64,
    high: f64,
    log: bool,
    /// Ticks are whole numbers.
    whole: bool,
}

/// Ticks that an axis has room for.
const MOST_TICKS: f64 = 6.0;

impl Axis {
    /// A linear axis that takes in all finite `values` and ends at round numbers.
    pub fn linear(label: &str, values: impl IntoIterator<Item = f64>) -> Axis {
        let (low, high) = extremes(values, |v| v.is_finite()).unwrap_or((0.0, 1.0));
        let (low, high) = widened(low, high);
        let step = round_step((high - low) / (MOST_TICKS - 1.0));
        Axis {
            label: label.into(),
            low: (low / step).floor() * step,
            high: (high / step).ceil() * step,
            log: false,
            whole: false,
        }
    }

    /// The same of whole numbers.
    pub fn whole(label: &str, values: impl IntoIterator<Item = f64>) -> Axis {
        Axis { whole: true, ..Axis::linear(label, values) }
    }

    /// A linear axis with just these ends.
    pub fn between(label: &str, low: f64, high: f64) -> Axis {
        let (low, high) = widened(low, high);
        Axis { label: label.into(), low, high, log: false, whole: false }
    }

    /// A logarithmic axis that takes in all `values` above 0.
    pub fn log(label: &str, values: impl IntoIterator<Item = f64>) -> Axis {
        let (low, high) = extremes(values, |v| v.is_finite() && v > 0.0).unwrap_or((1.0, 10.0));
        let margin = (high / low).powf(0.06).max(1.15);
        Axis { label: label.into(), low: low / margin, high: high * margin, log: true, whole: false }
    }

    /// What it shows, with the unit.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The number nearest to `v` that it shows.
    pub fn clamped(&self, v: f64) -> f64 {
        v.clamp(self.low, self.high)
    }

    /// Where a number lies, 0 to 1 from end to end; none of a number that has no place at all.
    pub fn at(&self, v: f64) -> Option<f64> {
        let map = |v: f64| if self.log { v.ln() } else { v };
        let at = (map(v) - map(self.low)) / (map(self.high) - map(self.low));
        at.is_finite().then_some(at)
    }

    /// Places and texts of the ticks.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        let values = if self.log { self.log_ticks() } else { self.linear_ticks() };
        values.into_iter().filter_map(|v| Some((self.at(v)?, text(v)))).collect()
    }

    fn linear_ticks(&self) -> Vec<f64> {
        let step = round_step((self.high - self.low) / (MOST_TICKS - 1.0)).max(if self.whole { 1.0 } else { 0.0 });
        let first = (self.low / step - 1e-9).ceil();
        let count = ((self.high / step + 1e-9).floor() - first) as usize;
        (0..=count.min(20)).map(|i| (first + i as f64) * step).collect()
    }

    /// Powers of ten where there are several, else 1, 2 and 5 times them, else round numbers between.
    fn log_ticks(&self) -> Vec<f64> {
        let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let of = |factors: &[f64]| -> Vec<f64> {
            let all = decades.clone().flat_map(|d| factors.iter().map(move |f| f * 10f64.powi(d)));
            all.filter(|v| (self.low..=self.high).contains(v)).collect()
        };
        for factors in [&[1.0][..], &[1.0, 3.0], &[1.0, 2.0, 5.0]] {
            let ticks = of(factors);
            if (3..=7).contains(&ticks.len()) {
                return ticks;
            }
        }
        let powers = of(&[1.0]);
        if powers.len() > 7 {
            let step = powers.len().div_ceil(MOST_TICKS as usize);
            return powers.into_iter().step_by(step).collect();
        }
        self.linear_ticks().into_iter().filter(|v| *v > 0.0).collect()
    }
}

fn extremes(values: impl IntoIterator<Item = f64>, counts: impl Fn(f64) -> bool) -> Option<(f64, f64)> {
    let mut values = values.into_iter().filter(|v| counts(*v));
    let first = values.next()?;
    Some(values.fold((first, first), |(low, high), v| (low.min(v), high.max(v))))
}

/// Ends that lie apart.
fn widened(low: f64, high: f64) -> (f64, f64) {
    if low == 0.0 && high == 0.0 {
        return (0.0, 1.0);
    }
    if high > low { (low, high) } else { (low - 0.5 * low.abs().max(1.0), high + 0.5 * high.abs().max(1.0)) }
}

/// The round number (1, 2 or 5 times a power of ten) at or above `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|f| f * power >= step * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

/// A tick's number: short, without noise from binary fractions.
fn text(v: f64) -> String {
    let size = v.abs();
    if size >= 1e3 {
        let (scaled, unit) = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")]
            .into_iter()
            .find(|(unit, _)| size >= *unit)
            .map_or((v, ""), |(unit, name)| (v / unit, name));
        return format!("{}{unit}", plain(scaled));
    }
    if size > 0.0 && size < 1e-3 { format!("{v:.0e}").replace('-', "−") } else { plain(v).replace('-', "−") }
}

fn plain(v: f64) -> String {
    let text = format!("{v:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis) -> Vec<String> {
        axis.ticks().into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn linear_axes_end_at_round_numbers() {
        let axis = Axis::linear("", [58.3, 61.9]);
        assert_eq!(texts(&axis), ["58", "59", "60", "61", "62"]);
        assert_eq!((axis.at(58.0), axis.at(62.0)), (Some(0.0), Some(1.0)));
        assert_eq!(texts(&Axis::linear("", [0.0, 0.003])), ["0", "0.001", "0.002", "0.003"]);
        assert_eq!(texts(&Axis::between("", -1.5, 1.5)), ["−1", "0", "1"]);
        // One value, or none that counts.
        assert!(texts(&Axis::linear("", [3.0])).len() > 2 && texts(&Axis::linear("", [f64::NAN])).len() > 2);
    }

    #[test]
    fn logarithmic_axes_have_ticks_over_any_span() {
        assert_eq!(texts(&Axis::log("", [1.1e9, 5.7e11])), ["1G", "10G", "100G"]);
        for (low, high) in [(7.0e6, 44.8e6), (1.0, 1.0), (1e-9, 1e9), (3.0, 4.0), (1.1e9, 5.7e11)] {
            let count = texts(&Axis::log("", [low, high])).len();
            assert!((2..=10).contains(&count), "{low} to {high}: {count}");
        }
        assert_eq!(Axis::log("", [1.0, 10.0]).at(0.0), None);
    }
}

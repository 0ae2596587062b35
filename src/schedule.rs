//! The learning rate of every step, a pure function of the phase's settings.

use std::f64::consts::PI;

use crate::config::{PhaseConfig, Schedule};

/// Learning rate of step `step` (from 0) in a phase of `total_steps` steps, computed in f64.
///
/// lr * warm * shape, with w = min(warmup_max_steps, floor(total_steps * warmup_fraction)) and
/// - warm = min(1, (step + 1) / w), or 1 where w = 0;
/// - shape = 0.5 * (1 + cos(pi * step / total_steps)) for `cosine`, 1 for `constant`, and gamma^m for `step`, where m
///   counts the milestones with step >= round(milestone * total_steps).
///
/// `one_cycle` has no such factors: with a = warmup_fraction * total_steps - 1 and b = total_steps - 1, half a cosine from lr / 25
/// at step 0 to lr at a, and another to lr / 250000 at b.
///
/// Steps at or past the end get the rate of `total_steps` (0 for `cosine`).
pub fn learning_rate(phase: &PhaseConfig, step: u64, total_steps: u64) -> f32 {
    let total = total_steps.max(1) as f64;
    let at = step.min(total_steps);
    let warmup = f64::from(phase.warmup_max_steps).min((total_steps as f64 * decimal(phase.warmup_fraction)).floor());
    let warm = if warmup > 0.0 { ((at + 1) as f64 / warmup).min(1.0) } else { 1.0 };
    let shape = match phase.schedule {
        Schedule::Constant => 1.0,
        Schedule::OneCycle => {
            return one_cycle(f64::from(phase.lr), decimal(phase.warmup_fraction), at as f64, total) as f32;
        }
        Schedule::Cosine => 0.5 * (1.0 + (PI * at as f64 / total).cos()),
        Schedule::Step => {
            let passed = phase.milestones.iter().filter(|&&m| at as f64 >= (decimal(m) * total).round()).count();
            f64::from(phase.gamma).powi(passed as i32)
        }
    };
    (f64::from(phase.lr) * warm * shape) as f32
}

fn one_cycle(lr: f64, fraction: f64, at: f64, total: f64) -> f64 {
    let (lowest, last) = (lr / 25.0, lr / 250_000.0);
    let anneal = |from: f64, to: f64, part: f64| to + (from - to) / 2.0 * (1.0 + (PI * part.clamp(0.0, 1.0)).cos());
    let (peak, end) = (fraction * total - 1.0, total - 1.0);
    if at <= peak {
        return anneal(lowest, lr, if peak > 0.0 { at / peak } else { 1.0 });
    }
    anneal(lr, last, if end > peak { (at - peak) / (end - peak) } else { 1.0 })
}

/// The fraction as it was written: 0.7 is 0.699999988 in f32, and 0.7 of ten steps has to be seven.
fn decimal(fraction: f32) -> f64 {
    (f64::from(fraction) * 1e7).round() / 1e7
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(phase: &PhaseConfig, total: u64) -> Vec<f32> {
        (0..total).map(|step| learning_rate(phase, step, total)).collect()
    }

    #[test]
    fn cosine_starts_in_warm_up_and_ends_at_zero() {
        let phase = PhaseConfig::float();
        assert_eq!(learning_rate(&phase, 0, 1000), (f64::from(0.2_f32) / 100.0) as f32);
        let middle = learning_rate(&phase, 500, 1000);
        assert!((middle - 0.1).abs() < 1e-7, "{middle}");
        assert!(learning_rate(&phase, 999, 1000) < 1e-6);
        assert_eq!(learning_rate(&phase, 1000, 1000), 0.0);
        assert_eq!(learning_rate(&phase, 5000, 1000), 0.0);
    }

    #[test]
    fn the_formula_holds_at_every_step() {
        let phase = PhaseConfig { lr: 0.5, ..PhaseConfig::float() };
        for (step, rate) in rates(&phase, 7000).into_iter().enumerate() {
            let warm = ((step as f64 + 1.0) / 300.0).min(1.0); // a tenth would be 700 steps: the limit holds
            let cosine = 0.5 * (1.0 + (PI * step as f64 / 7000.0).cos());
            assert_eq!(rate, (0.5 * warm * cosine) as f32, "step {step}");
        }
    }

    #[test]
    fn rises_through_warm_up_then_falls() {
        for total in [1, 9, 10, 11, 390, 11_700] {
            let rates = rates(&PhaseConfig::float(), total);
            let warmup = (total / 10).clamp(1, 300) as usize;
            assert!(rates[..warmup].is_sorted_by(|a, b| a < b), "rises in {total} steps");
            assert!(rates[warmup - 1..].is_sorted_by(|a, b| a >= b), "falls in {total} steps");
            assert!(rates.iter().all(|&r| r > 0.0 && r <= 0.2), "{total} steps");
        }
    }

    #[test]
    fn constant_without_warm_up_is_the_rate_itself() {
        let phase = PhaseConfig { schedule: Schedule::Constant, warmup_fraction: 0.0, ..PhaseConfig::quantized() };
        assert!(rates(&phase, 50).iter().all(|&r| r == 0.02));
        let no_steps = PhaseConfig { warmup_max_steps: 0, warmup_fraction: 0.5, ..phase };
        assert_eq!(learning_rate(&no_steps, 0, 10), 0.02);
    }

    #[test]
    fn warm_up_reaches_the_peak_on_its_last_step() {
        let phase = PhaseConfig { schedule: Schedule::Constant, warmup_fraction: 0.7, lr: 7.0, ..PhaseConfig::float() };
        assert_eq!(rates(&phase, 10), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 7.0, 7.0, 7.0]);
    }

    #[test]
    fn step_falls_at_each_milestone() {
        let phase = PhaseConfig {
            lr: 1.0,
            schedule: Schedule::Step,
            milestones: vec![0.3, 0.6, 0.8],
            gamma: 0.5,
            warmup_fraction: 0.0,
            ..PhaseConfig::float()
        };
        let at = |step| learning_rate(&phase, step, 100);
        assert_eq!([0, 29, 30, 59, 60, 79, 80, 99].map(at), [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]);
    }

    /// torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=TOTAL, pct_start=FRACTION, cycle_momentum=False)
    #[test]
    fn one_cycle_is_that_of_pytorch() {
        let phase = |lr, warmup_fraction| PhaseConfig {
            lr,
            schedule: Schedule::OneCycle,
            warmup_fraction,
            ..PhaseConfig::float()
        };
        let near = |found: f32, expected: f64| (f64::from(found) - expected).abs() <= 1e-6 * expected;
        let expected = [
            (0, 0.008),
            (1, 0.008562756113181497),
            (15, 0.10919733522420008),
            (29, 0.2),
            (30, 0.19989930705690487),
            (64, 0.1000004),
            (98, 0.0001014929430951576),
            (99, 8e-07),
        ];
        for (step, rate) in expected {
            assert!(near(learning_rate(&phase(0.2, 0.3), step, 100), rate), "step {step}");
        }
        let short = [0.49720771772545586, 0.44928332967322343, 0.3528223644955498, 0.23131855133348753];
        let found = rates(&phase(0.5, 0.1), 7);
        assert!(found.iter().zip(short).all(|(f, e)| near(*f, e)) && near(found[6], 2e-6), "{found:?}");
    }

    #[test]
    fn an_empty_phase_has_finite_rates() {
        assert!(learning_rate(&PhaseConfig::float(), 0, 0).is_finite());
    }
}

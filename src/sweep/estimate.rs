//! What a run of a sweep will take: memory, arithmetic, and time where runs of the sweep have shown how fast the device is.

use super::metrics::{Metrics, Pace};
use super::{Folder, Run, State, Sweep};
use crate::config::Config;
use crate::cost::Cost;
use crate::error::Result;
use crate::kernels::Caps;
use crate::setup::{lower_config, network};

/// What a run will take.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// Bytes of device memory; the error where it does not fit, nothing without a device.
    pub memory: Option<Result<u64, String>>,
    /// Bit operations of the forward pass of one picture.
    pub bops: u64,
    /// Seconds that are left of it, where the sweep has finished runs to go by.
    pub seconds: Option<f64>,
}

/// Bit operations of a picture ([`Cost::bops`]) in a configuration's network, with the classes that `cqat plan` takes.
///
/// # Errors
/// A configuration error.
pub(super) fn bops_of(config: &Config) -> Result<u64> {
    let (net, spec) = network(config, config.expected_classes())?;
    Ok(Cost::of(&net, spec.as_ref()).bops)
}

/// How fast runs are: seconds for a multiply-accumulate of the forward pass of one picture.
struct Speed {
    /// Training in float, training quantized, scoring.
    costs: [Option<f64>; 3],
    /// Pictures of an epoch of a run that trains on all, and of an evaluation.
    pictures: [Option<f64>; 2],
}

impl Speed {
    /// As the finished runs of the sweep show.
    fn of(sweep: &Sweep, folder: &Folder) -> Result<Speed> {
        let mut sums = [(0.0, 0.0); 3];
        let mut pictures = [None; 2];
        let all = sweep.starts.iter().chain(&sweep.runs);
        for run in all.filter(|run| folder.state(&run.name) == State::Finished) {
            let macs = macs(&run.config)?;
            let m = Metrics::read(&folder.run(&run.name));
            for (sum, pace) in sums.iter_mut().zip(m.paces) {
                *sum = (sum.0 + pace.seconds, sum.1 + pace.pictures * macs);
            }
            let [float, quant, scoring] = m.paces.map(|p: Pace| (p.of_epoch > 0.0).then_some(p.of_epoch));
            if run.config.data.subset.is_none() {
                pictures[0] = quant.or(float).or(pictures[0]);
            }
            pictures[1] = scoring.or(pictures[1]);
        }
        Ok(Speed { costs: sums.map(|(seconds, work)| (work > 0.0).then(|| seconds / work)), pictures })
    }

    /// Seconds of what `run` has left.
    fn seconds(&self, run: &Run, done: &Metrics) -> Result<Option<f64>> {
        let (t, macs) = (&run.config.train, macs(&run.config)?);
        let float = if run.start.is_some() { 0 } else { t.float_epochs };
        let left = |epochs: u32, before: u32| f64::from(epochs - epochs.min(done.epochs.saturating_sub(before)));
        let (quant, float) = (left(t.quant_epochs, float), left(float, 0));
        let cost = |count: f64, pictures: Option<f64>, cost: Option<f64>| match count {
            0.0 => Some(0.0),
            _ => Some(count * pictures? * macs * cost?),
        };
        let pictures = run.config.data.subset.map(|n| n as f64).or(self.pictures[0]);
        let [float_cost, quant_cost, scoring_cost] = self.costs;
        let parts = [
            cost(float, pictures, float_cost.or(quant_cost)),
            cost(quant, pictures, quant_cost.or(float_cost)),
            cost(float + quant, self.pictures[1], scoring_cost),
        ];
        Ok(parts.into_iter().sum())
    }
}

fn macs(config: &Config) -> Result<f64> {
    Ok(network(config, config.expected_classes())?.0.macs() as f64)
}

impl Estimate {
    /// Of every run, the shared float runs first. `caps`: the device, where there is one.
    ///
    /// # Errors
    /// A configuration error.
    pub fn of_all(sweep: &Sweep, folder: &Folder, caps: Option<&Caps>) -> Result<Vec<Estimate>> {
        let speed = Speed::of(sweep, folder)?;
        let of = |run: &Run| {
            let (config, classes) = (&run.config, run.config.expected_classes());
            let memory = caps.cloned().map(|mut caps| {
                caps.budget_bytes =
                    config.device.memory_mib.map_or(caps.budget_bytes, |mib| mib.saturating_mul(1 << 20));
                let lowered = lower_config(config, classes, &caps);
                lowered.map(|lowered| lowered.plan.bytes()).map_err(|e| e.to_string())
            });
            let seconds = match folder.state(&run.name) {
                State::Finished => Some(0.0),
                _ => speed.seconds(run, &Metrics::read(&folder.run(&run.name)))?,
            };
            Ok(Estimate { memory, bops: bops_of(config)?, seconds })
        };
        sweep.starts.iter().chain(&sweep.runs).map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(sets: &[&str]) -> Config {
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        Config::load("demo", &sets).unwrap()
    }

    #[test]
    fn time_follows_from_finished_runs() {
        let run =
            Run { name: "a".into(), config: config(&["train.float_epochs=2", "train.quant_epochs=1"]), start: None };
        let macs = macs(&run.config).unwrap();
        let speed = Speed { costs: [Some(2.0 / macs), None, Some(1.0 / macs)], pictures: [Some(100.0), Some(10.0)] };
        let mut done = Metrics::default();
        let seconds = |run: &Run, done: &Metrics| speed.seconds(run, done).unwrap().map(f64::round);
        assert_eq!(seconds(&run, &done), Some(3.0 * 200.0 + 3.0 * 10.0));
        done.epochs = 2;
        assert_eq!(seconds(&run, &done), Some(210.0));
        let run = Run { start: Some("float".into()), ..run };
        assert_eq!(seconds(&run, &Metrics::default()), Some(210.0));
        let unknown = Speed { costs: [None; 3], pictures: [None; 2] };
        assert_eq!(unknown.seconds(&run, &Metrics::default()).unwrap(), None);
    }
}

//! What a run of a sweep will take: memory, arithmetic, and time where runs of the sweep have shown how fast the device is.

use super::data::wish;
use super::metrics::{Metrics, Pace};
use super::{Folder, Run, State, Sweep};
use crate::config::{Config, DataConfig};
use crate::cost::Cost;
use crate::error::Result;
use crate::kernels::Caps;
use crate::run::RunFolder;
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

/// How many classes the data of a sweep have, as the run folders know it that have begun.
pub(super) struct Classes(Vec<(DataConfig, usize)>);

impl Classes {
    pub(super) fn read(sweep: &Sweep, folder: &Folder) -> Classes {
        let mut known: Vec<(DataConfig, usize)> = Vec::new();
        for run in sweep.starts.iter().chain(&sweep.runs) {
            let wished = wish(&run.config);
            if run.config.network.classes.is_some() || known.iter().any(|(of, _)| *of == wished) {
                continue;
            }
            let config = RunFolder::open(&folder.run(&run.name)).and_then(|run| run.config());
            if let Some(classes) = config.ok().and_then(|config| config.network.classes) {
                known.push((wished, classes as usize));
            }
        }
        Classes(known)
    }

    /// Classes of a run's network; those that `cqat plan` takes where no run has begun on such data.
    fn of(&self, config: &Config) -> usize {
        let known = || self.0.iter().find(|(of, _)| *of == wish(config)).map(|(_, classes)| *classes);
        config.network.classes.map(|n| n as usize).or_else(known).unwrap_or_else(|| config.expected_classes())
    }

    /// Bit operations of a picture ([`Cost::bops`]) in a configuration's network.
    ///
    /// # Errors
    /// A configuration error.
    pub(super) fn bops(&self, config: &Config) -> Result<u64> {
        let (net, spec) = network(config, self.of(config))?;
        Ok(Cost::of(&net, spec.as_ref()).bops)
    }

    fn macs(&self, config: &Config) -> Result<f64> {
        Ok(network(config, self.of(config))?.0.macs() as f64)
    }
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
    fn of(sweep: &Sweep, folder: &Folder, classes: &Classes) -> Result<Speed> {
        let mut sums = [(0.0, 0.0); 3];
        let mut pictures = [None; 2];
        let all = sweep.starts.iter().chain(&sweep.runs);
        for run in all.filter(|run| folder.state(&run.name) == State::Finished) {
            let macs = classes.macs(&run.config)?;
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

    /// Seconds of what `run` has left, whose forward pass has `macs`.
    fn seconds(&self, run: &Run, macs: f64, done: &Metrics) -> Option<f64> {
        let t = &run.config.train;
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
        parts.into_iter().sum()
    }
}

impl Estimate {
    /// Of every run, the shared float runs first. `caps`: the device, where there is one.
    ///
    /// # Errors
    /// A configuration error.
    pub fn of_all(sweep: &Sweep, folder: &Folder, caps: Option<&Caps>) -> Result<Vec<Estimate>> {
        let known = Classes::read(sweep, folder);
        let speed = Speed::of(sweep, folder, &known)?;
        let of = |run: &Run| {
            let (config, classes) = (&run.config, known.of(&run.config));
            let memory = caps.cloned().map(|mut caps| {
                caps.budget_bytes =
                    config.device.memory_mib.map_or(caps.budget_bytes, |mib| mib.saturating_mul(1 << 20));
                let lowered = lower_config(config, classes, &caps);
                lowered.map(|lowered| lowered.plan.bytes()).map_err(|e| e.to_string())
            });
            let seconds = match folder.state(&run.name) {
                State::Finished => Some(0.0),
                _ => speed.seconds(run, known.macs(config)?, &Metrics::read(&folder.run(&run.name))),
            };
            Ok(Estimate { memory, bops: known.bops(config)?, seconds })
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
        let macs = Classes(Vec::new()).macs(&run.config).unwrap();
        let speed = Speed { costs: [Some(2.0 / macs), None, Some(1.0 / macs)], pictures: [Some(100.0), Some(10.0)] };
        let mut done = Metrics::default();
        let seconds = |run: &Run, done: &Metrics| speed.seconds(run, macs, done).map(f64::round);
        assert_eq!(seconds(&run, &done), Some(3.0 * 200.0 + 3.0 * 10.0));
        done.epochs = 2;
        assert_eq!(seconds(&run, &done), Some(210.0));
        let run = Run { start: Some("float".into()), ..run };
        assert_eq!(seconds(&run, &Metrics::default()), Some(210.0));
        let unknown = Speed { costs: [None; 3], pictures: [None; 2] };
        assert_eq!(unknown.seconds(&run, macs, &Metrics::default()), None);
    }

    #[test]
    fn classes_are_those_of_the_data_where_a_run_knows_them() {
        let place = |dir: &str| config(&[&format!("data.dir={dir}")]);
        let known = Classes(vec![(wish(&place("four")), 4)]);
        let held = Config { data: DataConfig { validation: 100, ..place("four").data }, ..place("four") };
        assert_eq!([place("four"), held, place("other")].map(|c| known.of(&c)), [4, 4, 100]);
        assert_eq!(known.of(&config(&["data.dir=four", "network.classes=7"])), 7);
    }
}

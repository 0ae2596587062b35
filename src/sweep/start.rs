//! Float starts: runs that differ in nothing that float epochs depend on train them once.

use sha2::{Digest, Sha256};

use super::{Run, names};
use crate::config::{Config, Method, QuantConfig, TrainConfig};
use crate::digest::hexadecimal;
use crate::error::Result;

/// The run that trains the float epochs of `config` alone; `None` where it has none, or starts from a network already.
fn float_run(config: &Config) -> Option<Config> {
    if config.train.float_epochs == 0 || config.train.init_from.is_some() {
        return None;
    }
    let mut float = config.clone();
    float.quant = QuantConfig { method: Method::None, ..QuantConfig::default() };
    float.train.quant_epochs = 0;
    float.train.quant = TrainConfig::default().quant;
    Some(float)
}

/// Gives every quantized run its start; returns those starts that are no runs of the sweep themselves, in the order of the runs.
///
/// # Errors
/// None that a configuration can cause.
pub(super) fn share(runs: &mut [Run]) -> Result<Vec<Run>> {
    let is_float = |run: &Run| run.config.quant.method == Method::None;
    let mut known: Vec<(Config, String)> = Vec::new();
    for run in runs.iter().filter(|run| is_float(run)) {
        if let Some(float) = float_run(&run.config) {
            known.push((float, run.name.clone()));
        }
    }
    let mut made = Vec::new();
    for run in runs.iter_mut().filter(|run| !is_float(run)) {
        let Some(float) = float_run(&run.config) else { continue };
        if let Some((_, name)) = known.iter().find(|(other, _)| *other == float) {
            run.start = Some(name.clone());
            continue;
        }
        let hash = hexadecimal(&Sha256::digest(float.to_yaml()?));
        let name = format!("{}{}", names::FLOAT, &hash[..names::FLOAT_DIGITS]);
        run.start = Some(name.clone());
        known.push((float.clone(), name.clone()));
        made.push(Run { name, config: float, start: None });
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, sets: &[&str]) -> Run {
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        Run { name: name.into(), config: Config::load("demo", &sets).unwrap(), start: None }
    }

    #[test]
    fn runs_that_differ_after_the_float_epochs_share_them() {
        let mut runs = [
            run("a", &[]),
            run("b", &["quant.weight_bits=2", "train.quant.lr=0.1", "train.quant_epochs=1"]),
            run("c", &["train.seed=1"]),
            run("d", &["train.float_epochs=0"]),
            run("e", &["train.init_from=x"]),
        ];
        let starts = share(&mut runs).unwrap();
        assert_eq!(starts.len(), 2);
        assert_eq!(runs[0].start.as_ref(), Some(&starts[0].name));
        assert_eq!(runs[1].start, runs[0].start);
        assert_eq!(runs[2].start.as_ref(), Some(&starts[1].name));
        assert_eq!((&runs[3].start, &runs[4].start), (&None, &None));
        starts[0].config.validate().unwrap();
        assert!(starts[0].name.starts_with("float-") && starts[0].name.len() == 14);
    }

    #[test]
    fn a_float_run_of_the_sweep_is_a_start_itself() {
        let mut runs = [run("w5", &[]), run("float", &["quant.method=none", "train.quant_epochs=0"])];
        assert!(share(&mut runs).unwrap().is_empty());
        assert_eq!((runs[0].start.as_deref(), &runs[1].start), (Some("float"), &None));
    }
}

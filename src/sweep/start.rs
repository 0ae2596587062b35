//! Float starts: runs that differ in nothing that float epochs depend on train them once.

use serde_yaml::Value;
use sha2::{Digest, Sha256};

use super::expand::as_value;
use super::{Run, names};
use crate::config::{Config, Method, QuantConfig, TrainConfig};
use crate::digest::hexadecimal;
use crate::error::{Error, Result};

/// The run that trains the float epochs of `config` alone; `None` where it has none, or starts from a network already.
fn float_run(config: &Config) -> Option<Config> {
    if config.train.float_epochs == 0 || config.train.init_from.is_some() {
        return None;
    }
    let mut float = config.clone();
    float.quant = QuantConfig { method: Method::None, ..QuantConfig::default() };
    float.train.quant_epochs = 0;
    float.train.quant = TrainConfig::default().quant;
    float.train.distill = TrainConfig::default().distill;
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
            known.push((float.outcome(), run.name.clone()));
        }
    }
    let mut made = Vec::new();
    for run in runs.iter_mut().filter(|run| !is_float(run)) {
        let Some(float) = float_run(&run.config) else { continue };
        if let Some((_, name)) = known.iter().find(|(other, _)| *other == float.outcome()) {
            run.start = Some(name.clone());
            continue;
        }
        let name = name_of(&float)?;
        run.start = Some(name.clone());
        known.push((float.outcome(), name.clone()));
        made.push(Run { name, config: float, start: None });
    }
    Ok(made)
}

/// `float-` and digits of the hash of those keys that differ from the defaults and count for the outcome: a program that knows more keys gives the same name.
fn name_of(float: &Config) -> Result<String> {
    let mut keys = as_value(&float.outcome())?;
    drop_defaults(&mut keys, &as_value(&Config::default())?);
    let text = serde_json::to_string(&keys).map_err(|e| Error::config("cannot write a configuration").caused_by(e))?;
    let hash = hexadecimal(&Sha256::digest(text));
    Ok(format!("{}{}", names::FLOAT, &hash[..names::FLOAT_DIGITS]))
}

/// Removes what is the same in `defaults`.
fn drop_defaults(value: &mut Value, defaults: &Value) {
    let Value::Mapping(map) = value else { return };
    map.retain(|key, value| {
        let default = defaults.get(key);
        if let Some(default) = default.filter(|d| d.is_mapping()) {
            drop_defaults(value, default);
        }
        let is_empty = value.as_mapping().is_some_and(|map| map.is_empty());
        !is_empty && Some(&*value) != default
    });
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
    fn the_name_of_a_start_is_stable_for_ever() {
        let name = |sets: &[&str]| name_of(&float_run(&run("a", sets).config).unwrap()).unwrap();
        assert_eq!(name(&[]), "float-b888b2c8");
        assert_eq!(name(&["train.log_every=20"]), name(&[]), "a default by another way");
        assert_eq!(name(&["train.log_every=19", "device.memory_mib=500"]), name(&[]), "the outcome is the same");
        assert_ne!(name(&["train.batch=64"]), name(&[]));
    }

    #[test]
    fn a_float_run_of_the_sweep_is_a_start_itself() {
        let mut runs = [run("w5", &[]), run("float", &["quant.method=none", "train.quant_epochs=0"])];
        assert!(share(&mut runs).unwrap().is_empty());
        assert_eq!((runs[0].start.as_deref(), &runs[1].start), (Some("float"), &None));
    }
}

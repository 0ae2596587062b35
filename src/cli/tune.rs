//! `cqat tune`.

use clap::Args;
use serde_json::json;

use super::{ConfigArgs, Global};
use crate::Result;
use crate::kernels::select::{Choices, KernelFamily};
use crate::progress::say;
use crate::setup::lower_config;
use crate::tune::{self, Race};

#[derive(Debug, Args)]
pub(super) struct TuneArgs {
    /// A YAML file, or a preset's name (see `cqat presets`)
    #[arg(default_value = "cqat")]
    config: String,
    /// Override one key, such as --set train.batch=64; may be repeated
    #[arg(long = "set", value_name = "KEY.PATH=VALUE")]
    sets: Vec<String>,
    /// Forget what was found for this device, and measure nothing
    #[arg(long)]
    forget: bool,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

impl TuneArgs {
    pub(super) fn run(&self, global: &Global) -> Result<()> {
        let config = ConfigArgs { config: self.config.clone(), sets: self.sets.clone() }.load()?;
        let gpu = global.open(Some(&config))?;
        if self.forget {
            println!("{}", tune::forget(&gpu.summary)?.display());
            return Ok(());
        }
        let lowered = lower_config(&config, config.expected_classes(), &gpu.caps)?;
        let family = KernelFamily::choose(config.device.kernels, &gpu.caps)?;
        let mut races = Vec::new();
        let mut file = None;
        for (product, flops) in tune::products(&lowered).values() {
            let race = tune::race(&gpu, family, product, *flops)?;
            if !self.json {
                print(&race);
            }
            // At once: what is found stays, whenever it is interrupted. A default that is the fastest again takes the place of
            // what was found before.
            let choice = (race.shape.clone(), race.trials[race.chosen].variant.clone());
            file = Some(tune::remember(&gpu.summary, Choices::from([choice]))?);
            races.push(race);
        }
        if self.json {
            println!("{:#}", json!(races));
        }
        if let Some(path) = file.filter(|_| !global.quiet) {
            say!("remembered in {}: training on this device uses it from now on", path.display());
        }
        Ok(())
    }
}

fn print(race: &Race) {
    let (default, chosen) = (&race.trials[0], &race.trials[race.chosen]);
    let gain = format!("{:.2} of the default's time", chosen.ms / default.ms);
    let gain = if race.chosen == 0 { "the default".to_string() } else { gain };
    println!("{:60} {:8.2} ms {:8.2} GFLOP/s  {} ({gain})", race.shape, chosen.ms, chosen.gflops, chosen.variant);
    for trial in race.trials.iter().filter(|t| !t.equal) {
        println!("{:60} {} is left out: its result differs from the default's", "", trial.variant);
    }
}

//! `cqat train`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{DEFAULT_DATA, Global, data_location};
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::data::{self, DataSet};
use crate::run::{FORMAT_VERSION, Manifest, RunFolder, now};
use crate::train::{INTERRUPTED, Outcome, Trainer, lower_config};
use crate::{Error, Result};

#[derive(Debug, Args)]
pub(super) struct TrainArgs {
    /// A YAML file, or a preset's name (see `cqat presets`)
    #[arg(conflicts_with = "resume")]
    config: Option<String>,
    /// Go on with this run, from its last checkpoint
    #[arg(long, value_name = "RUN")]
    resume: Option<PathBuf>,
    /// Folder of the data set; default: CQAT_DATA, else the configuration's data.dir, else ./data
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder of the run; default: a new one under runs/
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    out: Option<PathBuf>,
    /// Override one key, such as --set train.batch=64; may be repeated
    #[arg(long = "set", value_name = "KEY.PATH=VALUE", conflicts_with = "resume")]
    sets: Vec<String>,
    /// Stop when the run has trained this many epochs in all
    #[arg(long, value_name = "EPOCHS")]
    stop_after: Option<u32>,
}

impl TrainArgs {
    pub(super) fn run(&self, global: &Global) -> Result<()> {
        match (&self.resume, &self.config) {
            (Some(run), _) => self.resume(run, global),
            (None, Some(spec)) => {
                let mut config = Config::load(spec, &self.sets)?;
                config.validate()?;
                config.data.dir = Some(data_location(self.data.as_ref(), &config));
                let out = self.out.clone().unwrap_or_else(|| default_folder(spec));
                let run = start(config, &out, global, self.stop_after)?;
                println!("run folder: {}", run.display());
                Ok(())
            }
            (None, None) => Err(Error::config("train needs a CONFIG, or --resume RUN")
                .hint("CONFIG is a YAML file or a preset: `cqat presets` lists them")),
        }
    }

    fn resume(&self, run: &Path, global: &Global) -> Result<()> {
        let folder = RunFolder::open(run)?;
        if !folder.last().exists() {
            return Err(Error::training(format!("{} has no checkpoint yet", run.display()))
                .hint("it stopped before its first epoch ended: delete the folder and start again"));
        }
        let checkpoint = Checkpoint::read(&folder.last())?;
        let config = checkpoint.config()?;
        let data = load_data(&config, self.data.as_ref())?;
        let gpu = global.open(Some(&config))?;
        let classes = check_classes(&config, &data)?;
        let lowered = lower_config(&config, classes, &gpu)?;
        handle_interrupts();
        let mut trainer = Trainer::resume(&config, &data, &gpu, &lowered, folder, checkpoint, global.quiet)?;
        report(trainer.run(self.stop_after)?, run, global.quiet);
        println!("run folder: {}", run.display());
        Ok(())
    }
}

/// Trains a new run in `out` on the pictures in `config.data.dir`; returns the folder.
pub(super) fn start(config: Config, out: &Path, global: &Global, stop_after: Option<u32>) -> Result<PathBuf> {
    let mut config = config;
    let dir = config.data.dir.clone().unwrap_or_else(|| DEFAULT_DATA.into());
    let data = data::load(&dir, config.data.validation, config.train.seed)?;
    let classes = check_classes(&config, &data)?;
    check_batch(&config, &data)?;
    config.network.classes = Some(classes as u32);
    let gpu = global.open(Some(&config))?;
    let lowered = lower_config(&config, classes, &gpu)?;
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        program: format!("cqat {}", crate::VERSION),
        adapter: &gpu.summary,
        data: &data.name,
        data_sha256: &data.sha256,
        command: std::env::args().collect(),
        started: now(),
    };
    if !global.quiet {
        eprintln!(
            "{} on {} ({}), {} {}",
            data.name, gpu.summary.name, gpu.summary.kind, gpu.summary.driver, gpu.summary.driver_info
        );
    }
    handle_interrupts();
    let create = || RunFolder::create(out, &config, &manifest);
    let mut trainer = Trainer::start(&config, &data, &gpu, &lowered, create, global.quiet)?;
    report(trainer.run(stop_after)?, out, global.quiet);
    Ok(out.to_path_buf())
}

fn report(outcome: Outcome, run: &Path, quiet: bool) {
    if outcome == Outcome::Stopped && !quiet {
        eprintln!("stopped as asked; go on with: cqat train --resume {}", run.display());
    }
}

pub(super) fn load_data(config: &Config, option: Option<&PathBuf>) -> Result<DataSet> {
    data::load(&data_location(option, config), config.data.validation, config.train.seed)
}

/// The number of classes, checked against the configuration.
pub(super) fn check_classes(config: &Config, data: &DataSet) -> Result<usize> {
    match config.network.classes {
        Some(n) if (n as usize) < data.classes => {
            Err(Error::config(format!("network.classes is {n}, but {} has {} classes", data.name, data.classes))
                .hint("leave network.classes out to take the data set's"))
        }
        Some(n) => Ok(n as usize),
        None => Ok(data.classes),
    }
}

/// A run folder is not made for a run that cannot take a step.
fn check_batch(config: &Config, data: &DataSet) -> Result<()> {
    let (batch, pictures) = (config.train.batch as usize, data.train.len());
    if batch <= pictures {
        return Ok(());
    }
    Err(Error::config(format!("train.batch is {batch}, expected at most the {pictures} training pictures"))
        .hint(format!("--set train.batch={pictures} or less")))
}

fn default_folder(spec: &str) -> PathBuf {
    let stem = Path::new(spec).file_stem().map_or("run".into(), |s| s.to_string_lossy().into_owned());
    let base = format!("{stem}-{}", now());
    let free = |name: &str| !Path::new("runs").join(name).exists();
    let name = if free(&base) { base } else { format!("{base}-{}", std::process::id()) };
    Path::new("runs").join(name)
}

fn handle_interrupts() {
    use std::sync::atomic::Ordering;
    let installed = ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        eprintln!("\nfinishing the step and saving; interrupt again to quit at once");
    });
    if let Err(e) = installed {
        log::warn!("interrupts are not handled: {e}");
    }
}

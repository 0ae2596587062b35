//! `cqat train`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::interrupts::Interrupts;
use super::{Global, RUNS, data_location};
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::data::{self, DataSet};
use crate::gpu::Gpu;
use crate::progress::say;
use crate::run::{FORMAT_VERSION, Manifest, RunFolder, Versions, now};
use crate::setup::{self, lower_for_training};
use crate::terminal::shell_word;
use crate::train::{Outcome, Trainer};
use crate::{Error, ErrorKind, Result, tune};

/// What the first Ctrl-C is answered with.
const SAVING: &str = "finishing the step and saving";

#[derive(Debug, Args)]
pub(super) struct TrainArgs {
    /// A YAML file, or a preset's name (see `cqat presets`)
    #[arg(conflicts_with = "resume")]
    config: Option<String>,
    /// Go on with this run, from its last checkpoint
    #[arg(long, value_name = "RUN")]
    resume: Option<PathBuf>,
    /// Folder or archive of the data set; default: CQAT_DATA, else the configuration's data.dir, else ./data
    #[arg(long, value_name = "PLACE")]
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
                setup::check(&config)?;
                let out = NewFolder::choose(self.out.as_ref(), spec)?;
                RunFolder::check_free(&out.path)?; // before the data takes its time
                let (data, dir) = load_data(&config, self.data.as_ref(), global.quiet)?;
                config.data.dir = Some(dir);
                start(config, &data, &out.path, global, self.stop_after)?;
                println!("run folder: {}", out.path.display());
                Ok(())
            }
            (None, None) => Err(Error::config("train needs a CONFIG, or --resume RUN")
                .hint("CONFIG is a YAML file or a preset: `cqat presets` lists them")),
        }
    }

    fn resume(&self, run: &Path, global: &Global) -> Result<()> {
        let folder = RunFolder::open_for_training(run)?;
        if !folder.last().exists() {
            let float = folder.float();
            return Err(Error::training(format!("{} has no checkpoint last.safetensors", run.display())).hint(
                match float.exists() {
                    true => {
                        format!("start a new run from its float network: --set train.init_from={}", float.display())
                    }
                    false => "it stopped before its first step: delete the folder and start again".into(),
                },
            ));
        }
        let checkpoint = Checkpoint::read(&folder.last())?;
        let config = checkpoint.config()?;
        if folder.config()? != config {
            return Err(Error::training(format!(
                "config.yaml and last.safetensors of {} do not belong together",
                run.display()
            ))
            .hint(format!(
                "a run keeps its configuration: undo the change of either, or start a new run from its weights with --set \
                     train.init_from={}",
                folder.last().display()
            )));
        }
        let (data, _) = load_run_data(&config, self.data.as_ref(), global.quiet)?;
        let gpu = global.open(Some(&config))?;
        let classes = run_classes(&config, &data)?;
        let lowered =
            lower_for_training(&config, classes, &gpu.caps, data.train.len()).map_err(|e| match e.kind() {
                ErrorKind::Device => {
                    e.hint("a run keeps its batch: resume it on the device it began on, or free memory")
                }
                _ => e,
            })?;
        greet(&data, &gpu, global);
        let _interrupts = Interrupts::take(SAVING);
        let mut trainer = Trainer::resume(&config, &data, &gpu, &lowered, folder, checkpoint, global.quiet)?;
        if !trainer.finished() {
            train(&mut trainer, self.stop_after, run, global)?;
        } else if !global.quiet {
            say!("the run was finished already");
        }
        println!("run folder: {}", run.display());
        Ok(())
    }
}

/// Trains a new run in `out`.
pub(super) fn start(
    mut config: Config,
    data: &DataSet,
    out: &Path,
    global: &Global,
    stop_after: Option<u32>,
) -> Result<()> {
    let classes = new_classes(&config, data)?;
    check_batch(&config, data)?;
    config.network.classes = Some(classes as u32);
    let gpu = global.open(Some(&config))?;
    let lowered = lower_for_training(&config, classes, &gpu.caps, data.train.len())?;
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        versions: Versions::now(),
        adapter: &gpu.summary,
        data: &data.name,
        data_sha256: &data.sha256,
        kernels: tune::in_use(&lowered),
        command: std::env::args().collect(),
        started: now(),
    };
    greet(data, &gpu, global);
    let create = || RunFolder::create(out, &config, &manifest);
    let _interrupts = Interrupts::take(SAVING);
    let mut trainer = Trainer::start(&config, data, &gpu, &lowered, create, global.quiet)?;
    train(&mut trainer, stop_after, out, global)
}

fn greet(data: &DataSet, gpu: &Gpu, global: &Global) {
    if !global.quiet {
        let a = &gpu.summary;
        say!("{} on {} ({}), {} {}", data.name, a.name, a.kind, a.driver, a.driver_info);
    }
}

/// Trains to the end, or as far as asked.
fn train(trainer: &mut Trainer, stop_after: Option<u32>, run: &Path, global: &Global) -> Result<()> {
    if trainer.run(stop_after)? == Outcome::Stopped && !global.quiet {
        say!("stopped as asked; go on with: cqat train --resume {}", shell_word(run));
    }
    Ok(())
}

/// The pictures of a run: where `--data` says, else where they were when it began, else as for a new run. And the place.
pub(super) fn load_run_data(config: &Config, option: Option<&PathBuf>, quiet: bool) -> Result<(DataSet, String)> {
    let own = config.data.dir.as_ref().map(PathBuf::from).filter(|place| place.exists());
    let moved = option.is_none() && own.is_none() && config.data.dir.as_deref() != Some(data::EMBEDDED);
    load_data(config, option.or(own.as_ref()), quiet).map_err(|e| match moved {
        true => e.hint("point --data at the data set that the run was trained on"),
        false => e,
    })
}

/// The pictures, and where they were found: an absolute path, so that a run can be resumed from anywhere.
pub(super) fn load_data(config: &Config, option: Option<&PathBuf>, quiet: bool) -> Result<(DataSet, String)> {
    let dir = data_location(option, config);
    let c = &config.data;
    let data = data::load_as(&data::Request {
        dir: dir.clone(),
        size: c.size as usize,
        validation: c.validation,
        subset: c.subset,
        test_fraction: c.test_fraction,
        skip_broken: c.skip_broken,
        seed: config.train.seed,
        quiet,
    })?;
    let found = if dir == data::EMBEDDED { None } else { std::path::absolute(&dir).ok() };
    Ok((data, found.map_or(dir, |path| path.display().to_string())))
}

/// The number of classes of a new run.
pub(super) fn new_classes(config: &Config, data: &DataSet) -> Result<usize> {
    classes(config, data, ErrorKind::Config, "a configuration that leaves network.classes out takes the data set's")
}

/// The number of classes of a run that is to see this data.
pub(super) fn run_classes(config: &Config, data: &DataSet) -> Result<usize> {
    classes(config, data, ErrorKind::Data, "point --data at the data set that the run was trained on")
}

/// The configuration's number of classes, which may be more than the data set's; without one, that.
fn classes(config: &Config, data: &DataSet, kind: ErrorKind, hint: &str) -> Result<usize> {
    match config.network.classes {
        Some(n) if (n as usize) < data.classes => {
            let message = format!("network.classes is {n}, but {} has {} classes", data.name, data.classes);
            Err(Error::new(kind, message).hint(hint))
        }
        Some(n) => Ok(n as usize),
        None => Ok(data.classes),
    }
}

/// A run folder is not made for a run that cannot take a step.
fn check_batch(config: &Config, data: &DataSet) -> Result<()> {
    let (batch, accumulate, pictures) = (config.train.batch, config.train.accumulate, data.train.len());
    if config.train.step_pictures() <= pictures {
        return Ok(());
    }
    let batches = if accumulate > 1 { format!(" and train.accumulate {accumulate}") } else { String::new() };
    let most = pictures / accumulate as usize;
    Err(Error::config(format!("train.batch is {batch}{batches}, expected at most the {pictures} training pictures"))
        .hint(match most {
            0 => format!("--set train.accumulate={pictures} or less"),
            _ => format!("--set train.batch={most} or less"),
        }))
}

/// The folder of a new run.
pub(super) struct NewFolder {
    pub(super) path: PathBuf,
    /// Made by this program, so that it is removed again where nothing comes into it.
    made: bool,
}

impl NewFolder {
    /// `wanted`, else a new one that no other process has, however many are started at once. `spec`: a file or a preset.
    pub(super) fn choose(wanted: Option<&PathBuf>, spec: &str) -> Result<NewFolder> {
        if let Some(path) = wanted {
            return Ok(NewFolder { path: path.clone(), made: false });
        }
        let stem = Path::new(spec).file_stem().map_or("run".into(), |s| s.to_string_lossy().into_owned());
        let base = format!("{stem}-{}", now());
        let attempt = || -> std::io::Result<PathBuf> {
            let mut k = 1;
            loop {
                std::fs::create_dir_all(RUNS)?;
                let path = Path::new(RUNS).join(if k == 1 { base.clone() } else { format!("{base}-{k}") });
                match std::fs::create_dir(&path) {
                    Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => k += 1,
                    made => return made.map(|()| path),
                }
            }
        };
        let path = attempt().map_err(|e| {
            Error::training(format!("a run folder cannot be made in {RUNS}"))
                .hint("choose a folder you may write with --out DIR")
                .caused_by(e)
        })?;
        Ok(NewFolder { path, made: true })
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        if self.made {
            // A folder with something in it stays.
            let _ = std::fs::remove_dir(&self.path).and_then(|()| std::fs::remove_dir(RUNS));
        }
    }
}

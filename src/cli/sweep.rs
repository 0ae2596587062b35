//! `cqat sweep`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};

use super::interrupts::Interrupts;
use super::train::load_data;
use super::{Global, RUNS};
use crate::config::INIT_FROM;
use crate::sweep::{self, DataSets, Estimate, Folder, Job, Run, Shard, State, Sweep, duration};
use crate::{Error, Result, gpu};

#[derive(Debug, Args)]
pub(super) struct SweepArgs {
    /// A YAML file: a base configuration, and what is varied (see docs/sweeps.md)
    #[arg(value_hint = ValueHint::FilePath)]
    sweep: PathBuf,
    /// Folder of the sweep; default: one called like the file under runs/. A sweep that was stopped goes on in its folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Runs at a time; default: one for each device that --device lists, such as 0,1, or without it for each discrete GPU
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Only part I of N, counted from 0, for job arrays
    #[arg(long, value_name = "I/N", default_value = "0/1", hide_default_value = true)]
    shard: Shard,
    /// Show the runs, and what they will take, and train nothing
    #[arg(long)]
    dry_run: bool,
    /// Train runs again that failed
    #[arg(long)]
    retry_failed: bool,
    /// Remove and train again the runs in the folder whose configuration the file has changed
    #[arg(long)]
    force: bool,
    /// Folder or archive of the data set, for all runs
    #[arg(long, value_name = "PLACE")]
    data: Option<PathBuf>,
    /// Override one key of the base configuration; may be repeated
    #[arg(long = "set", value_name = "KEY.PATH=VALUE")]
    sets: Vec<String>,
}

impl SweepArgs {
    pub(super) fn run(&self, global: &Global) -> Result<()> {
        let sweep = Sweep::read(&self.sweep, &self.sets)?;
        let folder = Folder::new(&self.folder());
        if self.dry_run {
            return self.show(&sweep, &folder, global);
        }
        let devices = devices(global.device.as_deref())?;
        let jobs = self.jobs(&devices)?;
        let runs = self.shard.of(&sweep);
        runs.iter().try_for_each(|run| networks_exist(run, &folder.state(&run.name)))?;
        let data = self.look_at_data(&runs, &folder, global.quiet)?;
        let _interrupts = Interrupts::take("stopping the runs, each of which saves first");
        folder.prepare(&sweep, &data, self.force)?;
        sweep::work(&Job {
            sweep: &sweep,
            folder: &folder,
            runs,
            jobs,
            devices,
            data: self.data.clone(),
            retry: self.retry_failed,
            quiet: global.quiet,
        })?;
        println!("results: {}", folder.results().display());
        Ok(())
    }

    /// Reads the data of runs that are to be trained, so that a wrong place is told once and not by every run; and what `--data`
    /// names in any case, so that finished runs of other data are not passed over.
    fn look_at_data(&self, runs: &[&Run], folder: &Folder, quiet: bool) -> Result<DataSets> {
        let mut data = DataSets::default();
        let is_read = |run: &&&Run| self.data.is_some() || folder.state(&run.name) != State::Finished;
        for run in runs.iter().filter(is_read) {
            data.look(&run.config, |config| Ok(load_data(config, self.data.as_ref(), quiet)?.0.sha256))?;
        }
        Ok(data)
    }

    fn folder(&self) -> PathBuf {
        let stem = || Path::new(RUNS).join(self.sweep.file_stem().unwrap_or("sweep".as_ref()));
        self.out.clone().unwrap_or_else(stem)
    }

    fn jobs(&self, devices: &[Option<String>]) -> Result<usize> {
        let named = devices.iter().filter(|d| d.is_some()).count();
        match self.jobs {
            Some(0) => Err(Error::config("--jobs is 0, expected at least 1").hint("1 is the default")),
            Some(n) => Ok(n),
            None => Ok(named.max(1)),
        }
    }

    /// `--dry-run`.
    fn show(&self, sweep: &Sweep, folder: &Folder, global: &Global) -> Result<()> {
        if let Some(e) = sweep.runs.iter().find_map(|run| networks_exist(run, &folder.state(&run.name)).err()) {
            log::warn!("{e}");
        }
        let devices = devices(global.device.as_deref());
        let jobs = self.jobs(devices.as_deref().unwrap_or_default())?;
        let gpu = devices.and_then(|all| Global { device: all[0].clone(), quiet: true }.open(None));
        if let Err(e) = &gpu {
            log::warn!("memory is not known without a device: {e}");
        }
        let changed: Vec<&str> = folder.changed(sweep)?.iter().map(|run| run.name.as_str()).collect();
        if !changed.is_empty() {
            log::warn!("{} has other configurations of {}", folder.path().display(), changed.join(", "));
        }
        let estimates = Estimate::of_all(sweep, folder, gpu.as_ref().ok().map(|gpu| &gpu.caps))?;
        let shard = self.shard.of(sweep);
        let is_start = |name: &str| shard.iter().any(|run| run.start.as_deref() == Some(name));
        let is_here = |name: &str| is_start(name) || shard.iter().any(|run| run.name == name);
        let all = sweep.starts.iter().chain(&sweep.runs).zip(&estimates).filter(|(run, _)| is_here(&run.name));
        let misfit = all.clone().find_map(|(run, e)| Some((&run.name, e.memory.as_ref()?.as_ref().err()?)));
        let width = all.clone().map(|(run, _)| run.name.len()).max().unwrap_or(0).max(4);
        println!(
            "{:width$}  {:9} {:>10} {:>12} {:>9}  starts from",
            "run", "state", "memory MiB", "GBOP/picture", "time"
        );
        let mut total = Some(0.0);
        for (run, estimate) in all {
            let status = sweep::status(folder, run).0;
            let is_left = self.retry_failed || !["failed", "blocked"].contains(&status);
            let memory = match &estimate.memory {
                Some(Ok(bytes)) => format!("{:.1}", *bytes as f64 / f64::from(1 << 20)),
                Some(Err(_)) => "too much".into(),
                None => "-".into(),
            };
            let time = estimate.seconds.filter(|_| is_left).map_or("-".into(), duration);
            if is_left {
                total = total.zip(estimate.seconds).map(|(total, seconds)| total + seconds);
            }
            println!(
                "{:width$}  {:9} {memory:>10} {:>12.3} {time:>9}  {}",
                run.name,
                status,
                estimate.bops as f64 / 1e9,
                run.start.as_deref().unwrap_or("-")
            );
        }
        let time = total.map(|seconds| seconds / jobs as f64);
        println!("{}", closing(shard.len(), time, jobs));
        misfit.map_or(Ok(()), |(name, e)| {
            Err(Error::device(format!("the run `{name}` does not fit this device: {e}"))
                .hint("a smaller train.batch fits, or a device with more memory"))
        })
    }
}

/// The last line of `--dry-run`.
fn closing(runs: usize, time: Option<f64>, jobs: usize) -> String {
    let at_once = if jobs > 1 { format!(", {jobs} at a time") } else { String::new() };
    match time {
        Some(seconds) => format!("{runs} runs{at_once}: {} left, as the finished runs show", duration(seconds)),
        None => format!("{runs} runs{at_once}; the time is known once runs of each kind are finished"),
    }
}

/// What each place says with `--device`: the list's entries, else every real GPU where there are several, else nothing.
///
/// # Errors
/// An entry that is no adapter.
fn devices(wanted: Option<&str>) -> Result<Vec<Option<String>>> {
    if let Some(list) = wanted {
        let all: Vec<String> = list.split(',').map(|d| d.trim().to_string()).collect();
        all.iter().try_for_each(|d| gpu::find(Some(d)).map(drop))?;
        return Ok(all.into_iter().map(Some).collect());
    }
    let real: Vec<Option<String>> =
        gpu::list().iter().filter(|a| a.kind == "discrete").map(|a| Some(a.index.to_string())).collect();
    Ok(if real.len() > 1 { real } else { vec![None] })
}

/// Refuses a run that is to begin with, or to learn from, what is not there.
fn networks_exist(run: &Run, state: &State) -> Result<()> {
    let is_needed = |key: &str| match state {
        State::Finished => false,
        State::Stopped | State::Training => key != INIT_FROM,
        State::Pending | State::Failed(_) => true,
    };
    match run.config.train.networks().find(|(key, path)| is_needed(key) && !path.exists()) {
        None => Ok(()),
        Some((key, path)) => {
            let message = format!("run {}: {key} is {}, which does not exist", run.name, path.display());
            Err(Error::config(message).hint("it is seen from the folder in which cqat is started"))
        }
    }
}

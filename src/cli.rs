//! The command line: typed options and what they run. Results go to standard output, everything else to standard error.

mod bench;
mod compare;
mod data;
mod demo;
mod doctor;
mod eval;
mod export;
mod infer;
mod info;
mod interrupts;
mod quantize;
mod report;
mod selftest;
mod sensitivity;
mod shell;
mod sweep;
mod train;
mod tune;
mod watch;

use std::path::PathBuf;
use std::time::Instant;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueHint};

use crate::Result;
use crate::config::{Config, Kernels, Precision};
use crate::gpu::{Gpu, OpenOptions};
use crate::kernels::select::KernelFamily;
use crate::setup;

/// Train low-bit image classifiers on any GPU, and hand the exact integers to hardware.
#[derive(Debug, Parser)]
#[command(name = "cqat", version, about, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Global {
    /// Adapter: its number or part of its name (see `cqat devices`), `gpu`, or `cpu` for a software adapter
    #[arg(long, global = true, value_name = "INDEX|NAME|cpu|gpu")]
    device: Option<String>,
    /// No progress and no epoch lines
    #[arg(long, short, global = true)]
    quiet: bool,
}

impl Global {
    fn open(&self, config: Option<&Config>) -> Result<Gpu> {
        let memory_mib = config.and_then(|c| c.device.memory_mib);
        let mut gpu = Gpu::open(&OpenOptions { device: self.device.clone(), memory_mib, checked: false })?;
        gpu.caps.tuned = crate::tune::known(&gpu.summary);
        let kernels = config.map_or(Kernels::Auto, |c| c.device.kernels);
        let tiled = KernelFamily::choose(kernels, &gpu.caps).is_ok_and(|family| family == KernelFamily::Tiled);
        if gpu.caps.matrix > 0 && !(tiled && crate::selftest::matrix_units_agree(&gpu)) {
            gpu.caps.matrix = 0;
        }
        if gpu.caps.matrix == 0 && config.is_some_and(|c| c.device.precision != Precision::F32) {
            log::warn!(
                "device.precision is for matrix units; none are used on {}: products are of f32",
                gpu.summary.name
            );
        }
        Ok(gpu)
    }
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// A YAML file, or a preset's name (see `cqat presets`)
    #[arg(value_hint = ValueHint::FilePath)]
    config: String,
    /// Override one key, such as --set train.batch=64; may be repeated
    #[arg(long = "set", value_name = "KEY.PATH=VALUE")]
    sets: Vec<String>,
}

impl ConfigArgs {
    fn load(&self) -> Result<Config> {
        let config = Config::load(&self.config, &self.sets)?;
        setup::check(&config)?;
        Ok(config)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a network, or go on with a run
    Train(train::TrainArgs),
    /// Train many runs that differ in a few keys, and compare them
    Sweep(sweep::SweepArgs),
    /// Fold a quantized run into a file of integers
    Quantize(quantize::QuantizeArgs),
    /// Write a model for other tools
    Export(export::ExportArgs),
    /// Score a run, or a model, on the test pictures
    Eval(eval::EvalArgs),
    /// Classify pictures
    Infer(infer::InferArgs),
    /// Download or describe a data set
    #[command(subcommand)]
    Data(data::DataCommand),
    /// List the adapters
    Devices {
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Say what is wrong with adapters and drivers, and what to do
    Doctor(doctor::DoctorArgs),
    /// Show layers, kernels, memory and arithmetic of a configuration
    Plan(info::PlanArgs),
    /// Measure the training step of a configuration, or the inference of a model
    Bench(bench::BenchArgs),
    /// Find the fastest kernels of a configuration on this device, and remember them
    Tune(tune::TuneArgs),
    /// Check this device and driver against the CPU reference, or against reference dumps
    Selftest(selftest::SelftestArgs),
    /// Train the embedded pictures in float and at W5A4, and compare
    Demo(demo::DemoArgs),
    /// Show a run's curves and layers while it trains
    Watch(watch::WatchArgs),
    /// Show what differs between two runs: configuration, environment, results
    Compare(compare::CompareArgs),
    /// Show runs, or those of a sweep, on one HTML page: methods, curves, costs, layers, mistakes
    Report(report::ReportArgs),
    /// Quantize one layer at a time, and rank the layers by what that costs
    Sensitivity(sensitivity::SensitivityArgs),
    /// List the presets, or print one
    Presets {
        /// The preset to print
        #[arg(value_parser = PossibleValuesParser::new(crate::config::presets().iter().map(|p| p.0)))]
        name: Option<String>,
    },
    /// Print a completion script for a shell
    Completions(shell::CompletionsArgs),
    /// Print the manual page
    Man(shell::ManArgs),
}

/// Where runs lie that are given no other folder.
const RUNS: &str = "runs";

/// Where the data is looked for when nothing says.
const DEFAULT_DATA: &str = "data";

/// Where the data is: `--data`, then `CQAT_DATA` (which does not override `embedded`), then the configuration, then
/// `./data`.
fn data_location(option: Option<&PathBuf>, config: &Config) -> String {
    let embedded = config.data.dir.as_deref() == Some(crate::data::EMBEDDED);
    if let Some(dir) = option {
        return dir.display().to_string();
    }
    let environment = std::env::var("CQAT_DATA").ok().filter(|d| !d.is_empty() && !embedded);
    environment.or_else(|| config.data.dir.clone()).unwrap_or_else(|| DEFAULT_DATA.into())
}

impl Cli {
    /// Runs the command. `start` is when the process began.
    ///
    /// # Errors
    /// Whatever the command meets; see [`crate::ErrorKind`] for the exit codes.
    pub fn run(self, start: Instant) -> Result<()> {
        match self.command {
            Command::Train(args) => args.run(&self.global),
            Command::Sweep(args) => args.run(&self.global),
            Command::Quantize(args) => args.run(&self.global),
            Command::Export(args) => args.run(&self.global),
            Command::Eval(args) => args.run(&self.global),
            Command::Infer(args) => args.run(&self.global),
            Command::Data(command) => command.run(&self.global),
            Command::Devices { json } => info::devices(json, self.global.device.as_deref()),
            Command::Doctor(args) => args.run(&self.global),
            Command::Plan(args) => args.run(&self.global),
            Command::Bench(args) => args.run(&self.global, start),
            Command::Tune(args) => args.run(&self.global),
            Command::Selftest(args) => args.run(&self.global),
            Command::Demo(args) => args.run(&self.global),
            Command::Watch(args) => args.run(),
            Command::Compare(args) => args.run(),
            Command::Report(args) => args.run(&self.global),
            Command::Sensitivity(args) => args.run(&self.global),
            Command::Completions(args) => args.run(),
            Command::Man(args) => args.run(),
            Command::Presets { name } => info::presets(name.as_deref()),
        }
    }
}

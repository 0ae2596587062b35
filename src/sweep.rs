//! Sweeps: many runs of one base configuration, as a file describes them. docs/sweeps.md has the format and the folder.
//!
//! `file` reads, `expand` makes the runs and `start` the float runs that they share, `folder` knows what is done, `data` what it
//! was done with, `work` starts processes, `metrics` and `results` say what came out, `estimate` what is to come.

mod child;
mod data;
mod estimate;
mod expand;
mod failures;
mod file;
mod folder;
mod metrics;
mod names;
mod results;
mod shard;
mod show;
mod start;
mod work;

use std::path::Path;

use serde_yaml::Value;

use crate::Result;
use crate::config::Config;

pub use data::DataSets;
pub use estimate::Estimate;
pub use failures::failures;
pub use folder::{Folder, State};
pub use results::status;
pub use shard::Shard;
pub use show::duration;
pub use work::{Job, work};

/// Most runs of a sweep: more are a slip.
pub const MOST_RUNS: usize = 10_000;

/// The runs of a sweep, and what they have in common.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// The sweep's file, as messages call it.
    pub origin: String,
    /// The keys that are varied, in the file's order.
    pub keys: Vec<String>,
    /// The runs, in the file's order: of a grid the last key changes fastest.
    pub runs: Vec<Run>,
    /// The float runs that they share, but for those that are runs of the sweep themselves.
    pub starts: Vec<Run>,
}

/// A run of a sweep.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its name, which is its folder's.
    pub name: String,
    /// What it would be if it were trained alone: float epochs and all.
    pub config: Config,
    /// Name of the run whose float network it starts from, in place of its own float epochs.
    pub start: Option<String>,
}

impl Sweep {
    /// Reads the sweep `path`; `sets` are overrides of the base configuration, as for `--set`. Every configuration is checked.
    ///
    /// # Errors
    /// A file that cannot be read as a sweep, runs that are the same or cannot run, a key of `sets` that the sweep varies.
    pub fn read(path: &Path, sets: &[String]) -> Result<Sweep> {
        let mut sweep = expand::expand(&file::File::read(path)?, sets)?;
        sweep.starts = start::share(&mut sweep.runs)?;
        Ok(sweep)
    }

    /// The run called `name`, a shared float run too.
    pub fn run(&self, name: &str) -> Option<&Run> {
        self.starts.iter().chain(&self.runs).find(|run| run.name == name)
    }

    /// What it is, as YAML: the keys that are varied, and for each run its start and its values of them.
    ///
    /// # Errors
    /// None that a sweep can cause.
    pub fn to_yaml(&self) -> Result<String> {
        let values = |run: &Run| -> Result<Value> {
            let config = expand::as_value(&run.config)?;
            let pairs = self.keys.iter().map(|key| (Value::from(key.as_str()), expand::value_at(&config, key)));
            let mut entry = serde_yaml::Mapping::new();
            entry.insert("name".into(), run.name.as_str().into());
            entry.insert("float_start".into(), run.start.as_deref().map_or(Value::Null, Value::from));
            entry.insert("values".into(), Value::Mapping(pairs.collect()));
            Ok(Value::Mapping(entry))
        };
        let runs = self.runs.iter().map(values).collect::<Result<Vec<_>>>()?;
        let mut all = serde_yaml::Mapping::new();
        all.insert("format_version".into(), 1.into());
        all.insert("file".into(), self.origin.as_str().into());
        all.insert("runs".into(), Value::Sequence(runs));
        serde_yaml::to_string(&Value::Mapping(all))
            .map_err(|e| crate::Error::config("cannot write the sweep as YAML").caused_by(e))
    }
}

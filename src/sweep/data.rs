//! The data sets of a sweep, by their hashes: a folder's runs are trained on the same pictures, however often it is stopped.

use super::{Folder, State, Sweep};
use crate::config::{AugmentConfig, Config, DataConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::files::write_atomically;

/// What the runs of a sweep ask for, and the hashes of what was found. `state/data.sha256` has a line for each, `HASH  WISH`.
#[derive(Debug, Default)]
pub struct DataSets {
    found: Vec<(String, String)>,
}

/// What of a configuration decides which pictures are read.
pub(super) fn wish(config: &Config) -> DataConfig {
    DataConfig { validation: 0, subset: None, augment: AugmentConfig::default(), ..config.data.clone() }
}

fn line(data: &DataConfig) -> Result<String> {
    serde_json::to_string(data).map_err(|e| Error::config("cannot write a configuration").caused_by(e))
}

impl DataSets {
    /// Takes in what a run asks for. `hash` reads the data of a configuration; once for all runs that ask for the same.
    ///
    /// # Errors
    /// That of `hash`.
    pub fn look(&mut self, config: &Config, hash: impl FnOnce(&Config) -> Result<String>) -> Result<()> {
        let data = wish(config);
        let wished = line(&data)?;
        if !self.found.iter().any(|(known, _)| *known == wished) {
            let hash = hash(&Config { data, ..Config::default() })?;
            self.found.push((wished, hash));
        }
        Ok(())
    }

    /// Refuses other data than what runs of the folder were trained on, and keeps the hashes. `anew`: runs that begin again.
    ///
    /// # Errors
    /// Names a run that was trained on other data; a folder that cannot be read or written.
    pub(super) fn keep(&self, folder: &Folder, sweep: &Sweep, anew: &[&str]) -> Result<()> {
        let path = folder.path().join("state/data.sha256");
        let text = match std::fs::read_to_string(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            text => text.map_err(|e| {
                Error::training(format!("{} cannot be read", path.display())).hint("check its permissions").caused_by(e)
            })?,
        };
        let mut known: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once("  ")).collect();
        for (wished, hash) in &self.found {
            let differs = |&(other, known): &(&str, &str)| known == wished && other != hash;
            if known.iter().any(differs)
                && let Some(name) = trained(folder, sweep, anew, wished)?
            {
                return Err(Error::data(format!(
                    "{} was trained on other data than this sweep is given",
                    folder.run(name).display()
                ))
                .hint("point --data at the data set that the sweep began with, or choose another folder with --out"));
            }
            known.retain(|(_, known)| known != wished);
            known.push((hash, wished));
        }
        let lines: String = known.iter().map(|(hash, wished)| format!("{hash}  {wished}\n")).collect();
        write_atomically(&path, lines.as_bytes(), ErrorKind::Training)
    }
}

/// A run that asks for this and has seen pictures.
fn trained<'s>(folder: &Folder, sweep: &'s Sweep, anew: &[&str], wished: &str) -> Result<Option<&'s str>> {
    for run in sweep.starts.iter().chain(&sweep.runs).filter(|run| !anew.contains(&run.name.as_str())) {
        let has_begun = !matches!(folder.state(&run.name), State::Pending | State::Failed(_));
        if has_begun && line(&wish(&run.config))? == wished {
            return Ok(Some(&run.name));
        }
    }
    Ok(None)
}

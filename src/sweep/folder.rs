//! The folder of a sweep: run folders, logs, what is known of each run, and who is at work on it.
//!
//! `NAME/` is a run folder, `NAME.log` what its processes said. Under `state/`, `NAME.yaml` is the run's configuration, `NAME.json`
//! how it ended, and `NAME.lock` is locked by the process that works on it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{DataSets, Run, Sweep};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::files::{remove_half_written, write_atomically};
use crate::locks::{self, Lock};
use crate::run::{RunFolder, now};

/// First line of `sweep.yaml`, by which it is known as this program's.
const HEADER: &str = "# Written by cqat sweep: the runs of this folder.\n";

/// The folder of a sweep.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
}

/// Where a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing of it has been trained.
    Pending,
    /// A process works on it.
    Training,
    /// It has a checkpoint to go on from.
    Stopped,
    /// All epochs are done.
    Finished,
    /// It ended with this error.
    Failed(String),
}

impl State {
    /// Its name in tables.
    pub fn name(&self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Training => "training",
            State::Stopped => "stopped",
            State::Finished => "finished",
            State::Failed(_) => "failed",
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    format_version: u32,
    /// What went wrong; null where nothing did.
    pub(super) error: Option<String>,
    /// What to do about it.
    pub(super) hint: Option<String>,
    /// Seconds since 1970.
    ended: u64,
}

impl Record {
    /// Of a run that ended now.
    pub(super) fn now(error: Option<String>, hint: Option<String>) -> Record {
        Record { format_version: 1, error, hint, ended: now() }
    }
}

/// Keeps other sweeps from a run, or from `results.csv`, while it lives.
#[derive(Debug)]
pub(super) struct Claim {
    _file: Option<std::fs::File>,
}

impl Folder {
    /// The folder `path`, which may not exist yet.
    pub fn new(path: &Path) -> Folder {
        Folder { path: path.to_path_buf() }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The run folder of the run `name`.
    pub fn run(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// What the processes of the run `name` said.
    pub fn log(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.log"))
    }

    /// The table of all runs.
    pub fn results(&self) -> PathBuf {
        self.path.join("results.csv")
    }

    /// The configuration that the run `name` has here.
    pub(super) fn config(&self, name: &str) -> PathBuf {
        self.path.join("state").join(format!("{name}.yaml"))
    }

    fn record_file(&self, name: &str) -> PathBuf {
        self.path.join("state").join(format!("{name}.json"))
    }

    /// Makes the folder ready for `sweep`, to be trained on `data`. Runs that are here with another configuration are refused, or
    /// with `force` removed: all of them, or none where one is being trained.
    ///
    /// # Errors
    /// Names them; files of somebody else's; runs that were trained on other data; a folder that cannot be written.
    pub fn prepare(&self, sweep: &Sweep, data: &DataSets, force: bool) -> Result<()> {
        self.refuse_foreign(sweep)?;
        let made = std::fs::create_dir_all(self.path.join("state"));
        made.map_err(|e| {
            Error::training(format!("the folder {} cannot be made", self.path.display()))
                .hint("choose a folder you may write with --out DIR")
                .caused_by(e)
        })?;
        // Of shards that begin at once the first removes what has changed, and the others find it gone or begun anew.
        let _held = self.hold("sweep")?;
        let changed: Vec<&str> = self.changed(sweep)?.iter().map(|run| run.name.as_str()).collect();
        if !force && !changed.is_empty() {
            return Err(Error::config(format!(
                "{} has runs of other configurations than {} says: {}",
                self.path.display(),
                sweep.origin,
                changed.join(", ")
            ))
            .hint("choose another folder with --out, undo the change, or train those runs anew, and lose what they are, with --force"));
        }
        remove_half_written(&self.path, |stem| ["results", "sweep"].contains(&stem));
        remove_half_written(&self.path.join("state"), |_| true);
        data.keep(self, sweep, &changed)?;
        let claims = changed.iter().map(|name| self.claim_to_remove(name)).collect::<Result<Vec<_>>>()?;
        changed.iter().try_for_each(|name| self.remove(name))?;
        drop(claims);
        let text = format!("{HEADER}{}", sweep.to_yaml()?);
        write_atomically(&self.path.join("sweep.yaml"), text.as_bytes(), ErrorKind::Training)
    }

    /// The runs of `sweep` that are here with another configuration.
    ///
    /// # Errors
    /// A configuration that cannot be read: whether it is another is not known.
    pub fn changed<'s>(&self, sweep: &'s Sweep) -> Result<Vec<&'s Run>> {
        let mut changed = Vec::new();
        for run in sweep.starts.iter().chain(&sweep.runs) {
            let path = self.config(&run.name);
            let unread = || Error::training(format!("{} cannot be read as a configuration", path.display()));
            let text = match std::fs::read_to_string(&path) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                text => text.map_err(|e| unread().hint("check its permissions").caused_by(e))?,
            };
            let config = Config::from_yaml(&text, &path.display().to_string(), &[]).map_err(|e| {
                unread()
                    .hint("a newer program wrote it, or it is damaged: use that program, or choose another folder with --out")
                    .caused_by(e)
            })?;
            if config.outcome() != run.config.outcome() {
                changed.push(run);
            }
        }
        Ok(changed)
    }

    /// Refuses to write over files that no sweep made.
    fn refuse_foreign(&self, sweep: &Sweep) -> Result<()> {
        let starts_with = |name: &str, start: &str| {
            std::fs::read(self.path.join(name)).map_or(true, |bytes| bytes.starts_with(start.as_bytes()))
        };
        let all = sweep.starts.iter().chain(&sweep.runs);
        let is_foreign = |run: &&Run| self.run(&run.name).exists() && !self.config(&run.name).exists();
        let found = all.filter(is_foreign).map(|run| run.name.clone()).next();
        let found = found
            .or_else(|| (!starts_with("sweep.yaml", HEADER)).then(|| "sweep.yaml".into()))
            .or_else(|| (!starts_with("results.csv", super::results::FIRST)).then(|| "results.csv".into()));
        match found {
            Some(name) => Err(Error::training(format!(
                "{} was not made by a sweep and would be overwritten",
                self.path.join(name).display()
            ))
            .hint("choose another folder with --out, or move it away")),
            None => Ok(()),
        }
    }

    /// Takes a run that is to be removed for this process.
    fn claim_to_remove(&self, name: &str) -> Result<Claim> {
        let claim = self.claim(name)?.filter(|_| !RunFolder::is_being_trained(&self.run(name)));
        claim.ok_or_else(|| {
            Error::training(format!("another process is training {}", self.run(name).display()))
                .hint("wait until it ends, or interrupt it")
        })
    }

    /// Removes a run, which is claimed, and all that is known of it.
    fn remove(&self, name: &str) -> Result<()> {
        let gone = |done: std::io::Result<()>| match done {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::training(format!("{} cannot be removed", self.run(name).display()))
                    .hint("check its permissions")
                    .caused_by(e))
            }
            _ => Ok(()),
        };
        gone(std::fs::remove_dir_all(self.run(name)))?;
        gone(std::fs::remove_file(self.log(name)))?;
        gone(std::fs::remove_file(self.record_file(name)))?;
        gone(std::fs::remove_file(self.config(name))) // last: while it is there the run is known to be another
    }

    /// Where the run `name` is.
    pub fn state(&self, name: &str) -> State {
        match locks::is_taken(&self.lock(name)) {
            true => State::Training,
            false => self.state_at_rest(name),
        }
    }

    /// As [`Folder::state`], of a run that nobody else works on.
    pub(super) fn state_at_rest(&self, name: &str) -> State {
        let has = |file: &str| self.run(name).join(file).exists();
        let (has_checkpoint, record) = (has("last.safetensors"), self.record(name));
        let had_checkpoint = has("float.safetensors") || record.is_some() && self.run(name).exists();
        match record {
            Some(Record { error: Some(error), .. }) => State::Failed(error),
            _ if had_checkpoint && !has_checkpoint => State::Failed("its last.safetensors is gone".into()),
            Some(_) if has_checkpoint => State::Finished,
            _ if has_checkpoint => State::Stopped,
            _ => State::Pending,
        }
    }

    /// How the run `name` ended, where it has. A record that cannot be read says nothing.
    fn record(&self, name: &str) -> Option<Record> {
        serde_json::from_slice(&std::fs::read(self.record_file(name)).ok()?).ok()
    }

    /// Keeps how the run `name` ended.
    ///
    /// # Errors
    /// A failure to write.
    pub(super) fn keep_record(&self, name: &str, record: &Record) -> Result<()> {
        let text = serde_json::to_string_pretty(record)
            .map_err(|e| Error::training("the record of a run cannot be encoded").caused_by(e))?;
        write_atomically(&self.record_file(name), (text + "\n").as_bytes(), ErrorKind::Training)
    }

    /// Prepares the start of a run: its configuration is written, and how it ended before is forgotten.
    ///
    /// # Errors
    /// A failure to write.
    pub(super) fn begin(&self, run: &Run) -> Result<()> {
        match std::fs::remove_file(self.record_file(&run.name)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::training(format!("{} cannot be removed", self.record_file(&run.name).display()))
                    .hint("check its permissions")
                    .caused_by(e));
            }
            _ => {}
        }
        write_atomically(&self.config(&run.name), run.config.to_yaml()?.as_bytes(), ErrorKind::Training)
    }

    /// Takes the run `name` for this process; `None` where another has it.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub(super) fn claim(&self, name: &str) -> Result<Option<Claim>> {
        let path = self.lock(name);
        match locks::take(&path).map_err(|e| unwritable(&path, e))? {
            Lock::Held(file) => Ok(Some(Claim { _file: Some(file) })),
            Lock::Taken => Ok(None),
            Lock::Missing(e) => {
                log::warn!("{} cannot be locked ({e}): run one sweep at a time in this folder", path.display());
                Ok(Some(Claim { _file: None }))
            }
        }
    }

    /// Keeps `what` of the folder to this process, `results` or `sweep`: whoever looked last writes last.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub(super) fn hold(&self, what: &str) -> Result<std::fs::File> {
        let path = self.lock(what);
        locks::wait(&path).map_err(|e| unwritable(&path, e))
    }

    fn lock(&self, name: &str) -> PathBuf {
        self.path.join("state").join(format!("{name}.lock"))
    }
}

fn unwritable(path: &Path, e: std::io::Error) -> Error {
    Error::training(format!("{} cannot be written", path.display()))
        .hint("check that the disk has room and the folder is writable")
        .caused_by(e)
}

//! The run folder: `config.yaml`, `manifest.json`, `metrics.jsonl`, `last.safetensors`, `float.safetensors`, `run.lock`,
//! `tensorboard/`.

mod events;
mod manifest;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

pub use manifest::{Manifest, Resumed, Versions};

use crate::config::Config;
use crate::files::write_atomically;
use crate::locks::{self, Lock};
use crate::terminal::shell_word;
use crate::{Error, ErrorKind, Result};

/// Version of `metrics.jsonl` and `manifest.json`.
pub const FORMAT_VERSION: u32 = 1;

/// Bytes of a file in which its version is looked for.
const LONGEST_START: u64 = 1 << 20;

/// Sections of a configuration that is written whole, the last one last.
const SECTIONS: [&str; 5] = ["data", "network", "train", "quant", "device"];

/// The files that a run has from its beginning.
const FIRST_FILES: [&str; 3] = ["manifest.json", "metrics.jsonl", "config.yaml"];

/// A folder that holds a run.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    metrics: Option<std::fs::File>,
    /// Held while this process trains the run; the system lets go of it when the process ends, however it ends.
    lock: Option<std::fs::File>,
    events: Option<events::Events>,
}

impl RunFolder {
    /// Makes a new run folder.
    ///
    /// # Errors
    /// A folder that holds a run already, or cannot be written.
    pub fn create(path: &Path, config: &Config, manifest: &Manifest) -> Result<RunFolder> {
        Self::check_free(path)?;
        std::fs::create_dir_all(path).map_err(|e| {
            Error::training(format!("the run folder {} cannot be made", path.display()))
                .hint("choose a folder you may write with --out DIR")
                .caused_by(e)
        })?;
        let mut run = RunFolder { path: path.to_path_buf(), metrics: None, lock: None, events: None };
        run.lock()?;
        Self::check_free(path)?; // another process may have been faster
        run.fill(config, manifest).inspect_err(|_| {
            for file in FIRST_FILES {
                let _ = std::fs::remove_file(run.file(file));
            }
        })?;
        Ok(run)
    }

    /// Writes what every run has from its beginning.
    fn fill(&mut self, config: &Config, manifest: &Manifest) -> Result<()> {
        write_atomically(&self.file("manifest.json"), to_json(manifest)?.as_bytes(), ErrorKind::Training)?;
        self.metrics = Some(self.open_metrics(0)?);
        self.begin_events(0)?;
        // Last, because its presence says that the folder holds a run.
        write_atomically(&self.file("config.yaml"), config.to_yaml()?.as_bytes(), ErrorKind::Training)
    }

    /// Refuses a folder that holds a run, or files that a run would overwrite.
    ///
    /// # Errors
    /// Names the files.
    pub fn check_free(path: &Path) -> Result<()> {
        let checkpoints = ["float.safetensors", "last.safetensors"];
        let found: Vec<&str> =
            FIRST_FILES.into_iter().chain(checkpoints).filter(|file| path.join(file).exists()).collect();
        if !found.is_empty() && !found.contains(&"config.yaml") {
            return Err(Error::training(format!(
                "{} holds {}, which a new run would overwrite",
                path.display(),
                found.join(" and ")
            ))
            .hint("choose another folder with --out, or move the files away"));
        }
        if !found.is_empty() {
            return Err(Error::training(format!("{} already holds a run", path.display())).hint(format!(
                "go on with it: cqat train --resume {}; or choose another folder with --out",
                shell_word(path)
            )));
        }
        Ok(())
    }

    /// The configuration in `config.yaml`.
    ///
    /// # Errors
    /// A file that cannot be read as one, or that is cut short: every section is there when it is written.
    pub fn config(&self) -> Result<Config> {
        let path = self.file("config.yaml");
        let text = std::fs::read_to_string(&path).map_err(|e| {
            Error::training(format!("{} cannot be read", path.display()))
                .hint("check the path and its permissions")
                .caused_by(e)
        })?;
        let config = Config::from_yaml(&text, &path.display().to_string(), &[])?;
        let begins = |section: &str| text.lines().any(|l| l.strip_prefix(section) == Some(":"));
        match SECTIONS.iter().find(|section| !begins(section)) {
            None => Ok(config),
            Some(section) => Err(Error::training(format!(
                "{} has no section `{section}`, expected the whole configuration of a run: it is damaged or cut short",
                path.display()
            ))
            .hint("restore the file; weights can be scored without it: `cqat eval` takes the checkpoint alone")),
        }
    }

    /// The hash of its data, as `manifest.json` has it; a manifest that is lost or damaged says nothing.
    pub fn data_sha256(&self) -> Option<String> {
        let manifest: Value = serde_json::from_slice(&std::fs::read(self.file("manifest.json")).ok()?).ok()?;
        manifest["data_sha256"].as_str().map(String::from)
    }

    /// Opens the folder of an existing run for reading.
    ///
    /// # Errors
    /// A folder without a run, or with one of a newer program.
    pub fn open(path: &Path) -> Result<RunFolder> {
        if !path.join("config.yaml").is_file() {
            return Err(Error::training(format!("{} is not a run folder: it has no config.yaml", path.display()))
                .hint("a run folder is what `cqat train` printed as `run folder`; runs lie under runs/ by default"));
        }
        let run = RunFolder { path: path.to_path_buf(), metrics: None, lock: None, events: None };
        run.refuse_newer()?;
        Ok(run)
    }

    /// Opens the folder of an existing run and keeps other processes from training it.
    ///
    /// # Errors
    /// As [`RunFolder::open`], and a run that another process trains.
    pub fn open_for_training(path: &Path) -> Result<RunFolder> {
        let mut run = Self::open(path)?;
        run.lock()?;
        Ok(run)
    }

    /// Whether a process trains the run in `path`.
    pub fn is_being_trained(path: &Path) -> bool {
        locks::is_taken(&path.join("run.lock"))
    }

    /// Removes what a process left behind that ended before its run's first checkpoint, so that the run can begin again. Nothing
    /// that was trained is lost: a folder with a checkpoint stays as it is.
    ///
    /// # Errors
    /// A file that cannot be removed.
    pub fn clear_unstarted(path: &Path) -> Result<()> {
        let run = RunFolder { path: path.to_path_buf(), metrics: None, events: None, lock: None };
        if run.last().exists() || run.float().exists() {
            return Ok(());
        }
        let Ok(entries) = std::fs::read_dir(path) else { return Ok(()) };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if FIRST_FILES.contains(&name.as_str()) || is_temporary(&name) {
                std::fs::remove_file(entry.path()).map_err(|e| run.unwritable(&name, e))?;
            }
        }
        Ok(())
    }

    /// Two processes on one run would cut off each other's metrics and remove each other's files.
    fn lock(&mut self) -> Result<()> {
        match locks::take(&self.file("run.lock")).map_err(|e| self.unwritable("run.lock", e))? {
            Lock::Held(file) => self.lock = Some(file),
            Lock::Taken => {
                return Err(Error::training(format!("another process is training {}", self.path.display()))
                    .hint("wait until it ends, or interrupt it; a new run needs a folder of its own"));
            }
            Lock::Missing(e) => {
                log::warn!("{} cannot be locked ({e}): train it from one process only", self.path.display());
            }
        }
        Ok(())
    }

    /// Prepares an existing run for more training: metrics written after the checkpoint are cut off, half-written files of
    /// a killed process are removed, and `manifest.json` records where the run goes on.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn reopen(&mut self, metrics_bytes: u64, resumed: &Resumed) -> Result<()> {
        self.record(resumed)?;
        let entries = std::fs::read_dir(&self.path).map_err(|e| self.unwritable("", e))?;
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_temporary(&name) {
                std::fs::remove_file(entry.path()).map_err(|e| self.unwritable(&name, e))?;
            }
        }
        self.metrics = Some(self.open_metrics(metrics_bytes)?);
        Ok(())
    }

    /// Adds to the manifest, and warns where bits may differ from those of the run so far.
    fn record(&self, resumed: &Resumed) -> Result<()> {
        let path = self.file("manifest.json");
        let damaged = || {
            Error::training(format!("{} cannot be read", path.display()))
                .hint("the file is damaged: restore it, or remove it to go on without")
        };
        let unreadable = |e| {
            Error::training(format!("{} cannot be read", path.display())).hint("check its permissions").caused_by(e)
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                format!("{{ \"format_version\": {FORMAT_VERSION} }}")
            }
            Err(e) => return Err(unreadable(e)),
        };
        let mut manifest: Value = serde_json::from_str(&text).map_err(|e| damaged().caused_by(e))?;
        let Some(fields) = manifest.as_object_mut() else { return Err(damaged()) };
        let now = serde_json::to_value(resumed).map_err(|e| damaged().caused_by(e))?;
        for (what, key) in [("adapter", "name"), ("driver", "driver_info")] {
            let before = fields.get("adapter").map(|a| a[key].clone()).filter(|v| *v != now["adapter"][key]);
            if let Some(before) = before {
                let after = &now["adapter"][key];
                log::warn!("the run began on {what} {before} and goes on with {after}: its bits may differ");
            }
        }
        match fields.entry("resumed").or_insert_with(|| json!([])) {
            Value::Array(list) => list.push(now),
            _ => return Err(damaged()),
        }
        write_atomically(&path, to_json(&manifest)?.as_bytes(), ErrorKind::Training)
    }

    /// Refuses a run that a newer program wrote, as any of its files says. One that is missing or damaged says nothing.
    fn refuse_newer(&self) -> Result<()> {
        let start = |name: &str| {
            let mut bytes = Vec::new();
            std::fs::File::open(self.file(name)).ok()?.take(LONGEST_START).read_to_end(&mut bytes).ok()?;
            Some((self.file(name), String::from_utf8_lossy(&bytes).into_owned()))
        };
        if let Some((path, text)) = start("config.yaml") {
            Config::refuse_newer(&text, &path.display().to_string())?;
        }
        let manifest = start("manifest.json");
        let header = start("metrics.jsonl").map(|(path, text)| (path, text.lines().next().unwrap_or("").to_string()));
        for (path, text) in [manifest, header].into_iter().flatten() {
            serde_json::from_str(&text).map_or(Ok(()), |file| refuse_newer(&path, &file))?;
        }
        Ok(())
    }

    fn open_metrics(&self, keep: u64) -> Result<std::fs::File> {
        let path = self.file("metrics.jsonl");
        let attempt = || -> std::io::Result<std::fs::File> {
            let mut f = std::fs::OpenOptions::new().create(true).write(true).truncate(false).open(&path)?;
            let length = f.metadata()?.len();
            f.set_len(keep.min(length))?;
            std::io::Seek::seek(&mut f, std::io::SeekFrom::End(0))?;
            if length < keep {
                log::warn!("{} is shorter than it was: lines are missing from it", path.display());
            }
            if keep.min(length) == 0 {
                writeln!(f, "{}", json!({ "kind": "header", "format_version": FORMAT_VERSION }))?;
            }
            Ok(f)
        };
        attempt().map_err(|e| self.unwritable("metrics.jsonl", e))
    }

    fn unwritable(&self, name: &str, e: std::io::Error) -> Error {
        Error::training(format!("{} cannot be written", self.file(name).display()))
            .hint("check that the disk has room and the folder is writable, then resume the run")
            .caused_by(e)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The newest checkpoint.
    pub fn last(&self) -> PathBuf {
        self.file("last.safetensors")
    }

    /// The end of the float phase.
    pub fn float(&self) -> PathBuf {
        self.file("float.safetensors")
    }

    /// Appends a line to `metrics.jsonl`, and its numbers to the events.
    ///
    /// # Errors
    /// A failure to write.
    pub fn log(&mut self, line: &Value) -> Result<()> {
        let Some(f) = &mut self.metrics else { return Ok(()) };
        // In one piece: a process that is killed leaves no half line behind if it can be helped.
        let done = f.write_all(format!("{line}\n").as_bytes());
        done.map_err(|e| self.unwritable("metrics.jsonl", e))?;
        self.tell_line(line)
    }

    /// Bytes of `metrics.jsonl`, all of it on disk.
    ///
    /// # Errors
    /// A failure to flush.
    pub fn metrics_bytes(&self) -> Result<u64> {
        let Some(f) = &self.metrics else { return Ok(0) };
        let length = f.sync_all().and_then(|()| f.metadata()).map(|m| m.len());
        length.map_err(|e| self.unwritable("metrics.jsonl", e))
    }
}

/// Whether `write_atomically` makes files of this name for those of a run: `last.1234.tmp`.
fn is_temporary(name: &str) -> bool {
    let parts: Vec<&str> = name.split('.').collect();
    matches!(parts[..], ["last" | "float" | "manifest" | "config", id, "tmp"] if id.bytes().all(|b| b.is_ascii_digit()))
}

/// Refuses what a newer program wrote.
fn refuse_newer(path: &Path, file: &Value) -> Result<()> {
    match file["format_version"].as_u64() {
        Some(version) if version > u64::from(FORMAT_VERSION) => Err(Error::training(format!(
            "{} has format_version {version}, this program reads at most {FORMAT_VERSION}",
            path.display()
        ))
        .hint("use the version of cqat that wrote it")),
        _ => Ok(()),
    }
}

fn to_json(v: &impl Serialize) -> Result<String> {
    serde_json::to_string_pretty(v)
        .map(|s| s + "\n")
        .map_err(|e| Error::training("the manifest cannot be encoded").caused_by(e))
}

/// The leaves of `value` below `path`; a list is a leaf.
pub(crate) fn leaves(path: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            leaves(&path, value, into);
        }),
        // A configuration's numbers are f32, which JSON widens.
        Value::Number(n) if n.as_f64().is_some_and(|v| n.is_f64() && f64::from(v as f32) == v) => {
            let short: f64 = (n.as_f64().unwrap_or_default() as f32).to_string().parse().unwrap_or_default();
            into.insert(path.to_string(), json!(short));
        }
        leaf => drop(into.insert(path.to_string(), leaf.clone())),
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

//! The run folder: `config.yaml`, `manifest.json`, `metrics.jsonl`, `last.safetensors`, `float.safetensors`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use crate::config::Config;
use crate::gpu::AdapterSummary;
use crate::safetensors_io::write_atomically;
use crate::{Error, Result};

/// Version of `metrics.jsonl` and `manifest.json`.
pub const FORMAT_VERSION: u32 = 1;

/// A folder that holds a run.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    metrics: Option<std::fs::File>,
}

/// What `manifest.json` records.
#[derive(Debug, Clone, Serialize)]
pub struct Manifest<'a> {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Program version.
    pub program: String,
    /// Adapter, driver.
    pub adapter: &'a AdapterSummary,
    /// Name of the data set.
    pub data: &'a str,
    /// Its hash.
    pub data_sha256: &'a str,
    /// The command line.
    pub command: Vec<String>,
    /// Seconds since 1970.
    pub started: u64,
}

impl RunFolder {
    /// Makes a new run folder.
    ///
    /// # Errors
    /// A folder that holds a run already, or cannot be written.
    pub fn create(path: &Path, config: &Config, manifest: &Manifest) -> Result<RunFolder> {
        if path.join("config.yaml").exists() {
            return Err(Error::training(format!("{} already holds a run", path.display())).hint(format!(
                "go on with it: cqat train --resume {}; or choose another folder with --out",
                path.display()
            )));
        }
        std::fs::create_dir_all(path).map_err(|e| {
            Error::training(format!("the run folder {} cannot be made", path.display()))
                .hint("choose a folder you may write with --out DIR")
                .caused_by(e)
        })?;
        let mut run = RunFolder { path: path.to_path_buf(), metrics: None };
        write_atomically(&run.file("manifest.json"), to_json(manifest)?.as_bytes())?;
        run.metrics = Some(run.open_metrics(0)?);
        run.log(&json!({ "kind": "header", "format_version": FORMAT_VERSION }))?;
        // Last, because its presence says that the folder holds a run.
        write_atomically(&run.file("config.yaml"), config.to_yaml()?.as_bytes())?;
        Ok(run)
    }

    /// Opens the folder of an existing run for reading.
    ///
    /// # Errors
    /// A folder without a run.
    pub fn open(path: &Path) -> Result<RunFolder> {
        if !path.join("config.yaml").is_file() {
            return Err(Error::training(format!("{} is not a run folder: it has no config.yaml", path.display()))
                .hint("a run folder is what `cqat train` printed as `run folder`; runs lie under runs/ by default"));
        }
        Ok(RunFolder { path: path.to_path_buf(), metrics: None })
    }

    /// Prepares an existing run for more training: metrics written after the checkpoint are cut off.
    ///
    /// # Errors
    /// A metrics file that cannot be opened.
    pub fn reopen_metrics(&mut self, bytes: u64) -> Result<()> {
        self.metrics = Some(self.open_metrics(bytes)?);
        Ok(())
    }

    fn open_metrics(&self, keep: u64) -> Result<std::fs::File> {
        let path = self.file("metrics.jsonl");
        let attempt = || -> std::io::Result<std::fs::File> {
            let mut f = std::fs::OpenOptions::new().create(true).write(true).truncate(false).open(&path)?;
            let length = f.metadata()?.len();
            f.set_len(keep.min(length))?;
            std::io::Seek::seek(&mut f, std::io::SeekFrom::End(0))?;
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

    /// Appends a line to `metrics.jsonl`.
    ///
    /// # Errors
    /// A failure to write.
    pub fn log(&mut self, line: &Value) -> Result<()> {
        let Some(f) = &mut self.metrics else { return Ok(()) };
        let done = writeln!(f, "{line}");
        done.map_err(|e| self.unwritable("metrics.jsonl", e))
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

fn to_json(v: &impl Serialize) -> Result<String> {
    serde_json::to_string_pretty(v)
        .map(|s| s + "\n")
        .map_err(|e| Error::training("the manifest cannot be encoded").caused_by(e))
}

/// Seconds since 1970.
pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

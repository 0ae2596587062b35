//! The runs of a report, read from their folders. What is missing or damaged is noted, and the rest is shown.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::config::{Config, Method};
use crate::cost::Cost;
use crate::run::RunFolder;
use crate::setup::network;
use crate::sweep::MOST_RUNS;
use crate::{Error, Result, files};

/// Entries of a folder that are looked through: of a sweep, a run folder and a log each, and what all share.
const MOST_ENTRIES: usize = 2 * MOST_RUNS + 100;

/// Scores of an epoch on one split.
#[derive(Debug, Clone)]
pub struct Epoch {
    /// Epochs of the whole run up to its end; where a network was only calibrated, those before.
    pub at: u32,
    /// `float` or `quant`.
    pub phase: String,
    /// `train`, `val` or `test`.
    pub split: String,
    /// Mean loss.
    pub loss: f64,
    /// Top-1 in percent.
    pub top1: f64,
    /// Top-5 in percent.
    pub top5: f64,
    /// Pictures that were scored.
    pub samples: f64,
}

/// What a quantized epoch says of one tensor.
#[derive(Debug, Clone)]
pub struct Trace {
    /// Name of the layer.
    pub layer: String,
    /// `weight` or `activation`.
    pub tensor: String,
    /// Epochs of the whole run up to then.
    pub at: u32,
    /// Value of a code.
    pub scale: Option<f64>,
    /// Share of the values above the top code, 0 to 1.
    pub saturated: Option<f64>,
    /// Share of the gradient that the mask stops, 0 to 1.
    pub blocked: Option<f64>,
}

/// A run as a report needs it.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its folder.
    pub path: PathBuf,
    /// Name of the folder.
    pub name: String,
    /// Its configuration.
    pub config: Config,
    /// Name of its data set.
    pub data: String,
    /// Hash of the data set.
    pub data_sha256: String,
    /// Adapter and driver that it was trained on.
    pub adapter: String,
    /// The folder of the run that it starts from, where that is found.
    pub start: Option<PathBuf>,
    /// Top-1 in percent of that run's float network, on the pictures of this run's score.
    pub start_top1: Option<f64>,
    /// Scores in the order of the epochs.
    pub epochs: Vec<Epoch>,
    /// Quantizers after each quantized epoch.
    pub traces: Vec<Trace>,
    /// Costs of its network.
    pub cost: Cost,
    /// Whether all its epochs are done.
    pub finished: bool,
    /// What is missing or damaged.
    pub notes: Vec<String>,
}

impl Run {
    /// Reads a run folder.
    ///
    /// # Errors
    /// A folder without a configuration, or of a newer program; everything else becomes a note.
    pub fn read(path: &Path) -> Result<Run> {
        let folder = RunFolder::open(path)?;
        let config = folder.config()?;
        config.validate()?;
        let mut notes = Vec::new();
        let mut text = |name: &str| match std::fs::read(folder.file(name)) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) => {
                notes.push(format!("{name} cannot be read: {e}"));
                String::new()
            }
        };
        let metrics = text("metrics.jsonl");
        let manifest: Value = serde_json::from_str(&text("manifest.json")).unwrap_or_default();
        if manifest.is_null() {
            notes.push("manifest.json says nothing: adapter and data set are unknown".into());
        }
        if !folder.last().exists() {
            notes.push("no checkpoint: it stopped before its first step, or the file was removed".into());
        }
        let lines: Vec<Value> = metrics.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if lines.len() < metrics.lines().count() {
            let lost = metrics.lines().count() - lines.len();
            notes.push(format!("{lost} lines of metrics.jsonl cannot be read and are left out"));
        }
        let epochs: Vec<Epoch> = lines.iter().filter_map(|line| epoch(line, &config)).collect();
        if !epochs.iter().any(|e| e.split != "train") {
            notes.push("no epoch has been scored".into());
        }
        if let Some(float) = score(&epochs).filter(|e| !is_of(e, &config)) {
            notes.push(format!("in its float phase, at top-1 {:.2} %", float.top1));
        }
        let (net, spec) = network(&config, config.expected_classes())?;
        let start = start_folder(path, &config);
        let known = |value: &Value| value.as_str().unwrap_or("unknown").to_string();
        let adapter = &manifest["adapter"];
        let driver = [&adapter["driver"], &adapter["driver_info"]].map(|v| v.as_str().unwrap_or("")).join(" ");
        // Of unknown data each run has its own.
        let data_sha256 = manifest["data_sha256"].as_str().map_or_else(|| path.display().to_string(), String::from);
        let start_top1 = start.as_deref().and_then(|folder| float_top1_in(folder, score(&epochs)?, &data_sha256));
        Ok(Run {
            path: path.to_path_buf(),
            name: name_of(path),
            data: known(&manifest["data"]),
            data_sha256,
            adapter: format!("{} {}", known(&adapter["name"]), driver.trim()).trim().to_string(),
            finished: is_finished(&config, &epochs),
            traces: lines.iter().filter_map(|line| trace(line, &config)).collect(),
            cost: Cost::of(&net, spec.as_ref()),
            start_top1,
            start,
            config,
            epochs,
            notes,
        })
    }

    /// The last scores on pictures that it was not trained on, of what it is to become: a run that will quantize has none in its float
    /// phase.
    pub fn score(&self) -> Option<&Epoch> {
        score(&self.epochs).filter(|e| is_of(e, &self.config))
    }

    /// Top-1 in percent of the float network that it was quantized from, on the same pictures: its own, or that of its start.
    pub fn float_top1(&self) -> Option<f64> {
        float_top1(&self.epochs, &self.score()?.split).or(self.start_top1)
    }

    /// Method and bits: `cqat W5A4`, `float`.
    pub fn method(&self) -> String {
        let q = &self.config.quant;
        if q.method == Method::None {
            return "float".into();
        }
        format!("{} W{}A{}{}", q.method, q.weight_bits, q.activation_bits, self.training())
    }

    /// Method without bits: `cqat`, `lsq, post-training`, `float`.
    pub fn family(&self) -> String {
        match self.config.quant.method {
            Method::None => "float".into(),
            method => format!("{method}{}", self.training()),
        }
    }

    fn training(&self) -> &'static str {
        if self.config.train.quant_epochs == 0 { ", post-training" } else { "" }
    }

    /// Mean bits of a weight.
    pub fn mean_weight_bits(&self) -> f64 {
        let weights: u64 = self.cost.layers.iter().map(|l| l.weights).sum();
        self.cost.weight_memory_bits as f64 / weights.max(1) as f64
    }
}

/// Whether an epoch is of the phase that a run ends with.
fn is_of(epoch: &Epoch, config: &Config) -> bool {
    config.quant.method == Method::None || epoch.phase == "quant"
}

fn score(epochs: &[Epoch]) -> Option<&Epoch> {
    epochs.iter().rev().find(|e| e.split != "train")
}

fn float_top1(epochs: &[Epoch], split: &str) -> Option<f64> {
    epochs.iter().rev().find(|e| e.split == split && e.phase == "float").map(|e| e.top1)
}

/// That of the run in `folder`, where it was scored on the pictures of `own` of the data with this hash; its own start is not asked.
fn float_top1_in(folder: &Path, own: &Epoch, data_sha256: &str) -> Option<f64> {
    let run = RunFolder::open(folder).ok()?;
    (run.data_sha256()? == data_sha256).then_some(())?;
    let (config, metrics) = (run.config().ok()?, std::fs::read(run.file("metrics.jsonl")).ok()?);
    let lines = String::from_utf8_lossy(&metrics).into_owned();
    let lines = lines.lines().filter_map(|line| serde_json::from_str(line).ok());
    float_top1(&lines.filter_map(|line: Value| epoch(&line, &config)).collect::<Vec<_>>(), &own.split)
}

/// The folder of the run that `train.init_from` names, which may have moved together with the run at `path`.
fn start_folder(path: &Path, config: &Config) -> Option<PathBuf> {
    let start = config.train.init_from.as_ref()?;
    let named = if start.extension().is_some_and(|e| e == "safetensors") { start.parent()? } else { start };
    let beside = std::path::absolute(path).ok().and_then(|p| Some(p.parent()?.join(named.file_name()?)));
    [Some(named.to_path_buf()), beside].into_iter().flatten().find(|folder| folder.join("config.yaml").is_file())
}

/// The last name of a path, as far as it has one.
fn name_of(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    absolute.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

fn epochs_before(line: &Value, config: &Config) -> Option<u32> {
    let epoch = u32::try_from(line["epoch"].as_u64()?).ok()?;
    let before = if line["phase"] == "quant" { config.train.float_epochs } else { 0 };
    before.checked_add(epoch)
}

fn epoch(line: &Value, config: &Config) -> Option<Epoch> {
    let number = |key: &str| line[key].as_f64();
    (line["kind"] == "epoch").then_some(())?;
    Some(Epoch {
        at: epochs_before(line, config)?,
        phase: line["phase"].as_str()?.into(),
        split: line["split"].as_str()?.into(),
        loss: number("loss")?,
        top1: number("top1")?,
        top5: number("top5")?,
        samples: number("samples")?,
    })
}

fn trace(line: &Value, config: &Config) -> Option<Trace> {
    (line["kind"] == "layer").then_some(())?;
    Some(Trace {
        layer: line["layer"].as_str()?.into(),
        tensor: line["tensor"].as_str()?.into(),
        at: epochs_before(line, config)?,
        scale: line["scale"].as_f64(),
        saturated: line["saturated"].as_f64(),
        blocked: line["blocked"].as_f64(),
    })
}

/// Whether the last epoch of the configuration has been scored.
fn is_finished(config: &Config, epochs: &[Epoch]) -> bool {
    let t = &config.train;
    let quantizes = config.quant.method != Method::None;
    let (phase, last) =
        if quantizes { ("quant", t.float_epochs.saturating_add(t.quant_epochs)) } else { ("float", t.float_epochs) };
    epochs.iter().any(|e| e.split != "train" && e.phase == phase && e.at >= last)
}

/// The folders of runs that `paths` stand for: run folders, and those within a folder of runs. What is neither comes with its
/// error. No folder comes twice.
pub fn folders(paths: &[PathBuf]) -> Vec<(PathBuf, Option<Error>)> {
    let mut found: Vec<(PathBuf, Option<Error>)> = Vec::new();
    for path in paths {
        if is_begun(path) {
            found.push((path.clone(), None));
            continue;
        }
        let inside = files::list(path, MOST_ENTRIES).unwrap_or_default();
        if inside.len() > MOST_ENTRIES {
            let error = Error::training(format!("{} holds more than {MOST_ENTRIES} files and folders", path.display()))
                .hint("name the runs themselves, or move some to a folder of their own");
            found.push((path.clone(), Some(error)));
            continue;
        }
        let inside: Vec<PathBuf> = inside.into_iter().filter(|p| is_begun(p)).collect();
        if inside.is_empty() {
            let what = if path.exists() { "is no run folder and holds none" } else { "does not exist" };
            let error = Error::training(format!("{} {what}", path.display()))
                .hint("name run folders (`cqat train` prints them), or a folder that holds some");
            found.push((path.clone(), Some(error)));
        }
        found.extend(inside.into_iter().map(|path| (path, None)));
    }
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|(path, _)| seen.insert(std::fs::canonicalize(path).unwrap_or_else(|_| path.clone())));
    found
}

/// Whether a folder has a file of those that every run begins with.
fn is_begun(path: &Path) -> bool {
    ["config.yaml", "manifest.json", "metrics.jsonl"].iter().any(|name| path.join(name).is_file())
}

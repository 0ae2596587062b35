//! Checkpoints: safetensors with torchvision-style names, and everything needed to go on exactly where a run stopped.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::normalisation::Normalisation;
use crate::safetensors_io::{self, File, NamedTensor, Tensors};
use crate::score::Totals;
use crate::tensors::LIVE;
use crate::{Error, ErrorKind, Result};

/// Version of the tensors' names and of the metadata.
pub const FORMAT_VERSION: u32 = 2;
/// Key of the metadata.
const KEY: &str = "cqat";

/// Phase of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Float epochs.
    Float,
    /// Quantized epochs.
    Quant,
}

impl Phase {
    /// Name in metrics and messages.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Float => "float",
            Phase::Quant => "quant",
        }
    }
}

/// Where a run is: the next step to take.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Phase.
    pub phase: Phase,
    /// Epoch in the phase, from 0; the number of epochs at the end of the phase.
    pub epoch: u32,
    /// Step in the epoch, from 0; the number of steps when only the epoch's evaluation is left.
    pub step: u32,
    /// Steps taken since the run began.
    pub global_step: u64,
    /// Ranges and scales have been calibrated.
    pub calibrated: bool,
    /// Training metrics of the epoch so far.
    pub totals: Totals,
}

impl Position {
    /// The beginning.
    pub const START: Position = Position {
        phase: Phase::Float,
        epoch: 0,
        step: 0,
        global_step: 0,
        calibrated: false,
        totals: Totals { loss: 0.0, top1: 0.0, top5: 0.0, count: 0.0 },
    };
}

/// What a checkpoint says beside its tensors.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Meta {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Program version that wrote it.
    pub program: String,
    /// The resolved configuration, as YAML.
    pub config: String,
    /// Where the run is.
    pub position: Position,
    /// Time spent in the steps of the epoch so far.
    #[serde(default)]
    pub epoch_seconds: f64,
    /// Normalisation of the input.
    pub normalisation: Normalisation,
    /// Names of the data set's classes.
    #[serde(default)]
    pub class_names: Vec<String>,
    /// Hash of the data set.
    pub data_sha256: String,
    /// Length of `metrics.jsonl` at this point; a resumed run cuts the file back to it.
    pub metrics_bytes: u64,
}

/// A checkpoint.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Tensors.
    pub tensors: Tensors,
    /// Metadata.
    pub meta: Meta,
}

impl Checkpoint {
    /// Writes it atomically.
    ///
    /// # Errors
    /// Any failure to write; the old checkpoint is untouched.
    pub fn write(self, path: &Path) -> Result<()> {
        let text = serde_json::to_string(&self.meta)
            .map_err(|e| Error::training("the checkpoint's metadata cannot be encoded").caused_by(e))?;
        let metadata = [(KEY.to_string(), text)].into();
        safetensors_io::write(path, &File { tensors: self.tensors, metadata })
    }

    /// Reads it.
    ///
    /// # Errors
    /// A file that is damaged, of another program, or of a newer version, or that holds values that no run writes.
    pub fn read(path: &Path) -> Result<Checkpoint> {
        let file = safetensors_io::read(path, ErrorKind::Training)?;
        let foreign = || {
            Error::training(format!("{} is not a checkpoint of this program", path.display()))
                .hint("a float checkpoint of another program can be a start: --set train.init_from=FILE")
        };
        let text = file.metadata.get(KEY).ok_or_else(foreign)?;
        match version(text) {
            Some(v) if v == u64::from(FORMAT_VERSION) => {}
            Some(v) => return Err(other_version(path, v)),
            None => return Err(foreign()),
        }
        let meta: Meta = serde_json::from_str(text).map_err(|e| foreign().caused_by(e))?;
        if !meta.normalisation.is_usable() {
            return Err(Error::training(format!("{}: the normalisation of the input is impossible", path.display()))
                .hint("use another checkpoint"));
        }
        check_values(&file.tensors, path)?;
        Ok(Checkpoint { tensors: file.tensors, meta })
    }

    /// The configuration of its run.
    ///
    /// # Errors
    /// A configuration that this version does not accept.
    pub fn config(&self) -> Result<Config> {
        let config = Config::from_yaml(&self.meta.config, "the checkpoint's config", &[])?;
        config.validate()?;
        Ok(config)
    }
}

fn version(metadata: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(metadata).ok()?["format_version"].as_u64()
}

fn other_version(path: &Path, version: u64) -> Error {
    Error::training(format!("{} has format_version {version}, this program reads {FORMAT_VERSION}", path.display()))
        .hint("use the version of cqat that wrote it")
}

/// The tensors of a file that a run can start from: a checkpoint of this program (of an older version too, since the names
/// of parameters have stayed) or of another.
///
/// # Errors
/// A file that cannot be read or is of a newer version, values that no run writes.
pub fn start(path: &Path) -> Result<Tensors> {
    let file = safetensors_io::read(path, ErrorKind::Training)?;
    if let Some(v) = file.metadata.get(KEY).and_then(|text| version(text)).filter(|v| *v > u64::from(FORMAT_VERSION)) {
        return Err(other_version(path, v));
    }
    check_values(&file.tensors, path)?;
    Ok(file.tensors)
}

/// Refuses values that no run writes: NaN, infinity, a variance below 0, a scale that is not above 0.
///
/// # Errors
/// Names the file and the tensor.
fn check_values(tensors: &Tensors, path: &Path) -> Result<()> {
    let wrong = |(name, t): (&String, &NamedTensor)| {
        let plain = name.strip_prefix(LIVE).unwrap_or(name);
        let scale = plain.starts_with("quant.") && (name.ends_with(".scale") || name.ends_with(".inv_scale"));
        let any = |holds: fn(f32) -> bool| t.data.iter().any(|v| holds(*v));
        let what = match name {
            _ if !t.is_finite() => "values that are not finite",
            _ if scale && any(|v| v <= 0.0) => "a value that is not above 0, as every scale is",
            _ if name.ends_with("running_var") && any(|v| v < 0.0) => "a value below 0, which no variance is",
            _ => return None,
        };
        let name = name.escape_debug();
        Some(Error::training(format!("{}: {name} holds {what}", path.display())).hint("use another checkpoint"))
    };
    tensors.iter().find_map(wrong).map_or(Ok(()), Err)
}

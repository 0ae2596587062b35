//! Model files: an integer network with what it needs to be used elsewhere, as safetensors. docs/hardware.md has the format.
//!
//! Tensors: `NAME.codes` (U8, packed) and `NAME.scale` (F32) of every convolution and of the classifier; `NAME.mul` (I32), `NAME.shift`
//! (I32) and `NAME.bias` (I64) of what is requantized, `NAME.mul` of a projection, `NAME.shortcut` (I32) of a convolution to whose sums
//! codes are added; `input.codes` (I8). The metadata hold a manifest and its hash, and the manifest the hashes of all tensors.

mod codes;
mod manifest;
mod reader;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::digest::hexadecimal;
use crate::files::write_output;
use crate::integer::IntegerNet;
use crate::normalisation::Normalisation;
use crate::{Error, ErrorKind, Result};
pub(crate) use codes::{pack, stored_code};
use manifest::Manifest;

/// Version of the manifest and of the tensors' names.
pub const FORMAT_VERSION: u32 = 1;
/// Key of the metadata: the hash of the manifest, a line break, the manifest.
const KEY: &str = "cqat_model";
/// Largest file that is read: far above any network that this program trains.
const MAX_BYTES: u64 = 1 << 30;
/// Longest header of a safetensors file.
const MAX_HEADER: u64 = 100 << 20;

/// An integer network, and where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The network.
    pub net: IntegerNet,
    /// Names of the classes.
    pub class_names: Vec<String>,
    /// How pictures become numbers, before they become codes.
    pub normalisation: Normalisation,
    /// Where it comes from.
    pub source: Source,
}

/// Where a model comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Version of the program that folded it.
    pub program: String,
    /// The run, as it was named.
    pub run: String,
    /// Its configuration, as YAML.
    pub config: String,
    /// Hash of the data set that it was trained on.
    pub data_sha256: String,
}

/// A tensor of a model file.
#[derive(Debug, Clone, PartialEq)]
struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// Tensors by name.
type Tensors = BTreeMap<String, Tensor>;

fn hash(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

fn bug() -> Error {
    Error::training("the model cannot be encoded").hint("report this as a bug")
}

impl Model {
    /// The bytes of its file; of the same model they are the same.
    ///
    /// # Errors
    /// None that a network can cause.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let (manifest, tensors) = self.encoded();
        let text = serde_json::to_string(&manifest).map_err(|e| bug().caused_by(e))?;
        let text = format!("{}\n{text}", hash(text.as_bytes()));
        let mut views = Vec::new();
        for (name, t) in &tensors {
            let view = TensorView::new(t.dtype, t.shape.clone(), &t.bytes).map_err(|e| bug().caused_by(e))?;
            views.push((name.as_str(), view));
        }
        safetensors::serialize(views, Some([(KEY.to_string(), text)].into())).map_err(|e| bug().caused_by(e))
    }

    /// Its manifest, with the hashes of the tensors in its file.
    ///
    /// # Errors
    /// As [`Model::to_bytes`].
    pub fn manifest(&self) -> Result<serde_json::Value> {
        let (manifest, _) = self.encoded();
        serde_json::to_value(manifest).map_err(|e| bug().caused_by(e))
    }

    fn encoded(&self) -> (Manifest, Tensors) {
        let (mut manifest, tensors) = Manifest::of(self);
        manifest.sha256 = tensors.iter().map(|(name, t)| (name.clone(), hash(&t.bytes))).collect();
        (manifest, tensors)
    }

    /// Writes its file: whole or not at all, through a link, or into a device or a pipe.
    ///
    /// # Errors
    /// Any failure to write; what was there before is untouched.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_output(path, &self.to_bytes()?, ErrorKind::Training)
    }

    /// Whether the file at `path` says of itself that it is a model; false of what cannot be read.
    pub fn is_at(path: &Path) -> bool {
        // The header of safetensors begins with its length.
        let head = |mut file: std::fs::File| -> Option<Vec<u8>> {
            let mut length = [0; 8];
            file.read_exact(&mut length).ok()?;
            let mut header = Vec::new();
            file.take(u64::from_le_bytes(length).min(MAX_HEADER)).read_to_end(&mut header).ok()?;
            Some(header)
        };
        let header = std::fs::File::open(path).ok().and_then(head).unwrap_or_default();
        let key = format!("\"{KEY}\"");
        header.windows(key.len()).any(|w| w == key.as_bytes())
    }

    /// Reads the file at `path`. Everything that makes the network what it is has been checked: hashes, types, shapes, and that no
    /// sum can pass the integers that hold it.
    ///
    /// # Errors
    /// What is damaged, foreign or impossible.
    pub fn read(path: &Path) -> Result<Model> {
        let fail = |what: &str| Error::training(format!("{}: {what}", path.display()));
        let unreadable =
            |e: std::io::Error| fail("cannot be read").hint("check the path and the file's permissions").caused_by(e);
        let size = std::fs::metadata(path).map_err(unreadable)?.len();
        if size > MAX_BYTES {
            return Err(fail(&format!("is {size} bytes, expected at most {MAX_BYTES}")).hint("is it a model of cqat?"));
        }
        let bytes = std::fs::read(path).map_err(unreadable)?;
        Model::of_bytes(&bytes).map_err(|e| {
            let hint = e.hint_text().unwrap_or("make it again: cqat quantize RUN --out MODEL").to_string();
            fail(&e.to_string()).hint(hint)
        })
    }

    /// The model of the bytes of a file.
    ///
    /// # Errors
    /// As [`Model::read`].
    pub fn of_bytes(bytes: &[u8]) -> Result<Model> {
        let broken = |e| {
            Error::training("is not a whole safetensors file")
                .hint("it may have been cut short: make it again with cqat quantize, or copy it again")
                .caused_by(e)
        };
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(broken)?;
        let views = SafeTensors::deserialize(bytes).map_err(broken)?;
        let manifest = header.metadata().as_ref().and_then(|m| m.get(KEY)).ok_or_else(|| {
            Error::training("is no model of cqat").hint("cqat quantize RUN --out MODEL makes one of a run")
        })?;
        let damaged = |what: String| {
            Error::training(format!("{what} has another hash than it was written with"))
                .hint("the file is damaged: copy it again, or make it again with cqat quantize")
        };
        let (sha256, text) = manifest.split_once('\n').ok_or_else(|| damaged("its manifest".into()))?;
        if hash(text.as_bytes()) != sha256 {
            return Err(damaged("its manifest".into()));
        }
        let manifest = Manifest::parse(text)?;
        let mut tensors = Tensors::new();
        for (name, view) in views.iter() {
            let wanted = manifest.sha256.get(name).ok_or_else(|| {
                Error::training(format!("its manifest does not know the tensor {}", name.escape_debug()))
                    .hint("make the model again with cqat quantize")
            })?;
            if hash(view.data()) != *wanted {
                return Err(damaged(format!("its tensor {name}")));
            }
            let tensor = Tensor { dtype: view.dtype(), shape: view.shape().to_vec(), bytes: view.data().to_vec() };
            tensors.insert(name.to_string(), tensor);
        }
        manifest.model(&tensors)
    }
}

//! Tensors by name, and the safetensors files that hold them: read as f32, written atomically.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};

use crate::files::write_atomically;
use crate::{Error, ErrorKind, Result};

/// A tensor with its shape, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// Extents.
    pub shape: Vec<usize>,
    /// Values.
    pub data: Vec<f32>,
}

impl NamedTensor {
    /// Whether every value is finite.
    pub fn is_finite(&self) -> bool {
        self.data.iter().all(|v| v.is_finite())
    }
}

/// Tensors by name.
pub type Tensors = BTreeMap<String, NamedTensor>;

/// The values of a tensor of this name and shape.
///
/// # Errors
/// A tensor that is missing or has another shape.
pub fn expect<'t>(tensors: &'t Tensors, name: &str, shape: &[usize]) -> Result<&'t [f32]> {
    let Some(t) = tensors.get(name) else {
        return Err(Error::training(format!("the checkpoint has no tensor {name}, expected shape {shape:?}"))
            .hint("is it a checkpoint of a network with another depth? network.depth must match"));
    };
    if t.shape != shape {
        return Err(Error::training(format!("tensor {name} has shape {:?}, expected {shape:?}", t.shape))
            .hint("network.depth, network.width and network.classes must match the checkpoint"));
    }
    Ok(&t.data)
}

/// Contents of a file.
#[derive(Debug, Clone, Default)]
pub struct File {
    /// Tensors, converted to f32.
    pub tensors: Tensors,
    /// Metadata.
    pub metadata: HashMap<String, String>,
}

/// Largest file that is read: far above any checkpoint of a network this program trains. In memory codes take four times as much.
const MAX_BYTES: u64 = 4 << 30;

/// Reads a file.
///
/// # Errors
/// A file that cannot be read, is too large, is not safetensors, or holds a tensor of another type than f32, f64, i64, i32 or i8.
pub fn read(path: &Path, kind: ErrorKind) -> Result<File> {
    let fail = |what: &str| Error::new(kind, format!("{}: {what}", path.display()));
    let unreadable =
        |e: std::io::Error| fail("cannot be read").hint("check the path and the file's permissions").caused_by(e);
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_BYTES {
        return Err(fail(&format!("is {size} bytes, expected at most {MAX_BYTES}"))
            .hint("is it a checkpoint of this program, or of such a network?"));
    }
    let broken = || {
        fail("is not a whole safetensors file")
            .hint("it may have been cut short or damaged; use another checkpoint of the run, or remove the run and train it anew")
    };
    // A large file of something else is not read to its end.
    let mut start = [0; 9];
    let begun = std::fs::File::open(path).and_then(|mut f| f.read_exact(&mut start));
    match begun {
        Ok(()) if start[8] == b'{' => {}
        Err(e) if e.kind() != std::io::ErrorKind::UnexpectedEof => return Err(unreadable(e)),
        _ => return Err(broken()),
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    parse(&bytes).map_err(|e| match e {
        Refused::Broken(e) => broken().caused_by(e),
        Refused::Type(name, dtype) => fail(&format!("tensor {} has type {dtype:?}, expected F32", name.escape_debug()))
            .hint("convert its tensors to float32, in PyTorch with .float(), and save it again"),
    })
}

/// Why bytes are no [`File`].
#[derive(Debug)]
pub enum Refused {
    /// They are not safetensors, or not whole.
    Broken(SafeTensorError),
    /// The tensor of this name has a type that is not read.
    Type(String, Dtype),
}

/// The contents of a file of these bytes.
///
/// # Errors
/// See [`Refused`].
pub fn parse(bytes: &[u8]) -> std::result::Result<File, Refused> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(Refused::Broken)?;
    let views = SafeTensors::deserialize(bytes).map_err(Refused::Broken)?;
    let mut file = File { metadata: header.metadata().clone().unwrap_or_default(), ..File::default() };
    for (name, view) in views.iter() {
        let data: Vec<f32> = match view.dtype() {
            Dtype::I8 if stored_type(name) == Dtype::I8 => view.data().iter().map(|b| f32::from(*b as i8)).collect(),
            Dtype::F32 => words(view.data()).map(f32::from_le_bytes).collect(),
            Dtype::I32 => words(view.data()).map(|b| i32::from_le_bytes(b) as f32).collect(),
            Dtype::F64 => view.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
            // torch's `num_batches_tracked`
            Dtype::I64 => view.data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f32).collect(),
            other => return Err(Refused::Type(name.to_string(), other)),
        };
        file.tensors.insert(name.to_string(), NamedTensor { shape: view.shape().to_vec(), data });
    }
    Ok(file)
}

fn words(data: &[u8]) -> impl Iterator<Item = [u8; 4]> {
    data.as_chunks().0.iter().copied()
}

/// How a tensor of this name is stored: codes take a byte each, all else is f32.
fn stored_type(name: &str) -> Dtype {
    if name.ends_with(".codes") { Dtype::I8 } else { Dtype::F32 }
}

/// Writes a file atomically: a temporary file beside it, flushed to disk, then renamed. Tensors whose names end in `.codes`
/// hold whole numbers from -128 to 127 and become I8.
///
/// # Errors
/// Any failure to write; the old file, if there is one, is untouched.
pub fn write(path: &Path, file: &File) -> Result<()> {
    let bytes: Vec<(&String, Vec<u8>, &Vec<usize>)> = file
        .tensors
        .iter()
        .map(|(n, t)| match stored_type(n) {
            Dtype::I8 => (n, t.data.iter().map(|v| *v as i8 as u8).collect(), &t.shape),
            _ => (n, t.data.iter().flat_map(|v| v.to_le_bytes()).collect(), &t.shape),
        })
        .collect();
    let failed = |e: SafeTensorError| {
        Error::training(format!("{}: a tensor cannot be encoded", path.display()))
            .hint("use another checkpoint to start from")
            .caused_by(e)
    };
    let mut views = Vec::new();
    for (n, data, shape) in &bytes {
        views.push((n.as_str(), TensorView::new(stored_type(n), (*shape).clone(), data).map_err(failed)?));
    }
    let all = safetensors::serialize(views, Some(file.metadata.clone())).map_err(failed)?;
    write_atomically(path, &all, ErrorKind::Training)
}

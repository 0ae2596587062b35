//! Golden vectors: pictures, and every integer that the network makes of them.

use std::path::PathBuf;

use crate::Result;
use crate::integer::{IntegerNet, Trace};
use crate::pictures;
use crate::rng::random;

/// Pictures and their integers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Golden {
    /// What each picture is.
    pub names: Vec<String>,
    /// The pictures, `(N, 3, size, size)`.
    pub images: Vec<u8>,
    /// What the network makes of them.
    pub trace: Trace,
}

impl Golden {
    /// Of PNG or JPEG pictures, which are scaled to the network's size; of none, four that are made: black, white, a ramp and noise.
    ///
    /// # Errors
    /// A picture that cannot be read.
    pub fn new(net: &IntegerNet, files: &[PathBuf]) -> Result<Golden> {
        let (names, images) = if files.is_empty() { made(net.size) } else { read(net.size, files)? };
        let trace = net.run_layers(&images)?;
        Ok(Golden { names, images, trace })
    }

    /// How many pictures there are.
    pub fn count(&self) -> usize {
        self.names.len()
    }
}

fn read(size: usize, files: &[PathBuf]) -> Result<(Vec<String>, Vec<u8>)> {
    let names = files.iter().map(|f| f.file_name().unwrap_or_default().to_string_lossy().into_owned());
    let images = files.iter().map(|file| pictures::read(file, size)).collect::<Result<Vec<_>>>()?;
    Ok((names.collect(), images.concat()))
}

fn made(size: usize) -> (Vec<String>, Vec<u8>) {
    let of = |pixel: fn(usize, usize) -> u8| -> Vec<u8> { (0..3 * size * size).map(|at| pixel(at, size)).collect() };
    let images = [
        of(|_, _| 0),
        of(|_, _| 255),
        of(|at, size| (at % size * 255 / (size - 1)) as u8),
        of(|at, _| (random(0, at as u64) >> 56) as u8),
    ];
    (["black", "white", "ramp", "noise"].map(String::from).to_vec(), images.concat())
}

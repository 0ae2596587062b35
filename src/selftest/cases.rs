//! Test cases of every kernel: inputs, parameters, grids. Shapes are odd on purpose.

mod elementwise;
mod fused;
mod inference;
mod matrix;
mod optimizer;
mod quantizers;

use bytemuck::Pod;

use crate::kernels::input::random;
use crate::kernels::range::RangeRow;
use crate::kernels::{Caps, KernelDef, Step, Variant};
use crate::quant::{Quant, mask};

/// The usual quantizer of activations.
const A4: Quant = Quant {
    base_lo: 0,
    base_hi: 255,
    shift: 0,
    round_shift: 1,
    lo: 0,
    hi: 15,
    mask: mask::INT,
    enabled: 1,
    ..Quant::OFF
};

/// One dispatch with its data.
pub struct Case {
    /// Shape and options, for messages.
    pub name: String,
    /// Kernel.
    pub kernel: &'static KernelDef,
    /// Variant.
    pub variant: Variant,
    /// Parameters.
    pub params: Vec<u8>,
    /// Workgroups.
    pub grid: [u32; 3],
    /// Contents of every binding; of outputs, what they hold before.
    pub data: Vec<Vec<u32>>,
    /// How the result is compared.
    pub compare: Compare,
}

/// How a result is compared with the twin's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compare {
    /// It must be equal.
    Equal,
    /// By the relative L2 error of each binding.
    Whole,
    /// The same, of products of f16: operands have 11 bits.
    Coarse,
    /// By the relative error of each value: for tables whose values differ by orders of magnitude.
    Each,
}

impl Case {
    fn new<P: Pod>(
        kernel: &'static KernelDef,
        variant: Variant,
        name: impl Into<String>,
        params: &P,
        grid: [u32; 3],
        data: Vec<Vec<u32>>,
    ) -> Case {
        let params = bytemuck::bytes_of(params).to_vec();
        Case { name: name.into(), kernel, variant, params, grid, data, compare: Compare::Whole }
    }

    fn exact(self) -> Case {
        Case { compare: Compare::Equal, ..self }
    }

    fn coarse(self) -> Case {
        Case { compare: Compare::Coarse, ..self }
    }

    fn each(self) -> Case {
        Case { compare: Compare::Each, ..self }
    }
}

/// The cases that show whether a device's matrix units can be trusted.
pub fn matrix_units(caps: &Caps) -> Vec<Case> {
    fused::matrix_units(caps)
}

/// Every case for a device: all families of matrix kernels that it can run, all tile sizes.
pub fn all(caps: &Caps) -> Vec<Case> {
    let mut cases = matrix::cases(caps);
    cases.extend(fused::cases(caps));
    cases.extend(elementwise::cases());
    cases.extend(quantizers::cases());
    cases.extend(optimizer::cases());
    cases.extend(inference::cases(caps));
    cases
}

/// The variant of a kernel that has only one.
fn only(kernel: &'static KernelDef) -> Variant {
    Variant::only(kernel.name)
}

/// What an output holds before: a kernel that forgets a word leaves a NaN.
fn unset(words: usize) -> Vec<u32> {
    vec![u32::MAX; words]
}

/// Whole numbers in `lo..=hi` as f32.
fn integers(words: usize, seed: u32, lo: i32, hi: i32) -> Vec<u32> {
    let span = (hi - lo + 1) as u32;
    (0..words as u32).map(|i| ((random(seed, i, 0) % span) as i32 + lo) as f32).map(f32::to_bits).collect()
}

/// Multiples of 1/4 in `lo..=hi`: products of two, their squares and sums of a hundred of those stay exact.
fn quarters(words: usize, seed: u32, lo: i32, hi: i32) -> Vec<u32> {
    integers(words, seed, lo * 4, hi * 4).into_iter().map(|w| (f32::from_bits(w) / 4.0).to_bits()).collect()
}

/// Values in `lo..hi` with all their bits.
fn reals(words: usize, seed: u32, lo: f32, hi: f32) -> Vec<u32> {
    let unit = |i| random(seed, i, 1) as f32 / u32::MAX as f32;
    (0..words as u32).map(|i| (lo + (hi - lo) * unit(i)).to_bits()).collect()
}

/// The same value in every word.
fn constant(words: usize, value: f32) -> Vec<u32> {
    vec![value.to_bits(); words]
}

/// Any bits: packed codes.
fn bits(words: usize, seed: u32) -> Vec<u32> {
    (0..words as u32).map(|i| random(seed, i, 2)).collect()
}

fn step(s: Step) -> Vec<u32> {
    bytemuck::cast_slice(&[s]).to_vec()
}

/// Rows of ranges with scales that are powers of two.
fn ranges(rows: usize) -> Vec<u32> {
    let row = |i: usize| {
        let scale = [0.25, 0.5, 0.125][i % 3];
        RangeRow { range: 8.0, scale, inv_scale: 1.0 / scale, zero: [3.0, -2.0, 1.0][i % 3], ..RangeRow::UNIT }
    };
    bytemuck::cast_slice(&(0..rows).map(row).collect::<Vec<_>>()).to_vec()
}

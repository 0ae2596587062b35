//! The largest magnitude of each tensor that matrix units multiply as real numbers.
//!
//! f16 holds 11 bits of magnitudes from 6e-5 to 65504; gradients are far below that. A product on matrix units therefore lifts an
//! operand by a power of two that follows from the tensor's maximum (`shared/halves.wgsl`). Whoever writes such a tensor keeps its
//! maximum: the bits of magnitudes have the order of the magnitudes, and the maximum of integers does not depend on the order in
//! which it is taken, so that an atomic one repeats.

use bytemuck::{Pod, Zeroable};

use super::{Access, KernelDef, Twin};

/// Parameters of `clear`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct ClearParams {
    /// First word.
    pub first: u32,
    /// Words.
    pub count: u32,
    /// Padding.
    pub pad: [u32; 2],
}

/// `clear.wgsl`.
pub static CLEAR: KernelDef = KernelDef {
    name: "clear",
    bindings: &[("words", Access::ReadWrite)],
    params_bytes: size_of::<ClearParams>(),
    twin: clear,
};

fn clear(t: &mut Twin) {
    let p: ClearParams = t.params();
    t.words_mut(0)[p.first as usize..][..p.count as usize].fill(0);
}

/// Takes the magnitude of `value` into a maximum, as bits: what `atomicMax` does in the shaders.
pub fn record(most: &mut u32, value: f32) {
    *most = (*most).max(value.abs().to_bits());
}

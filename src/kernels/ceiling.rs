//! What a device can do at most: kernels that move data and nothing else, and that compute and nothing else.

use bytemuck::{Pod, Zeroable};

use super::{Access, KernelDef, Twin};

/// Parameters of `copy`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct CopyParams {
    /// vec4s.
    pub words4: u32,
    /// Padding.
    pub pad: [u32; 3],
}

/// `copy.wgsl`.
pub static COPY: KernelDef = KernelDef {
    name: "copy",
    bindings: &[("x", Access::Read), ("out", Access::ReadWrite)],
    params_bytes: size_of::<CopyParams>(),
    twin: copy,
};

fn copy(t: &mut Twin) {
    let p: CopyParams = t.params();
    let count = 4 * p.words4 as usize;
    let x = t.words(0);
    t.words_mut(1)[..count].copy_from_slice(&x[..count]);
}

/// Parameters of `multiply_add`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct MultiplyAddParams {
    /// vec4s.
    pub words4: u32,
    /// An eighth of the length of the chains.
    pub turns: u32,
    /// Factor; below 1, so that the chains converge.
    pub factor: f32,
    /// Padding.
    pub pad: u32,
}

impl MultiplyAddParams {
    /// Operations of a dispatch: a multiplication and an addition for each of four values in three chains.
    pub fn flops(&self) -> u64 {
        u64::from(self.words4) * u64::from(self.turns) * 8 * 3 * 4 * 2
    }
}

/// `multiply_add.wgsl`.
pub static MULTIPLY_ADD: KernelDef = KernelDef {
    name: "multiply_add",
    bindings: &[("out", Access::ReadWrite)],
    params_bytes: size_of::<MultiplyAddParams>(),
    twin: multiply_add,
};

fn multiply_add(t: &mut Twin) {
    let p: MultiplyAddParams = t.params();
    let out = t.f32_mut(0);
    for i in 0..p.words4 as usize {
        let chain = |k: usize| {
            let start = (i % 64 + k) as f32;
            (0..8 * p.turns).fold(start, |a, _| a.mul_add(p.factor, 1.0))
        };
        out[4 * i..4 * i + 4].fill((chain(0) + chain(1)) + chain(2));
    }
}

//! Stochastic gradient descent over all parameters in one dispatch.

use bytemuck::{Pod, Zeroable};

use super::{Access, KernelDef, Twin};

/// Parameters of `sgd`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct SgdParams {
    /// vec4s of all parameters.
    pub words4: u32,
    /// vec4s that decay; they come first.
    pub decayed4: u32,
    /// 1: Nesterov momentum.
    pub nesterov: u32,
    /// Momentum.
    pub momentum: f32,
    /// Weight decay.
    pub weight_decay: f32,
    /// Padding.
    pub pad: [u32; 3],
}

/// `sgd.wgsl`.
pub static SGD: KernelDef = KernelDef {
    name: "sgd",
    bindings: &[
        ("grads", Access::Read),
        ("step", Access::Read),
        ("params", Access::ReadWrite),
        ("velocity", Access::ReadWrite),
    ],
    params_bytes: size_of::<SgdParams>(),
    twin: sgd,
};

fn sgd(t: &mut Twin) {
    let p: SgdParams = t.params();
    let grads = t.f32(0);
    let step = t.step(1);
    let (params, velocity) = (t.f32_mut(2), t.f32_mut(3));
    for i in 0..p.words4 as usize * 4 {
        let decay = if i < p.decayed4 as usize * 4 { p.weight_decay } else { 0.0 };
        let g = grads[i] + decay * params[i];
        let v = p.momentum * velocity[i] + g;
        velocity[i] = v;
        params[i] -= step.lr * if p.nesterov == 1 { g + p.momentum * v } else { v };
    }
}

//! Stochastic gradient descent over all parameters in one dispatch, averages of gradients and their norm before it, averages of weights
//! after it.

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
        ("clip", Access::Read),
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
    let clip = t.f32(2)[0];
    let (params, velocity) = (t.f32_mut(3), t.f32_mut(4));
    for i in 0..p.words4 as usize * 4 {
        let decay = if i < p.decayed4 as usize * 4 { p.weight_decay } else { 0.0 };
        let g = clip * grads[i] + decay * params[i];
        let v = p.momentum * velocity[i] + g;
        velocity[i] = v;
        params[i] -= step.lr * if p.nesterov == 1 { g + p.momentum * v } else { v };
    }
}

/// Parameters of `grad_norm`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct GradNormParams {
    /// vec4s of all gradients.
    pub words4: u32,
    /// Partial sums, one a workgroup.
    pub groups: u32,
    /// Padding.
    pub pad: [u32; 2],
}

/// `grad_norm.wgsl`.
pub static GRAD_NORM: KernelDef = KernelDef {
    name: "grad_norm",
    bindings: &[("grads", Access::Read), ("parts", Access::ReadWrite)],
    params_bytes: size_of::<GradNormParams>(),
    twin: grad_norm,
};

fn grad_norm(t: &mut Twin) {
    let p: GradNormParams = t.params();
    let grads = &t.f32(0)[..p.words4 as usize * 4];
    let parts = t.f32_mut(1);
    parts[..p.groups as usize].fill(0.0);
    for (block, values) in grads.chunks(4 * 64).enumerate() {
        parts[block % p.groups as usize] += values.iter().map(|g| g * g).sum::<f32>();
    }
}

/// Parameters of `grad_clip`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct GradClipParams {
    /// Partial sums.
    pub groups: u32,
    /// Largest norm of all gradients together.
    pub most: f32,
    /// Padding.
    pub pad: [u32; 2],
}

/// `grad_clip.wgsl`.
pub static GRAD_CLIP: KernelDef = KernelDef {
    name: "grad_clip",
    bindings: &[("parts", Access::Read), ("clip", Access::ReadWrite)],
    params_bytes: size_of::<GradClipParams>(),
    twin: grad_clip,
};

fn grad_clip(t: &mut Twin) {
    let p: GradClipParams = t.params();
    let norm = t.f32(0)[..p.groups as usize].iter().sum::<f32>().sqrt();
    let clip = t.f32_mut(1);
    (clip[0], clip[1]) = ((p.most / (norm + 1e-6)).min(1.0), norm);
}

/// Parameters of `average`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct AverageParams {
    /// vec4s of all values.
    pub words4: u32,
    /// 1: the values are gradients.
    pub gradients: u32,
    /// Padding.
    pub pad: [u32; 2],
}

/// `average.wgsl`.
pub static AVERAGE: KernelDef = KernelDef {
    name: "average",
    bindings: &[("values", Access::Read), ("step", Access::Read), ("averages", Access::ReadWrite)],
    params_bytes: size_of::<AverageParams>(),
    twin: average,
};

fn average(t: &mut Twin) {
    let p: AverageParams = t.params();
    let (values, step) = (t.f32(0), t.step(1));
    let decay = if p.gradients == 1 { step.gradient_decay } else { step.ema_decay };
    let averages = t.f32_mut(2);
    for (a, value) in averages.iter_mut().zip(values).take(p.words4 as usize * 4) {
        *a = decay * *a + (1.0 - decay) * value;
    }
}

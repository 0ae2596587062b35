//! The end of the network: softmax cross entropy with its metrics and gradients.

use bytemuck::{Pod, Zeroable};

use super::{Access, KernelDef, Twin};

/// Parameters of `softmax_ce`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct SoftmaxParams {
    /// Pictures.
    pub batch: u32,
    /// Classes.
    pub classes: u32,
    /// Columns as stored / 4.
    pub cols4: u32,
    /// 1: the weights are codes with scales.
    pub w_scale: u32,
    /// Label smoothing.
    pub smoothing: f32,
    /// First vec4 of the pictures' samples in `scores`; the ring comes before them.
    pub samples4: u32,
    /// 1: with the gradient of the bias.
    pub backward: u32,
    /// Padding.
    pub pad: u32,
}

/// `softmax_ce.wgsl`.
pub static SOFTMAX_CE: KernelDef = KernelDef {
    name: "softmax_ce",
    bindings: &[
        ("logits", Access::ReadWrite),
        ("scales", Access::Read),
        ("bias", Access::Read),
        ("labels", Access::Read),
        ("step", Access::Read),
        ("dlogits", Access::ReadWrite),
        ("scores", Access::ReadWrite),
        ("bias_grad", Access::ReadWrite),
    ],
    params_bytes: size_of::<SoftmaxParams>(),
    twin: softmax_ce,
};

fn softmax_ce(t: &mut Twin) {
    let p: SoftmaxParams = t.params();
    let (scales, bias, labels) = (t.f32(1), t.f32(2), t.words(3));
    let step = t.step(4);
    let (logits, dlogits, scores, bias_grad) = (t.f32_mut(0), t.f32_mut(5), t.f32_mut(6), t.f32_mut(7));
    let (classes, cols) = (p.classes as usize, 4 * p.cols4 as usize);
    let scale = |c: usize| if p.w_scale == 1 { scales[c] } else { 1.0 };
    let mut scored = [0f32; 4];
    for n in 0..p.batch as usize {
        let row = &mut logits[n * cols..][..cols];
        for (c, l) in row.iter_mut().enumerate() {
            *l = if c < classes { l.mul_add(scale(c), bias[c]) } else { 0.0 };
        }
        let row = &row[..classes];
        let best = (0..classes).fold(0, |b, c| if row[c] > row[b] { c } else { b });
        let top = row[best];
        let label = (labels[n] as usize).min(classes - 1);
        let sum: f32 = row.iter().map(|v| (v - top).exp()).sum();
        let total: f32 = row.iter().map(|v| v - top).sum();
        let rank = (0..classes).filter(|&c| row[c] > row[label] || (row[c] == row[label] && c < label)).count();
        let e = p.smoothing;
        let loss = sum.ln() - (1.0 - e) * (row[label] - top) - e / p.classes as f32 * total;
        let counts = (n as u32) < step.valid;
        for c in 0..cols {
            dlogits[n * cols + c] = if c < classes && counts {
                let target = e / p.classes as f32 + if c == label { 1.0 - e } else { 0.0 };
                ((row[c] - top).exp() / sum - target) / p.batch as f32 * scale(c)
            } else {
                0.0
            };
        }
        let (first, five) = (f32::from(rank == 0), f32::from(rank < 5));
        let sample = if counts { [loss, first, five, best as f32] } else { [0.0; 4] };
        scores[4 * (p.samples4 as usize + n)..][..4].copy_from_slice(&sample);
        if counts {
            scored.iter_mut().zip([loss, first, five, 1.0]).for_each(|(sum, v)| *sum += v);
        }
    }
    scores[4 * step.ring_slot as usize..][..4].copy_from_slice(&scored);
    if p.backward == 1 {
        for (c, g) in bias_grad[..cols].iter_mut().enumerate() {
            *g = (0..p.batch as usize).map(|n| dlogits[n * cols + c]).sum::<f32>() / scale(c);
        }
    }
}

/// Parameters of `distill`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct DistillParams {
    /// Pictures.
    pub batch: u32,
    /// Classes.
    pub classes: u32,
    /// Columns as stored / 4.
    pub cols4: u32,
    /// 1: the weights are codes with scales.
    pub w_scale: u32,
    /// Part of the teacher in the loss, 0 to 1.
    pub weight: f32,
    /// T.
    pub temperature: f32,
    /// First vec4 of the bias in the teacher's parameters.
    pub bias4: u32,
    /// Padding.
    pub pad: u32,
}

/// `distill.wgsl`.
pub static DISTILL: KernelDef = KernelDef {
    name: "distill",
    bindings: &[
        ("logits", Access::Read),
        ("teacher", Access::Read),
        ("teacher_params", Access::Read),
        ("scales", Access::Read),
        ("step", Access::Read),
        ("dlogits", Access::ReadWrite),
        ("bias_grad", Access::ReadWrite),
    ],
    params_bytes: size_of::<DistillParams>(),
    twin: distill,
};

fn distill(t: &mut Twin) {
    let p: DistillParams = t.params();
    let (logits, teacher, scales, step) = (t.f32(0), t.f32(1), t.f32(3), t.step(4));
    let bias = &t.f32(2)[4 * p.bias4 as usize..];
    let (dlogits, bias_grad) = (t.f32_mut(5), t.f32_mut(6));
    let (classes, cols) = (p.classes as usize, 4 * p.cols4 as usize);
    let scale = |c: usize| if p.w_scale == 1 { scales[c] } else { 1.0 };
    let factor = p.weight * p.temperature / p.batch as f32;
    for n in 0..p.batch as usize {
        let mine = softened(&logits[n * cols..][..classes], p.temperature);
        let taught: Vec<f32> = (0..classes).map(|c| teacher[n * cols + c] + bias[c]).collect();
        let theirs = softened(&taught, p.temperature);
        for (c, d) in dlogits[n * cols..][..cols].iter_mut().enumerate() {
            *d = if c < classes && (n as u32) < step.valid {
                (1.0 - p.weight) * *d + factor * (mine[c] - theirs[c]) * scale(c)
            } else {
                0.0
            };
        }
    }
    for (c, g) in bias_grad[..cols].iter_mut().enumerate() {
        *g = (0..p.batch as usize).map(|n| dlogits[n * cols + c]).sum::<f32>() / scale(c);
    }
}

/// Softmax of logits over a temperature.
fn softened(logits: &[f32], temperature: f32) -> Vec<f32> {
    let top = logits.iter().copied().fold(f32::MIN, f32::max);
    let exponents: Vec<f32> = logits.iter().map(|v| ((v - top) / temperature).exp()).collect();
    let sum: f32 = exponents.iter().sum();
    exponents.into_iter().map(|e| e / sum).collect()
}

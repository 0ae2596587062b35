//! The end of the network: pool, softmax cross entropy with its metrics, bias gradient.

use bytemuck::{Pod, Zeroable};

use super::range::scale_or_one;
use super::{Access, Format, KernelDef, Twin, Variant};

/// Parameters of `pool_fwd` and `pool_bwd`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct PoolParams {
    /// Pictures.
    pub batch: u32,
    /// Pixels of a picture.
    pub pixels: u32,
    /// Channels / 4.
    pub cols4: u32,
    /// Forward: row of ranges whose scale the input codes have, -1: 1.
    pub x_row: i32,
}

/// `pool_fwd.wgsl`.
pub static POOL_FORWARD: KernelDef = KernelDef {
    name: "pool_fwd",
    bindings: &[("x", Access::Read), ("ranges", Access::Read), ("out", Access::ReadWrite)],
    params_bytes: size_of::<PoolParams>(),
    twin: pool_forward,
};

/// Variant of `pool_fwd`. Its input is u8 codes exactly where `x_row` names a row.
pub fn pool_variant(format: Format) -> Variant {
    Variant::only("pool_fwd").with_files(&[format.operand()])
}

fn pool_forward(t: &mut Twin) {
    let p: PoolParams = t.params();
    let (x, ranges) = (t.words(0), t.f32(1));
    let out = t.f32_mut(2);
    let channels = p.cols4 as usize * 4;
    let format = if p.x_row >= 0 { Format::U8 } else { Format::F32 };
    let s = scale_or_one(ranges, p.x_row);
    for n in 0..p.batch as usize {
        for c in 0..channels {
            let pixel = |k| format.load(x, (n * p.pixels as usize + k) * channels + c);
            out[n * channels + c] = (0..p.pixels as usize).map(pixel).sum::<f32>() * (s / p.pixels as f32);
        }
    }
}

/// `pool_bwd.wgsl`.
pub static POOL_BACKWARD: KernelDef = KernelDef {
    name: "pool_bwd",
    bindings: &[("dout", Access::Read), ("dx", Access::ReadWrite)],
    params_bytes: size_of::<PoolParams>(),
    twin: pool_backward,
};

fn pool_backward(t: &mut Twin) {
    let p: PoolParams = t.params();
    let dout = t.f32(0);
    let dx = t.f32_mut(1);
    let (channels, pixels) = (p.cols4 as usize * 4, p.pixels as usize);
    for i in 0..p.batch as usize * pixels * channels {
        dx[i] = dout[i / (pixels * channels) * channels + i % channels] * (1.0 / p.pixels as f32);
    }
}

/// Parameters of `softmax_ce`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct SoftmaxParams {
    /// Pictures.
    pub batch: u32,
    /// Classes.
    pub classes: u32,
    /// Columns as stored.
    pub cols: u32,
    /// 1: the weights are codes with scales.
    pub w_scale: u32,
    /// Label smoothing.
    pub smoothing: f32,
    /// Padding.
    pub pad: [u32; 3],
}

/// `softmax_ce.wgsl`.
pub static SOFTMAX_CE: KernelDef = KernelDef {
    name: "softmax_ce",
    bindings: &[
        ("y", Access::Read),
        ("scales", Access::Read),
        ("bias", Access::Read),
        ("labels", Access::Read),
        ("step", Access::Read),
        ("logits", Access::ReadWrite),
        ("dlogits", Access::ReadWrite),
        ("samples", Access::ReadWrite),
    ],
    params_bytes: size_of::<SoftmaxParams>(),
    twin: softmax_ce,
};

fn softmax_ce(t: &mut Twin) {
    let p: SoftmaxParams = t.params();
    let (y, scales, bias, labels) = (t.f32(0), t.f32(1), t.f32(2), t.words(3));
    let step = t.step(4);
    let (logits, dlogits, samples) = (t.f32_mut(5), t.f32_mut(6), t.f32_mut(7));
    let (classes, cols) = (p.classes as usize, p.cols as usize);
    let scale = |c: usize| if p.w_scale == 1 { scales[c] } else { 1.0 };
    for n in 0..p.batch as usize {
        let row = &mut logits[n * cols..][..cols];
        for (c, l) in row.iter_mut().enumerate() {
            *l = if c < classes { y[n * cols + c].mul_add(scale(c), bias[c]) } else { 0.0 };
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
        let counted = f32::from((n as u32) < step.valid);
        for c in 0..cols {
            dlogits[n * cols + c] = if c < classes {
                let target = e / p.classes as f32 + if c == label { 1.0 - e } else { 0.0 };
                counted * ((row[c] - top).exp() / sum - target) / p.batch as f32 * scale(c)
            } else {
                0.0
            };
        }
        let sample = [loss, f32::from(rank == 0), f32::from(rank < 5), best as f32];
        samples[4 * n..4 * n + 4].copy_from_slice(&sample.map(|v| counted * v));
    }
}

/// Parameters of `metrics`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct MetricsParams {
    /// Pictures.
    pub batch: u32,
    /// Padding.
    pub pad: [u32; 3],
}

/// `metrics.wgsl`.
pub static METRICS: KernelDef = KernelDef {
    name: "metrics",
    bindings: &[("samples", Access::Read), ("step", Access::Read), ("ring", Access::ReadWrite)],
    params_bytes: size_of::<MetricsParams>(),
    twin: metrics,
};

fn metrics(t: &mut Twin) {
    let p: MetricsParams = t.params();
    let samples = t.f32(0);
    let step = t.step(1);
    let ring = t.f32_mut(2);
    let counted = p.batch.min(step.valid) as usize;
    let sum = samples[..4 * counted]
        .chunks_exact(4)
        .fold([0f32; 4], |s, v| [s[0] + v[0], s[1] + v[1], s[2] + v[2], s[3] + 1.0]);
    ring[4 * step.ring_slot as usize..][..4].copy_from_slice(&sum);
}

/// Parameters of `bias_grad`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct BiasParams {
    /// Pictures.
    pub batch: u32,
    /// Columns as stored.
    pub cols: u32,
    /// 1: the gradient carries the weight scales.
    pub w_scale: u32,
    /// Padding.
    pub pad: u32,
}

/// `bias_grad.wgsl`.
pub static BIAS_GRAD: KernelDef = KernelDef {
    name: "bias_grad",
    bindings: &[("dlogits", Access::Read), ("scales", Access::Read), ("grad", Access::ReadWrite)],
    params_bytes: size_of::<BiasParams>(),
    twin: bias_grad,
};

fn bias_grad(t: &mut Twin) {
    let p: BiasParams = t.params();
    let (dlogits, scales) = (t.f32(0), t.f32(1));
    let grad = t.f32_mut(2);
    let cols = p.cols as usize;
    for (c, g) in grad[..cols].iter_mut().enumerate() {
        let sum: f32 = (0..p.batch as usize).map(|n| dlogits[n * cols + c]).sum();
        *g = if p.w_scale == 1 { sum / scales[c] } else { sum };
    }
}

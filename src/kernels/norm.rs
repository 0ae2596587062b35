//! Batch norm: statistics of a convolution's output, their merge into a per-channel context, and the backward pass.

use bytemuck::{Pod, Zeroable};

use super::activation::part_words;
use super::range::scale_or_one;
use super::{Access, KernelDef, Twin, Variant, maxima};
use crate::quant::nearest_pow2;

/// Variance offset, as everywhere.
pub const EPS: f32 = 1e-5;
/// Weight of a new batch in the running statistics.
pub const MOMENTUM: f32 = 0.1;

/// gamma / sqrt(var + eps), rounded to a power of two with its sign. A device's square root may put a factor next to an edge on its
/// other side.
pub fn pow2_factor(gamma: f32, variance: f32) -> f32 {
    nearest_pow2(gamma * (1.0 / (variance + EPS).sqrt()))
}

/// Parameters of `norm_stats`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct StatsParams {
    /// Pixels of the batch.
    pub rows: u32,
    /// Channels / 4.
    pub cols4: u32,
    /// Rows an invocation reduces.
    pub chunk: u32,
    /// First vec4 in `part`.
    pub part4: u32,
}

/// `norm_stats.wgsl`.
pub static STATS: KernelDef = KernelDef {
    name: "norm_stats",
    bindings: &[("y", Access::Read), ("part", Access::ReadWrite)],
    params_bytes: size_of::<StatsParams>(),
    twin: stats,
};

/// Rows that `conv_norm` and `conv_act` sum together, whatever their tile: `finish_norm.wgsl` and `finish_act.wgsl` say the same.
pub const FINISH_CHUNK: usize = 64;

fn stats(t: &mut Twin) {
    let p: StatsParams = t.params();
    let part = &mut t.f32_mut(1)[4 * p.part4 as usize..];
    moments(t.f32(0), [p.rows, p.chunk].map(|n| n as usize), p.cols4 as usize * 4, part);
}

/// (mean, sum of squared deviations) of `chunk` of the `rows` rows of `y` and each channel.
pub(super) fn moments(y: &[f32], [rows, chunk]: [usize; 2], channels: usize, part: &mut [f32]) {
    for k in 0..rows.div_ceil(chunk) {
        let first = k * chunk;
        let last = (first + chunk).min(rows);
        for c in 0..channels {
            let column = || (first..last).map(|r| y[r * channels + c]);
            let mean = column().sum::<f32>() / (last - first) as f32;
            let squares = column().map(|v| (v - mean) * (v - mean)).sum::<f32>();
            let o = k * 2 * channels + (c / 4) * 8 + c % 4;
            (part[o], part[o + 4]) = (mean, squares);
        }
    }
}

/// A batch norm of one of the branches that end in an activation: where its tensors begin, in vec4s (`NormBranch` in
/// `shared/norm_branch.wgsl`).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
pub struct NormBranch {
    /// gamma, beta in the parameters, and their gradients in the gradients.
    pub affine4: u32,
    /// Running mean and variance.
    pub running4: u32,
    /// Scales of the convolution's weights.
    pub scales4: u32,
    /// Row of ranges whose scale the convolution's input codes have, -1: 1.
    pub x_row: i32,
    /// 1: the convolution's weights are codes with scales.
    pub w_scale: u32,
    /// Where the first step with a value that is not finite is noted.
    pub health_slot: u32,
    /// Row of the maxima of the gradient of the convolution's output.
    pub max_row: u32,
    /// Padding.
    pub pad: u32,
}

/// Parameters of `norm_merge`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct MergeParams {
    /// Channels.
    pub channels: u32,
    /// Pixels of the batch.
    pub rows: u32,
    /// Rows of a chunk.
    pub chunk: u32,
    /// Chunks.
    pub chunks: u32,
    /// 1: take the running statistics.
    pub evaluate: u32,
    /// Branches: 1, or 2 where there is a projection; on the device, workgroups.
    pub branches: u32,
    /// [`EPS`].
    pub eps: f32,
    /// [`MOMENTUM`], or 0 to leave the running statistics alone.
    pub momentum: f32,
    /// 1: the factor gamma / sqrt(var + eps) is rounded to a power of two with its sign.
    pub pow2: u32,
    /// Padding.
    pub pad: [u32; 3],
    /// Main branch.
    pub main: NormBranch,
    /// Projection.
    pub projection: NormBranch,
}

/// `norm_merge.wgsl`.
pub static MERGE: KernelDef = KernelDef {
    name: "norm_merge",
    bindings: &[
        ("part", Access::Read),
        ("params", Access::Read),
        ("scales", Access::Read),
        ("ranges", Access::Read),
        ("step", Access::Read),
        ("running", Access::ReadWrite),
        ("context", Access::ReadWrite),
        ("health", Access::ReadWrite),
    ],
    params_bytes: size_of::<MergeParams>(),
    twin: merge,
};

fn merge(t: &mut Twin) {
    let p: MergeParams = t.params();
    let (part, params, scales, ranges, step) = (t.f32(0), t.f32(1), t.f32(2), t.f32(3), t.step(4));
    let (running, context, health) = (t.f32_mut(5), t.f32_mut(6), t.words_mut(7));
    let channels = p.channels as usize;
    for (branch, b) in [p.main, p.projection].into_iter().enumerate().take(p.branches as usize) {
        let [affine, running_at, scales_at] = [b.affine4, b.running4, b.scales4].map(|at4| 4 * at4 as usize);
        let (affine, running) = (&params[affine..], &mut running[running_at..]);
        let part = &part[if p.evaluate == 1 { 0 } else { branch * 2 * p.chunks as usize * channels }..];
        let context = &mut context[4 * branch * channels..][..4 * channels];
        for c in 0..channels {
            let mut s = scale_or_one(ranges, b.x_row);
            if b.w_scale == 1 {
                s *= scales[scales_at + c];
            }
            let (mut mean, mut variance) = (running[c], running[channels + c]);
            if p.evaluate == 0 {
                let (mut count, mut m, mut squares) = (0f32, 0f32, 0f32);
                for k in 0..p.chunks {
                    let n = p.chunk.min(p.rows - k * p.chunk) as f32;
                    let o = k as usize * 2 * channels + (c / 4) * 8 + c % 4;
                    let d = part[o] - m;
                    let total = count + n;
                    m += d * (n / total);
                    squares += part[o + 4] + d * d * (count * n / total);
                    count = total;
                }
                mean = m * s;
                variance = squares / count * (s * s);
                if p.momentum > 0.0 {
                    let unbiased = variance * (count / (count - 1.0).max(1.0));
                    running[c] += p.momentum * (mean - running[c]);
                    running[channels + c] += p.momentum * (unbiased - running[channels + c]);
                }
                let slot = &mut health[b.health_slot as usize];
                if !(mean.is_finite() && variance.is_finite()) && *slot == 0 {
                    *slot = step.index + 1;
                }
            }
            let inv_std = 1.0 / (variance + p.eps).sqrt();
            let mut k = affine[c] * inv_std;
            if p.pow2 == 1 {
                k = nearest_pow2(k);
            }
            context[c] = k * s;
            context[channels + c] = affine[channels + c] - mean * k;
            context[2 * channels + c] = inv_std * s;
            context[3 * channels + c] = -mean * inv_std;
        }
    }
}

/// Parameters of `norm_bwd_merge`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct BwdMergeParams {
    /// Channels.
    pub channels: u32,
    /// Pixels of the batch.
    pub rows: u32,
    /// Chunks of the partial sums.
    pub chunks: u32,
    /// As [`MergeParams::branches`].
    pub branches: u32,
    /// [`MergeParams::pow2`] of the forward pass.
    pub pow2: u32,
    /// Padding.
    pub pad: [u32; 3],
    /// Main branch.
    pub main: NormBranch,
    /// Projection.
    pub projection: NormBranch,
}

/// `norm_bwd_merge.wgsl`.
pub static BWD_MERGE: KernelDef = KernelDef {
    name: "norm_bwd_merge",
    bindings: &[
        ("part", Access::Read),
        ("params", Access::Read),
        ("context", Access::Read),
        ("ranges", Access::Read),
        ("grads", Access::ReadWrite),
        ("coefficients", Access::ReadWrite),
        ("blocked", Access::ReadWrite),
        ("maxima", Access::ReadWrite),
    ],
    params_bytes: size_of::<BwdMergeParams>(),
    twin: bwd_merge,
};

fn bwd_merge(t: &mut Twin) {
    let p: BwdMergeParams = t.params();
    let (part, params, context, ranges) = (t.f32(0), t.f32(1), t.f32(2), t.f32(3));
    let (grads, coefficients, blocked, maxima) = (t.f32_mut(4), t.f32_mut(5), t.f32_mut(6), t.words_mut(7));
    let channels = p.channels as usize;
    let chunks = 0..p.chunks as usize;
    for (branch, b) in [p.main, p.projection].into_iter().enumerate().take(p.branches as usize) {
        let affine = 4 * b.affine4 as usize;
        let out = &mut coefficients[3 * branch * channels..][..3 * channels];
        maxima[b.max_row as usize] = 0;
        for c in 0..channels {
            let of =
                |k: usize, what: usize| part[part_words(k, channels) + part_words(1, 4) * (c / 4) + 4 * what + c % 4];
            let sum: f32 = chunks.clone().map(|k| of(k, 0)).sum();
            let dot: f32 = chunks.clone().map(|k| of(k, 1 + branch)).sum();
            grads[affine + c] = dot;
            grads[affine + channels + c] = sum;
            blocked[c] = chunks.clone().map(|k| of(k, 3)).sum();
            let s = scale_or_one(ranges, b.x_row);
            let real = params[affine + c] * context[(4 * branch + 2) * channels + c];
            let used = if p.pow2 == 1 { context[4 * branch * channels + c] } else { real };
            let ratio = if p.pow2 == 1 && used != 0.0 { real / used } else { 1.0 };
            out[c] = used / s;
            out[channels + c] = sum / p.rows as f32;
            out[2 * channels + c] = dot / p.rows as f32 * ratio;
        }
    }
}

/// Parameters of `norm_bwd`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct BwdParams {
    /// Pixels of the batch.
    pub rows: u32,
    /// Channels / 4.
    pub cols4: u32,
    /// Rows an invocation handles.
    pub chunk: u32,
    /// 1: there is a projection; fixed in the variant, read by the twin.
    pub projection: u32,
    /// 1: keep the largest magnitudes of what is written; likewise.
    pub keep_max: u32,
    /// Where.
    pub max_row: u32,
    /// Where, of the projection.
    pub projection_max_row: u32,
    /// Padding.
    pub pad: u32,
}

/// Variant of `norm_bwd`.
pub fn backward_variant(projection: bool, keep_max: bool) -> Variant {
    Variant::only("norm_bwd").with_flag("PROJECTION", projection).with_flag("KEEP_MAX", keep_max)
}

/// `norm_bwd.wgsl`.
pub static BWD: KernelDef = KernelDef {
    name: "norm_bwd",
    bindings: &[
        ("dz", Access::Read),
        ("y", Access::Read),
        ("projection_y", Access::Read),
        ("context", Access::Read),
        ("coefficients", Access::Read),
        ("dy", Access::ReadWrite),
        ("projection_dy", Access::ReadWrite),
        ("maxima", Access::ReadWrite),
    ],
    params_bytes: size_of::<BwdParams>(),
    twin: bwd,
};

fn bwd(t: &mut Twin) {
    let p: BwdParams = t.params();
    let (dz, context, coefficients) = (t.f32(0), t.f32(3), t.f32(4));
    let maxima = t.words_mut(7);
    let channels = p.cols4 as usize * 4;
    let branches = [(1, 5, p.max_row), (2, 6, p.projection_max_row)];
    for (branch, (y, dy, max_row)) in branches.into_iter().enumerate().take(1 + p.projection as usize) {
        let (y, dy) = (t.f32(y), t.f32_mut(dy));
        let (context, k) = (&context[4 * branch * channels..], &coefficients[3 * branch * channels..]);
        for i in 0..p.rows as usize * channels {
            let c = i % channels;
            let xhat = y[i].mul_add(context[2 * channels + c], context[3 * channels + c]);
            dy[i] = k[c] * (dz[i] - k[channels + c] - xhat * k[2 * channels + c]);
            if p.keep_max == 1 {
                maxima::record(&mut maxima[max_row as usize], dy[i]);
            }
        }
    }
}

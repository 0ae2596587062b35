//! Weights of all layers at once: their ranges, scales and codes (`weight_stats`, `weight_scale`, `weight_prepare`), and their
//! gradients (`wgrad_reduce`).

mod steps;

pub use steps::{STEP, STEP_MERGE};

use bytemuck::{Pod, Zeroable};

use super::range::scale_or_one;
use super::{Access, KernelDef, Twin, Variant, maxima};
use crate::quant::{MIN_RANGE, Quant, Scale, ScaleRule, learn};

/// Rows (tap, input channel) that one invocation of `weight_stats` reduces.
pub const CHUNK: usize = 64;

/// Numbers of [`WeightRow::estimator`].
pub mod estimate {
    /// Largest magnitude.
    pub const MAX: u32 = 0;
    /// `|mean| + sigmas * deviation`.
    pub const SIGMA: u32 = 1;
    /// A fixed range.
    pub const FIXED: u32 = 2;
    /// The host writes the scales (percentile, mse).
    pub const HOST: u32 = 3;
    /// The scales are parameters.
    pub const LEARNED: u32 = 4;
    /// Of tanh of the weights, spread over [-1, 1].
    pub const TANH: u32 = 5;
}

/// One layer of the weight table (`WeightRow` in `shared/weight_table.wgsl`).
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct WeightRow {
    /// First vec4 of the layer in the parameters.
    pub offset4: u32,
    /// Taps times input channels.
    pub rows: u32,
    /// Output channels / 4.
    pub cols4: u32,
    /// Kernel positions (9 or 1).
    pub taps: u32,
    /// First vec4 of the layer's statistics.
    pub stats: u32,
    /// First word of the layer's scales.
    pub scales: u32,
    /// One of [`estimate`].
    pub estimator: u32,
    /// 1: a scale per output channel.
    pub per_channel: u32,
    /// Integer side of the quantizer.
    pub quant: Quant,
    /// Scale rule.
    pub rule: ScaleRule,
    /// For [`estimate::SIGMA`].
    pub sigmas: f32,
    /// For [`estimate::FIXED`].
    pub fixed: f32,
    /// Rows that carry data, the others are padding: what a mean counts.
    pub real_rows: u32,
    /// Output channels that carry data.
    pub real_cols: u32,
    /// First vec4 of the layer in the parts of the weight gradients of its group.
    pub part4: u32,
    /// These parts.
    pub splits: u32,
    /// Row of ranges whose scale the codes of the layer's input have, -1: 1.
    pub x_row: i32,
    /// The first learned scale, and its gradient: the word of the arena.
    pub step_at: u32,
    /// Factor on that gradient.
    pub gradient_scale: f32,
    /// Padding.
    pub pad: [u32; 3],
}

impl WeightRow {
    fn channels(&self) -> usize {
        self.cols4 as usize * 4
    }

    /// The gradient of a weight from that of its quantized value.
    fn back(&self, g: f32, w: f32, scale: f32, inv_scale: f32) -> f32 {
        let g = if self.quant.passes(w, inv_scale) { g } else { 0.0 };
        g * self.quant.gradient_factor(g, w, scale, inv_scale)
    }
}

/// Words of a [`WeightRow`].
const WEIGHT_WORDS: usize = size_of::<WeightRow>() / 4;

/// The first rows of a table.
fn rows(table: &[u32], count: u32) -> &[WeightRow] {
    bytemuck::cast_slice(&table[..count as usize * WEIGHT_WORDS])
}

/// Parameters of the kernels that go through the table of weights.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct StatsParams {
    /// Rows of the table.
    pub layers: u32,
    /// [`CHUNK`].
    pub chunk: u32,
    /// Padding.
    pub pad: [u32; 2],
}

/// `weight_stats.wgsl`.
pub static STATS: KernelDef = KernelDef {
    name: "weight_stats",
    bindings: &[("table", Access::Read), ("params", Access::Read), ("stats", Access::ReadWrite)],
    params_bytes: size_of::<StatsParams>(),
    twin: stats,
};

fn stats(t: &mut Twin) {
    let p: StatsParams = t.params();
    let params = t.f32(1);
    let stats = t.f32_mut(2);
    for row in rows(t.words(0), p.layers) {
        for first in (0..row.rows as usize).step_by(p.chunk as usize) {
            let last = (first + p.chunk as usize).min(row.rows as usize);
            for c in 0..row.channels() {
                let (mut top, mut sum, mut squares) = (0f32, 0f32, 0f32);
                for r in first..last {
                    let w = params[row.offset4 as usize * 4 + r * row.channels() + c];
                    top = top.max(w.abs());
                    sum += w;
                    squares += w * w;
                }
                let item = first / p.chunk as usize * row.cols4 as usize + c / 4;
                let o = (row.stats as usize + 3 * item) * 4 + c % 4;
                (stats[o], stats[o + 4], stats[o + 8]) = (top, sum, squares);
            }
        }
    }
}

/// `weight_scale.wgsl`.
pub static SCALE: KernelDef = KernelDef {
    name: "weight_scale",
    bindings: &[
        ("table", Access::Read),
        ("stats", Access::Read),
        ("step", Access::Read),
        ("params", Access::Read),
        ("scales", Access::ReadWrite),
    ],
    params_bytes: size_of::<StatsParams>(),
    twin: scale,
};

#[derive(Clone, Copy, Default)]
struct Summary {
    top: f32,
    sum: f32,
    squares: f32,
}

impl Summary {
    fn merge(self, o: Summary) -> Summary {
        Summary { top: self.top.max(o.top), sum: self.sum + o.sum, squares: self.squares + o.squares }
    }

    fn range(&self, row: &WeightRow, count: f32) -> f32 {
        match row.estimator {
            estimate::SIGMA => {
                let mean = self.sum / count;
                mean.abs() + row.sigmas * (self.squares / count - mean * mean).max(0.0).sqrt()
            }
            estimate::FIXED => row.fixed,
            _ => self.top,
        }
    }

    fn scale(&self, row: &WeightRow, count: f32) -> Scale {
        let range = self.range(row, count);
        if row.estimator != estimate::TANH {
            return row.rule.scale(range);
        }
        let levels = row.rule.levels;
        Scale { scale: 1.0 / levels, inv_scale: levels / (2.0 * range.max(MIN_RANGE).tanh()) }
    }
}

fn scale(t: &mut Twin) {
    let p: StatsParams = t.params();
    let (stats, step, params) = (t.f32(1), t.step(2), t.f32(3));
    let scales = t.f32_mut(4);
    for row in rows(t.words(0), p.layers) {
        if row.quant.enabled == 0 || row.estimator == estimate::HOST || step.frozen == 1 {
            continue;
        }
        let cols = row.channels();
        let chunks = row.rows.div_ceil(p.chunk) as usize;
        let first = row.scales as usize;
        let write = |scales: &mut [f32], c: usize, s: Scale| {
            (scales[first + c], scales[first + cols + c]) = (s.scale, s.inv_scale);
        };
        if row.estimator == estimate::LEARNED {
            for c in 0..cols {
                let at = row.step_at as usize + if row.per_channel == 1 { c } else { 0 };
                write(scales, c, row.rule.scale_of_step(params[at], scales[first + 2 * cols + c]));
            }
            continue;
        }
        let mut all = Summary::default();
        for c in 0..cols {
            let mut one = Summary::default();
            for k in 0..chunks {
                let o = (row.stats as usize + 3 * (k * row.cols4 as usize + c / 4)) * 4 + c % 4;
                one = one.merge(Summary { top: stats[o], sum: stats[o + 4], squares: stats[o + 8] });
            }
            write(scales, c, one.scale(row, row.real_rows as f32));
            all = all.merge(one);
        }
        if row.per_channel == 0 {
            let scale = all.scale(row, (row.real_rows * row.real_cols) as f32);
            (0..cols).for_each(|c| write(scales, c, scale));
        }
    }
}

/// Parameters of `weight_prepare`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct PrepareParams {
    /// Words of all layers with weights, padding included.
    pub words: u32,
    /// 0: copy, the float network.
    pub quantize: u32,
    /// 1: keep the largest magnitude of each layer; fixed in the variant, read by the twin.
    pub keep_max: u32,
    /// Where the first layer's is.
    pub max_first: u32,
}

/// Variant of `weight_prepare`.
pub fn prepare_variant(keep_max: bool) -> Variant {
    Variant::only("weight_prepare").with_flag("KEEP_MAX", keep_max)
}

/// `weight_prepare.wgsl`.
pub static PREPARE: KernelDef = KernelDef {
    name: "weight_prepare",
    bindings: &[
        ("table", Access::Read),
        ("blocks", Access::Read),
        ("params", Access::Read),
        ("scales", Access::Read),
        ("codes", Access::ReadWrite),
        ("transposed", Access::ReadWrite),
        ("maxima", Access::ReadWrite),
    ],
    params_bytes: size_of::<PrepareParams>(),
    twin: prepare,
};

fn prepare(t: &mut Twin) {
    let p: PrepareParams = t.params();
    let table = rows(t.words(0), (t.words(0).len() / WEIGHT_WORDS) as u32);
    let (blocks, params, scales) = (t.words(1), t.f32(2), t.f32(3));
    let codes = t.f32_mut(4);
    let transposed = t.f32_mut(5);
    let maxima = t.words_mut(6);
    for i in 0..p.words as usize {
        let row = &table[blocks[i / 256] as usize];
        let base = row.offset4 as usize * 4;
        let (cols, local) = (row.channels(), i - base);
        if local >= row.rows as usize * cols {
            continue;
        }
        let (r, c) = (local / cols, local % cols);
        let c_in = (row.rows / row.taps) as usize;
        let v = if p.quantize == 1 && row.quant.enabled == 1 {
            row.quant.code(params[i], scales[row.scales as usize + cols + c]) as f32
        } else {
            params[i]
        };
        codes[i] = v;
        if p.keep_max == 1 {
            maxima::record(&mut maxima[p.max_first as usize + blocks[i / 256] as usize], v);
        }
        transposed[base + ((r / c_in) * cols + c) * c_in + r % c_in] = v;
    }
}

/// Parameters of `wgrad_reduce`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct ReduceParams {
    /// The first word of some layers' weights.
    pub first: u32,
    /// Words of them, padding included.
    pub words: u32,
    /// 0: the float network, whose weights and inputs are no codes.
    pub quantize: u32,
    /// Padding.
    pub pad: u32,
}

/// `wgrad_reduce.wgsl`.
pub static REDUCE: KernelDef = KernelDef {
    name: "wgrad_reduce",
    bindings: &[
        ("table", Access::Read),
        ("blocks", Access::Read),
        ("part", Access::Read),
        ("params", Access::Read),
        ("scales", Access::Read),
        ("ranges", Access::Read),
        ("grads", Access::ReadWrite),
    ],
    params_bytes: size_of::<ReduceParams>(),
    twin: reduce,
};

fn reduce(t: &mut Twin) {
    let p: ReduceParams = t.params();
    let table = rows(t.words(0), (t.words(0).len() / WEIGHT_WORDS) as u32);
    let (blocks, part, params, scales, ranges) = (t.words(1), t.f32(2), t.f32(3), t.f32(4), t.f32(5));
    let grads = t.f32_mut(6);
    for i in (p.first as usize..).take(p.words as usize) {
        let row = &table[blocks[i / 256] as usize];
        let (cols, local) = (row.channels(), i - row.offset4 as usize * 4);
        let words = row.rows as usize * cols;
        if local >= words {
            continue;
        }
        let base = row.part4 as usize * 4 + local;
        let mut g = (0..row.splits as usize).fold(0f32, |g, s| g + part[base + s * words]);
        if p.quantize == 1 {
            g *= scale_or_one(ranges, row.x_row);
            if row.quant.enabled == 1 {
                let c = row.scales as usize + local % cols;
                g /= scales[c];
                if row.quant.learn == learn::NOTHING {
                    g = row.back(g, params[i], scales[c], scales[c + cols]);
                }
            }
        }
        grads[i] = g;
    }
}

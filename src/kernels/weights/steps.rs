//! Gradients of learned weight scales.

use super::{StatsParams, WeightRow, rows};
use crate::kernels::{Access, KernelDef, Twin};
use crate::quant::learn;

/// `weight_step.wgsl`, with [`StatsParams`].
pub static STEP: KernelDef = KernelDef {
    name: "weight_step",
    bindings: &[
        ("table", Access::Read),
        ("params", Access::Read),
        ("scales", Access::Read),
        ("grads", Access::ReadWrite),
        ("part", Access::ReadWrite),
    ],
    params_bytes: size_of::<StatsParams>(),
    twin: weight_step,
};

fn learned_rows<'t>(table: &'t [u32], p: &StatsParams) -> impl Iterator<Item = &'t WeightRow> {
    rows(table, p.layers).iter().filter(|row| row.quant.enabled == 1 && row.quant.learn != learn::NOTHING)
}

fn weight_step(t: &mut Twin) {
    let p: StatsParams = t.params();
    let (params, scales) = (t.f32(1), t.f32(2));
    let (grads, part) = (t.f32_mut(3), t.f32_mut(4));
    for row in learned_rows(t.words(0), &p) {
        let (cols, base) = (row.channels(), row.offset4 as usize * 4);
        for (chunk, first) in (0..row.rows as usize).step_by(p.chunk as usize).enumerate() {
            let last = (first + p.chunk as usize).min(row.rows as usize);
            for c in 0..cols {
                let scale = row.scales as usize + c;
                let mut sum = 0f32;
                for i in (first..last).map(|r| base + r * cols + c) {
                    sum += grads[i] * row.quant.slopes(params[i], scales[scale + cols])[0];
                    grads[i] = row.back(grads[i], params[i], scales[scale], scales[scale + cols]);
                }
                part[row.stats as usize / 3 * 4 + chunk * cols + c] = sum;
            }
        }
    }
}

/// `weight_step_merge.wgsl`, with [`StatsParams`].
pub static STEP_MERGE: KernelDef = KernelDef {
    name: "weight_step_merge",
    bindings: &[("table", Access::Read), ("part", Access::Read), ("step", Access::Read), ("grads", Access::ReadWrite)],
    params_bytes: size_of::<StatsParams>(),
    twin: weight_step_merge,
};

fn weight_step_merge(t: &mut Twin) {
    let p: StatsParams = t.params();
    let (part, step) = (t.f32(1), t.step(2));
    let grads = t.f32_mut(3);
    for row in learned_rows(t.words(0), &p) {
        let (cols, chunks) = (row.channels(), row.rows.div_ceil(p.chunk) as usize);
        let sum = |c: usize| (0..chunks).map(|k| part[row.stats as usize / 3 * 4 + k * cols + c]).sum::<f32>();
        let factor = if step.frozen == 1 { 0.0 } else { row.gradient_scale };
        let at = row.step_at as usize;
        match row.per_channel {
            1 => (0..cols).for_each(|c| grads[at + c] = factor * sum(c)),
            _ => grads[at] = factor * (0..cols).map(sum).sum::<f32>(),
        }
    }
}

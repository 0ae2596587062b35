//! The table of weight quantizers, a row a layer with weights.

use std::ops::Range;

use bytemuck::Zeroable;

use super::steps::gradient_scale;
use super::{Plan, Steps, Weights};
use crate::config::{Estimator, Granularity};
use crate::kernels::conv::Geometry;
use crate::kernels::weights::{self, WeightRow, estimate};
use crate::net::{Layer, LayerId, Net};
use crate::quant::{Quant, QuantSpec, Quantizer, ScaleRule, form, learn};

/// vec4s of the `weight_stats` output of a layer.
pub(super) fn stats_of(row: &WeightRow) -> usize {
    3 * (row.rows as usize).div_ceil(weights::CHUNK) * row.cols4 as usize
}

/// Row of ranges of a layer's values, where they are codes; -1 for others.
fn codes_row(net: &Net, quant: Option<&QuantSpec>, layer: LayerId, range_rows: &[Option<u32>]) -> i32 {
    let are_codes = |q: &QuantSpec| match net.layers[layer] {
        Layer::Input(_) => q.input.is_some(),
        _ => q.layer(layer).is_some(),
    };
    quant.filter(|q| are_codes(q)).and(range_rows[layer]).map_or(-1, |row| row as i32)
}

/// Where the scales of a layer's weights come from, one of [`estimate`].
fn estimator(quant: &QuantSpec, layer: LayerId) -> u32 {
    let Some(Quantizer { quant: q, .. }) = quant.layer(layer) else { return estimate::MAX };
    match quant.config.weight_estimator() {
        _ if q.learn != learn::NOTHING => estimate::LEARNED,
        _ if q.form == form::ODD_TANH => estimate::TANH,
        Estimator::Max | Estimator::EmaMax => estimate::MAX,
        Estimator::KSigma => estimate::SIGMA,
        Estimator::FixedPow2 => estimate::FIXED,
        Estimator::Percentile | Estimator::Mse | Estimator::MeanAbs => estimate::HOST,
    }
}

/// The table, for batches of so many pictures and the rows of ranges that layers have. The parts of the weight gradients of layers in a
/// group follow each other, up to `most_words`; a single layer's may be more.
pub(super) fn weight_rows(
    plan: &Plan,
    net: &Net,
    weights: &[Weights],
    quant: Option<&QuantSpec>,
    (batch, range_rows, steps): (usize, &[Option<u32>], Option<&Steps>),
    most_words: u64,
) -> (Vec<WeightRow>, Vec<Range<usize>>) {
    let (mut stats, mut part4) = (0, 0);
    let mut rows = Vec::new();
    let mut groups: Vec<Range<usize>> = Vec::new();
    for w in weights {
        let layer = &net.layers[w.layer];
        let geometry = Geometry::of(layer, batch).expect("a layer with weights is a product");
        let input = match layer {
            Layer::Conv(c) => c.input,
            Layer::Linear(l) => l.input,
            Layer::Input(_) | Layer::Activation(_) | Layer::Pool(_) => unreachable!("it has no weights"),
        };
        let quantizer = quant.and_then(|q| q.layer(w.layer));
        let config = quant.map(|q| &q.config.weights);
        let per_channel = config.is_some_and(|c| c.granularity == Granularity::PerChannel);
        let rule = quantizer.map_or(ScaleRule::UNIT, |q| q.rule);
        let row = WeightRow {
            offset4: w.offset4,
            rows: (w.taps * w.c_in) as u32,
            cols4: w.c_out as u32 / 4,
            taps: w.taps as u32,
            stats,
            scales: plan.offset(w.scales) as u32,
            estimator: quant.map_or(estimate::MAX, |q| estimator(q, w.layer)),
            per_channel: u32::from(per_channel),
            quant: quantizer.map_or(Quant::OFF, |q| q.quant),
            rule,
            sigmas: config.map_or(0.0, |c| c.sigmas),
            fixed: config.map_or(0.0, |c| rule.range_of_step((c.fixed_log2_scale as f32).exp2())),
            real_rows: (w.taps * w.real_in) as u32,
            real_cols: w.real_out as u32,
            splits: geometry.wgrad_splits().0 as u32,
            x_row: codes_row(net, quant, input, range_rows),
            step_at: steps.and_then(|s| s.at(w.layer)).unwrap_or(0),
            gradient_scale: gradient_scale(
                w.taps * w.real_in * if per_channel { 1 } else { w.real_out },
                quantizer.map_or(1.0, |q| q.quant.highest()),
            ),
            ..WeightRow::zeroed()
        };
        stats += stats_of(&row) as u32;
        let parts = row.splits * row.rows * row.cols4;
        match groups.last_mut() {
            Some(group) if 4 * u64::from(part4 + parts) <= most_words => group.end += 1,
            _ => {
                part4 = 0;
                groups.push(rows.len()..rows.len() + 1);
            }
        }
        rows.push(WeightRow { part4, ..row });
        part4 += parts;
    }
    (rows, groups)
}

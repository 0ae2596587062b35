//! Persistent tensors of a network: parameters, statistics, quantizer state, and the host's input and output.

mod members;
mod steps;
mod weight_table;

pub use members::{Norm, Resident, Statistics, Teacher, Values, Weights};
pub use steps::{StepEntry, Steps};

use std::ops::Range;

use super::{ALIGN_WORDS, Arena, Plan, TensorId};
use crate::config::RING_ROWS;
use crate::kernels::input::TABLE_WORDS;
use crate::kernels::range::{BINS, BLOCKED_WORDS, RANGE_WORDS, SEEN_WORDS, TableRow};
use crate::kernels::weights::WeightRow;
use crate::kernels::{self, row_chunk};
use crate::net::{Layer, LayerId, Net};
use crate::quant::{QuantSpec, learn};
use steps::gradient_scale;
use weight_table::{stats_of, weight_rows};

/// Rows of the metrics ring.
pub const RING: usize = RING_ROWS as usize;

/// What the programs ask of a [`Layout`].
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    /// The optimizer keeps moving averages.
    pub averages: bool,
    /// A step has several batches.
    pub accumulates: bool,
    /// There is a float network to learn from.
    pub teacher: bool,
    /// Training pictures that the device keeps.
    pub resident: usize,
    /// Words that the parts of the weight gradients of several layers may have together.
    pub most_part_words: u64,
    /// The device is a software adapter: it decides how many partial statistics there are.
    pub software: bool,
}

/// All persistent tensors.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Per layer with weights, in forward order; the last is the linear layer.
    pub weights: Vec<Weights>,
    /// Per batch norm, in forward order.
    pub norms: Vec<Norm>,
    /// Bias of the linear layer and its gradient.
    pub bias: (TensorId, TensorId),
    /// All parameters, gradients, momentum.
    pub params: TensorId,
    /// See `params`.
    pub grads: TensorId,
    /// See `params`.
    pub velocity: TensorId,
    /// Running statistics of all norms.
    pub running: TensorId,
    /// Parameters that decay: words from the start of the arena.
    pub decayed_words: usize,
    /// Parameters that decay, as one tensor.
    pub decayed: TensorId,
    /// Weight codes of all layers, `(taps, c_in, c_out)` f32 each.
    pub codes: TensorId,
    /// The same transposed, `(taps, c_out, c_in)`.
    pub transposed: TensorId,
    /// Learned scales, which are parameters.
    pub steps: Option<Steps>,
    /// Scales of all layers.
    pub scales: TensorId,
    /// Rows of activation quantizers; row 0 is the input's.
    pub ranges: TensorId,
    /// Moving averages of the parameters and running statistics, with the weight scales that belong to them: where the optimizer
    /// averages.
    pub average: Option<Values>,
    /// Parameters and running statistics of a float network to learn from.
    pub teacher: Option<Teacher>,
    /// Mean of the gradients of a step's batches so far: where a step has several.
    pub accumulated: Option<TensorId>,
    /// Per layer, its row of ranges.
    pub range_rows: Vec<Option<u32>>,
    /// Per layer, the statistics of an activation.
    pub statistics: Vec<Option<Statistics>>,
    /// All of them, and the table of the quantized ones.
    pub seen: TensorId,
    /// See `seen`.
    pub blocked: TensorId,
    /// See `seen`.
    pub range_table: TensorId,
    /// Rows of the table.
    pub range_entries: Vec<TableRow>,
    /// Maxima of tensors (see [`crate::kernels::maxima`]): a row a layer for its values, one for each weights, and one a layer for its gradient.
    pub maxima: TensorId,
    /// First step with a value that is not finite, per layer.
    pub health: TensorId,
    /// The weight table and its block index.
    pub table: TensorId,
    /// Table row of each block of [`ALIGN_WORDS`] words.
    pub blocks: TensorId,
    /// Rows of the weight table.
    pub rows: Vec<WeightRow>,
    /// Those whose weight gradients are added up together.
    pub part_groups: Vec<Range<usize>>,
    /// Calibration counts, [`BINS`] a row of ranges.
    pub histogram: TensorId,
    /// The step's uniform.
    pub step: TensorId,
    /// Raw pictures of a batch, u8.
    pub images: TensorId,
    /// 0, 1, 2, ...: which of `images` are the batch.
    pub in_order: TensorId,
    /// The training pictures, where the device keeps them.
    pub resident: Option<Resident>,
    /// Labels.
    pub labels: TensorId,
    /// Input lookup tables: f32 values, and codes.
    pub input_tables: (TensorId, TensorId),
    /// Metrics ring.
    pub ring: TensorId,
    /// [`Layout::ring`] and [`Layout::samples`].
    pub scores: TensorId,
    /// What kernels bind that have no use for a binding in this place.
    pub unused: TensorId,
    /// Factor on the gradients (1 without clipping), and their norm.
    pub clip: TensorId,
    /// Logits, `(batch, padded classes)`.
    pub logits: TensorId,
    /// Per picture: loss, top-1, top-5, prediction.
    pub samples: TensorId,
}

impl Layout {
    /// Adds the persistent tensors of `net` to `plan`, for batches of `batch` pictures.
    pub fn new(plan: &mut Plan, net: &Net, quant: Option<&QuantSpec>, batch: usize, needs: Needs) -> Layout {
        let Needs { averages, accumulates, teacher, resident, software, most_part_words } = needs;
        let shapes: Vec<(LayerId, String, [usize; 5])> = net
            .layers
            .iter()
            .enumerate()
            .filter_map(|(id, l)| match l {
                Layer::Conv(c) => {
                    Some((id, c.name.clone(), [c.kernel * c.kernel, c.from.c, c.real_in, c.to.c, c.to.c]))
                }
                Layer::Linear(l) => Some((id, l.name.clone(), [1, l.features, l.features, l.padded(), l.classes])),
                Layer::Input(_) | Layer::Activation(_) | Layer::Pool(_) => None,
            })
            .collect();
        let mut weights = Vec::new();
        for (layer, name, [taps, c_in, real_in, c_out, real_out]) in shapes {
            let words = taps * c_in * c_out;
            let mut member = |arena, what: &str, words| plan.member(arena, format!("{name}.{what}"), words);
            weights.push(Weights {
                layer,
                weight: member(Arena::Params, "weight", words),
                grad: member(Arena::Grads, "weight.grad", words),
                offset4: 0,
                scales: member(Arena::Scales, "weight.scales", 3 * c_out),
                name,
                taps,
                c_in,
                real_in,
                c_out,
                real_out,
            });
        }
        let decayed_words = plan.arena_words(Arena::Params);
        let decayed = plan.whole(Arena::Params);
        for w in &mut weights {
            w.offset4 = plan.offset(w.weight) as u32 / 4;
        }
        let codes = plan.member(Arena::Codes, "codes", decayed_words);
        let transposed = plan.member(Arena::Transposed, "transposed", decayed_words);
        let mut norms = Vec::new();
        for (layer, conv) in net.convs() {
            let channels = conv.to.c;
            norms.push(Norm {
                layer,
                name: conv.norm.clone(),
                channels,
                affine: plan.member(Arena::Params, format!("{}.affine", conv.norm), 2 * channels),
                grad: plan.member(Arena::Grads, format!("{}.affine.grad", conv.norm), 2 * channels),
                running: plan.member(Arena::Norms, format!("{}.running", conv.norm), 2 * channels),
            });
        }
        let (_, linear) = net.linear();
        let cols = linear.padded();
        let bias = (plan.member(Arena::Params, "fc.bias", cols), plan.member(Arena::Grads, "fc.bias.grad", cols));
        let steps = Steps::new(plan, net, quant, &weights);
        let words = plan.arena_words(Arena::Params);
        plan.member(Arena::Velocity, "velocity", words);
        let mut range_rows: Vec<Option<u32>> = vec![None; net.layers.len()];
        range_rows[0] = Some(0);
        for (row, (id, _)) in net.activations().enumerate() {
            range_rows[id] = Some(row as u32 + 1);
        }
        let row_count = 1 + net.activations().count();
        let mut statistics: Vec<Option<Statistics>> = vec![None; net.layers.len()];
        let mut range_entries = Vec::new();
        for (row, (id, activation)) in net.activations().enumerate() {
            let (rows, cols4) = (batch * activation.shape.pixels(), activation.shape.c / 4);
            let pooled = net.is_pooled(id);
            let chunk = if pooled { activation.shape.pixels() } else { row_chunk(rows, cols4, software) };
            let parts = rows.div_ceil(chunk) * cols4;
            let seen = plan.member(Arena::Seen, format!("{}.seen", activation.name), SEEN_WORDS * parts);
            let blocked = plan.member(Arena::Blocked, format!("{}.blocked", activation.name), BLOCKED_WORDS * cols4);
            let [part, blocked_part] =
                [plan.offset(seen) / SEEN_WORDS, plan.offset(blocked) / BLOCKED_WORDS].map(|first| first as u32);
            let entry = quant.and_then(|q| q.layer(id)).map(|quantizer| {
                let (row, values) = (row as u32 + 1, (4 * rows * cols4) as u32);
                let step_at = steps.as_ref().and_then(|s| s.at(id));
                let decay = quant.map_or(0.0, |q| q.config.pact_decay);
                let [lowest_zero, highest_zero] = quantizer.quant.zeros();
                range_entries.push(TableRow {
                    row,
                    values,
                    parts: parts as u32,
                    part,
                    blocked_parts: cols4 as u32,
                    blocked_part,
                    rule: quantizer.rule,
                    learn: quantizer.quant.learn,
                    step_at: step_at.unwrap_or(0),
                    gradient_scale: match quantizer.quant.learn {
                        learn::RANGE => 1.0,
                        _ => gradient_scale(activation.shape.len(), quantizer.quant.hi as f32),
                    },
                    decay,
                    lowest_zero,
                    highest_zero,
                });
                range_entries.len() as u32 - 1
            });
            statistics[id] = Some(Statistics { chunk, seen, blocked, entry });
        }
        let picture_words = |count: usize| (count * 3 * net.size * net.size).div_ceil(4);
        let (rows, part_groups) =
            weight_rows(plan, net, &weights, quant, (batch, &range_rows, steps.as_ref()), most_part_words);
        let mut copy = |name, arena| plan.own(name, plan.arena_words(arena));
        let average = averages.then(|| Values {
            params: copy("average params", Arena::Params),
            running: copy("average running", Arena::Norms),
            scales: copy("average scales", Arena::Scales),
        });
        let teacher = teacher.then(|| Teacher {
            params: copy("teacher params", Arena::Params),
            running: copy("teacher running", Arena::Norms),
        });
        Layout {
            bias,
            params: plan.whole(Arena::Params),
            grads: plan.whole(Arena::Grads),
            velocity: plan.whole(Arena::Velocity),
            running: plan.whole(Arena::Norms),
            decayed_words,
            decayed,
            codes,
            transposed,
            steps,
            scales: plan.whole(Arena::Scales),
            ranges: plan.own("ranges", row_count * RANGE_WORDS),
            average,
            teacher,
            accumulated: accumulates.then(|| plan.own("accumulated gradients", words)),
            range_rows,
            statistics,
            seen: plan.whole(Arena::Seen),
            blocked: plan.whole(Arena::Blocked),
            range_table: plan.own("range table", range_entries.len() * size_of::<TableRow>() / 4),
            range_entries,
            maxima: plan.own("maxima", 2 * net.layers.len() + rows.len()),
            health: plan.own("health", net.layers.len()),
            table: plan.own("weight table", rows.len() * size_of::<WeightRow>() / 4),
            blocks: plan.own("weight blocks", decayed_words / ALIGN_WORDS),
            rows,
            part_groups,
            histogram: plan.own("histogram", row_count * BINS),
            step: plan.own("step", size_of::<kernels::Step>() / 4),
            images: plan.own("images", picture_words(batch)),
            in_order: plan.own("in order", batch),
            resident: (resident > 0).then(|| {
                let first = resident.div_ceil(2);
                Resident {
                    parts: [
                        plan.own("training pictures 0", picture_words(first)),
                        plan.own("training pictures 1", picture_words((resident - first).max(1))),
                    ],
                    first,
                    picks: plan.own("picks", batch),
                }
            }),
            labels: plan.own("labels", batch),
            input_tables: (plan.own("input values", TABLE_WORDS), plan.own("input codes", TABLE_WORDS)),
            clip: plan.own("gradient clip", 4),
            ring: plan.member(Arena::Scores, "metrics ring", RING * 4),
            samples: plan.member(Arena::Scores, "samples", batch * 4),
            scores: plan.whole(Arena::Scores),
            unused: plan.own("unused", 4),
            logits: plan.own("logits", batch * cols),
            weights,
            norms,
        }
    }

    /// What the programs work with.
    pub fn values(&self) -> Values {
        Values { params: self.params, running: self.running, scales: self.scales }
    }

    /// The weights of a layer.
    pub fn weights_of(&self, layer: LayerId) -> (usize, &Weights) {
        let at = self.weights.iter().position(|w| w.layer == layer).expect("the layer has weights");
        (at, &self.weights[at])
    }

    /// Row of the maxima of a layer's output.
    pub fn value_max(&self, layer: LayerId) -> u32 {
        layer as u32
    }

    /// Row of the maxima of the gradient of a convolution's output.
    pub fn gradient_max(&self, layer: LayerId) -> u32 {
        self.first_weight_max() + (self.rows.len() + layer) as u32
    }

    /// Row of the maxima of a layer's weights.
    pub fn weight_max(&self, layer: LayerId) -> u32 {
        self.first_weight_max() + self.weights_of(layer).0 as u32
    }

    /// The first of these: those of all layers follow in the order of the weight table, behind those of values.
    pub fn first_weight_max(&self) -> u32 {
        self.range_rows.len() as u32
    }

    /// The batch norm of a convolution.
    pub fn norm_of(&self, layer: LayerId) -> &Norm {
        self.norms.iter().find(|n| n.layer == layer).expect("a convolution has a batch norm")
    }

    /// Table row of every block, for the `blocks` tensor.
    pub fn block_rows(&self) -> Vec<u32> {
        let blocks = |r: &WeightRow| (r.rows * r.cols4 * 4).div_ceil(ALIGN_WORDS as u32);
        let each = self.rows.iter().enumerate();
        each.flat_map(|(i, r)| std::iter::repeat_n(i as u32, blocks(r) as usize)).collect()
    }

    /// vec4s of the parts of a group of weight gradients.
    pub fn parts_words4(&self, group: &Range<usize>) -> usize {
        let last = &self.rows[group.end - 1];
        (last.part4 + last.splits * last.rows * last.cols4) as usize
    }

    /// vec4s of the `weight_stats` output.
    pub fn stats_words4(&self) -> usize {
        self.rows.iter().map(stats_of).sum()
    }
}

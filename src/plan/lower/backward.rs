//! The backward pass, layer by layer in reverse, and the optimizer.
//!
//! `grads[a]` is the gradient of activation `a`'s output as far as it has been summed. An identity shortcut hands its
//! gradient on in place; the data gradient of the other branch is then added to it by the convolution kernel.

use std::collections::HashMap;
use std::ops::Range;

use super::Pass;
use crate::kernels::activation::{ActParams, BACKWARD, BACKWARD_PART, BackwardParams, backward_variant};
use crate::kernels::conv::{ConvParams, Geometry, WGRAD, WgradParams};
use crate::kernels::head::{BIAS_GRAD, BiasParams, POOL_BACKWARD, PoolParams};
use crate::kernels::norm::{self, BwdMergeParams, BwdParams};
use crate::kernels::optimizer::{
    AVERAGE, AverageParams, GRAD_CLIP, GRAD_NORM, GradClipParams, GradNormParams, SGD, SgdParams,
};
use crate::kernels::select::{select_conv, select_wgrad};
use crate::kernels::weights::{REDUCE, ReduceParams};
use crate::kernels::{Format, flat_grid};
use crate::net::{Activation, Conv, Layer, LayerId, Linear, Pool, Shortcut};
use crate::plan::{Arena, TensorId};
use crate::quant::Quant;

struct Gradients {
    /// Parts of the gradients of the weights of a group of layers, by its first.
    parts: HashMap<usize, TensorId>,
    /// Per activation (and pool): gradient of its output.
    grads: HashMap<LayerId, TensorId>,
    /// Per convolution: gradient before the batch norm, and the coefficients of the batch norm's backward pass.
    pending: HashMap<LayerId, (TensorId, TensorId)>,
}

/// What has come back through an activation.
struct Back {
    activation: LayerId,
    /// Gradient of the value before the ReLU.
    d: TensorId,
    /// Partial sums of it.
    part: TensorId,
    chunks: usize,
    rows: usize,
}

/// Workgroups that add up the squares of the gradients.
const MOST_NORM_PARTS: usize = 256;

impl Pass<'_> {
    pub(super) fn backward(&mut self, dlogits: TensorId) {
        let net = self.net;
        let mut g = Gradients { parts: HashMap::new(), grads: HashMap::new(), pending: HashMap::new() };
        for (id, layer) in net.layers.iter().enumerate().rev() {
            self.layer = Some(id);
            match layer {
                Layer::Linear(l) => self.linear_backward(id, l, dlogits, &mut g),
                Layer::Pool(p) => self.pool_backward(id, p, &mut g),
                Layer::Activation(a) => self.activation_backward(id, a, &mut g),
                Layer::Conv(c) => self.conv_backward(id, c, &mut g),
                Layer::Input(_) => {}
            }
        }
        self.layer = None;
    }

    /// Adds up the parts of the weight gradients of a group of layers.
    fn reduce_weight_gradients(&mut self, group: &Range<usize>, parts: TensorId) {
        let layout = self.layout;
        let first = 4 * layout.rows[group.start].offset4 as usize;
        let end = layout.rows.get(group.end).map_or(layout.decayed_words, |next| 4 * next.offset4 as usize);
        let words = end - first;
        let quantize = u32::from(self.quant.is_some());
        let params = ReduceParams { first: first as u32, words: words as u32, quantize, pad: 0 };
        let bind = [layout.table, layout.blocks, parts, layout.decayed, layout.scales, layout.ranges, layout.grads];
        self.emit_only(&REDUCE, &params, &bind, flat_grid(words / 4));
    }

    /// Weight gradient from the layer's input and `dy`, in parts.
    fn weight_gradient(&mut self, id: LayerId, input: LayerId, geometry: &Geometry, dy: TensorId, g: &mut Gradients) {
        let value = self.input_value(input);
        let layout = self.layout;
        let (at, w) = layout.weights_of(id);
        let row = &layout.rows[at];
        assert!(self.quant.is_none() || row.x_row == value.row, "the table knows the codes of {}", w.name);
        let lifted = self.has_maximum(value) && matches!(self.net.layers[id], Layer::Conv(_));
        let params = WgradParams {
            terms: if lifted { self.terms(true) } else { 0 },
            x_max: layout.value_max(value.layer),
            dy_max: layout.gradient_max(id),
            part4: row.part4,
            ..geometry.weight_gradient(value.format)
        };
        let choice = select_wgrad(&params, value.format, &self.options.caps, self.options.family);
        let group = layout.part_groups.iter().find(|group| group.contains(&at)).expect("every layer is in a group");
        let of_group = |pass: &mut Self| pass.plan.scratch("wgrad part", 4 * layout.parts_words4(group));
        let parts = *g.parts.entry(group.start).or_insert_with(|| of_group(self));
        let bind = [value.tensor, dy, layout.maxima, parts];
        let others = self.plan.tensor(parts).words - row.splits as usize * w.words();
        let grid = choice.wgrad_grid(&params);
        self.emit(&WGRAD, choice.variant, &params, &bind, grid, geometry.flops());
        self.leave_out(others);
        if at == group.start {
            self.reduce_weight_gradients(group, parts);
        }
    }

    /// Data gradient of `dy`, added to what `grads[input]` already holds.
    fn data_gradient(&mut self, id: LayerId, input: LayerId, geometry: &Geometry, dy: TensorId, g: &mut Gradients) {
        let held = g.grads.get(&input).copied();
        let w_base = self.layout.weights_of(id).1.offset4;
        let params = ConvParams {
            w_codes: u32::from(self.quantizer(id).is_some()),
            terms: if matches!(self.net.layers[id], Layer::Conv(_)) { self.terms(true) } else { 0 },
            x_max: self.layout.gradient_max(id),
            w_max: self.layout.weight_max(id),
            w_base,
            ..geometry.data_gradient(held.is_some())
        };
        let words = geometry.batch * geometry.from.len();
        let dx = held.unwrap_or_else(|| self.scratch("dx", words));
        g.grads.insert(input, dx);
        let choice = select_conv(&params, Format::F32, &self.options.caps, self.options.family);
        self.emit_conv(id, choice, &params, [dy, self.layout.transposed, dx], None, geometry.flops());
    }

    fn linear_backward(&mut self, id: LayerId, l: &Linear, dlogits: TensorId, g: &mut Gradients) {
        let layout = self.layout;
        let geometry = self.geometry(id);
        let params = BiasParams {
            batch: geometry.batch as u32,
            cols: l.padded() as u32,
            w_scale: u32::from(self.quantizer(id).is_some()),
            pad: 0,
        };
        let scales = layout.weights_of(id).1.scales;
        self.emit_only(&BIAS_GRAD, &params, &[dlogits, scales, layout.bias.1], flat_grid(l.padded()));
        self.weight_gradient(id, l.input, &geometry, dlogits, g);
        self.data_gradient(id, l.input, &geometry, dlogits, g);
    }

    fn pool_backward(&mut self, id: LayerId, p: &Pool, g: &mut Gradients) {
        let words = self.options.batch * p.from.len();
        let dx = self.scratch("dx", words);
        let params = PoolParams {
            batch: self.options.batch as u32,
            pixels: p.from.pixels() as u32,
            cols4: p.from.c as u32 / 4,
            x_row: -1,
        };
        self.emit_only(&POOL_BACKWARD, &params, &[g.grads[&id], dx], flat_grid(words / 4));
        g.grads.insert(p.input, dx);
    }

    fn activation_backward(&mut self, id: LayerId, a: &Activation, g: &mut Gradients) {
        let rows = self.options.batch * a.shape.pixels();
        let chunk = self.row_chunk(rows, a.shape.c);
        let chunks = rows.div_ceil(chunk);
        let items = chunks * a.shape.c / 4;
        let q = self.quantizer(id);
        let row = self.layout.range_rows[id].expect("an activation has a row of ranges");
        let main = self.conv_state(a.main);
        let s = self.shortcut_operand(a);
        let d = g.grads[&id];
        let part = self.scratch("act_bwd part", 4 * BACKWARD_PART * items);
        let params = BackwardParams {
            rows: rows as u32,
            cols4: a.shape.c as u32 / 4,
            chunk: chunk as u32,
            pad: 0,
            act: ActParams {
                range_row: row,
                shortcut_row: s.row,
                shortcut: s.kind,
                shortcut_format: s.format as u32,
                quant: q.map_or(Quant::OFF, |q| q.quant),
            },
        };
        let variant = backward_variant(s.kind, s.format);
        let bind = [d, main.y, main.context, s.tensor, s.context, self.layout.ranges, part];
        self.emit(&BACKWARD, variant, &params, &bind, flat_grid(items), 0);
        let back = Back { activation: id, d, part, chunks, rows };
        self.norm_backward_merge(a.main, &back, 1, g);
        match a.shortcut {
            Shortcut::None => {}
            Shortcut::Identity(source) => {
                let previous = g.grads.insert(source, d);
                assert!(previous.is_none(), "an identity shortcut comes before the other branch in reverse order");
            }
            Shortcut::Projection(conv) => self.norm_backward_merge(conv, &back, 2, g),
        }
    }

    fn norm_backward_merge(&mut self, conv: LayerId, back: &Back, branch: u32, g: &mut Gradients) {
        let layout = self.layout;
        let norm = layout.norm_of(conv);
        let coefficients = self.scratch("coefficients", 3 * norm.channels);
        let input = match &self.net.layers[conv] {
            Layer::Conv(c) => self.input_value(c.input),
            _ => unreachable!("batch norms belong to convolutions"),
        };
        let params = BwdMergeParams {
            channels: norm.channels as u32,
            rows: back.rows as u32,
            chunks: back.chunks as u32,
            branch,
            x_row: input.row,
            pad: [0; 3],
        };
        let context = self.conv_state(conv).context;
        let blocked = layout.statistics[back.activation].expect("an activation has statistics").blocked;
        let bind = [back.part, norm.affine, context, layout.ranges, norm.grad, coefficients, blocked];
        self.emit_only(&norm::BWD_MERGE, &params, &bind, [norm.channels as u32 / 4, 1, 1]);
        g.pending.insert(conv, (back.d, coefficients));
    }

    fn conv_backward(&mut self, id: LayerId, c: &Conv, g: &mut Gradients) {
        let geometry = self.geometry(id);
        let (dz, coefficients) = g.pending.remove(&id).expect("the activation behind a convolution comes first");
        let state = self.conv_state(id);
        let dy = self.scratch("dy", geometry.batch * c.to.len());
        let rows = geometry.batch * c.to.pixels();
        let chunk = self.row_chunk(rows, c.to.c);
        let keep_max = self.keeps_maxima();
        let params = BwdParams {
            rows: rows as u32,
            cols4: c.to.c as u32 / 4,
            chunk: chunk as u32,
            keep_max: u32::from(keep_max),
            max_row: self.layout.gradient_max(id),
            pad: [0; 3],
        };
        let bind = [dz, state.y, state.context, coefficients, dy, self.layout.maxima];
        let grid = flat_grid(rows.div_ceil(chunk) * c.to.c / 4);
        self.emit(&norm::BWD, norm::backward_variant(keep_max), &params, &bind, grid, 0);
        self.weight_gradient(id, c.input, &geometry, dy, g);
        if !matches!(self.net.layers[c.input], Layer::Input(_)) {
            self.data_gradient(id, c.input, &geometry, dy, g);
        }
    }

    pub(super) fn optimizer(&mut self) {
        let o = &self.options.optimizer;
        let words4 = self.plan.arena_words(Arena::Params) / 4;
        let decayed = if o.decay_norms_and_biases { words4 } else { self.layout.decayed_words / 4 };
        let params = SgdParams {
            words4: words4 as u32,
            decayed4: decayed as u32,
            nesterov: u32::from(o.nesterov),
            momentum: o.momentum,
            weight_decay: o.weight_decay,
            pad: [0; 3],
        };
        let layout = self.layout;
        let grads = layout.accumulated.unwrap_or(layout.grads);
        if let Some(most) = o.clip_norm {
            let groups = words4.div_ceil(64).min(MOST_NORM_PARTS);
            let parts = self.plan.scratch("gradient norm".to_string(), groups);
            let p = GradNormParams { words4: words4 as u32, groups: groups as u32, pad: [0; 2] };
            self.emit_only(&GRAD_NORM, &p, &[grads, parts], [groups as u32, 1, 1]);
            let p = GradClipParams { groups: groups as u32, most, pad: [0; 2] };
            self.emit_only(&GRAD_CLIP, &p, &[parts, layout.clip], [1, 1, 1]);
        }
        let bind = [grads, layout.step, layout.clip, layout.params, layout.velocity];
        self.emit_only(&SGD, &params, &bind, flat_grid(words4));
        if let Some(average) = layout.average {
            self.average(layout.params, average.params, false);
            self.average(layout.running, average.running, false);
        }
    }

    /// Takes values into their moving average; `gradients` into the mean over the batches of a step.
    pub(super) fn average(&mut self, values: TensorId, averages: TensorId, gradients: bool) {
        let words4 = self.plan.tensor(values).words / 4;
        let p = AverageParams { words4: words4 as u32, gradients: u32::from(gradients), pad: [0; 2] };
        self.emit_only(&AVERAGE, &p, &[values, self.layout.step, averages], flat_grid(words4));
    }
}

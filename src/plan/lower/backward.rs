//! The backward pass, layer by layer in reverse, and the optimizer.
//!
//! `grads[a]` is the gradient of activation `a`'s output as far as it has been summed. An identity shortcut hands its
//! gradient on in place; the data gradient of the other branch is then added to it by the convolution kernel.

use std::collections::HashMap;
use std::ops::Range;

use super::Pass;
use super::winograd::Operands;
use crate::kernels::activation::{BACKWARD, BackwardParams, backward_variant, part_words};
use crate::kernels::conv::{ConvParams, Geometry, act_chunks};
use crate::kernels::norm::{self, BwdMergeParams, BwdParams};
use crate::kernels::optimizer::{
    AVERAGE, AverageParams, GRAD_CLIP, GRAD_NORM, GradClipParams, GradNormParams, SGD, SgdParams,
};
use crate::kernels::select::{select_conv, select_wgrad};
use crate::kernels::weights::{REDUCE, ReduceParams};
use crate::kernels::wgrad::{WGRAD, WgradParams};
use crate::kernels::{Format, flat_grid};
use crate::net::{Activation, Conv, Layer, LayerId, Linear, Shortcut};
use crate::plan::{Arena, TensorId};

#[derive(Default)]
struct Gradients {
    /// Parts of the gradients of the weights of a group of layers, by its first.
    parts: HashMap<usize, TensorId>,
    /// Per activation (and pool): gradient of its output.
    grads: HashMap<LayerId, TensorId>,
    /// Per activation that its last data gradient went back through.
    back: HashMap<LayerId, Back>,
    /// Per convolution: gradient of what it writes.
    dy: HashMap<LayerId, TensorId>,
}

/// What has come back through an activation.
struct Back {
    /// Gradient of the value before the ReLU.
    d: TensorId,
    /// Partial sums of it.
    part: TensorId,
    chunks: usize,
}

/// Workgroups that add up the squares of the gradients.
const MOST_NORM_PARTS: usize = 256;

impl Pass<'_> {
    pub(super) fn backward(&mut self, dlogits: TensorId) {
        let net = self.net;
        self.back = true;
        let mut g = Gradients::default();
        for (id, layer) in net.layers.iter().enumerate().rev() {
            self.layer = Some(id);
            match layer {
                Layer::Linear(l) => self.linear_backward(id, l, dlogits, &mut g),
                Layer::Activation(a) => self.activation_backward(id, a, &mut g),
                Layer::Conv(c) => self.conv_backward(id, c, &mut g),
                Layer::Input(_) | Layer::Pool(_) => {}
            }
        }
        self.layer = None;
        self.weight_steps();
        self.back = false;
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
        self.leave_out(2 * (layout.decayed_words - words));
    }

    /// Weight gradient from the layer's input and `dy`, in parts.
    fn weight_gradient(&mut self, id: LayerId, input: LayerId, geometry: &Geometry, dy: TensorId, g: &mut Gradients) {
        let value = self.value(input);
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

    /// Data gradient of `dy`, added to what `grads[input]` already holds; the last that an activation gets goes back through it where
    /// the kernels can.
    fn data_gradient(&mut self, id: LayerId, input: LayerId, geometry: &Geometry, dy: TensorId, g: &mut Gradients) {
        let held = g.grads.get(&input).copied();
        let words = geometry.batch * geometry.from.len();
        let dx = held.unwrap_or_else(|| self.scratch("dx", words));
        g.grads.insert(input, dx);
        if self.suits_winograd(geometry) {
            let operands = Operands { x: dy, format: Format::F32, w: self.layout.transposed, out: dx };
            return self.winograd(id, geometry, true, held.is_some(), &operands);
        }
        let w_base = self.layout.weights_of(id).1.offset4;
        let params = ConvParams {
            w_codes: u32::from(self.quantizer(id).is_some()),
            terms: if matches!(self.net.layers[id], Layer::Conv(_)) { self.terms(true) } else { 0 },
            x_max: self.layout.gradient_max(id),
            w_max: self.layout.weight_max(id),
            w_base,
            ..geometry.data_gradient(held.is_some())
        };
        let choice = select_conv(&params, Format::F32, &self.options.caps, self.options.family);
        let operands = [dy, self.layout.transposed, dx];
        let finishing = match &self.net.layers[input] {
            Layer::Activation(a) if self.net.first_reader(input) == Some(id) => {
                let (act, shortcut) = self.act_operands(input, a);
                choice.clone().with_activation(&act, &self.options.caps).map(|choice| (choice, a, act, shortcut))
            }
            _ => None,
        };
        let Some((choice, a, act, shortcut)) = finishing else {
            return self.emit_conv(id, choice, &params, operands, &[], geometry.flops());
        };
        let params = ConvParams { act, ..params };
        let chunks = act_chunks(&params);
        let part = self.scratch("act part", part_words(chunks, a.shape.c));
        let more = [self.output(a.main), self.context(input), shortcut, self.layout.ranges, part];
        self.emit_conv(id, choice, &params, operands, &more, geometry.flops());
        g.grads.remove(&input); // it is that of the value before the ReLU by now
        g.back.insert(input, Back { d: dx, part, chunks });
    }

    fn linear_backward(&mut self, id: LayerId, l: &Linear, dlogits: TensorId, g: &mut Gradients) {
        let geometry = self.geometry(id);
        self.weight_gradient(id, l.input, &geometry, dlogits, g);
        self.data_gradient(id, l.input, &geometry, dlogits, g);
    }

    fn context(&self, activation: LayerId) -> TensorId {
        self.contexts[activation].expect("layers come in forward order")
    }

    /// Takes the gradient of an activation back through it.
    fn back_through(&mut self, id: LayerId, a: &Activation, g: &Gradients) -> Back {
        let rows = self.options.batch * a.shape.pixels();
        let pool = self.net.is_pooled(id);
        let chunk = if pool { a.shape.pixels() } else { self.row_chunk(rows, a.shape.c) };
        let chunks = rows.div_ceil(chunk);
        let items = chunks * a.shape.c / 4;
        let (d, pooled) = if pool {
            let reader = self.net.first_reader(id).expect("the pool reads it");
            (self.scratch("dx", rows * a.shape.c), g.grads[&reader])
        } else {
            (g.grads[&id], self.layout.unused)
        };
        let part = self.scratch("act part", part_words(chunks, a.shape.c));
        let (act, shortcut) = self.act_operands(id, a);
        let params = BackwardParams {
            rows: rows as u32,
            cols4: a.shape.c as u32 / 4,
            chunk: chunk as u32,
            pool: u32::from(pool),
            act,
        };
        let bind = [d, pooled, self.output(a.main), self.context(id), shortcut, self.layout.ranges, part];
        self.emit(&BACKWARD, backward_variant(&params), &params, &bind, flat_grid(items), 0);
        Back { d, part, chunks }
    }

    fn activation_backward(&mut self, id: LayerId, a: &Activation, g: &mut Gradients) {
        let back = g.back.remove(&id).unwrap_or_else(|| self.back_through(id, a, g));
        self.norm_backward(id, a, &back, g);
        if let Shortcut::Identity(source) = a.shortcut {
            let previous = g.grads.insert(source, back.d);
            assert!(previous.is_none(), "an identity shortcut comes before the other branch in reverse order");
        }
    }

    /// Batch norms of the branches that end in an activation.
    fn norm_backward(&mut self, id: LayerId, a: &Activation, back: &Back, g: &mut Gradients) {
        let layout = self.layout;
        let (rows, channels) = (self.options.batch * a.shape.pixels(), a.shape.c);
        let branches = a.branches();
        let [main, projection] = self.norm_branches(a);
        let coefficients = self.scratch("coefficients", branches * 3 * channels);
        let context = self.context(id);
        let blocked = layout.statistics[id].expect("an activation has statistics").blocked;
        let params = BwdMergeParams {
            channels: channels as u32,
            rows: rows as u32,
            chunks: back.chunks as u32,
            branches: branches as u32,
            pow2: self.pow2_norm(),
            pad: [0; 3],
            main,
            projection,
        };
        let bind =
            [back.part, layout.params, context, layout.ranges, layout.grads, coefficients, blocked, layout.maxima];
        self.emit_only(&norm::BWD_MERGE, &params, &bind, [channels as u32 / 4, branches as u32, 1]);
        self.leave_out(2 * (self.plan.tensor(layout.params).words - branches * 2 * channels));
        let chunk = self.row_chunk(rows, channels);
        let keep_max = self.keeps_maxima();
        let params = BwdParams {
            rows: rows as u32,
            cols4: channels as u32 / 4,
            chunk: chunk as u32,
            projection: branches as u32 - 1,
            keep_max: u32::from(keep_max),
            max_row: main.max_row,
            projection_max_row: projection.max_row,
            pad: 0,
        };
        let y = self.output(a.main);
        let dy = self.scratch("dy", rows * channels);
        g.dy.insert(a.main, dy);
        let (projection_y, projection_dy) = match a.shortcut {
            Shortcut::Projection(conv) => {
                let dy = self.scratch("projection dy", rows * channels);
                g.dy.insert(conv, dy);
                (self.output(conv), dy)
            }
            Shortcut::None | Shortcut::Identity(_) => (layout.ranges, layout.unused),
        };
        let bind = [back.d, y, projection_y, context, coefficients, dy, projection_dy, layout.maxima];
        let variant = norm::backward_variant(branches == 2, keep_max);
        self.emit(&norm::BWD, variant, &params, &bind, flat_grid(rows.div_ceil(chunk) * channels / 4), 0);
    }

    fn conv_backward(&mut self, id: LayerId, c: &Conv, g: &mut Gradients) {
        let geometry = self.geometry(id);
        let dy = g.dy.remove(&id).expect("the activation behind a convolution comes first");
        self.weight_gradient(id, c.input, &geometry, dy, g);
        if !matches!(self.net.layers[c.input], Layer::Input(_)) {
            self.data_gradient(id, c.input, &geometry, dy, g);
        }
    }

    pub(super) fn optimizer(&mut self) {
        let o = &self.options.optimizer;
        let words4 = self.plan.arena_words(Arena::Params) / 4;
        let decayed = match (o.decay_norms_and_biases, &self.layout.steps) {
            (false, _) => self.layout.decayed_words / 4,
            (true, Some(steps)) => steps.offset / 4,
            (true, None) => words4,
        };
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

//! The forward pass.

use std::ops::Range;

use super::winograd::Operands;
use super::{EXACT_IN_F32, Mode, NormParts, Pass, Value, tracking};
use crate::config::Estimator;
use crate::kernels::activation::{ActParams, FORWARD, ForwardParams, forward_variant, shortcut_kind};
use crate::kernels::conv::{ConvParams, Geometry};
use crate::kernels::input::{AUGMENT, AugmentParams};
use crate::kernels::norm::{self, EPS, MOMENTUM, MergeParams, NormBranch, StatsParams};
use crate::kernels::range::{self, HISTOGRAM, HistogramParams};
use crate::kernels::select::{Choice, select_conv};
use crate::kernels::{Format, flat_grid};
use crate::net::{Activation, Conv, Layer, LayerId, Shape, Shortcut};
use crate::plan::TensorId;
use crate::quant::{Quant, QuantSpec, Quantizer, Tracking};

impl Pass<'_> {
    /// Emits the forward pass and returns the gradient of the logits.
    pub(super) fn forward(&mut self) -> TensorId {
        let net = self.net;
        let mut dlogits = None;
        for (id, layer) in net.layers.iter().enumerate() {
            self.layer = Some(id);
            match layer {
                Layer::Input(i) => self.input(id, i.shape),
                Layer::Conv(c) => self.conv(id, c),
                Layer::Activation(a) => self.activation(id, a),
                Layer::Pool(_) => self.pool(id),
                Layer::Linear(l) => dlogits = Some(self.linear(id, l)),
            }
        }
        self.layer = None;
        dlogits.expect("a network ends in a linear layer")
    }

    pub(super) fn value(&self, id: LayerId) -> Value {
        self.values[id].expect("layers come in forward order")
    }

    fn input(&mut self, id: LayerId, shape: Shape) {
        let codes = self.quant.is_some_and(|q| q.input.is_some());
        let format = if codes { Format::I8 } else { Format::F32 };
        let words = format.words(self.options.batch * shape.len());
        let row = if codes { 0 } else { -1 };
        if self.options.host_input {
            // One tensor for every program, written by the host.
            let name = if codes { "input codes (host)" } else { "input (host)" };
            let tensor = self.plan.find(name).unwrap_or_else(|| self.plan.own(name, words));
            self.values[id] = Some(Value { tensor, format, row, layer: id });
            return;
        }
        let out = self.scratch("value", words);
        let augment = matches!(self.mode, Mode::Train | Mode::Teach);
        let on = |v: u32| if augment { v } else { 0 };
        let layout = self.layout;
        let ([images, more], first, picks) = match layout.resident.filter(|_| augment) {
            Some(resident) => (resident.parts, resident.first, resident.picks),
            None => ([layout.images; 2], self.options.batch, layout.in_order),
        };
        let params = AugmentParams {
            batch: self.options.batch as u32,
            size: shape.h as u32,
            crop_padding: on(self.options.augment.crop_padding),
            flip: on(u32::from(self.options.augment.flip)),
            cutout: on(self.options.augment.cutout),
            codes: u32::from(codes),
            first: first as u32,
            pad: 0,
        };
        let tables = self.layout.input_tables;
        let table = if codes { tables.1 } else { tables.0 };
        let bind = [images, more, picks, self.layout.step, table, out];
        self.emit_only(&AUGMENT, &params, &bind, flat_grid(self.options.batch * shape.pixels()));
        self.values[id] = Some(Value { tensor: out, format, row, layer: id });
    }

    /// Of a convolution or linear layer.
    pub(super) fn geometry(&self, id: LayerId) -> Geometry {
        Geometry::of(&self.net.layers[id], self.options.batch).expect("the layer is a product")
    }

    /// Whether the codes of a value fit in signed 8 bits.
    fn is_narrow(&self, value: Value) -> bool {
        let fits = |q: Quantizer| q.quant.max_abs() <= i8::MAX as u32;
        match value.format {
            Format::F32 => false,
            Format::I8 | Format::I4 | Format::U4 => true,
            Format::U8 => self.quantizer(value.layer).is_some_and(fits),
        }
    }

    /// The kernel that multiplies `input` by the codes of layer `id`.
    pub(super) fn forward_product(&self, id: LayerId, g: &Geometry, input: Value) -> (Choice, ConvParams) {
        let integer = self.quant.and_then(|q| q.largest_sum(self.net, id)).is_some_and(|sum| sum >= EXACT_IN_F32);
        let layout = self.layout;
        let params = ConvParams {
            integer: u32::from(integer),
            w_codes: u32::from(self.quantizer(id).is_some()),
            terms: if self.has_maximum(input) { self.terms(false) } else { 0 },
            x_max: layout.value_max(input.layer),
            w_max: layout.weight_max(id),
            narrow: u32::from(self.is_narrow(input)),
            ..g.forward(input.format)
        };
        let choice = select_conv(&params, input.format, &self.options.caps, self.options.family);
        (choice, ConvParams { w_base: layout.weights_of(id).1.offset4, ..params })
    }

    /// A convolution, and the partial statistics of what it writes.
    fn conv(&mut self, id: LayerId, c: &Conv) {
        let (g, input) = (self.geometry(id), self.value(c.input));
        let (rows, channels) = (g.batch * c.to.pixels(), c.to.c);
        let y = self.scratch("y", rows * channels);
        self.outputs[id] = Some(y);
        let (choice, params) = self.forward_product(id, &g, input);
        let operands = [input.tensor, self.layout.codes, y];
        let winograd = self.suits_winograd(&g) && self.exact_in_winograd(id);
        let plain = |pass: &mut Self, choice: Choice| match winograd {
            true => {
                let [x, w, out] = operands;
                pass.winograd(id, &g, false, false, &Operands { x, format: input.format, w, out });
            }
            false => pass.emit_conv(id, choice, &params, operands, &[], g.flops()),
        };
        if self.uses_running_statistics() {
            return plain(self, choice);
        }
        let finishing = choice.clone().with_statistics(&self.options.caps);
        let chunk = if finishing.is_some() { norm::FINISH_CHUNK } else { self.row_chunk(rows, channels) };
        let (activation, a) = self.net.activation_behind(id);
        let words = 2 * rows.div_ceil(chunk) * channels;
        let branches = a.branches();
        let parts = self.norm_parts[activation].unwrap_or_else(|| {
            let tensor = self.scratch("norm part", branches * words);
            NormParts { tensor, chunk }
        });
        assert_eq!(parts.chunk, chunk, "the branches of an activation are summed alike");
        self.norm_parts[activation] = Some(parts);
        let part4 = if a.main != id { words as u32 / 4 } else { 0 };
        match finishing {
            Some(choice) => {
                let params = ConvParams { part4, ..params };
                self.emit_conv(id, choice, &params, operands, &[parts.tensor], g.flops());
            }
            None => {
                plain(self, choice);
                let params = StatsParams { rows: rows as u32, cols4: channels as u32 / 4, chunk: chunk as u32, part4 };
                let grid = flat_grid(words / 2 / 4);
                self.emit_only(&norm::STATS, &params, &[y, parts.tensor], grid);
            }
        }
        self.leave_out((branches - 1) * words);
    }

    /// What a convolution has written.
    pub(super) fn output(&self, conv: LayerId) -> TensorId {
        self.outputs[conv].expect("layers come in forward order")
    }

    /// The batch norm of a convolution.
    fn norm_branch(&self, conv: LayerId) -> NormBranch {
        let norm = self.layout.norm_of(conv);
        let at4 = |tensor| self.plan.offset(tensor) as u32 / 4;
        NormBranch {
            affine4: at4(norm.affine),
            running4: at4(norm.running),
            scales4: at4(self.layout.weights_of(conv).1.scales),
            x_row: self.value(self.net.conv(conv).input).row,
            w_scale: u32::from(self.quantizer(conv).is_some()),
            health_slot: conv as u32,
            max_row: self.layout.gradient_max(conv),
            pad: 0,
        }
    }

    /// Whether the factors of batch norms are powers of two. Calibration sees the values that quantizers are going to see.
    pub(super) fn pow2_norm(&self) -> u32 {
        let observes = matches!(self.mode, Mode::Calibrate | Mode::Histogram);
        let spec = self.quant.or(self.spec.filter(|_| observes));
        u32::from(spec.is_some_and(|spec| spec.config.pow2_norm))
    }

    /// The batch norms of the branches that end in an activation: the main one and, where there is one, the projection.
    pub(super) fn norm_branches(&self, a: &Activation) -> [NormBranch; 2] {
        let projection = match a.shortcut {
            Shortcut::Projection(conv) => self.norm_branch(conv),
            Shortcut::None | Shortcut::Identity(_) => NormBranch::default(),
        };
        [self.norm_branch(a.main), projection]
    }

    /// The context of the batch norms of the branches that end in an activation.
    fn norm_merge(&mut self, id: LayerId, a: &Activation) -> TensorId {
        let rows = self.options.batch * a.shape.pixels();
        let channels = a.shape.c;
        let branches = a.branches();
        let context = self.scratch("context", branches * 4 * channels);
        let [main, projection] = self.norm_branches(a);
        // In evaluation something is bound that is never read.
        let (part, chunk) = self.norm_parts[id].map_or((self.output(a.main), rows), |p| (p.tensor, p.chunk));
        let params = MergeParams {
            channels: channels as u32,
            rows: rows as u32,
            chunk: chunk as u32,
            chunks: rows.div_ceil(chunk) as u32,
            evaluate: u32::from(self.uses_running_statistics()),
            branches: branches as u32,
            eps: EPS,
            momentum: if self.mode == Mode::Train { MOMENTUM } else { 0.0 },
            pow2: self.pow2_norm(),
            pad: [0; 3],
            main,
            projection,
        };
        let layout = self.layout;
        let bind =
            [part, layout.params, layout.scales, layout.ranges, layout.step, layout.running, context, layout.health];
        self.emit_only(&norm::MERGE, &params, &bind, [channels as u32 / 4, branches as u32, 1]);
        let words = |t| self.plan.tensor(t).words;
        self.leave_out(words(layout.params) + words(layout.scales) + words(layout.running) - branches * 5 * channels);
        self.contexts[id] = Some(context);
        context
    }

    /// The activation as its kernels see it, and its shortcut.
    pub(super) fn act_operands(&self, id: LayerId, a: &Activation) -> (ActParams, TensorId) {
        let (tensor, format, row) = match a.shortcut {
            Shortcut::None => (self.output(a.main), Format::F32, -1),
            Shortcut::Identity(source) => {
                let v = self.value(source);
                (v.tensor, v.format, v.row)
            }
            Shortcut::Projection(conv) => (self.output(conv), Format::F32, -1),
        };
        let params = ActParams {
            range_row: self.layout.range_rows[id].expect("an activation has a row of ranges"),
            shortcut_row: row,
            shortcut: shortcut_kind(a.shortcut),
            shortcut_format: format as u32,
            quant: self.quantizer(id).map_or(Quant::OFF, |q| q.quant),
        };
        (params, tensor)
    }

    fn activation(&mut self, id: LayerId, a: &Activation) {
        let context = self.norm_merge(id, a);
        let rows = self.options.batch * a.shape.pixels();
        let statistics = self.layout.statistics[id].expect("an activation has statistics");
        let items = rows.div_ceil(statistics.chunk) * a.shape.c / 4;
        let quantized = self.quantizer(id).is_some();
        let format = if quantized { Format::U8 } else { Format::F32 };
        let out = self.scratch("value", format.words(rows * a.shape.c));
        let (act, shortcut) = self.act_operands(id, a);
        let row = act.range_row;
        let pool = self.net.is_pooled(id);
        let pooled = if pool { self.scratch("pooled", self.options.batch * a.shape.c) } else { self.layout.unused };
        if pool {
            self.pooled = Some(pooled);
        }
        let params = ForwardParams {
            rows: rows as u32,
            cols4: a.shape.c as u32 / 4,
            chunk: statistics.chunk as u32,
            measure: 0,
            pool: u32::from(pool),
            keep_max: u32::from(self.keeps_maxima_of(id)),
            max_row: self.layout.value_max(id),
            pad: 0,
            act,
        };
        let variant = forward_variant(&params);
        let layout = self.layout;
        let y = self.output(a.main);
        let bind = [y, context, shortcut, layout.ranges, out, statistics.seen, pooled, layout.maxima];
        let run = |pass: &mut Self, measure: bool| {
            let params = ForwardParams { measure: u32::from(measure), ..params };
            pass.emit(&FORWARD, variant.clone(), &params, &bind, flat_grid(items), 0);
        };
        // A range of this batch is made before its codes are.
        if let (Mode::Train, Some(entry), Some(quant)) = (self.mode, statistics.entry, self.quant)
            && tracking(quant) == Tracking::Batch
        {
            run(self, true);
            self.range_update(quant, entry..entry + 1, Tracking::Batch, false);
        }
        run(self, false);
        if self.mode == Mode::Histogram && self.spec.is_some_and(|s| s.layer(id).is_some()) {
            let values = rows * a.shape.c;
            let params = HistogramParams { words4: values as u32 / 4, row, pad: [0; 2] };
            let bind = [out, self.layout.ranges, self.layout.histogram];
            self.emit_only(&HISTOGRAM, &params, &bind, flat_grid(values / 4));
        }
        let row = if quantized { row as i32 } else { -1 };
        self.values[id] = Some(Value { tensor: out, format, row, layer: id });
    }

    /// Moves all ranges by what the pass has seen. In training this comes last: until then everybody uses the scales that the
    /// codes were made with.
    pub(super) fn update_ranges(&mut self) {
        let (Some(spec), all) = (self.spec, 0..self.layout.range_entries.len() as u32) else { return };
        match self.mode {
            Mode::Train if self.quant.is_some() => {
                let mode = tracking(spec);
                let mode = if mode == Tracking::Batch { Tracking::Hold } else { mode };
                self.range_update(spec, all, mode, true);
            }
            Mode::Calibrate => {
                let mode = match spec.config.activation_estimator() {
                    Estimator::FixedPow2 => Tracking::Hold,
                    Estimator::Max | Estimator::Percentile | Estimator::Mse => Tracking::Max,
                    Estimator::EmaMax | Estimator::KSigma | Estimator::MeanAbs => Tracking::Mean,
                };
                self.range_update(spec, all, mode, false);
            }
            _ => {}
        }
    }

    /// Moves the ranges of some rows of the table; `count` adds to the statistics too.
    fn range_update(&mut self, spec: &QuantSpec, entries: Range<u32>, mode: Tracking, count: bool) {
        if entries.is_empty() {
            return;
        }
        let a = &spec.config.activations;
        let estimator = spec.config.activation_estimator();
        let params = range::UpdateParams {
            first: entries.start,
            count: entries.len() as u32,
            mode: mode as u32,
            use_sigma: u32::from(matches!(estimator, Estimator::KSigma | Estimator::MeanAbs)),
            sigmas: if estimator == Estimator::KSigma { a.sigmas } else { 0.0 },
            ema: a.ema_momentum,
            count_step: u32::from(count),
            pad: 0,
        };
        let layout = self.layout;
        let bind =
            [layout.range_table, layout.seen, layout.blocked, layout.step, layout.params, layout.ranges, layout.grads];
        self.emit_only(&range::UPDATE, &params, &bind, [entries.len() as u32, 1, 1]);
        self.leave_out(2 * self.plan.tensor(layout.params).words);
    }

    /// The pool's values, which the activation before it has made.
    fn pool(&mut self, id: LayerId) {
        let tensor = self.pooled.expect("the pool's activation comes before it");
        self.values[id] = Some(Value { tensor, format: Format::F32, row: -1, layer: id });
    }

    /// Whether batch norm goes by its running statistics.
    fn uses_running_statistics(&self) -> bool {
        matches!(self.mode, Mode::Evaluate | Mode::Teach)
    }
}

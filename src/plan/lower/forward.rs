//! The forward pass.

use std::ops::Range;

use super::{ConvState, Mode, Pass, Value, tracking};
use crate::config::Estimator;
use crate::kernels::activation::{FORWARD, ForwardParams, forward_variant, shortcut_kind};
use crate::kernels::conv::{ConvParams, Geometry};
use crate::kernels::head::{METRICS, MetricsParams, POOL_FORWARD, PoolParams, SOFTMAX_CE, SoftmaxParams, pool_variant};
use crate::kernels::input::{AUGMENT, AugmentParams};
use crate::kernels::norm::{self, EPS, MOMENTUM, MergeParams, StatsParams};
use crate::kernels::range::{self, HISTOGRAM, HistogramParams};
use crate::kernels::select::select_conv;
use crate::kernels::{Format, flat_grid};
use crate::net::{Activation, Conv, Layer, LayerId, Linear, Pool, Shape, Shortcut};
use crate::plan::TensorId;
use crate::quant::{Quant, QuantSpec, Quantizer, Tracking};

/// Sums of integers stay exact in f32 below this.
const EXACT_IN_F32: u64 = 1 << 24;

/// What `act_fwd` and `act_bwd` read of the shortcut.
pub(super) struct ShortcutOperand {
    pub tensor: TensorId,
    pub context: TensorId,
    pub format: Format,
    pub kind: u32,
    pub row: i32,
}

impl Pass<'_> {
    /// Emits the forward pass and returns the gradient of the logits.
    pub(super) fn forward(&mut self) -> TensorId {
        let net = self.net;
        let mut dlogits = None;
        self.clear_maxima(0..self.layout.first_weight_max());
        for (id, layer) in net.layers.iter().enumerate() {
            self.layer = Some(id);
            match layer {
                Layer::Input(i) => self.input(id, i.shape),
                Layer::Conv(c) => self.conv(id, c),
                Layer::Activation(a) => self.activation(id, a),
                Layer::Pool(p) => self.pool(id, p),
                Layer::Linear(l) => dlogits = Some(self.linear(id, l)),
            }
        }
        self.layer = None;
        dlogits.expect("a network ends in a linear layer")
    }

    fn value(&self, id: LayerId) -> Value {
        self.values[id].expect("layers come in forward order")
    }

    pub(super) fn input_value(&self, id: LayerId) -> Value {
        self.value(id)
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
        let augment = self.mode == Mode::Train;
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
        let fits = |q: Quantizer| q.quant.hi <= i32::from(i8::MAX);
        match value.format {
            Format::F32 => false,
            Format::I8 => true,
            Format::U8 => self.quantizer(value.layer).is_some_and(fits),
        }
    }

    /// Emits a convolution of `input` with the codes of layer `id`; returns its output and, where they are wanted and the kernel leaves
    /// them, the statistics of that.
    fn convolve(&mut self, id: LayerId, g: &Geometry, input: Value, statistics: bool) -> (TensorId, Option<TensorId>) {
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
        let y = self.scratch("y", g.batch * g.to.len());
        let params = ConvParams { w_base: layout.weights_of(id).1.offset4, ..params };
        let finishing = choice.clone().with_statistics(&self.options.caps).filter(|_| statistics);
        let part = finishing.is_some().then(|| {
            let chunks = (g.batch * g.to.pixels()).div_ceil(norm::FINISH_CHUNK);
            self.scratch("norm part", 2 * chunks * g.to.c)
        });
        let choice = finishing.unwrap_or(choice);
        self.emit_conv(id, choice, &params, [input.tensor, layout.codes, y], part, g.flops());
        (y, part)
    }

    fn conv(&mut self, id: LayerId, c: &Conv) {
        let g = self.geometry(id);
        let input = self.value(c.input);
        let evaluate = self.mode == Mode::Evaluate;
        let (y, finished) = self.convolve(id, &g, input, !evaluate);
        let rows = g.batch * c.to.pixels();
        let channels = c.to.c;
        let chunk = if finished.is_some() { norm::FINISH_CHUNK } else { self.row_chunk(rows, channels) };
        let chunks = rows.div_ceil(chunk);
        let layout = self.layout;
        let part = if let Some(part) = finished {
            part
        } else if evaluate {
            y // bound, never read
        } else {
            let part = self.scratch("norm part", 2 * chunks * channels);
            let params = StatsParams {
                rows: rows as u32,
                cols4: channels as u32 / 4,
                chunk: chunk as u32,
                chunks: chunks as u32,
            };
            self.emit_only(&norm::STATS, &params, &[y, part], flat_grid(chunks * channels / 4));
            part
        };
        let context = self.scratch("context", 4 * channels);
        let params = MergeParams {
            channels: channels as u32,
            rows: rows as u32,
            chunk: chunk as u32,
            chunks: chunks as u32,
            evaluate: u32::from(evaluate),
            x_row: input.row,
            w_scale: u32::from(self.quantizer(id).is_some()),
            health_slot: id as u32,
            eps: EPS,
            momentum: if self.mode == Mode::Train { MOMENTUM } else { 0.0 },
            pad: [0; 2],
        };
        let norm = layout.norm_of(id);
        let scales = layout.weights_of(id).1.scales;
        let bind = [part, norm.affine, scales, layout.ranges, layout.step, norm.running, context, layout.health];
        self.emit_only(&norm::MERGE, &params, &bind, [channels as u32 / 4, 1, 1]);
        self.convs[id] = Some(ConvState { y, context });
    }

    pub(super) fn conv_state(&self, id: LayerId) -> ConvState {
        self.convs[id].expect("layers come in forward order")
    }

    pub(super) fn shortcut_operand(&self, a: &Activation) -> ShortcutOperand {
        let main = self.conv_state(a.main);
        let kind = shortcut_kind(a.shortcut);
        let (tensor, context, format, row) = match a.shortcut {
            Shortcut::None => (main.y, main.context, Format::F32, -1),
            Shortcut::Identity(id) => {
                let v = self.value(id);
                (v.tensor, main.context, v.format, v.row)
            }
            Shortcut::Projection(id) => {
                let s = self.conv_state(id);
                (s.y, s.context, Format::F32, -1)
            }
        };
        ShortcutOperand { tensor, context, format, kind, row }
    }

    fn activation(&mut self, id: LayerId, a: &Activation) {
        let rows = self.options.batch * a.shape.pixels();
        let chunk = self.row_chunk(rows, a.shape.c);
        let items = rows.div_ceil(chunk) * a.shape.c / 4;
        let q = self.quantizer(id);
        let format = if q.is_some() { Format::U8 } else { Format::F32 };
        let row = self.layout.range_rows[id].expect("an activation has a row of ranges");
        let out = self.scratch("value", format.words(rows * a.shape.c));
        let statistics = self.layout.statistics[id].expect("an activation has statistics");
        let main = self.conv_state(a.main);
        let s = self.shortcut_operand(a);
        let keep_max = q.is_none() && self.keeps_maxima();
        let params = ForwardParams {
            rows: rows as u32,
            cols4: a.shape.c as u32 / 4,
            chunk: chunk as u32,
            measure: 0,
            range_row: row,
            shortcut_row: s.row,
            shortcut: s.kind,
            shortcut_format: s.format as u32,
            keep_max: u32::from(keep_max),
            max_row: self.layout.value_max(id),
            pad: [0; 2],
            quant: q.map_or(Quant::OFF, |q| q.quant),
        };
        let variant = forward_variant(s.kind, s.format, q.is_some(), keep_max);
        let layout = self.layout;
        let bind = [main.y, main.context, s.tensor, s.context, layout.ranges, out, statistics.seen, layout.maxima];
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
        let row = if q.is_some() { row as i32 } else { -1 };
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
                let mode = match spec.config.activations.estimator {
                    Estimator::FixedPow2 => Tracking::Hold,
                    Estimator::Max | Estimator::Percentile | Estimator::Mse => Tracking::Max,
                    Estimator::EmaMax | Estimator::KSigma => Tracking::Mean,
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
        let params = range::UpdateParams {
            first: entries.start,
            count: entries.len() as u32,
            mode: mode as u32,
            use_sigma: u32::from(a.estimator == Estimator::KSigma),
            sigmas: a.sigmas,
            ema: a.ema_momentum,
            count_step: u32::from(count),
            pad: 0,
        };
        let layout = self.layout;
        let bind = [layout.range_table, layout.seen, layout.blocked, layout.step, layout.ranges];
        self.emit_only(&range::UPDATE, &params, &bind, [entries.len() as u32, 1, 1]);
    }

    fn pool(&mut self, id: LayerId, p: &Pool) {
        let input = self.value(p.input);
        let words = self.options.batch * p.from.c;
        let out = self.scratch("value", words);
        let params = PoolParams {
            batch: self.options.batch as u32,
            pixels: p.from.pixels() as u32,
            cols4: p.from.c as u32 / 4,
            x_row: input.row,
        };
        let bind = [input.tensor, self.layout.ranges, out];
        self.emit(&POOL_FORWARD, pool_variant(input.format), &params, &bind, flat_grid(words / 4), 0);
        self.values[id] = Some(Value { tensor: out, format: Format::F32, row: -1, layer: id });
    }

    fn linear(&mut self, id: LayerId, l: &Linear) -> TensorId {
        let g = self.geometry(id);
        let input = self.value(l.input);
        let (y, _) = self.convolve(id, &g, input, false);
        let dlogits = self.scratch("dlogits", g.batch * l.padded());
        let layout = self.layout;
        let params = SoftmaxParams {
            batch: g.batch as u32,
            classes: l.classes as u32,
            cols: l.padded() as u32,
            w_scale: u32::from(self.quantizer(id).is_some()),
            smoothing: if self.mode == Mode::Train { self.options.smoothing } else { 0.0 },
            pad: [0; 3],
        };
        let scales = layout.weights_of(id).1.scales;
        let bind = [y, scales, layout.bias.0, layout.labels, layout.step, layout.logits, dlogits, layout.samples];
        self.emit_only(&SOFTMAX_CE, &params, &bind, flat_grid(g.batch));
        let params = MetricsParams { batch: g.batch as u32, pad: [0; 3] };
        self.emit_only(&METRICS, &params, &[layout.samples, layout.step, layout.ring], [1, 1, 1]);
        dlogits
    }
}

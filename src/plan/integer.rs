//! Lowering of an integer network ([`crate::integer`]): one program from raw pictures to logits.
//!
//! Convolutions are those of training, on packed codes and packed weights: exact as f32 where no sum can pass 2^24, else in i32.
//! `requantize` makes codes of their accumulators, of 4 bits where they fit. Weights that Winograd's algorithm takes are transformed once.

use bytemuck::Pod;

use super::{Dispatch, Plan, ProgramId, TensorId};
use crate::integer::{Accumulator, IntegerConv, IntegerLayer, IntegerNet, IntegerShortcut, Requantize, Window};
use crate::kernels::conv::{ConvParams, Geometry};
use crate::kernels::input::{AUGMENT, AugmentParams};
use crate::kernels::requantize::{
    POOL_SUM, PoolParams, REQUANTIZE, RequantizeParams, Stored, pool_variant, residual, table,
};
use crate::kernels::select::{KernelFamily, select_conv};
use crate::kernels::winograd::{WEIGHTS, WeightParams, tiles};
use crate::kernels::{Format, KernelDef, Step, Variant, flat_grid};
use crate::net::Shape;
use crate::plan::lower::{EXACT_IN_F32, Options, suits_winograd, through_tiles, winograd_is_exact};

/// The program of an integer network, and where its tensors are.
#[derive(Debug, Clone)]
pub struct IntegerPlan {
    /// The plan.
    pub plan: Plan,
    /// What is computed once, of the weights.
    pub prepare: ProgramId,
    /// From pictures to logits.
    pub run: ProgramId,
    /// Pictures of a batch.
    pub batch: usize,
    /// Raw pictures `(batch, 3, S, S)`, four bytes a word.
    pub images: TensorId,
    /// Logits `(batch, padded)` as integers.
    pub logits: TensorId,
    /// Classes as stored.
    pub padded: usize,
    /// The codes of each value with their format, `(batch, H, W, C)`: the picture, of four channels, then the output of each layer.
    pub values: Vec<(TensorId, Format)>,
    /// What the host writes before anything runs.
    pub constants: Vec<(TensorId, Vec<u32>)>,
    /// Layers of the dispatches of `run`: the first dispatch, name and shape of each.
    pub stages: Vec<Stage>,
}

/// Dispatches of one layer.
#[derive(Debug, Clone)]
pub struct Stage {
    /// The first, in the program.
    pub first: usize,
    /// Name, such as `layer1.0.conv1`.
    pub name: String,
    /// Shape, as of layers that are trained.
    pub shape: String,
}

impl IntegerPlan {
    /// The layer of a dispatch of `run`.
    ///
    /// # Panics
    /// A number that is no dispatch's.
    pub fn stage(&self, dispatch: usize) -> &Stage {
        &self.stages[self.stages.partition_point(|s| s.first <= dispatch) - 1]
    }
}

/// Codes as their consumers see them.
#[derive(Debug, Clone, Copy)]
struct Value {
    tensor: TensorId,
    format: Format,
    /// Largest magnitude of a code.
    largest: u32,
}

/// Accumulators.
#[derive(Debug, Clone, Copy)]
struct Sums {
    tensor: TensorId,
    /// Whether they are i32.
    kept: bool,
}

/// Weights on the device.
struct Weights {
    tensor: TensorId,
    format: Format,
    /// Largest magnitude of a code.
    largest: u32,
}

/// What is added to accumulators.
enum Added {
    Nothing,
    Codes(Value),
    Sums(Sums),
}

/// What accumulators become.
struct Target<'a> {
    name: &'a str,
    rows: usize,
    channels: &'a [Requantize],
    window: Window,
    stored: Stored,
}

struct Lowering<'a> {
    options: &'a Options,
    plan: Plan,
    constants: Vec<(TensorId, Vec<u32>)>,
    prepare: Vec<Dispatch>,
    list: Vec<Dispatch>,
    stages: Vec<Stage>,
    unused: TensorId,
    accumulator: Accumulator,
}

/// Lowers `net`. Of the options those count that say where and how: batch, device, family, Winograd's channels, `keep_all`.
///
/// # Panics
/// A plan that is not sound ([`Plan::assert_sound`]): a bug.
pub fn lower_integers(net: &IntegerNet, options: &Options) -> IntegerPlan {
    let mut plan = Plan::default();
    let unused = plan.own("unused", 4);
    let accumulator = net.accumulator;
    let mut l = Lowering {
        options,
        plan,
        constants: vec![],
        prepare: vec![],
        list: vec![],
        stages: vec![],
        unused,
        accumulator,
    };
    let (images, input) = l.input(net);
    let mut values = vec![input];
    for layer in &net.layers {
        let value = l.layer(layer, &values);
        values.push(value);
    }
    let (logits, padded) = l.classifier(net, &values);
    let Lowering { mut plan, constants, prepare, list, stages, .. } = l;
    let [prepare, run] = [("prepare", prepare), ("infer", list)].map(|(name, list)| plan.program(name, list));
    plan.assign_slots(options.keep_all);
    plan.assert_sound();
    let values = values.into_iter().map(|v| (v.tensor, v.format)).collect();
    IntegerPlan { plan, prepare, run, batch: options.batch, images, logits, padded, values, constants, stages }
}

impl Lowering<'_> {
    /// A tensor that the host writes.
    fn constant(&mut self, name: String, words: Vec<u32>) -> TensorId {
        let tensor = self.plan.own(name, words.len());
        self.constants.push((tensor, words));
        tensor
    }

    /// Begins with the dispatches of a layer.
    fn stage(&mut self, name: &str, shape: String) {
        self.stages.push(Stage { first: self.list.len(), name: name.into(), shape });
    }

    /// Appends a dispatch without products.
    fn emit<P: Pod>(
        &mut self,
        kernel: &'static KernelDef,
        variant: Variant,
        params: &P,
        bind: &[TensorId],
        items: usize,
    ) {
        let dispatch = self.plan.dispatch(kernel, variant, params, bind, flat_grid(items), 0);
        self.list.push(dispatch);
    }

    /// Raw pictures, and their codes.
    fn input(&mut self, net: &IntegerNet) -> (TensorId, Value) {
        let (batch, size) = (self.options.batch, net.size);
        self.stage("input", format!("{size}x{size}x3"));
        let images = self.plan.own("pictures", (batch * net.picture_bytes()).div_ceil(4));
        let picks = self.constant("picks".into(), (0..batch as u32).collect());
        let step = self.constant("step".into(), bytemuck::cast_slice(&[Step::default()]).to_vec());
        let codes = net.input.codes.as_flattened().iter().map(|code| i32::from(*code) as u32);
        let table = self.constant("input codes".into(), codes.chain([0; 4]).collect());
        let format = Format::I8;
        let tensor = self.plan.scratch("input", format.words(batch * size * size * 4));
        let params = AugmentParams {
            batch: batch as u32,
            size: size as u32,
            crop_padding: 0,
            flip: 0,
            cutout: 0,
            codes: 1,
            first: batch as u32,
            pad: 0,
        };
        let bind = [images, images, picks, step, table, tensor];
        self.emit(&AUGMENT, Variant::only(AUGMENT.name), &params, &bind, batch * size * size);
        (images, Value { tensor, format, largest: net.input.largest })
    }

    /// Weights `(c_out, c_in, taps)` as kernels take them: `(taps, c_in, c_out)`, channels padded with zeros. Packed, but for the lane
    /// kernels, which would unpack them again and again and gain no memory traffic by it.
    fn weights(&mut self, name: &str, codes: &[i8], [taps, real_in, in_c, out_c]: [usize; 4]) -> Weights {
        let largest = codes.iter().map(|c| u32::from(c.unsigned_abs())).max().unwrap_or(0);
        let format = match self.options.family {
            KernelFamily::Lane => Format::F32,
            KernelFamily::Tiled if codes.iter().all(|c| (-8..8).contains(c)) => Format::I4,
            KernelFamily::Tiled => Format::I8,
        };
        let mut all = vec![0f32; taps * in_c * out_c];
        for (k, code) in codes.iter().enumerate() {
            let (co, ci, tap) = (k / taps / real_in, k / taps % real_in, k % taps);
            all[(tap * in_c + ci) * out_c + co] = f32::from(*code);
        }
        Weights { tensor: self.constant(format!("{name}.codes"), format.store(&all)), format, largest }
    }

    /// Accumulators of a convolution.
    fn conv(&mut self, c: &IntegerConv, values: &[Value]) -> Sums {
        let g = Geometry { batch: self.options.batch, from: c.from, to: c.to, kernel: c.kernel, stride: c.stride };
        let (to, x) = (c.to, values[c.input]);
        self.stage(&c.name, format!("{}x{}x{}, {}x{}/{}", to.h, to.w, to.c, c.kernel, c.kernel, c.stride));
        let w = self.weights(&c.name, &c.weights.codes, [c.kernel * c.kernel, c.real_in, c.from.c, c.to.c]);
        let most = c.weights.largest.iter().copied().max().unwrap_or(0);
        self.product(&c.name, &g, x, &w, most.unsigned_abs() >= EXACT_IN_F32)
    }

    /// `x` by `w`; `kept`: as i32.
    fn product(&mut self, name: &str, g: &Geometry, x: Value, w: &Weights, kept: bool) -> Sums {
        let tensor = self.plan.scratch(format!("{name}.sums"), g.batch * g.to.len());
        let every_sum = (g.kernel * g.kernel * g.from.c) as u64 * u64::from(w.largest) * u64::from(x.largest);
        if suits_winograd(self.options, g) && winograd_is_exact(every_sum) {
            self.winograd(name, g, x, w, tensor);
            return Sums { tensor, kept: false };
        }
        let params = ConvParams {
            integer: if kept { ConvParams::KEPT } else { 0 },
            w_codes: 1,
            w_format: w.format as u32,
            narrow: u32::from(x.format != Format::F32 && x.largest <= i8::MAX as u32),
            ..g.forward(x.format)
        };
        let choice = select_conv(&params, x.format, &self.options.caps, self.options.family);
        let (kernel, grid) = (choice.kernel, choice.conv_grid(&params));
        let bind = [x.tensor, w.tensor, self.unused, tensor];
        let dispatch = self.plan.dispatch(kernel, choice.variant, &params, &bind, grid, g.flops());
        self.list.push(dispatch);
        Sums { tensor, kept }
    }

    fn winograd(&mut self, name: &str, g: &Geometry, x: Value, w: &Weights, out: TensorId) {
        let items = g.from.c * g.to.c / 4;
        let u = self.plan.own(format!("{name}.transformed"), 64 * items);
        let params = WeightParams { w_base: 0, items: items as u32, flip: 0, pad: 0 };
        let (variant, bind) = (Variant::only(WEIGHTS.name), [w.tensor, u]);
        self.prepare.push(self.plan.dispatch(&WEIGHTS, variant, &params, &bind, flat_grid(items), 0));
        let ends = [(g.from.c, x.format), (g.to.c, Format::F32)].map(|(c, format)| tiles(g, c, format, false));
        let operands = [x.tensor, u, self.unused, out];
        self.list.extend(through_tiles(&mut self.plan, self.options, name, ends, operands));
    }

    /// Codes, or logits, of accumulators to which something is added.
    fn requantize(&mut self, to: &Target, sums: Sums, added: Added) -> TensorId {
        let (rows, channels) = (to.rows, to.channels.len().next_multiple_of(8));
        let mut params = RequantizeParams {
            acc_kept: u32::from(sums.kept),
            acc_bits: self.accumulator.bits,
            saturate: u32::from(self.accumulator.saturates),
            ..RequantizeParams::new(rows, channels, &to.window, to.stored)
        };
        let mut x = sums.tensor;
        match added {
            Added::Nothing => {}
            Added::Codes(value) => {
                (params.residual, params.residual_format, x) = (residual::CODES, value.format as u32, value.tensor);
            }
            Added::Sums(other) => {
                (params.residual, params.residual_kept, x) = (residual::SUMS, u32::from(other.kept), other.tensor);
            }
        }
        let tensor = self.plan.scratch(to.name, to.stored.words(rows * channels));
        let table = self.constant(format!("{}.factors", to.name), table(to.channels));
        self.emit(&REQUANTIZE, params.variant(), &params, &[sums.tensor, x, table, tensor], params.items as usize);
        tensor
    }

    fn layer(&mut self, layer: &IntegerLayer, values: &[Value]) -> Value {
        let sums = self.conv(&layer.conv, values);
        let added = match &layer.shortcut {
            IntegerShortcut::None => Added::Nothing,
            IntegerShortcut::Identity(value) => Added::Codes(values[*value]),
            IntegerShortcut::Projection(conv) => Added::Sums(self.conv(conv, values)),
        };
        let (stored, format) = match layer.window.hi <= 15 {
            true => (Stored::U4, Format::U4),
            false => (Stored::U8, Format::U8),
        };
        let rows = self.options.batch * layer.shape.pixels();
        let (name, channels, window) = (&layer.name, &layer.channels, layer.window);
        self.stage(name, format!("{}x{}x{}", layer.shape.h, layer.shape.w, layer.shape.c));
        let tensor = self.requantize(&Target { name, rows, channels, window, stored }, sums, added);
        Value { tensor, format, largest: layer.window.hi as u32 }
    }

    fn classifier(&mut self, net: &IntegerNet, values: &[Value]) -> (TensorId, usize) {
        let (c, batch) = (&net.classifier, self.options.batch);
        let x = values[c.input];
        self.stage(&c.name, format!("1x1x{}", c.classes));
        let pooled = self.plan.scratch("pooled", batch * c.features);
        let params = PoolParams {
            items: (batch * c.features / 4) as u32,
            cols4: c.features as u32 / 4,
            pixels: c.pixels as u32,
            x_format: x.format as u32,
        };
        self.emit(&POOL_SUM, pool_variant(x.format), &params, &[x.tensor, pooled], params.items as usize);
        let padded = c.classes.next_multiple_of(8);
        let point = |c: usize| Shape { h: 1, w: 1, c };
        let g = Geometry { batch, from: point(c.features), to: point(padded), kernel: 1, stride: 1 };
        let w = self.weights(&c.name, &c.weights.codes, [1, c.features, c.features, padded]);
        let sum = Value { tensor: pooled, format: Format::F32, largest: x.largest * c.pixels as u32 };
        let sums = self.product(&c.name, &g, sum, &w, true);
        let (window, stored) = (Window::ALL, Stored::I32);
        let target = Target { name: "logits", rows: batch, channels: &c.channels, window, stored };
        let logits = self.requantize(&target, sums, Added::Nothing);
        (logits, padded)
    }
}

//! Lowering: a network and its quantizers become the programs of a plan, forward emitted beside backward.

mod backward;
mod fitting;
mod forward;
mod head;
mod precision;
mod weights;
mod winograd;

pub use fitting::{lower_fitting, lower_shrinking};
pub use winograd::WINOGRAD_CHANNELS;
pub(super) use winograd::{suits_winograd, through_tiles, winograd_is_exact};

use bytemuck::Pod;

use super::layout::{Layout, Needs};
use super::{Dispatch, Plan, ProgramId, TensorId};
use crate::config::{AugmentConfig, DistillConfig, Estimator, Method, OptimizerConfig, Precision, RangeSource};
use crate::kernels::conv::ConvParams;
use crate::kernels::select::{Choice, KernelFamily};
use crate::kernels::{Caps, Format, KernelDef, Variant, row_chunk};
use crate::net::{LayerId, Net};
use crate::quant::{QuantSpec, Quantizer, Tracking};
use crate::{Error, Result};

/// Sums of integers stay exact in f32 below this.
pub(super) const EXACT_IN_F32: u64 = 1 << 24;

/// What a network is lowered with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Pictures of a batch.
    pub batch: usize,
    /// The device.
    pub caps: Caps,
    /// Family of the matrix kernels.
    pub family: KernelFamily,
    /// Augmentation of training pictures.
    pub augment: AugmentConfig,
    /// Label smoothing in training.
    pub smoothing: f32,
    /// What the quantized network learns from a float one.
    pub distill: DistillConfig,
    /// Optimizer.
    pub optimizer: OptimizerConfig,
    /// Batches of a step.
    pub accumulate: u32,
    /// The host writes the normalised input itself (`input` tensor); for tests against other programs.
    pub host_input: bool,
    /// How matrix units multiply real numbers.
    pub precision: Precision,
    /// Channels from which on a software adapter may convolve by Winograd's algorithm, [`WINOGRAD_CHANNELS`]; others for tests.
    pub winograd_channels: usize,
    /// Training pictures that the device keeps; 0: the host sends each batch.
    pub resident: usize,
    /// Every scratch tensor keeps its value after the step; for tests.
    pub keep_all: bool,
}

impl Options {
    /// A batch on a device, everything else as it is by default: the device's own kernels, no label smoothing.
    pub fn new(batch: usize, caps: Caps) -> Options {
        Options {
            batch,
            family: KernelFamily::of(&caps),
            caps,
            augment: AugmentConfig::default(),
            smoothing: 0.0,
            distill: DistillConfig::default(),
            optimizer: OptimizerConfig::default(),
            accumulate: 1,
            host_input: false,
            precision: Precision::F32,
            winograd_channels: WINOGRAD_CHANNELS,
            resident: 0,
            keep_all: false,
        }
    }
}

/// The programs of a network and where its tensors are.
#[derive(Debug, Clone)]
pub struct Lowered {
    /// The plan.
    pub plan: Plan,
    /// Persistent tensors.
    pub layout: Layout,
    /// The network.
    pub net: Net,
    /// Its quantizers.
    pub quant: Option<QuantSpec>,
    /// Pictures of a batch.
    pub batch: usize,
    /// Float network: weights, training step, evaluation.
    pub float: ProgramSet,
    /// Quantized network.
    pub quantized: Option<ProgramSet>,
    /// Float forward pass that observes ranges, and the one that fills the histograms.
    pub calibrate: Option<(ProgramId, ProgramId)>,
}

/// The programs of one form of the network.
#[derive(Debug, Clone, Copy)]
pub struct ProgramSet {
    /// Weight codes from the parameters; before evaluation.
    pub weights: ProgramId,
    /// One training step, weight codes included; where a step has several batches, one of them without the update.
    pub train: ProgramId,
    /// Where a step has several batches: the update of the parameters after the last.
    pub update: Option<ProgramId>,
    /// Forward pass with running statistics.
    pub evaluate: ProgramId,
}

/// What a pass does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Train,
    /// The teacher's part of a training step: running statistics, pictures of the step.
    Teach,
    Evaluate,
    Calibrate,
    Histogram,
}

/// Lowers `net`.
///
/// # Errors
/// A layer whose integer sums pass 32 bits. Whether the plan fits the device is [`Plan::fits`]'s question.
///
/// # Panics
/// A plan that is not sound ([`Plan::assert_sound`]): a bug.
pub fn lower(net: &Net, quant: Option<&QuantSpec>, options: &Options) -> Result<Lowered> {
    quant.map_or(Ok(()), |q| check_sums(net, q))?;
    let mut plan = Plan::default();
    let needs = Needs {
        averages: options.optimizer.ema_decay.is_some(),
        accumulates: options.accumulate > 1,
        teacher: options.distill.is_on(),
        software: options.caps.software,
        most_part_words: if options.caps.software {
            0
        } else {
            options.caps.max_binding_bytes.min(MOST_PART_BYTES) / 4
        },
        resident: options.resident,
    };
    let layout = Layout::new(&mut plan, net, quant, options.batch, needs);
    let mut pass = |name, mode, quantized| {
        let mut p = Pass::new(net, quant.filter(|_| quantized), quant, options, &mut plan, &layout, mode);
        p.emit_all();
        let list = p.list;
        plan.program(name, list)
    };
    let float = ProgramSet {
        train: pass("train float", Mode::Train, false),
        evaluate: pass("evaluate float", Mode::Evaluate, false),
        weights: ProgramId(0),
        update: None,
    };
    let quantized = quant.map(|_| ProgramSet {
        train: pass("train quantized", Mode::Train, true),
        evaluate: pass("evaluate quantized", Mode::Evaluate, true),
        weights: ProgramId(0),
        update: None,
    });
    let calibrate =
        quant.map(|_| (pass("calibrate", Mode::Calibrate, false), pass("calibrate histogram", Mode::Histogram, false)));
    let mut weights = |name, quantized| {
        let mut p = Pass::new(net, quant.filter(|_| quantized), quant, options, &mut plan, &layout, Mode::Evaluate);
        let rows = layout.first_weight_max()..layout.first_weight_max() + layout.rows.len() as u32;
        p.clear_maxima(rows);
        p.weights();
        let list = p.list;
        plan.program(name, list)
    };
    let float = ProgramSet { weights: weights("weights float", false), ..float };
    let quantized = quantized.map(|q| ProgramSet { weights: weights("weights quantized", true), ..q });
    let update = layout.accumulated.map(|_| {
        let mut p = Pass::new(net, None, quant, options, &mut plan, &layout, Mode::Train);
        p.optimizer();
        let list = p.list;
        plan.program("update", list)
    });
    let float = ProgramSet { update, ..float };
    let quantized = quantized.map(|q| ProgramSet { update, ..q });
    plan.assign_slots(options.keep_all);
    plan.assert_sound();
    let (net, quant) = (net.clone(), quant.cloned());
    Ok(Lowered { plan, layout, net, quant, batch: options.batch, float, quantized, calibrate })
}

/// The parts of weight gradients wait for each other up to this; not on software adapters, which add them up while they are in the cache.
const MOST_PART_BYTES: u64 = 256 << 20;

/// A convolution multiplies codes either as f32, exact below 2^24, or as i32.
fn check_sums(net: &Net, quant: &QuantSpec) -> Result<()> {
    for (id, layer) in net.layers.iter().enumerate() {
        let Some(sum) = quant.largest_sum(net, id).filter(|s| *s > i32::MAX as u64) else { continue };
        return Err(Error::config(format!(
            "sums of {} can reach {sum}, expected at most 2^31 - 1, the largest 32-bit integer",
            layer.name()
        ))
        .hint("choose fewer bits (quant.weight_bits, quant.activation_bits) or a smaller network.width"));
    }
    Ok(())
}

/// The output of a layer as its consumers see it.
#[derive(Debug, Clone, Copy)]
struct Value {
    tensor: TensorId,
    format: Format,
    /// Row of ranges whose scale codes have, -1 for values.
    row: i32,
    /// The layer that writes it.
    layer: LayerId,
}

/// Partial statistics of the convolutions that end in an activation.
#[derive(Debug, Clone, Copy)]
struct NormParts {
    tensor: TensorId,
    /// Rows that are taken together.
    chunk: usize,
}

struct Pass<'a> {
    net: &'a Net,
    /// Quantizers in force in this pass.
    quant: Option<&'a QuantSpec>,
    /// Quantizers of the network, for calibration.
    spec: Option<&'a QuantSpec>,
    options: &'a Options,
    plan: &'a mut Plan,
    layout: &'a Layout,
    mode: Mode,
    list: Vec<Dispatch>,
    values: Vec<Option<Value>>,
    /// Per convolution, what it writes.
    outputs: Vec<Option<TensorId>>,
    /// Per activation.
    norm_parts: Vec<Option<NormParts>>,
    /// Per activation, the context of its batch norms.
    contexts: Vec<Option<TensorId>>,
    /// Of the pool's activation.
    pooled: Option<TensorId>,
    /// Logits of the teacher, in a step that learns from one.
    taught: Option<TensorId>,
    layer: Option<LayerId>,
    back: bool,
}

impl<'a> Pass<'a> {
    fn new(
        net: &'a Net,
        quant: Option<&'a QuantSpec>,
        spec: Option<&'a QuantSpec>,
        options: &'a Options,
        plan: &'a mut Plan,
        layout: &'a Layout,
        mode: Mode,
    ) -> Self {
        let layers = net.layers.len();
        Pass {
            net,
            quant,
            spec,
            options,
            plan,
            layout,
            mode,
            list: Vec::new(),
            values: vec![None; layers],
            outputs: vec![None; layers],
            norm_parts: vec![None; layers],
            contexts: vec![None; layers],
            pooled: None,
            taught: None,
            layer: None,
            back: false,
        }
    }

    fn emit_all(&mut self) {
        if let Some(teacher) = self.layout.teacher.filter(|_| self.mode == Mode::Train && self.quant.is_some()) {
            self.teach(teacher);
        }
        let last = if self.mode == Mode::Evaluate { 0 } else { self.layout.rows.len() as u32 };
        self.clear_maxima(0..self.layout.first_weight_max() + last);
        if self.mode != Mode::Evaluate {
            self.weights();
        }
        let dlogits = self.forward();
        if self.mode == Mode::Train {
            self.backward(dlogits);
        }
        self.update_ranges();
        if self.mode == Mode::Train {
            match self.layout.accumulated {
                Some(mean) => self.average(self.layout.grads, mean, true),
                None => self.optimizer(),
            }
        }
    }

    /// Appends a dispatch.
    fn emit<P: Pod>(
        &mut self,
        kernel: &'static KernelDef,
        variant: Variant,
        params: &P,
        bind: &[TensorId],
        grid: [u32; 3],
        flops: u64,
    ) {
        let dispatch = self.dispatch(kernel, variant, params, bind, grid, flops);
        self.list.push(dispatch);
    }

    /// Appends a convolution with the weights of layer `id`: `w` is those of all layers. Where the choice does more than
    /// that, it binds `more`.
    fn emit_conv(
        &mut self,
        id: LayerId,
        choice: Choice,
        params: &ConvParams,
        [x, w, out]: [TensorId; 3],
        more: &[TensorId],
        flops: u64,
    ) {
        let bind = [&[x, w, self.layout.maxima, out], more].concat();
        let others = self.plan.tensor(bind[1]).words - self.layout.weights_of(id).1.words();
        let (kernel, grid) = (choice.kernel, choice.conv_grid(params));
        self.emit(kernel, choice.variant, params, &bind, grid, flops);
        self.leave_out(others);
    }

    /// Does not count so many words of what the last dispatch binds: it does not touch them.
    fn leave_out(&mut self, words: usize) {
        self.list.last_mut().expect("there is a dispatch").work.bytes -= 4 * words as u64;
    }

    fn dispatch<P: Pod>(
        &self,
        kernel: &'static KernelDef,
        variant: Variant,
        params: &P,
        bind: &[TensorId],
        grid: [u32; 3],
        flops: u64,
    ) -> Dispatch {
        let dispatch = self.plan.dispatch(kernel, variant, params, bind, grid, flops);
        Dispatch { layer: self.layer, back: self.back, ..dispatch }
    }

    /// Appends a dispatch of a kernel with one variant.
    fn emit_only<P: Pod>(&mut self, kernel: &'static KernelDef, params: &P, bind: &[TensorId], grid: [u32; 3]) {
        self.emit(kernel, Variant::only(kernel.name), params, bind, grid, 0);
    }

    fn scratch(&mut self, what: &str, words: usize) -> TensorId {
        let name = match self.layer {
            Some(id) => format!("{}.{what}", self.net.layers[id].name()),
            None => what.to_string(),
        };
        self.plan.scratch(name, words)
    }

    /// Rows of a batch that an invocation of a reducing kernel handles.
    fn row_chunk(&self, rows: usize, channels: usize) -> usize {
        row_chunk(rows, channels / 4, self.options.caps.software)
    }

    /// The quantizer of a layer in this pass.
    fn quantizer(&self, id: LayerId) -> Option<Quantizer> {
        self.quant.and_then(|q| q.layer(id)).copied()
    }
}

/// How a training step moves the range of an activation quantizer.
pub fn tracking(spec: &QuantSpec) -> Tracking {
    let config = &spec.config;
    if config.learns_activation_scales() || config.method == Method::Dorefa {
        return Tracking::Hold;
    }
    match (config.activation_estimator(), config.activations.source) {
        (Estimator::Percentile | Estimator::Mse | Estimator::FixedPow2 | Estimator::MeanAbs, _) => Tracking::Hold,
        (_, RangeSource::Batch) => Tracking::Batch,
        (Estimator::Max, RangeSource::Previous) => Tracking::Max,
        (Estimator::EmaMax | Estimator::KSigma, RangeSource::Previous) => Tracking::Ema,
    }
}

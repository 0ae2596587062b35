//! Measurement of a training step, and of a model's inference.

mod ceilings;
mod inference;
mod trace;

use std::collections::BTreeMap;
use std::time::Instant;

use crate::exec::ExecutorExt as _;
use crate::gpu::{Gpu, GpuProgram, Interval};
use crate::kernels::Step;
use crate::kernels::input::random;
use crate::net::Net;
use crate::normalisation::Normalisation;
use crate::plan::lower::Lowered;
use crate::plan::{Dispatch, Work};
use crate::session::{Form, load_parameters, upload_constants};
use crate::{Error, Result, tensors};

/// Device time of one kernel at one shape over a step.
#[derive(Debug, Clone, serde::Serialize)]
pub struct KernelTime {
    /// Kernel.
    pub name: String,
    /// Shape of the layer it works for, and the direction of a convolution.
    pub shape: String,
    /// Variant, with its tile.
    pub variant: String,
    /// Launches in the step.
    pub launches: usize,
    /// Milliseconds in all.
    pub ms: f64,
    /// Floating-point operations in matrix products, per second, in units of 1e9.
    pub gflops: f64,
    /// Bytes of the bound tensors, each once, per second, in units of 1e9.
    pub gbs: f64,
    /// The time that the device's ceilings allow, over the time taken.
    pub of_roofline: f64,
}

/// A dispatch, and when it ran.
struct Timed<'a> {
    dispatch: &'a Dispatch,
    time: Interval,
    /// The layer that it works for.
    layer: Option<String>,
    /// That layer's shape, and the direction of a convolution.
    shape: String,
}

pub use ceilings::Ceilings;
pub use inference::{Inference, Pass, measure_model};

/// What was measured. Times are medians over steps.
#[derive(Debug, Clone)]
pub struct Measurement {
    /// Pictures a second, from the wall time of a step: upload, submission, execution.
    pub images_per_second: f64,
    /// Wall time of a step in milliseconds.
    pub step_ms: f64,
    /// Time on the device in milliseconds, where it can be measured.
    pub device_ms: Option<f64>,
    /// Share of the wall time that is not device time.
    pub host_overhead_percent: Option<f64>,
    /// Bytes of all buffers.
    pub peak_buffer_bytes: u64,
    /// From the beginning of the process to the end of the first step.
    pub first_step_seconds: f64,
    /// Kernel launches in a step.
    pub dispatches: usize,
    /// What launches that ran one by one say; `None` where the device cannot measure.
    pub profile: Option<Profile>,
}

/// A step whose launches ran one by one.
#[derive(Debug, Clone)]
pub struct Profile {
    /// What the device does at most.
    pub ceilings: Ceilings,
    /// Time of each kernel at each shape, longest first.
    pub kernels: Vec<KernelTime>,
    /// Milliseconds of all kernels together.
    pub kernels_ms: f64,
    /// Time of a step over the least that the ceilings allow its kernels.
    pub roofline_ratio: f64,
    /// The step in Chrome's trace event format.
    pub trace: serde_json::Value,
}

/// Median.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    if n % 2 == 1 { values[n / 2] } else { 0.5 * (values[n / 2 - 1] + values[n / 2]) }
}

/// Measures `steps` training steps after a first one, on random pictures. `process` is when the process began.
///
/// # Errors
/// A device error, or a quantized form of a float configuration.
pub fn measure(lowered: &Lowered, gpu: &Gpu, form: Form, steps: u32, process: Instant) -> Result<Measurement> {
    use crate::exec::Executor as _;
    let programs = match form {
        Form::Float => lowered.float,
        Form::Quantized => lowered.quantized.ok_or_else(|| {
            Error::config("the configuration has no quantizer, but a quantized step is to be measured")
                .hint("measure the float step, or start from a preset such as cqat")
        })?,
    };
    let layout = &lowered.layout;
    let mut exec = GpuProgram::new(gpu, &lowered.plan)?;
    upload_constants(lowered, &mut exec, &Normalisation::NEUTRAL);
    load_parameters(lowered, &mut exec, &tensors::initialise(layout, 0), "")?;
    let words = |t| lowered.plan.tensor(t).words;
    let pictures: Vec<u32> = (0..words(layout.images) as u32).map(|i| random(1, i, 0)).collect();
    let labels: Vec<u32> = (0..lowered.batch as u32).map(|i| random(2, i, 0) % lowered.net.classes as u32).collect();
    exec.write(layout.labels, &labels);
    let (mut walls, mut devices) = (Vec::new(), Vec::new());
    let mut first_step_seconds = 0.0;
    for index in 0..=steps {
        let begin = Instant::now();
        exec.write(layout.images, &pictures);
        let valid = lowered.batch as u32;
        exec.write_as(layout.step, &[Step { seed: index, index, valid, lr: 0.01, ..Step::default() }]);
        let timing = exec.run_timed(programs.train)?;
        if index == 0 {
            first_step_seconds = process.elapsed().as_secs_f64();
            continue;
        }
        walls.push(begin.elapsed().as_secs_f64() * 1e3);
        devices.extend(timing.device.map(|d| d.as_secs_f64() * 1e3));
    }
    let dispatches = &lowered.plan.programs[programs.train.0].dispatches;
    let overheads = walls.iter().zip(&devices).map(|(w, d)| 100.0 * (w - d) / w);
    let host_overhead_percent = (!devices.is_empty()).then(|| median(&mut overheads.collect::<Vec<_>>()));
    let step_ms = median(&mut walls);
    let profile = if gpu.timestamps {
        let times = exec.run_profiled(programs.train)?;
        drop(exec);
        let net = &lowered.net;
        let step: Vec<Timed> = dispatches.iter().zip(times).map(|(d, time)| timed(net, d, time)).collect();
        Some(profile(&step, step_ms, Ceilings::measure(gpu)?))
    } else {
        None
    };
    Ok(Measurement {
        images_per_second: lowered.batch as f64 / step_ms * 1e3,
        step_ms,
        device_ms: (!devices.is_empty()).then(|| median(&mut devices)),
        host_overhead_percent,
        peak_buffer_bytes: lowered.plan.bytes(),
        first_step_seconds,
        dispatches: dispatches.len(),
        profile,
    })
}

fn timed<'a>(net: &Net, dispatch: &'a Dispatch, time: Interval) -> Timed<'a> {
    Timed { dispatch, time, layer: dispatch.layer.map(|id| net.layers[id].name().into()), shape: shape(net, dispatch) }
}

fn profile(step: &[Timed], step_ms: f64, ceilings: Ceilings) -> Profile {
    let kernels = by_kernel(step, &ceilings);
    let least: f64 = step.iter().map(|t| ceilings.seconds(t.dispatch.work)).sum();
    Profile {
        kernels_ms: kernels.iter().map(|k| k.ms).sum(),
        roofline_ratio: step_ms / 1e3 / least,
        trace: trace::of(step),
        ceilings,
        kernels,
    }
}

/// Launches of one kernel at one shape.
#[derive(Default)]
struct Sum {
    launches: usize,
    seconds: f64,
    work: Work,
    /// Seconds that the ceilings allow.
    least: f64,
}

/// Sums per kernel, variant and shape, longest first.
fn by_kernel(step: &[Timed], ceilings: &Ceilings) -> Vec<KernelTime> {
    let mut sums: BTreeMap<(&str, String, String), Sum> = BTreeMap::new();
    for t in step {
        let d = t.dispatch;
        let sum = sums.entry((d.kernel.name, t.shape.clone(), d.variant.title())).or_default();
        sum.launches += 1;
        sum.seconds += t.time.length.as_secs_f64();
        sum.work.flops += d.work.flops;
        sum.work.bytes += d.work.bytes;
        sum.least += ceilings.seconds(d.work);
    }
    let per_second = |n: u64, seconds: f64| n as f64 / seconds.max(1e-12) / 1e9;
    let mut all: Vec<KernelTime> = sums
        .into_iter()
        .map(|((name, shape, variant), Sum { launches, seconds, work, least })| KernelTime {
            name: name.to_string(),
            shape,
            variant,
            launches,
            ms: seconds * 1e3,
            gflops: per_second(work.flops, seconds),
            gbs: per_second(work.bytes, seconds),
            of_roofline: least / seconds.max(1e-12),
        })
        .collect();
    all.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    all
}

/// The shape of the layer that a dispatch works for, such as `16x16x128, 3x3/2`; of a convolution's data gradient with
/// the word `back`.
fn shape(net: &Net, d: &Dispatch) -> String {
    let shape = d.layer.map_or("all layers".into(), |id| net.layers[id].shape_text());
    let both_ways = ["conv", "winograd"].iter().any(|name| d.kernel.name.starts_with(name));
    if both_ways && d.back { format!("{shape} back") } else { shape }
}

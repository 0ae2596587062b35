//! Measurement of a training step.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::exec::ExecutorExt as _;
use crate::gpu::{Gpu, GpuProgram};
use crate::kernels::Step;
use crate::kernels::input::random;
use crate::plan::lower::Lowered;
use crate::plan::{Dispatch, Work};
use crate::session::{Form, Normalisation, load_parameters, upload_constants};
use crate::{Error, Result, tensors};

/// Device time of one kernel over a step.
#[derive(Debug, Clone, serde::Serialize)]
pub struct KernelTime {
    /// Kernel and variant.
    pub name: String,
    /// Launches in the step.
    pub launches: usize,
    /// Milliseconds in all.
    pub ms: f64,
    /// Floating-point operations in matrix products, per second, in units of 1e9.
    pub gflops: f64,
    /// Bytes of the bound tensors, each once, per second, in units of 1e9.
    pub gbs: f64,
}

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
    /// Time of each kernel in one step whose launches ran one by one; empty where the device cannot measure.
    pub kernels: Vec<KernelTime>,
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
        Form::Quantized => lowered.quantized.ok_or_else(|| Error::config("the configuration has no quantizer"))?,
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
    let kernels = if gpu.timestamps { by_kernel(dispatches, &exec.run_profiled(programs.train)?) } else { Vec::new() };
    let overheads = walls.iter().zip(&devices).map(|(w, d)| 100.0 * (w - d) / w);
    let host_overhead_percent = (!devices.is_empty()).then(|| median(&mut overheads.collect::<Vec<_>>()));
    let step_ms = median(&mut walls);
    Ok(Measurement {
        images_per_second: lowered.batch as f64 / step_ms * 1e3,
        step_ms,
        device_ms: (!devices.is_empty()).then(|| median(&mut devices)),
        host_overhead_percent,
        peak_buffer_bytes: lowered.plan.bytes(),
        first_step_seconds,
        dispatches: dispatches.len(),
        kernels,
    })
}

/// Sums per kernel and variant, longest first.
fn by_kernel(dispatches: &[Dispatch], times: &[Duration]) -> Vec<KernelTime> {
    let mut sums: BTreeMap<String, (usize, f64, Work)> = BTreeMap::new();
    for (d, t) in dispatches.iter().zip(times) {
        let sum = sums.entry(d.variant.label(d.kernel)).or_default();
        sum.0 += 1;
        sum.1 += t.as_secs_f64();
        sum.2.flops += d.work.flops;
        sum.2.bytes += d.work.bytes;
    }
    let per_second = |n: u64, seconds: f64| n as f64 / seconds.max(1e-12) / 1e9;
    let mut all: Vec<KernelTime> = sums
        .into_iter()
        .map(|(name, (launches, seconds, work))| KernelTime {
            name,
            launches,
            ms: seconds * 1e3,
            gflops: per_second(work.flops, seconds),
            gbs: per_second(work.bytes, seconds),
        })
        .collect();
    all.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    all
}

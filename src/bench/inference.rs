//! A model's integers beside the evaluation of the same network in float and in fake quantization, step by step in turn.

use std::time::Instant;

use super::{Ceilings, Profile, Timed, median, profile};
use crate::config::Config;
use crate::exec::{Executor, ExecutorExt as _};
use crate::gpu::{Gpu, GpuProgram};
use crate::kernels::Step;
use crate::kernels::input::random;
use crate::model::Model;
use crate::normalisation::Normalisation;
use crate::plan::integer::IntegerPlan;
use crate::plan::{ProgramId, TensorId};
use crate::session::{load_parameters, upload_constants};
use crate::setup::{lower_for_evaluation, lower_integers_for_evaluation};
use crate::{Error, Result, tensors};

/// What was measured.
#[derive(Debug, Clone)]
pub struct Inference {
    /// Integers, by batches.
    pub integer: Pass,
    /// Fake quantization.
    pub fake_quant: Pass,
    /// Float.
    pub float: Pass,
    /// One picture, in integers.
    pub single_picture: Pass,
    /// Integers on the CPU, by batches, on all processors.
    pub cpu: Pass,
    /// The kernels of the integers, where the device has timestamps.
    pub profile: Option<Profile>,
}

/// Pictures in, logits out. Times are medians over steps.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Pass {
    /// Pictures of a step.
    pub batch: usize,
    /// From the pictures on the host to the logits on the host, in milliseconds.
    pub step_ms: f64,
    /// Time on the device in milliseconds, where it can be measured.
    pub device_ms: Option<f64>,
    /// Pictures a second.
    pub images_per_second: f64,
}

impl Pass {
    /// Of steps of `batch` pictures that took so many milliseconds.
    fn of(batch: usize, walls: &mut [f64]) -> Pass {
        let step_ms = median(walls);
        Pass { batch, step_ms, device_ms: None, images_per_second: batch as f64 / step_ms * 1e3 }
    }
}

/// A program under measurement.
struct Runner<'a> {
    exec: GpuProgram<'a>,
    program: ProgramId,
    images: (TensorId, Vec<u32>),
    logits: TensorId,
    batch: usize,
    walls: Vec<f64>,
    devices: Vec<f64>,
}

impl<'a> Runner<'a> {
    fn new(
        exec: GpuProgram<'a>,
        program: ProgramId,
        images: (TensorId, usize),
        logits: TensorId,
        batch: usize,
    ) -> Self {
        let pictures = (0..images.1 as u32).map(|i| random(1, i, 0)).collect();
        Runner { exec, program, images: (images.0, pictures), logits, batch, walls: vec![], devices: vec![] }
    }

    fn integers(gpu: &'a Gpu, plan: &'a IntegerPlan) -> Result<Self> {
        let mut exec = GpuProgram::new(gpu, &plan.plan)?;
        plan.constants.iter().for_each(|(tensor, words)| exec.write(*tensor, words));
        exec.run(plan.prepare)?;
        let images = (plan.images, plan.plan.tensor(plan.images).words);
        Ok(Runner::new(exec, plan.run, images, plan.logits, plan.batch))
    }

    /// A step; the first is not counted.
    fn step(&mut self, counts: bool) -> Result<()> {
        let begin = Instant::now();
        self.exec.write(self.images.0, &self.images.1);
        self.exec.run(self.program)?;
        self.exec.read(self.logits)?;
        if counts {
            self.walls.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        // Once more for the device's own clock, which waits.
        self.devices
            .extend(self.exec.run_timed(self.program)?.device.filter(|_| counts).map(|d| d.as_secs_f64() * 1e3));
        Ok(())
    }

    fn pass(&mut self) -> Pass {
        let device_ms = (!self.devices.is_empty()).then(|| median(&mut self.devices));
        Pass { device_ms, ..Pass::of(self.batch, &mut self.walls) }
    }
}

/// Measures `steps` steps of each after a first one, on random pictures; `config` is that of the model's run.
///
/// # Errors
/// A device error, or a network that does not fit.
pub fn measure_model(model: &Model, config: &Config, gpu: &Gpu, steps: u32) -> Result<Inference> {
    let net = &model.net;
    let plan = lower_integers_for_evaluation(net, config, &gpu.caps, config.train.batch as usize)?;
    let single = lower_integers_for_evaluation(net, config, &gpu.caps, 1)?;
    let mut config = config.clone();
    config.train.batch = plan.batch as u32;
    let lowered = lower_for_evaluation(&config, net.classifier.classes, &gpu.caps)?;
    let layout = &lowered.layout;
    let mut runners = vec![Runner::integers(gpu, &plan)?];
    let quantized = lowered.quantized.ok_or_else(|| {
        Error::config("the model's run has no quantizer").hint("fold a quantized run: cqat quantize RUN --out MODEL")
    })?;
    for program in [quantized, lowered.float] {
        let mut exec = GpuProgram::new(gpu, &lowered.plan)?;
        upload_constants(&lowered, &mut exec, &Normalisation::NEUTRAL);
        load_parameters(&lowered, &mut exec, &tensors::initialise(layout, 0), "")?;
        exec.write_as(layout.step, &[Step { valid: lowered.batch as u32, frozen: 1, ..Step::default() }]);
        exec.run(program.weights)?;
        let images = (layout.images, lowered.plan.tensor(layout.images).words);
        runners.push(Runner::new(exec, program.evaluate, images, layout.logits, lowered.batch));
    }
    runners.push(Runner::integers(gpu, &single)?);
    let pictures: Vec<u8> = (0..plan.batch * net.picture_bytes()).map(|i| random(1, i as u32, 0) as u8).collect();
    for round in 0..=steps {
        for runner in &mut runners {
            runner.step(round > 0)?;
        }
    }
    // For itself: a device would cool down meanwhile, and find its caches empty.
    let mut cpu = vec![];
    for round in 0..=steps {
        let begin = Instant::now();
        net.run(&pictures)?;
        cpu.extend((round > 0).then(|| begin.elapsed().as_secs_f64() * 1e3));
    }
    let passes: Vec<Pass> = runners.iter_mut().map(Runner::pass).collect();
    let integers = &plan.plan.programs[plan.run.0].dispatches;
    let profile = match gpu.timestamps {
        true => {
            let times = runners[0].exec.run_profiled(plan.run)?;
            drop(runners);
            let timed = integers.iter().zip(times).enumerate().map(|(k, (dispatch, time))| {
                let stage = plan.stage(k);
                Timed { dispatch, time, layer: Some(stage.name.clone()), shape: stage.shape.clone() }
            });
            Some(profile(&timed.collect::<Vec<_>>(), passes[0].step_ms, Ceilings::measure(gpu)?))
        }
        false => None,
    };
    let [integer, fake_quant, float, single_picture] =
        <[Pass; 4]>::try_from(passes).expect("four programs were measured");
    let cpu = Pass::of(plan.batch, &mut cpu);
    Ok(Inference { integer, fake_quant, float, single_picture, cpu, profile })
}

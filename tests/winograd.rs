//! Training steps with Winograd's algorithm beside the same without it, on the CPU reference. No device.

use std::collections::HashMap;

use cqat::config::{Config, QuantConfig};
use cqat::cpu::CpuProgram;
use cqat::exec::{Executor, ExecutorExt};
use cqat::kernels::input::random;
use cqat::kernels::{Caps, Step};
use cqat::net::Net;
use cqat::normalisation::Normalisation;
use cqat::plan::lower::{Lowered, Options, lower};
use cqat::plan::{Program, ProgramId};
use cqat::quant::QuantSpec;
use cqat::session::{load_parameters, upload_constants};
use cqat::tensors;

/// 1600 tiles of 16 x 16 pixels, in two parts.
const BATCH: usize = 25;

fn lowered(quant: &QuantConfig, winograd_channels: usize) -> Lowered {
    let net = Net::resnet(8, 8, 10, 16).unwrap();
    let quant = QuantSpec::new(quant, &net).unwrap();
    let options = Options { winograd_channels, ..Options::new(BATCH, Caps::portable(true, 1024)) };
    lower(&net, quant.as_ref(), &options).unwrap()
}

fn program(lowered: &Lowered, id: ProgramId) -> &Program {
    &lowered.plan.programs[id.0]
}

/// Kernels of a program, by how often they run.
fn counts(program: &Program) -> HashMap<&'static str, usize> {
    let mut counts = HashMap::new();
    program.dispatches.iter().for_each(|d| *counts.entry(d.kernel.name).or_default() += 1);
    counts
}

/// Logits of the evaluation, then logits and gradients of a step of `programs`' training, after calibration.
fn run(lowered: &Lowered, quantized: bool) -> [Vec<f32>; 3] {
    let (plan, layout) = (&lowered.plan, &lowered.layout);
    let mut exec = CpuProgram::new(plan);
    upload_constants(lowered, &mut exec, &Normalisation::NEUTRAL);
    load_parameters(lowered, &mut exec, &tensors::initialise(layout, 3), "").unwrap();
    let pictures: Vec<u32> = (0..plan.tensor(layout.images).words as u32).map(|i| random(5, i, 0)).collect();
    exec.write(layout.images, &pictures);
    exec.write(layout.labels, &(0..BATCH as u32).map(|n| n % 10).collect::<Vec<_>>());
    exec.write_as(layout.step, &[Step { seed: 9, valid: BATCH as u32, lr: 0.1, ..Step::default() }]);
    exec.run(lowered.calibrate.unwrap().0).unwrap();
    let programs = if quantized { lowered.quantized.unwrap() } else { lowered.float };
    exec.run(programs.weights).unwrap();
    exec.run(programs.evaluate).unwrap();
    let evaluated = exec.read_f32(layout.logits).unwrap();
    exec.run(programs.train).unwrap();
    [evaluated, exec.read_f32(layout.logits).unwrap(), exec.read_f32(layout.grads).unwrap()]
}

fn difference(a: &[f32], b: &[f32]) -> f64 {
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let apart = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(a - b)));
    apart / norm(&mut b.iter().map(|b| f64::from(*b)))
}

#[test]
fn a_quantized_forward_pass_is_the_same_and_gradients_agree() {
    let quant = Config::load("cqat", &[]).unwrap().quant;
    let [with, without] = [8, usize::MAX].map(|channels| lowered(&quant, channels));
    let train = with.quantized.unwrap().train;
    let kernels = counts(program(&with, train));
    // Two 3x3 convolutions of stride 1 in the first stage, in two parts, one in the second, forward and back; the third has 100 tiles.
    assert_eq!(kernels["winograd_out"], 2 * (2 * 2 + 1));
    assert!(kernels["winograd_in"] == kernels["winograd_out"], "{kernels:?}");
    assert!(!counts(program(&without, without.quantized.unwrap().train)).contains_key("winograd_in"));
    let [[evaluated, logits, grads], [evaluated0, logits0, grads0]] = [&with, &without].map(|l| run(l, true));
    assert_eq!((evaluated, logits), (evaluated0, logits0));
    let apart = difference(&grads, &grads0);
    assert!(apart > 0.0 && apart < 1e-5, "{apart:e}");
}

#[test]
fn a_float_forward_pass_is_left_alone() {
    let quant = Config::load("cqat", &[]).unwrap().quant;
    let [with, without] = [8, usize::MAX].map(|channels| lowered(&quant, channels));
    assert!(!counts(program(&with, with.float.evaluate)).contains_key("winograd_in"));
    let [[_, logits, grads], [_, logits0, grads0]] = [&with, &without].map(|l| run(l, false));
    assert_eq!(logits, logits0);
    let apart = difference(&grads, &grads0);
    assert!(apart > 0.0 && apart < 1e-5, "{apart:e}");
}

#[test]
fn codes_whose_sums_would_round_are_left_alone() {
    let wide = QuantConfig { weight_bits: 8, activation_bits: 8, ..Config::load("cqat", &[]).unwrap().quant };
    let lowered = lowered(&wide, 8);
    let evaluate = counts(program(&lowered, lowered.quantized.unwrap().evaluate));
    // 8 * 9 * 8 * 127 * 255 = 18.7 million, above 2^24; data gradients are not sums of codes alone.
    assert!(!evaluate.contains_key("winograd_in"), "{evaluate:?}");
    assert!(counts(program(&lowered, lowered.quantized.unwrap().train)).contains_key("winograd_in"));
}

//! The device against the CPU reference: every kernel, every variant, awkward shapes; then whole training steps.
//!
//! Integer results, and float results whose arithmetic is exact on the chosen inputs, are compared with `==`; the others
//! by relative L2 error. Words after every output must stay as they were.

pub mod cases;

use std::collections::BTreeMap;

use crate::check::{Check, relative_l2, worst_relative};
use crate::config::Config;
use crate::cpu::CpuProgram;
use crate::exec::{Executor, ExecutorExt};
use crate::gpu::{Gpu, GpuProgram};
use crate::kernels::input::random;
use crate::kernels::{Access, Step};
use crate::net::Net;
use crate::normalisation::Normalisation;
use crate::plan::lower::{Lowered, Options, lower};
use crate::plan::{Dispatch, Plan, TensorId};
use crate::quant::QuantSpec;
use crate::session::{load_parameters, upload_constants};
use crate::{Result, tensors};
use cases::{Case, Compare};

/// Words after every binding that a kernel must not touch.
const GUARD: usize = 64;
/// What guard words hold.
const GUARD_WORD: u32 = 0xdead_beef;
/// Relative L2 error allowed where rounding may differ.
const LIMIT: f64 = 5e-6;
/// The same of products of f16.
const COARSE_LIMIT: f64 = 5e-4;
/// The same for a whole training step of a float network.
const STEP_LIMIT: f64 = 2e-5;

fn plan_of(case: &Case) -> (Plan, Vec<TensorId>) {
    let mut plan = Plan::default();
    let bind: Vec<TensorId> = case
        .data
        .iter()
        .zip(case.kernel.bindings)
        .map(|(data, (name, _))| plan.own(*name, data.len() + GUARD))
        .collect();
    let dispatch = Dispatch {
        kernel: case.kernel,
        variant: case.variant.clone(),
        params: case.params.clone(),
        bind: bind.clone(),
        grid: case.grid,
        layer: None,
        back: false,
        work: Default::default(),
    };
    plan.program("case", vec![dispatch]);
    (plan, bind)
}

fn outputs(case: &Case, plan: &Plan, exec: &mut dyn Executor, bind: &[TensorId]) -> Result<Vec<(usize, Vec<u32>)>> {
    for (t, data) in bind.iter().zip(&case.data) {
        let mut guarded = data.clone();
        guarded.resize(plan.tensor(*t).words, GUARD_WORD);
        exec.write(*t, &guarded);
    }
    exec.run(crate::plan::ProgramId(0))?;
    let written = case.kernel.bindings.iter().enumerate().filter(|(_, (_, a))| *a == Access::ReadWrite);
    written.map(|(i, _)| Ok((i, exec.read(bind[i])?))).collect()
}

/// Runs one case on both executors. Infinite error: guard words changed, integers that differ, or a kernel that the
/// driver refuses.
///
/// # Errors
/// A failure of the CPU reference, which has none.
///
/// # Panics
/// A case that does not fit its kernel.
pub fn check_case(gpu: &Gpu, case: &Case) -> Result<Check> {
    let (plan, bind) = plan_of(case);
    plan.assert_sound();
    let want = outputs(case, &plan, &mut CpuProgram::new(&plan), &bind)?;
    let exact = case.compare == Compare::Equal;
    let limit = match case.compare {
        Compare::Equal => 0.0,
        Compare::Coarse => COARSE_LIMIT,
        Compare::Whole | Compare::Each => LIMIT,
    };
    let mut check = Check { name: case.variant.label(case.kernel), error: 0.0, limit, detail: String::new() };
    let got = match GpuProgram::new(gpu, &plan).and_then(|mut exec| outputs(case, &plan, &mut exec, &bind)) {
        Ok(got) => got,
        Err(e) => {
            let cause = std::error::Error::source(&e).map_or(String::new(), |cause| format!(": {cause}"));
            return Ok(Check { error: f64::INFINITY, detail: format!("{}: {e}{cause}", case.name), ..check });
        }
    };
    for ((i, want), (_, got)) in want.iter().zip(&got) {
        let name = case.kernel.bindings[*i].0;
        let length = case.data[*i].len();
        let mut fail = |error: f64, what: String| {
            if error > check.error || error.is_nan() {
                (check.error, check.detail) = (error, format!("{} {name}: {what}", case.name));
            }
        };
        if want[length..].iter().chain(&got[length..]).any(|w| *w != GUARD_WORD) {
            fail(f64::INFINITY, "words after the end were overwritten".into());
        }
        if exact {
            if let Some(at) = (0..length).find(|&k| !equal(got[k], want[k])) {
                fail(f64::INFINITY, format!("word {at} is {:#x}, expected {:#x}", got[at], want[at]));
            }
        } else if let Some(at) = (0..length).find(|&k| got[k] != want[k] && (count(got[k]) || count(want[k]))) {
            fail(f64::INFINITY, format!("word {at} is {:#x}, expected {:#x}", got[at], want[at]));
        } else {
            // What is not finite, in both alike, has no distance.
            let apart = |&k: &usize| got[k] != want[k] || f32::from_bits(want[k]).is_finite();
            let f = |w: &[u32]| (0..length).filter(apart).map(|k| f32::from_bits(w[k])).collect::<Vec<f32>>();
            let error = if case.compare == Compare::Each { worst_relative } else { relative_l2 };
            fail(error(&f(got), &f(want)), "differs".into());
        }
    }
    Ok(check)
}

/// Equality of words; the two zeros of f32 are equal.
fn equal(a: u32, b: u32) -> bool {
    a == b || (a & b == 0 && (a | b) == 0x8000_0000)
}

/// Whether a word among floats is a small integer: no kernel's values are subnormal.
fn count(word: u32) -> bool {
    f32::from_bits(word).is_subnormal()
}

/// Whether a device's matrix units give exact sums of codes and good ones of gradients. Drivers differ in how they spread a matrix over
/// a subgroup.
///
/// # Panics
/// A device without them.
pub fn matrix_units_agree(gpu: &Gpu) -> bool {
    cases::matrix_units(&gpu.caps).iter().all(|case| {
        assert!(case.variant.name.starts_with("coop"), "the device has matrix units");
        let why = match check_case(gpu, case) {
            Ok(check) if check.passed() => return true,
            Ok(check) => format!("{} has an error of {:.1e}: {}", check.name, check.error, check.detail),
            Err(e) => e.to_string(),
        };
        log::warn!("{}: the matrix units are left alone: {why}", gpu.summary.name);
        false
    })
}

/// Every kernel and variant over all its cases; one line each.
///
/// # Errors
/// A device error.
pub fn check_kernels(gpu: &Gpu) -> Result<Vec<Check>> {
    let mut worst: BTreeMap<(String, Compare), Check> = BTreeMap::new();
    for case in cases::all(&gpu.caps) {
        let check = check_case(gpu, &case)?;
        let entry = worst.entry((check.name.clone(), case.compare)).or_insert_with(|| check.clone());
        if !check.passed() || check.error > entry.error {
            *entry = check;
        }
    }
    Ok(worst.into_values().collect())
}

/// A small network for whole-step checks.
///
/// # Errors
/// As [`lower`].
pub fn small_network(gpu: &Gpu, preset: &str) -> Result<Lowered> {
    let config = Config::load(preset, &[])?;
    let net = Net::resnet(8, 8, 10, 32)?;
    let quant = QuantSpec::new(&config.quant, &net)?;
    let options = Options { augment: config.data.augment.clone(), smoothing: 0.1, ..Options::new(4, gpu.caps.clone()) };
    lower(&net, quant.as_ref(), &options)
}

/// One training step of a small network on both executors: float gradients, and the loss of the quantized form.
///
/// # Errors
/// A device error.
pub fn check_step(gpu: &Gpu) -> Result<Vec<Check>> {
    let lowered = small_network(gpu, "cqat")?;
    let mut device = GpuProgram::new(gpu, &lowered.plan)?;
    let mut host = CpuProgram::new(&lowered.plan);
    let float = step(&lowered, &mut device, false)?;
    let float_twin = step(&lowered, &mut host, false)?;
    let quantized = step(&lowered, &mut device, true)?;
    let quantized_twin = step(&lowered, &mut host, true)?;
    let check = |name: &str, got: &[f32], want: &[f32], limit| Check {
        name: name.into(),
        error: relative_l2(got, want),
        limit,
        detail: String::new(),
    };
    Ok(vec![
        check("training step, float: gradients", &float.0, &float_twin.0, STEP_LIMIT),
        check("training step, float: loss", &float.1, &float_twin.1, STEP_LIMIT),
        // A value on a rounding edge may fall either way, so only the loss is compared, and less tightly.
        check("training step, quantized: loss", &quantized.1, &quantized_twin.1, 1e-2),
    ])
}

fn step(lowered: &Lowered, exec: &mut dyn Executor, quantized: bool) -> Result<(Vec<f32>, Vec<f32>)> {
    let (plan, layout) = (&lowered.plan, &lowered.layout);
    upload_constants(lowered, exec, &Normalisation::NEUTRAL);
    load_parameters(lowered, exec, &tensors::initialise(layout, 3), "")?;
    let words = |t| plan.tensor(t).words;
    exec.write(layout.velocity, &vec![0; words(layout.velocity)]);
    let pictures: Vec<u32> = (0..words(layout.images) as u32).map(|i| random(5, i, 0)).collect();
    exec.write(layout.images, &pictures);
    exec.write(layout.labels, &(0..words(layout.labels) as u32).map(|i| i % 10).collect::<Vec<u32>>());
    exec.write_as(layout.step, &[Step { seed: 9, valid: lowered.batch as u32, lr: 0.1, ..Step::default() }]);
    if let Some((calibrate, _)) = lowered.calibrate.filter(|_| quantized) {
        exec.run(calibrate)?;
    }
    let programs = if quantized { lowered.quantized.expect("the preset has a quantizer") } else { lowered.float };
    exec.run(programs.train)?;
    let ring = exec.read_f32(layout.ring)?;
    Ok((exec.read_f32(layout.grads)?, ring[..4].to_vec()))
}

//! Which variant of each matrix product is the fastest on a device: measured once, remembered in a file.
//!
//! Variants differ in speed alone. They are compared with the default bit for bit, and one that differs is not taken.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytemuck::Pod;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::bench::median;
use crate::digest::hexadecimal;
use crate::exec::{AdapterSummary, Executor as _};
use crate::files::write_atomically;
use crate::gpu::{Gpu, GpuProgram};
use crate::kernels::activation::{ActParams, part_words};
use crate::kernels::conv::{CONV, CONV_ACT, CONV_NORM, ConvParams, act_chunks};
use crate::kernels::input::random;
use crate::kernels::norm::FINISH_CHUNK;
use crate::kernels::range::RANGE_WORDS;
use crate::kernels::select::{
    Choice, Choices, KernelFamily, conv_candidates, conv_shape, wgrad_candidates, wgrad_shape,
};
use crate::kernels::wgrad::{WGRAD, WgradParams};
use crate::kernels::{Caps, Format, KernelDef, source};
use crate::plan::lower::Lowered;
use crate::plan::{Dispatch, Plan, ProgramId, TensorId, Work};
use crate::run::Versions;
use crate::{Error, ErrorKind, Result};

/// Runs of each variant, in turn with the others; the median counts.
const ROUNDS: usize = 5;
/// A variant takes the default's place where it needs less than this share of its time.
const CLEARLY_FASTER: f64 = 0.97;

/// A matrix product of a network at one shape.
#[derive(Debug, Clone, Copy)]
pub enum Product {
    /// Forward, or data gradient.
    Conv(ConvParams),
    /// Forward, with batch norm behind it, whose statistics it leaves where the kernels can.
    ConvNorm(ConvParams),
    /// Data gradient that goes back through an activation, where the kernels can.
    ConvAct(ConvParams),
    /// Weight gradient.
    Wgrad(WgradParams),
}

impl Product {
    /// The product that a dispatch computes, if it is one.
    fn of(d: &Dispatch) -> Option<Product> {
        let is = |kernel: &'static KernelDef| std::ptr::eq(d.kernel, kernel);
        let conv = || {
            let p: ConvParams = bytemuck::pod_read_unaligned(&d.params);
            let act = ActParams { range_row: 0, shortcut_row: p.act.shortcut_row.min(0), ..p.act };
            ConvParams { w_base: 0, x_max: 0, w_max: 1, part4: 0, act, ..p }
        };
        if is(&CONV) {
            Some(Product::Conv(conv()))
        } else if is(&CONV_NORM) {
            Some(Product::ConvNorm(conv()))
        } else if is(&CONV_ACT) {
            Some(Product::ConvAct(conv()))
        } else if is(&WGRAD) {
            let p: WgradParams = bytemuck::pod_read_unaligned(&d.params);
            Some(Product::Wgrad(WgradParams { x_max: 0, dy_max: 1, part4: 0, ..p }))
        } else {
            None
        }
    }

    fn x_format(&self) -> Format {
        Format::from_number(match self {
            Product::Conv(p) | Product::ConvNorm(p) | Product::ConvAct(p) => p.x_format,
            Product::Wgrad(p) => p.x_format,
        })
    }

    /// Its key in [`Choices`].
    pub fn shape(&self) -> String {
        match self {
            Product::Conv(p) | Product::ConvNorm(p) | Product::ConvAct(p) => conv_shape(p, self.x_format()),
            Product::Wgrad(p) => wgrad_shape(p, self.x_format()),
        }
    }

    fn candidates(&self, caps: &Caps, family: KernelFamily) -> Vec<Choice> {
        match self {
            Product::Conv(p) => conv_candidates(p, self.x_format(), caps, family),
            Product::ConvNorm(p) => {
                let candidates = conv_candidates(p, self.x_format(), caps, family).into_iter();
                candidates.map(|choice| choice.clone().with_statistics(caps).unwrap_or(choice)).collect()
            }
            Product::ConvAct(p) => {
                let candidates = conv_candidates(p, self.x_format(), caps, family).into_iter();
                candidates.map(|choice| choice.clone().with_activation(&p.act, caps).unwrap_or(choice)).collect()
            }
            Product::Wgrad(p) => wgrad_candidates(p, self.x_format(), caps, family),
        }
    }

    /// Values of its operands and its result.
    fn values(&self) -> [usize; 3] {
        let volume = |sizes: [u32; 4]| sizes.iter().map(|&n| n as usize).product();
        match self {
            Product::Conv(p) | Product::ConvNorm(p) | Product::ConvAct(p) => [
                volume([p.batch, p.in_h, p.in_w, p.in_c]),
                volume([p.kernel, p.kernel, p.in_c, p.out_c]),
                volume([p.batch, p.out_h, p.out_w, p.out_c]),
            ],
            Product::Wgrad(p) => [
                volume([p.batch, p.in_h, p.in_w, p.in_c]),
                volume([p.batch, p.out_h, p.out_w, p.out_c]),
                volume([p.kernel * p.kernel, p.in_c, p.out_c, p.splits]),
            ],
        }
    }

    /// The product of the first two tensors; its result is the fourth.
    fn dispatch(&self, choice: &Choice, bind: &[TensorId], flops: u64) -> Dispatch {
        fn with<P: Pod>(kernel: &'static KernelDef, params: &P, grid: [u32; 3], choice: &Choice) -> Dispatch {
            let (variant, params) = (choice.variant.clone(), bytemuck::bytes_of(params).to_vec());
            Dispatch {
                kernel,
                variant,
                params,
                bind: Vec::new(),
                grid,
                layer: None,
                back: false,
                work: Work::default(),
            }
        }
        let dispatch = match self {
            Product::Conv(p) | Product::ConvNorm(p) | Product::ConvAct(p) => {
                with(choice.kernel, p, choice.conv_grid(p), choice)
            }
            Product::Wgrad(p) => with(&WGRAD, p, choice.wgrad_grid(p), choice),
        };
        let bind = bind[..dispatch.kernel.bindings.len()].to_vec();
        Dispatch { bind, work: Work { flops, bytes: 0 }, ..dispatch }
    }
}

/// One variant's part in a [`Race`].
#[derive(Debug, Clone, Serialize)]
pub struct Trial {
    /// [`crate::kernels::Variant::settings`].
    pub variant: String,
    /// Milliseconds, the median of the rounds.
    pub ms: f64,
    /// Floating-point operations a second, in units of 1e9.
    pub gflops: f64,
    /// Whether its result is the default's, bit for bit.
    pub equal: bool,
}

/// All variants of a product at one shape.
#[derive(Debug, Clone, Serialize)]
pub struct Race {
    /// [`Product::shape`].
    pub shape: String,
    /// In the order of the candidates: the default first.
    pub trials: Vec<Trial>,
    /// The one to take.
    pub chosen: usize,
}

/// Operations of the matrix products of a network's training step, float and quantized, by shape.
pub fn products(lowered: &Lowered) -> BTreeMap<String, (Product, u64)> {
    let sets = [Some(lowered.float), lowered.quantized];
    let programs = sets.into_iter().flatten().map(|set| &lowered.plan.programs[set.train.0]);
    let dispatches = programs.flat_map(|p| &p.dispatches);
    dispatches.filter_map(|d| Product::of(d).map(|p| (p.shape(), (p, d.work.flops)))).collect()
}

/// The variants that a plan uses: what a run's manifest records.
pub fn in_use(lowered: &Lowered) -> Choices {
    let dispatches = lowered.plan.programs.iter().flat_map(|p| &p.dispatches);
    dispatches.filter_map(|d| Some((Product::of(d)?.shape(), d.variant.settings()))).collect()
}

/// Measures every variant of `product`, of `flops` operations, in turn.
///
/// # Errors
/// A device error.
pub fn race(gpu: &Gpu, family: KernelFamily, product: &Product, flops: u64) -> Result<Race> {
    let candidates = product.candidates(&gpu.caps, family);
    let mut plan = Plan::default();
    let [x, second, out] = product.values();
    let x = plan.own("x", product.x_format().words(x));
    let mut bind = vec![x, plan.own("w or dy", second), plan.own("maxima", 2), plan.own("out", out)];
    let words = match product {
        Product::ConvNorm(p) => 2 * ((p.batch * p.out_h * p.out_w) as usize).div_ceil(FINISH_CHUNK) * p.out_c as usize,
        Product::ConvAct(p) => {
            let shortcut = Format::from_number(p.act.shortcut_format).words(out);
            let saved =
                [("y", out), ("context", 8 * p.out_c as usize), ("shortcut", shortcut), ("ranges", RANGE_WORDS)];
            bind.extend(saved.map(|(name, words)| plan.own(name, words)));
            part_words(act_chunks(p), p.out_c as usize)
        }
        Product::Conv(_) | Product::Wgrad(_) => 1,
    };
    let part = plan.own("part", words);
    bind.push(part);
    let programs: Vec<ProgramId> =
        candidates.iter().map(|c| plan.program("candidate", vec![product.dispatch(c, &bind, flops)])).collect();
    plan.assert_sound();
    let mut exec = GpuProgram::new(gpu, &plan)?;
    let codes = |seed| move |i| random(seed, i, 0) & 0x0f0f_0f0f;
    let reals = |seed| move |i| (random(seed, i, 0) as f32 / u32::MAX as f32 - 0.5).to_bits();
    let words = |t: TensorId| 0..plan.tensor(t).words as u32;
    let first: Vec<u32> = match product.x_format() {
        Format::F32 => words(bind[0]).map(reals(1)).collect(),
        Format::U8 | Format::I8 | Format::U4 | Format::I4 => words(bind[0]).map(codes(1)).collect(),
    };
    exec.write(bind[0], &first);
    let weight_codes = |i| ((random(2, i, 0) % 32) as f32 - 16.0).to_bits();
    let of_codes = matches!(product, Product::Conv(p) | Product::ConvNorm(p) if p.backward == 0)
        && product.x_format() != Format::F32;
    let other: Vec<u32> = match of_codes {
        true => words(bind[1]).map(weight_codes).collect(),
        false => words(bind[1]).map(reals(2)).collect(),
    };
    exec.write(bind[1], &other);
    exec.write(bind[2], &[0.5f32.to_bits(); 2]);
    let before: Vec<u32> = words(bind[3]).map(reals(3)).collect();
    for &saved in &bind[4..] {
        exec.write(saved, &words(saved).map(reals(4)).collect::<Vec<_>>());
    }
    let mut equal = Vec::new();
    let mut expected: Option<[Vec<u32>; 2]> = None;
    for &program in &programs {
        exec.write(bind[3], &before);
        exec.write(part, &words(part).map(|_| 0).collect::<Vec<u32>>());
        exec.run(program)?;
        let result = [exec.read(bind[3])?, exec.read(part)?];
        equal.push(*expected.get_or_insert_with(|| result.clone()) == result);
    }
    let mut times = vec![Vec::new(); programs.len()];
    for _ in 0..ROUNDS {
        for (times, &program) in times.iter_mut().zip(&programs) {
            let timing = exec.run_timed(program)?;
            times.push(timing.device.unwrap_or(timing.wall).as_secs_f64() * 1e3);
        }
    }
    let trial = |((choice, equal), mut times): ((Choice, bool), Vec<f64>)| {
        let ms = median(&mut times);
        Trial { variant: choice.variant.settings(), ms, gflops: flops as f64 / ms / 1e6, equal }
    };
    let trials: Vec<Trial> = candidates.into_iter().zip(equal).zip(times).map(trial).collect();
    let fastest = (0..trials.len()).filter(|&i| trials[i].equal).min_by(|&a, &b| trials[a].ms.total_cmp(&trials[b].ms));
    let clearly = |&i: &usize| trials[i].ms < CLEARLY_FASTER * trials[0].ms;
    let chosen = fastest.filter(clearly).unwrap_or(0);
    Ok(Race { shape: product.shape(), trials, chosen })
}

/// What is known of every device, by [`device_key`].
type Known = BTreeMap<String, Choices>;

/// Device, driver and program: what is known of one says nothing of another.
fn device_key(adapter: &AdapterSummary) -> String {
    let mut shaders = Sha256::new();
    source::all().for_each(|text| shaders.update(text));
    let AdapterSummary { name, driver, driver_info, .. } = adapter;
    let wgpu = Versions::now().wgpu;
    format!("{name}, {driver} {driver_info}, wgpu {wgpu}, shaders {}", &hexadecimal(&shaders.finalize())[..12])
}

/// The file with what is known: in the folder `CQAT_CACHE`, else `cqat` in the user's folder of caches.
fn file() -> Option<PathBuf> {
    let named = std::env::var_os("CQAT_CACHE").filter(|v| !v.is_empty()).map(PathBuf::from);
    Some(named.or_else(|| Some(dirs::cache_dir()?.join("cqat")))?.join("tuned.json"))
}

fn read() -> Known {
    let Some(path) = file() else { return Known::new() };
    let Ok(text) = std::fs::read_to_string(&path) else { return Known::new() };
    serde_json::from_str(&text).unwrap_or_else(|e| {
        log::warn!(
            "{} cannot be understood ({e}), so kernels run as they do by default; `cqat tune` writes it anew",
            path.display()
        );
        Known::new()
    })
}

/// What was found for a device before.
pub fn known(adapter: &AdapterSummary) -> Choices {
    read().remove(&device_key(adapter)).unwrap_or_default()
}

/// Adds to what is known of a device; the file.
///
/// # Errors
/// A file that cannot be written.
pub fn remember(adapter: &AdapterSummary, choices: Choices) -> Result<PathBuf> {
    change(|known| known.entry(device_key(adapter)).or_default().extend(choices))
}

/// Forgets what is known of a device; the file.
///
/// # Errors
/// A file that cannot be written.
pub fn forget(adapter: &AdapterSummary) -> Result<PathBuf> {
    change(|known| drop(known.remove(&device_key(adapter))))
}

fn change(change: impl FnOnce(&mut Known)) -> Result<PathBuf> {
    let path = file().ok_or_else(|| {
        Error::config("there is no folder for caches").hint("name one in the environment: CQAT_CACHE=FOLDER")
    })?;
    let mut known = read();
    change(&mut known);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|e| {
            Error::config(format!("{} cannot be made", folder.display()))
                .hint("name another folder in the environment: CQAT_CACHE=FOLDER")
                .caused_by(e)
        })?;
    }
    write_atomically(&path, format!("{:#}\n", serde_json::json!(known)).as_bytes(), ErrorKind::Config)?;
    Ok(path)
}

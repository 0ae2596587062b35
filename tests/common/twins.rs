//! A network with every operation in its middle on the CPU twins, and differences of its loss. No device.

#![allow(dead_code, reason = "each test file has its own copy")]

use cqat::config::Config;
use cqat::cpu::CpuProgram;
use cqat::exec::{Executor, ExecutorExt};
use cqat::kernels::input::random;
use cqat::kernels::range::{RANGE_WORDS, RangeRow};
use cqat::kernels::{Caps, Step};
use cqat::net::{Activation, Conv, Input, Layer, Linear, Net, Pool, Shape, Shortcut};
use cqat::normalisation::Normalisation;
use cqat::plan::lower::{Lowered, Options, ProgramSet, lower};
use cqat::quant::{QuantSpec, learn};
use cqat::session::upload_constants;
use cqat::tensors;

pub const BATCH: usize = 4;
pub const CLASSES: usize = 10;
pub const SMOOTHING: f32 = 0.1;
/// Relative error allowed.
pub const TOLERANCE: f64 = 5e-3;

/// Adds layers by hand: the networks of the program never have a 1x1 convolution of stride 1.
struct Builder(Vec<Layer>);

impl Builder {
    fn shape(&self, id: usize) -> Shape {
        match &self.0[id] {
            Layer::Input(i) => i.shape,
            Layer::Activation(a) => a.shape,
            _ => unreachable!("convolutions read pictures and activations"),
        }
    }

    fn conv(&mut self, name: &str, input: usize, channels: usize, kernel: usize, stride: usize) -> usize {
        let from = self.shape(input);
        let to = Shape { h: from.h.div_ceil(stride), w: from.w.div_ceil(stride), c: channels };
        let real_in = if input == 0 { 3 } else { from.c };
        let (name, norm) = (name.to_string(), format!("{name}.norm"));
        self.0.push(Layer::Conv(Conv { name, norm, input, kernel, stride, from, to, real_in }));
        self.0.len() - 1
    }

    fn relu(&mut self, main: usize, shortcut: Shortcut) -> usize {
        let Layer::Conv(c) = &self.0[main] else { unreachable!("a ReLU follows a convolution") };
        let (name, shape) = (format!("{}.relu", c.name), c.to);
        self.0.push(Layer::Activation(Activation { name, main, shortcut, shape }));
        self.0.len() - 1
    }
}

/// Identity shortcut, projection of stride 2, projection of stride 1; 3x3 and 1x1 of both strides.
fn network() -> Net {
    let size = 8;
    let mut b = Builder(vec![Layer::Input(Input { shape: Shape { h: size, w: size, c: 4 } })]);
    let stem = b.conv("stem", 0, 8, 3, 1);
    let x = b.relu(stem, Shortcut::None);
    let inner = b.conv("same.a", x, 8, 3, 1);
    let inner = b.relu(inner, Shortcut::None);
    let main = b.conv("same.b", inner, 8, 3, 1);
    let x = b.relu(main, Shortcut::Identity(x));
    let inner = b.conv("down.a", x, 16, 3, 2);
    let inner = b.relu(inner, Shortcut::None);
    let main = b.conv("down.b", inner, 16, 3, 1);
    let side = b.conv("down.side", x, 16, 1, 2);
    let x = b.relu(main, Shortcut::Projection(side));
    let main = b.conv("wide.a", x, 24, 3, 1);
    let side = b.conv("wide.side", x, 24, 1, 1);
    let x = b.relu(main, Shortcut::Projection(side));
    let from = b.shape(x);
    b.0.push(Layer::Pool(Pool { input: x, from }));
    let input = b.0.len() - 1;
    b.0.push(Layer::Linear(Linear { name: "fc".into(), input, features: from.c, classes: CLASSES }));
    Net { layers: b.0, classes: CLASSES, size }
}

pub fn uniform(seed: u32, i: usize) -> f32 {
    random(seed, i as u32, 0) as f32 / u32::MAX as f32 * 2.0 - 1.0
}

/// A network on the twins, with its parameters on the host.
pub struct Twins {
    pub lowered: Lowered,
    pub exec: CpuProgram,
    pub programs: ProgramSet,
    pub labels: Vec<u32>,
    pub params: Vec<f32>,
    pub frozen: u32,
}

impl Twins {
    /// `quant`: `--set` items, or float.
    pub fn new(quant: Option<&[&str]>) -> Twins {
        let net = network();
        let spec = quant.and_then(|sets| {
            let sets: Vec<String> = sets.iter().map(|s| s.to_string()).collect();
            QuantSpec::new(&Config::from_yaml("", "test", &sets).unwrap().quant, &net).unwrap()
        });
        let options = Options {
            smoothing: SMOOTHING,
            host_input: true,
            keep_all: true,
            ..Options::new(BATCH, Caps::portable(true, 1024))
        };
        let lowered = lower(&net, spec.as_ref(), &options).unwrap();
        let (plan, layout) = (&lowered.plan, &lowered.layout);
        let mut exec = CpuProgram::new(plan);
        upload_constants(&lowered, &mut exec, &Normalisation::NEUTRAL);
        let mut start = tensors::initialise(layout, 3);
        for norm in &layout.norms {
            // gamma 0.5 to 1.5, beta -0.5 to 0.5: with 1 and 0 some mistakes would not show.
            for (part, middle) in [("weight", 1.0), ("bias", 0.0)] {
                let values = &mut start.get_mut(&format!("{}.{part}", norm.name)).unwrap().data;
                values.iter_mut().enumerate().for_each(|(i, v)| *v = middle + 0.5 * uniform(norm.layer as u32, i));
            }
        }
        let params = tensors::insert(plan, layout, plan.tensor(layout.params).words, &start, "").unwrap();
        let words = plan.tensor(layout.running).words;
        exec.write_as(layout.running, &tensors::insert_running(plan, layout, words, &start, "").unwrap());
        let pixels = BATCH * net.size * net.size;
        let picture: Vec<f32> = (0..4 * pixels).map(|i| if i % 4 == 3 { 0.0 } else { 2.0 * uniform(7, i) }).collect();
        if let Some(input) = plan.find("input (host)") {
            exec.write_as(input, &picture);
        }
        if let Some(input) = plan.find("input codes (host)") {
            let code = |v: &f32| (v * 60.0).round() as i8;
            exec.write_as(input, &picture.iter().map(code).collect::<Vec<i8>>());
        }
        let labels: Vec<u32> = (0..BATCH as u32).map(|i| 3 * i % CLASSES as u32).collect();
        exec.write(layout.labels, &labels);
        let programs = lowered.quantized.unwrap_or(lowered.float);
        let mut twins = Twins { exec, programs, labels, params, frozen: 0, lowered };
        if let Some((calibrate, _)) = twins.lowered.calibrate {
            twins.exec.write_as(twins.lowered.layout.params, &twins.params);
            twins.write_step();
            twins.exec.run(calibrate).unwrap();
            twins.start_learned_scales();
            twins.loss(&twins.params.clone()); // the weight scales
            twins.frozen = 1;
        }
        twins
    }

    /// Learned scales begin where the last code is three quarters of the largest value.
    fn start_learned_scales(&mut self) {
        let layout = &self.lowered.layout;
        let Some(steps) = &layout.steps else { return };
        let rows: Vec<RangeRow> = bytemuck::cast_vec(self.exec.read(layout.ranges).unwrap());
        let spec = self.lowered.quant.as_ref().unwrap();
        for e in &steps.entries {
            let quant = spec.layer(e.layer).unwrap().quant;
            let at = steps.offset + e.first;
            let largest = match layout.weights.iter().find(|w| w.layer == e.layer) {
                Some(w) => {
                    let words = &self.params[self.lowered.plan.offset(w.weight)..][..w.words()];
                    words.iter().fold(0f32, |m, v| m.max(v.abs()))
                }
                None => rows[layout.range_rows[e.layer].unwrap() as usize].observed,
            };
            let words = if quant.learn == learn::STEP_AND_OFFSET { 1 } else { e.words };
            let learned = 0.75 * largest / if quant.learn == learn::RANGE { 1.0 } else { quant.highest() };
            self.params[at..at + words].fill(learned);
        }
        self.exec.write_as(layout.params, &self.params);
    }

    pub fn write_step(&mut self) {
        let step = Step { valid: BATCH as u32, frozen: self.frozen, ..Step::default() };
        self.exec.write_as(self.lowered.layout.step, &[step]);
    }

    /// Mean loss at `params`, from a training step of learning rate 0.
    pub fn loss(&mut self, params: &[f32]) -> f64 {
        self.exec.write_as(self.lowered.layout.params, params);
        self.write_step();
        self.exec.run(self.programs.train).unwrap();
        let cols = self.lowered.net.linear().1.padded();
        let logits = self.exec.read_f32(self.lowered.layout.logits).unwrap();
        let loss = |row: &[f32], label: u32| {
            let row: Vec<f64> = row[..CLASSES].iter().map(|v| f64::from(*v)).collect();
            let log_sum = row.iter().map(|v| v.exp()).sum::<f64>().ln();
            let e = f64::from(SMOOTHING);
            let target = |c: usize| e / CLASSES as f64 + if c == label as usize { 1.0 - e } else { 0.0 };
            (0..CLASSES).map(|c| target(c) * (log_sum - row[c])).sum::<f64>()
        };
        logits.chunks(cols).zip(&self.labels).map(|(row, l)| loss(row, *l)).sum::<f64>() / BATCH as f64
    }

    pub fn gradient(&mut self) -> Vec<f32> {
        self.loss(&self.params.clone());
        self.exec.read_f32(self.lowered.layout.grads).unwrap()
    }

    /// Central, forward and backward difference of the loss along `direction`, for a step of `h`.
    pub fn differences(&mut self, direction: &[f32], h: f32) -> [f64; 3] {
        let at =
            |steps: f32, p: &[f32]| -> Vec<f32> { p.iter().zip(direction).map(|(p, d)| p + steps * h * d).collect() };
        let params = self.params.clone();
        let [down, here, up] = [-1.0, 0.0, 1.0].map(|steps| self.loss(&at(steps, &params)));
        let h = f64::from(h);
        [(up - down) / (2.0 * h), (up - here) / h, (here - down) / h]
    }

    /// Name and words of every tensor of parameters.
    pub fn tensors(&self) -> Vec<(String, std::ops::Range<usize>)> {
        let (plan, layout) = (&self.lowered.plan, &self.lowered.layout);
        let words = |t, n| plan.offset(t)..plan.offset(t) + n;
        let weights = layout.weights.iter().map(|w| (format!("{}.weight", w.name), words(w.weight, w.words())));
        let gammas = layout.norms.iter().map(|n| (format!("{}.gamma", n.name), words(n.affine, n.channels)));
        let betas = layout.norms.iter().map(|n| {
            let start = plan.offset(n.affine) + n.channels;
            (format!("{}.beta", n.name), start..start + n.channels)
        });
        let bias = ("fc.bias".to_string(), words(layout.bias.0, CLASSES));
        let steps = layout.steps.iter().flat_map(|s| {
            let range = |first: usize, words: usize| s.offset + first..s.offset + first + words;
            s.entries.iter().map(move |e| (format!("{}.step", e.name), range(e.first, e.words)))
        });
        weights.chain(gammas).chain(betas).chain([bias]).chain(steps).collect()
    }

    pub fn range_of(&self, name: &str) -> std::ops::Range<usize> {
        self.tensors().into_iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no tensor {name}")).1
    }

    pub fn activation_scale(&mut self, name: &str) -> f32 {
        let id = self.lowered.net.layers.iter().position(|l| l.name() == name).unwrap();
        let rows: Vec<RangeRow> = bytemuck::cast_vec(self.exec.read(self.lowered.layout.ranges).unwrap());
        assert_eq!(rows.len() * RANGE_WORDS, self.lowered.plan.tensor(self.lowered.layout.ranges).words);
        rows[self.lowered.layout.range_rows[id].unwrap() as usize].scale
    }

    /// Slope of the loss along `direction` by the gradient, and the smallest relative error of it.
    pub fn error(&mut self, gradient: &[f32], direction: &[f32]) -> (f64, f64) {
        let along: f64 = gradient.iter().zip(direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
        let errors = [1e-4, 4e-5, 2e-5, 1e-5].map(|change| {
            let d = self.differences(direction, (change / along.abs()) as f32);
            d.map(|found| (found - along).abs() / along.abs()).into_iter().fold(f64::INFINITY, f64::min)
        });
        (along, errors.into_iter().fold(f64::INFINITY, f64::min))
    }

    /// Checks the gradient of the tensor `name`.
    pub fn check(&mut self, name: &str) {
        let range = self.range_of(name);
        let gradient = self.gradient();
        for draw in 0..2 {
            let (along, error) = self.error(&gradient, &tilted(&gradient, range.clone(), 40 + draw));
            assert!(along > 1e-4, "{name}: the gradient is {along:e}, nothing to check");
            assert!(error < TOLERANCE, "{name}: slope {along:e}, differences are off by {error:e}");
        }
    }
}

/// The gradient of the words `range`, and twice as much in a random direction, the one of the two in which the loss rises.
pub fn tilted(gradient: &[f32], range: std::ops::Range<usize>, seed: u32) -> Vec<f32> {
    let squares = gradient[range.clone()].iter().map(|g| g * g).sum::<f32>();
    let rms = (squares / range.len() as f32).sqrt();
    let mut direction = vec![0f32; gradient.len()];
    let sign = |i: usize| uniform(seed, i).signum();
    let rise = range.clone().map(|i| gradient[i] * sign(i)).sum::<f32>().signum();
    range.for_each(|i| direction[i] = gradient[i] + 2.0 * rms * rise * sign(i));
    normalise(&mut direction);
    direction
}

pub fn normalise(direction: &mut [f32]) {
    let norm = direction.iter().map(|d| f64::from(*d).powi(2)).sum::<f64>().sqrt();
    direction.iter_mut().for_each(|d| *d = (f64::from(*d) / norm) as f32);
}

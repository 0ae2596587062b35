//! Gradients of the CPU twins against central finite differences of the loss, with every operation in the middle of a
//! network. No device.
//!
//! The loss is computed here, in f64, from the logits: an independent statement of softmax cross-entropy with label
//! smoothing. Differences go along all elements of a tensor at once: along the gradient, which is far above the rounding of
//! the f32 twins, and to either side of it at random, which sees a gradient that is 0 where it should not be. A step that
//! moves the loss by 1e-5 is lost in that rounding to about 0.3 %; one ten times as long carries single values across the
//! corner of a ReLU, most often on one side. So the best of four steps counts, central or to one side: a wrong gradient agrees
//! with none (a test shows it).

use cqat::config::Config;
use cqat::cpu::CpuProgram;
use cqat::exec::{Executor, ExecutorExt};
use cqat::kernels::input::random;
use cqat::kernels::range::{RANGE_WORDS, RangeRow};
use cqat::kernels::{Caps, Step};
use cqat::net::{Activation, Conv, Input, Layer, Linear, Net, Pool, Shape, Shortcut};
use cqat::normalisation::Normalisation;
use cqat::plan::lower::{Lowered, Options, ProgramSet, lower};
use cqat::quant::QuantSpec;
use cqat::session::upload_constants;
use cqat::tensors;

const BATCH: usize = 4;
const CLASSES: usize = 10;
const SMOOTHING: f32 = 0.1;
/// Relative error allowed.
const TOLERANCE: f64 = 5e-3;

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

fn uniform(seed: u32, i: usize) -> f32 {
    random(seed, i as u32, 0) as f32 / u32::MAX as f32 * 2.0 - 1.0
}

/// A network on the twins, with its parameters on the host.
struct Twins {
    lowered: Lowered,
    exec: CpuProgram,
    programs: ProgramSet,
    labels: Vec<u32>,
    params: Vec<f32>,
    frozen: u32,
}

impl Twins {
    /// `quant`: `--set` items, or float.
    fn new(quant: Option<&[&str]>) -> Twins {
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
            twins.loss(&twins.params.clone()); // the weight scales
            twins.frozen = 1;
        }
        twins
    }

    fn write_step(&mut self) {
        let step = Step { valid: BATCH as u32, frozen: self.frozen, ..Step::default() };
        self.exec.write_as(self.lowered.layout.step, &[step]);
    }

    /// Mean loss at `params`, from a training step of learning rate 0.
    fn loss(&mut self, params: &[f32]) -> f64 {
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

    fn gradient(&mut self) -> Vec<f32> {
        self.loss(&self.params.clone());
        self.exec.read_f32(self.lowered.layout.grads).unwrap()
    }

    /// Central, forward and backward difference of the loss along `direction`, for a step of `h`.
    fn differences(&mut self, direction: &[f32], h: f32) -> [f64; 3] {
        let at =
            |steps: f32, p: &[f32]| -> Vec<f32> { p.iter().zip(direction).map(|(p, d)| p + steps * h * d).collect() };
        let params = self.params.clone();
        let [down, here, up] = [-1.0, 0.0, 1.0].map(|steps| self.loss(&at(steps, &params)));
        let h = f64::from(h);
        [(up - down) / (2.0 * h), (up - here) / h, (here - down) / h]
    }

    /// Name and words of every tensor of parameters.
    fn tensors(&self) -> Vec<(String, std::ops::Range<usize>)> {
        let (plan, layout) = (&self.lowered.plan, &self.lowered.layout);
        let words = |t, n| plan.offset(t)..plan.offset(t) + n;
        let weights = layout.weights.iter().map(|w| (format!("{}.weight", w.name), words(w.weight, w.words())));
        let gammas = layout.norms.iter().map(|n| (format!("{}.gamma", n.name), words(n.affine, n.channels)));
        let betas = layout.norms.iter().map(|n| {
            let start = plan.offset(n.affine) + n.channels;
            (format!("{}.beta", n.name), start..start + n.channels)
        });
        let bias = ("fc.bias".to_string(), words(layout.bias.0, CLASSES));
        weights.chain(gammas).chain(betas).chain([bias]).collect()
    }

    fn range_of(&self, name: &str) -> std::ops::Range<usize> {
        self.tensors().into_iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no tensor {name}")).1
    }

    fn activation_scale(&mut self, name: &str) -> f32 {
        let id = self.lowered.net.layers.iter().position(|l| l.name() == name).unwrap();
        let rows: Vec<RangeRow> = bytemuck::cast_vec(self.exec.read(self.lowered.layout.ranges).unwrap());
        assert_eq!(rows.len() * RANGE_WORDS, self.lowered.plan.tensor(self.lowered.layout.ranges).words);
        rows[self.lowered.layout.range_rows[id].unwrap() as usize].scale
    }

    /// Slope of the loss along `direction` by the gradient, and the smallest relative error of it.
    fn error(&mut self, gradient: &[f32], direction: &[f32]) -> (f64, f64) {
        let along: f64 = gradient.iter().zip(direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
        let errors = [1e-4, 4e-5, 2e-5, 1e-5].map(|change| {
            let d = self.differences(direction, (change / along.abs()) as f32);
            d.map(|found| (found - along).abs() / along.abs()).into_iter().fold(f64::INFINITY, f64::min)
        });
        (along, errors.into_iter().fold(f64::INFINITY, f64::min))
    }

    /// Checks the gradient of the tensor `name`.
    fn check(&mut self, name: &str) {
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
fn tilted(gradient: &[f32], range: std::ops::Range<usize>, seed: u32) -> Vec<f32> {
    let squares = gradient[range.clone()].iter().map(|g| g * g).sum::<f32>();
    let rms = (squares / range.len() as f32).sqrt();
    let mut direction = vec![0f32; gradient.len()];
    let sign = |i: usize| uniform(seed, i).signum();
    let rise = range.clone().map(|i| gradient[i] * sign(i)).sum::<f32>().signum();
    range.for_each(|i| direction[i] = gradient[i] + 2.0 * rms * rise * sign(i));
    normalise(&mut direction);
    direction
}

fn normalise(direction: &mut [f32]) {
    let norm = direction.iter().map(|d| f64::from(*d).powi(2)).sum::<f64>().sqrt();
    direction.iter_mut().for_each(|d| *d = (f64::from(*d) / norm) as f32);
}

#[test]
fn float_gradients_agree_with_finite_differences() {
    let mut twins = Twins::new(None);
    for (name, _) in twins.tensors() {
        twins.check(&name);
    }
}

#[test]
fn the_check_sees_a_gradient_that_is_wrong() {
    let mut twins = Twins::new(None);
    let range = twins.range_of("same.b.weight");
    let gradient = twins.gradient();
    let mut direction = vec![0f32; gradient.len()];
    range.clone().for_each(|i| direction[i] = gradient[i]);
    normalise(&mut direction);
    assert!(twins.error(&gradient, &direction).1 < TOLERANCE);
    // One of the 72 weights of a filter plane is off by a fifth of the gradient's norm.
    let norm = gradient[range.clone()].iter().map(|g| g * g).sum::<f32>().sqrt();
    let mut wrong = gradient.clone();
    wrong[range.start + 5] += 0.2 * norm;
    range.clone().for_each(|i| direction[i] = wrong[i]);
    normalise(&mut direction);
    let (along, error) = twins.error(&wrong, &direction);
    assert!(error > 2.0 * TOLERANCE, "slope {along:e}, differences are off by only {error:e}");
    // A tap, one of nine, is left out; a row of input channels is.
    let w = twins.lowered.layout.weights.iter().find(|w| w.name == "same.b").unwrap().clone();
    for missing in [4 * w.c_in * w.c_out..5 * w.c_in * w.c_out, 30 * w.c_out..31 * w.c_out] {
        let mut wrong = gradient.clone();
        wrong[range.start + missing.start..range.start + missing.end].fill(0.0);
        let errors = [40, 41].map(|seed| twins.error(&wrong, &tilted(&wrong, range.clone(), seed)).1);
        assert!(errors.iter().any(|e| *e > 1.5 * TOLERANCE), "{missing:?}: differences are off by only {errors:?}");
    }
}

/// Parameters after the last quantizer see a smooth loss.
#[test]
fn quantized_gradients_agree_after_the_last_quantizer() {
    let mut twins = Twins::new(Some(&["quant.first_last=float", "quant.input=none"]));
    for name in ["fc.weight", "fc.bias", "wide.a.norm.gamma", "wide.a.norm.beta", "wide.side.norm.gamma"] {
        twins.check(name);
    }
}

/// A weight that moves by one scale moves its code by one: along such steps the loss is that of the straight-through
/// estimator, which says dL/dw = dL/d(code * scale).
#[test]
fn straight_through_gradients_of_weights_agree_along_whole_codes() {
    let mut twins = Twins::new(Some(&["quant.weight_bits=8", "quant.first_last=float", "quant.input=none"]));
    for name in ["wide.a", "wide.side"] {
        let range = twins.range_of(&format!("{name}.weight"));
        let w = twins.lowered.layout.weights.iter().find(|w| w.name == name).unwrap().clone();
        let gradient = twins.gradient();
        let scale = twins.exec.read_f32(w.scales).unwrap()[0];
        for draw in 0..2 {
            let mut direction = vec![0f32; gradient.len()];
            for i in range.clone() {
                let code = twins.params[i] / scale;
                let certain = (code - code.round()).abs() < 0.4 && code.abs() < 125.0;
                if certain && uniform(50 + draw, i) > 0.8 {
                    direction[i] = scale * gradient[i].signum();
                }
            }
            let along: f64 = direction.iter().zip(&gradient).map(|(d, g)| f64::from(*d) * f64::from(*g)).sum();
            let found = twins.differences(&direction, 1.0)[0];
            assert!((found - along).abs() < 0.05 * along, "{name}: gradient {along:e}, by whole codes {found:e}");
        }
    }
}

/// The same for activations: a beta that moves by one scale moves the codes of its channel by one.
#[test]
fn straight_through_gradients_of_activations_agree_along_whole_codes() {
    let mut twins = Twins::new(Some(&[]));
    let scale = twins.activation_scale("wide.a.relu");
    let range = twins.range_of("wide.a.norm.beta");
    let gradient = twins.gradient();
    let mut direction = vec![0f32; gradient.len()];
    range.clone().for_each(|i| direction[i] = scale * gradient[i].signum());
    let along: f64 = direction.iter().zip(&gradient).map(|(d, g)| f64::from(*d) * f64::from(*g)).sum();
    let found = twins.differences(&direction, 1.0)[0];
    assert!((found - along).abs() < 0.05 * along, "gradient {along:e}, by whole codes {found:e}");
}

/// Codes, values and masks of a step use one scale; what the step has seen moves the range for the next one.
#[test]
fn a_step_uses_one_scale_from_beginning_to_end() {
    for estimator in ["ema_max", "max", "k_sigma"] {
        let sets = [
            format!("quant.activations.estimator={estimator}"),
            "quant.activations.ema_momentum=0".into(),
            "quant.activations.pow2=true".into(),
        ];
        let mut twins = Twins::new(Some(&sets.each_ref().map(String::as_str)));
        let still = twins.gradient();
        let before = twins.activation_scale("wide.a.relu");
        // Weights that give other activations than calibration saw.
        for gamma in twins.tensors().into_iter().filter(|(name, _)| name.ends_with(".gamma")) {
            twins.params[gamma.1].iter_mut().for_each(|v| *v *= 4.0);
        }
        let frozen = twins.gradient();
        assert_ne!(still, frozen);
        twins.frozen = 0;
        let moving = twins.gradient();
        assert!(twins.activation_scale("wide.a.relu") >= 2.0 * before, "{estimator}: the range has not moved");
        assert!(frozen == moving, "{estimator}: the step that moves the range already uses it");
    }
}

#[test]
fn the_int_mask_blocks_exactly_the_clipped_weights() {
    let gradients = |mask: &str| {
        let mut twins = Twins::new(Some(&[&format!("quant.weights.mask={mask}")]));
        let gradient = twins.gradient();
        (twins, gradient)
    };
    let ((mut twins, int), (_, pass)) = (gradients("int"), gradients("pass"));
    let w = twins.lowered.layout.weights.iter().find(|w| w.name == "down.b").unwrap().clone();
    let inv_scale = twins.exec.read_f32(w.scales).unwrap()[w.c_out];
    let range = twins.range_of("down.b.weight");
    let mut clipped = 0;
    for i in range {
        let code = (twins.params[i] * inv_scale).round_ties_even();
        let inside = (-16.0..=15.0).contains(&code);
        clipped += usize::from(!inside);
        assert_eq!(int[i], if inside { pass[i] } else { 0.0 }, "weight {i}, code {code}");
    }
    assert!(clipped > 10, "{clipped} weights clip: too few to test the mask");
}

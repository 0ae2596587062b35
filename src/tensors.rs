//! Named tensors on the host, in torchvision's names and layouts, and their way into and out of an arena's buffer.
//!
//! The device keeps convolutions as `(ky, kx, c_in, c_out)` with padded channels; files keep `(c_out, c_in, ky, kx)`.

use std::collections::BTreeSet;

use crate::kernels::range::RangeRow;
use crate::plan::Plan;
use crate::plan::layout::{Layout, StepEntry, Weights};
use crate::quant::Quant;
use crate::safetensors_io::{NamedTensor, Tensors, expect};
use crate::{Error, Result, rng};

fn weight_shape(w: &Weights) -> Vec<usize> {
    match w.taps {
        1 if w.name == "fc" => vec![w.real_out, w.real_in],
        taps => {
            let side = taps.isqrt();
            vec![w.real_out, w.real_in, side, side]
        }
    }
}

/// Position of `(tap, ci, co)` in the device's layout.
fn device_index(w: &Weights, tap: usize, ci: usize, co: usize) -> usize {
    (tap * w.c_in + ci) * w.c_out + co
}

/// Calls `f(file index, device index)` for every weight that carries data.
fn for_each_weight(w: &Weights, mut f: impl FnMut(usize, usize)) {
    for co in 0..w.real_out {
        for ci in 0..w.real_in {
            for tap in 0..w.taps {
                f((co * w.real_in + ci) * w.taps + tap, device_index(w, tap, ci, co));
            }
        }
    }
}

/// The tensors in the words of an arena laid out like the parameters (parameters, gradients, momentum).
pub fn extract(plan: &Plan, layout: &Layout, words: &[f32]) -> Tensors {
    let mut out = Tensors::new();
    for w in &layout.weights {
        let shape = weight_shape(w);
        let base = plan.offset(w.weight);
        let mut data = vec![0.0; shape.iter().product()];
        for_each_weight(w, |file, device| data[file] = words[base + device]);
        out.insert(format!("{}.weight", w.name), NamedTensor { shape, data });
    }
    for n in &layout.norms {
        let base = plan.offset(n.affine);
        for (k, part) in ["weight", "bias"].iter().enumerate() {
            let data = words[base + k * n.channels..][..n.channels].to_vec();
            out.insert(format!("{}.{part}", n.name), NamedTensor { shape: vec![n.channels], data });
        }
    }
    let fc = layout.weights.last().expect("a network has weights");
    let data = words[plan.offset(layout.bias.0)..][..fc.real_out].to_vec();
    out.insert(format!("{}.bias", fc.name), NamedTensor { shape: vec![fc.real_out], data });
    if let Some(steps) = &layout.steps {
        for e in &steps.entries {
            let data = words[steps.offset + e.first..][..e.real].to_vec();
            out.insert(step_name(e), NamedTensor { shape: vec![e.real], data });
        }
    }
    out
}

/// Name of the learned scales of a quantizer: `quant.NAME.step` of an activation (with its offset, where it has one), and
/// `quant.NAME.weight.step` (1 value, or c_out).
fn step_name(entry: &StepEntry) -> String {
    format!("quant.{}.step", entry.name)
}

/// The inverse of [`extract`]: words of an arena, padding zero. Learned scales are 0 where `tensors` has none of them: calibration comes
/// before their use.
///
/// # Errors
/// A tensor that is missing or has another shape.
pub fn insert(plan: &Plan, layout: &Layout, words: usize, tensors: &Tensors, prefix: &str) -> Result<Vec<f32>> {
    let mut out = vec![0.0; words];
    for w in &layout.weights {
        let data = expect(tensors, &format!("{prefix}{}.weight", w.name), &weight_shape(w))?;
        let base = plan.offset(w.weight);
        for_each_weight(w, |file, device| out[base + device] = data[file]);
    }
    for n in &layout.norms {
        let base = plan.offset(n.affine);
        for (k, part) in ["weight", "bias"].iter().enumerate() {
            let data = expect(tensors, &format!("{prefix}{}.{part}", n.name), &[n.channels])?;
            out[base + k * n.channels..][..n.channels].copy_from_slice(data);
        }
    }
    let fc = layout.weights.last().expect("a network has weights");
    let data = expect(tensors, &format!("{prefix}{}.bias", fc.name), &[fc.real_out])?;
    out[plan.offset(layout.bias.0)..][..fc.real_out].copy_from_slice(data);
    let entries = || layout.steps.iter().flat_map(|s| s.entries.iter().map(move |e| (s.offset + e.first, e)));
    if entries().any(|(_, e)| tensors.contains_key(&format!("{prefix}{}", step_name(e)))) {
        for (first, e) in entries() {
            let data = expect(tensors, &format!("{prefix}{}", step_name(e)), &[e.real])?;
            out[first..][..e.real].copy_from_slice(data);
        }
    }
    Ok(out)
}

/// What training goes on from, with the values as they are where the network is their moving average.
pub const LIVE: &str = "live.";

/// Whether a tensor of a checkpoint is state of its training, no part of a float network.
pub fn is_training_state(name: &str) -> bool {
    ["momentum.", "quant.", LIVE].iter().any(|prefix| name.starts_with(prefix))
}

/// Refuses tensors that the network has no place for: those of a deeper one fit a shallower one by name and shape and would
/// make half a network, biases before a batch norm would be lost. What [`is_training_state`] goes by the weights;
/// `num_batches_tracked` is nobody's.
///
/// # Errors
/// Names such a tensor.
pub fn refuse_strangers(layout: &Layout, tensors: &Tensors) -> Result<()> {
    let fc = layout.weights.last().expect("a network has weights");
    let mut places: BTreeSet<String> = layout.weights.iter().map(|w| format!("{}.weight", w.name)).collect();
    places.insert(format!("{}.bias", fc.name));
    for n in &layout.norms {
        places.extend(["weight", "bias", "running_mean", "running_var"].map(|part| format!("{}.{part}", n.name)));
    }
    let known = |name: &str| is_training_state(name) || name.ends_with(".num_batches_tracked") || places.contains(name);
    match tensors.keys().find(|name| !known(name)) {
        None => Ok(()),
        Some(name) => {
            let shown = name.escape_debug();
            let error =
                Error::training(format!("the checkpoint has a tensor {shown}, which the network does not have"));
            let convolution = |w: &Weights| name.strip_suffix(".bias") == Some(&w.name);
            Err(error.hint(if ["module.", "model."].iter().any(|prefix| name.starts_with(prefix)) {
                "its names begin with that of a wrapper: save the state of the network inside, in PyTorch .module.state_dict()"
            } else if layout.weights.iter().any(convolution) {
                "convolutions have no bias here, the batch norm behind each has one: fold it into that"
            } else {
                "is it a checkpoint of a network with another depth? network.depth must match"
            }))
        }
    }
}

/// Running statistics by name.
pub fn extract_running(plan: &Plan, layout: &Layout, words: &[f32]) -> Tensors {
    let mut out = Tensors::new();
    for n in &layout.norms {
        let base = plan.offset(n.running);
        for (k, part) in ["running_mean", "running_var"].iter().enumerate() {
            let data = words[base + k * n.channels..][..n.channels].to_vec();
            out.insert(format!("{}.{part}", n.name), NamedTensor { shape: vec![n.channels], data });
        }
    }
    out
}

/// The inverse of [`extract_running`].
///
/// # Errors
/// A tensor that is missing or has another shape.
pub fn insert_running(plan: &Plan, layout: &Layout, words: usize, tensors: &Tensors, prefix: &str) -> Result<Vec<f32>> {
    let mut out = vec![0.0; words];
    for n in &layout.norms {
        let base = plan.offset(n.running);
        for (k, part) in ["running_mean", "running_var"].iter().enumerate() {
            let data = expect(tensors, &format!("{prefix}{}.{part}", n.name), &[n.channels])?;
            out[base + k * n.channels..][..n.channels].copy_from_slice(data);
        }
    }
    Ok(out)
}

/// The state of the activation quantizer `name`: `quant.NAME.range`, `.scale`, `.inv_scale` (1 value each),
/// `.statistics` (the last batch's observation; sums of the saturated and the blocked fraction and their number of steps;
/// batches that calibration saw), and, where one is not 0, `.window` (the code of the offset; the step of the 8-bit grid).
pub fn insert_range(tensors: &mut Tensors, name: &str, row: &RangeRow) {
    let statistics = [row.observed, row.saturated, row.blocked, row.steps, row.calibrated];
    let parts: [(&str, &[f32]); 4] = [
        ("range", &[row.range]),
        ("scale", &[row.scale]),
        ("inv_scale", &[row.inv_scale]),
        ("statistics", &statistics),
    ];
    let window = [row.zero, row.unit];
    let window = (window != [0.0; 2]).then_some(("window", &window[..]));
    for (part, data) in parts.into_iter().chain(window) {
        let tensor = NamedTensor { shape: vec![data.len()], data: data.to_vec() };
        tensors.insert(format!("quant.{name}.{part}"), tensor);
    }
}

/// The inverse of [`insert_range`], for this quantizer.
///
/// # Errors
/// A tensor that is missing or has another shape, an offset that the quantizer cannot have.
pub fn range(tensors: &Tensors, name: &str, quant: &Quant) -> Result<RangeRow> {
    let one = |part: &str| Ok(expect(tensors, &format!("quant.{name}.{part}"), &[1])?[0]);
    let s = expect(tensors, &format!("quant.{name}.statistics"), &[5])?;
    Ok(RangeRow {
        range: one("range")?,
        scale: one("scale")?,
        inv_scale: one("inv_scale")?,
        observed: s[0],
        saturated: s[1],
        blocked: s[2],
        steps: s[3],
        calibrated: s[4],
        ..window(tensors, name, quant)?
    })
}

/// The offset and the unit of an activation quantizer, 0 where a checkpoint has none.
fn window(tensors: &Tensors, name: &str, quant: &Quant) -> Result<RangeRow> {
    let key = format!("quant.{name}.window");
    if !tensors.contains_key(&key) {
        return Ok(RangeRow::UNIT);
    }
    let window = expect(tensors, &key, &[2])?;
    let (zero, unit) = (window[0], window[1]);
    let [lowest, highest] = quant.zeros();
    if !(zero.fract() == 0.0 && zero >= lowest as f32 && zero <= highest as f32 && unit >= 0.0 && unit.is_finite()) {
        return Err(Error::training(format!(
            "tensor {key} holds {zero} and {unit}, expected a code from {lowest} to {highest} and the step of a grid"
        ))
        .hint("the file is damaged, or belongs to a run with other quantizers; take another checkpoint"));
    }
    Ok(RangeRow { zero, unit, ..RangeRow::UNIT })
}

/// The scales of a layer's weights, one an output channel: `quant.NAME.weight.scale` and `.inv_scale` (c_out), and where they are
/// inside an 8-bit grid, the steps of that as `.unit`, from the words of the device, which come for padded channels too.
pub fn insert_scales(tensors: &mut Tensors, w: &Weights, words: &[f32]) {
    let [scale, inverse] = SCALE_PARTS;
    for (part, values) in [scale, inverse, UNIT_PART].iter().zip(words.chunks_exact(w.c_out)) {
        if *part == UNIT_PART && values.iter().all(|v| *v == 0.0) {
            continue;
        }
        let tensor = NamedTensor { shape: vec![w.real_out], data: values[..w.real_out].to_vec() };
        tensors.insert(format!("quant.{}.weight.{part}", w.name), tensor);
    }
}

/// The inverse of [`insert_scales`]; the weights of padded channels are 0, whatever their scale.
///
/// # Errors
/// A tensor that is missing or has another shape.
pub fn scales(tensors: &Tensors, w: &Weights, prefix: &str) -> Result<Vec<f32>> {
    let mut words = [vec![1.0; 2 * w.c_out], vec![0.0; w.c_out]].concat();
    let parts = weight_scales(tensors, prefix, &w.name, w.real_out)?;
    let unit = format!("{prefix}quant.{}.weight.{UNIT_PART}", w.name);
    let unit = if tensors.contains_key(&unit) { Some(expect(tensors, &unit, &[w.real_out])?) } else { None };
    for (part, padded) in parts.into_iter().chain(unit).zip(words.chunks_exact_mut(w.c_out)) {
        padded[..w.real_out].copy_from_slice(part);
    }
    Ok(words)
}

/// The scales of the weights of layer `name`, and their inverses: `channels` values each. `prefix` stands before the names.
///
/// # Errors
/// A tensor that is missing or has another shape.
pub fn weight_scales<'t>(tensors: &'t Tensors, prefix: &str, name: &str, channels: usize) -> Result<[&'t [f32]; 2]> {
    let [scale, inverse] =
        SCALE_PARTS.map(|part| expect(tensors, &format!("{prefix}quant.{name}.weight.{part}"), &[channels]));
    Ok([scale?, inverse?])
}

/// Codes of weights (c_out, ...) whose channels have these inverse scales (c_out).
pub fn weight_codes(weights: &[f32], inverse: &[f32], quant: &Quant) -> Vec<i8> {
    let rows = weights.chunks_exact(weights.len() / inverse.len()).zip(inverse);
    rows.flat_map(|(row, inv)| row.iter().map(|w| quant.code(*w, *inv) as i8)).collect()
}

const SCALE_PARTS: [&str; 2] = ["scale", "inv_scale"];
const UNIT_PART: &str = "unit";

/// Fresh weights: convolutions N(0, 2 / (c_out k^2)), linear layer U(+-1/sqrt(features)), gamma 1, beta 0
/// (He et al. 2015, fan-out form).
pub fn initialise(layout: &Layout, seed: u64) -> Tensors {
    let mut random = Gaussian { key: seed ^ 0x6a09_e667_f3bc_c908, counter: 0, spare: None };
    let mut out = Tensors::new();
    for w in &layout.weights {
        let shape = weight_shape(w);
        let count = shape.iter().product();
        let data = if w.name == "fc" {
            let bound = 1.0 / (w.real_in as f64).sqrt();
            (0..count).map(|_| ((2.0 * random.uniform() - 1.0) * bound) as f32).collect()
        } else {
            let deviation = (2.0 / (w.real_out * w.taps) as f64).sqrt();
            (0..count).map(|_| (random.normal() * deviation) as f32).collect()
        };
        out.insert(format!("{}.weight", w.name), NamedTensor { shape, data });
    }
    for n in &layout.norms {
        let fill = |v| NamedTensor { shape: vec![n.channels], data: vec![v; n.channels] };
        out.insert(format!("{}.weight", n.name), fill(1.0));
        out.insert(format!("{}.bias", n.name), fill(0.0));
        out.insert(format!("{}.running_mean", n.name), fill(0.0));
        out.insert(format!("{}.running_var", n.name), fill(1.0));
    }
    let fc = layout.weights.last().expect("a network has weights");
    let bound = 1.0 / (fc.real_in as f64).sqrt();
    let data = (0..fc.real_out).map(|_| ((2.0 * random.uniform() - 1.0) * bound) as f32).collect();
    out.insert(format!("{}.bias", fc.name), NamedTensor { shape: vec![fc.real_out], data });
    out
}

/// Normal numbers by the Box-Muller transform of [`rng::random`].
struct Gaussian {
    key: u64,
    counter: u64,
    spare: Option<f64>,
}

impl Gaussian {
    /// In `[0, 1)`.
    fn uniform(&mut self) -> f64 {
        self.counter += 1;
        (rng::random(self.key, self.counter - 1) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        if let Some(v) = self.spare.take() {
            return v;
        }
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        let angle = std::f64::consts::TAU * self.uniform();
        self.spare = Some(radius * angle.sin());
        radius * angle.cos()
    }
}

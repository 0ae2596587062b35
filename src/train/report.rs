//! What a run writes about its epochs: metrics.jsonl and warnings.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Scores, Trainer};
use crate::Result;
use crate::config::{Estimator, Method, QuantConfig};
use crate::evaluate::Kind;
use crate::exec::ExecutorExt;
use crate::kernels::range::RangeRow;
use crate::plan::layout::Weights;
use crate::progress::Beat;
use crate::quant::{Quantizer, form, learn};
use crate::run::now;
use crate::safetensors_io::{NamedTensor, Tensors, expect};
use crate::session::{Form, Session};
use crate::tensors;

/// Fraction of an activation's positive values above the top code from which a warning is given.
const SATURATION_WARNING: f32 = 0.3;

impl Trainer<'_> {
    /// The training line of an epoch. `lr` is that of its last step.
    pub(super) fn log_training(&mut self, lr: f32) -> Result<()> {
        let t = self.at.totals;
        let rate = t.count / self.seconds.max(1e-9);
        self.folder.log(&json!({
            "kind": "epoch", "phase": self.at.phase.name(), "epoch": self.at.epoch + 1, "split": "train",
            "loss": t.mean_loss(), "top1": t.top1_percent(), "top5": t.top5_percent(), "samples": t.count,
            "lr": lr, "step": self.at.global_step, "seconds": self.seconds, "images_per_second": rate,
        }))
    }

    /// The line of an epoch's evaluation, and of a quantized one those of its tensors.
    pub(super) fn log_scores(&mut self, epoch: u32, scores: &Scores) -> Result<()> {
        let t = scores.totals;
        let kind = if scores.form == Form::Quantized { Kind::FakeQuant } else { Kind::Float };
        self.folder.log(&json!({
            "kind": "epoch", "phase": self.at.phase.name(), "epoch": epoch, "split": scores.split,
            "evaluation": kind.name(), "loss": t.mean_loss(), "top1": t.top1_percent(), "top5": t.top5_percent(),
            "samples": t.count, "seconds": scores.seconds,
        }))?;
        if scores.form == Form::Quantized { self.log_layers(epoch) } else { Ok(()) }
    }

    /// A sign of life between two epochs.
    pub(super) fn log_heartbeat(&mut self, beat: &Beat) -> Result<()> {
        self.folder.log(&json!({
            "kind": "heartbeat", "phase": self.at.phase.name(), "epoch": self.at.epoch + 1, "step": beat.step,
            "steps": beat.steps, "loss": beat.loss, "images_per_second": beat.images_per_second, "time": now(),
        }))
    }

    /// One line per quantized tensor, and a warning for saturated activations.
    fn log_layers(&mut self, epoch: u32) -> Result<()> {
        let ranges = self.session.ranges()?;
        let spec = self.session.lowered.quant.as_ref().expect("a quantized form has quantizers");
        let line = |name: &str, tensor: &str| json!({ "kind": "layer", "phase": self.at.phase.name(), "epoch": epoch, "layer": name, "tensor": tensor });
        let mut lines = Vec::new();
        for (id, a) in self.session.lowered.net.activations() {
            let Some(q) = spec.layer(id) else { continue };
            let row: &RangeRow = &ranges[&a.name];
            // Calibration alone counts nothing.
            let per_step = |sum: f32| (row.steps > 0.0).then(|| sum / row.steps);
            let saturated = per_step(row.saturated);
            let mut l = line(&a.name, "activation");
            l["bits"] = json!(q.bits);
            l["scale"] = json!(row.scale);
            // Of a window, that of the 8-bit grid that it lies in.
            l["range"] = json!(if row.unit > 0.0 { row.unit * q.rule.levels } else { row.range });
            l["saturated"] = json!(saturated);
            l["blocked"] = json!(per_step(row.blocked));
            lines.push(l);
            if let Some(saturated) = saturated.filter(|s| *s > SATURATION_WARNING) {
                log::warn!(
                    "{}: {:.0} % of the positive values saturate (range {:.4}, scale {:.6}); {}",
                    a.name,
                    100.0 * saturated,
                    row.range,
                    row.scale,
                    saturation_advice(&spec.config, q)
                );
            }
        }
        let codes = weight_codes(&mut self.session)?;
        for w in weight_statistics(&mut self.session)? {
            let mut l = line(&w.name, "weight");
            // Oscillation: how many weights sit near an edge between two codes.
            l["changed"] = json!(changed(self.codes.get(&w.name), codes.get(&w.name)));
            l["bits"] = json!(w.bits);
            l["scale"] = json!(w.scales[1]);
            if w.scales[0] != w.scales[1] {
                l["smallest_scale"] = json!(w.scales[0]);
            }
            l["range"] = json!(w.range);
            l["largest"] = json!(w.largest);
            l["saturated"] = json!(w.saturated);
            l["blocked"] = json!(w.blocked);
            lines.push(l);
        }
        self.codes = codes;
        lines.iter().try_for_each(|l| self.folder.log(l))?;
        self.codes.iter().try_for_each(|(layer, codes)| self.folder.codes(layer, codes))
    }
}

/// What keeps more of an activation's values from saturating, with the quantizer `q`.
fn saturation_advice(config: &QuantConfig, q: &Quantizer) -> &'static str {
    match config.activation_estimator() {
        _ if config.method == Method::Dorefa => "dorefa clips activations at 1",
        _ if q.quant.learn != learn::NOTHING => "its learned scale follows the loss, not these",
        Estimator::FixedPow2 => "a larger quant.activations.fixed_log2_scale keeps more of them",
        Estimator::Mse if config.method == Method::CqatAuto => {
            "cqat-auto found that window best when it calibrated; more bits keep more of them"
        }
        Estimator::Mse => "mse found that best when it calibrated; other estimators keep more of them",
        Estimator::Percentile => "a larger quant.activations.percentile keeps more of them",
        Estimator::KSigma => "a larger quant.activations.sigmas keeps more of them",
        _ if config.takes_range_factor(q.bits) => "a larger quant.activations.range_factor keeps more of them",
        _ => "its range follows the largest values; quant.activations.source=batch follows them at once",
    }
}

/// Weight codes by layer.
type Codes = BTreeMap<String, Vec<i8>>;

fn weight_codes(session: &mut Session) -> Result<Codes> {
    let lowered = session.lowered;
    let spec = lowered.quant.as_ref().expect("a quantized form has quantizers");
    let state = session.named(lowered.layout.values())?;
    let quantized = lowered.layout.weights.iter().filter_map(|w| Some((w, spec.layer(w.layer)?)));
    let codes = |(w, q): (&Weights, &Quantizer)| {
        let [_, inverse] = tensors::weight_scales(&state, "", &w.name, w.real_out)?;
        let weights = &state[&format!("{}.weight", w.name)].data;
        Ok((w.name.clone(), tensors::weight_codes(weights, inverse, &q.quant)))
    };
    quantized.map(codes).collect()
}

/// Fraction of the codes that differ; `None` where there were none before.
fn changed(before: Option<&Vec<i8>>, after: Option<&Vec<i8>>) -> Option<f64> {
    let (before, after) = (before?, after?);
    let count = before.iter().zip(after).filter(|(a, b)| a != b).count();
    Some(count as f64 / after.len() as f64)
}

const CODES: &str = ".weight.codes";

/// Puts codes among the tensors of a checkpoint, as `quant.NAME.weight.codes`.
pub(super) fn store_codes(codes: &Codes, tensors: &mut Tensors) {
    for (name, codes) in codes {
        let shape = tensors.get(&format!("{name}.weight")).map_or(vec![codes.len()], |t| t.shape.clone());
        let data = codes.iter().map(|code| f32::from(*code)).collect();
        tensors.insert(format!("quant.{name}{CODES}"), NamedTensor { shape, data });
    }
}

/// The codes among the tensors of a checkpoint.
///
/// # Errors
/// Codes of another shape than their weights have.
pub(super) fn stored_codes(tensors: &Tensors) -> Result<Codes> {
    let mut codes = Codes::new();
    for key in tensors.keys() {
        let Some(name) = key.strip_prefix("quant.").and_then(|rest| rest.strip_suffix(CODES)) else { continue };
        let shape = tensors.get(&format!("{name}.weight")).map_or(&[][..], |weights| &weights.shape);
        let data = expect(tensors, key, shape)?;
        codes.insert(name.into(), data.iter().map(|code| *code as i8).collect());
    }
    Ok(codes)
}

/// Quantizer statistics of one layer's weights, on the host.
struct WeightStatistics {
    name: String,
    bits: u32,
    /// Smallest and largest scale of its channels.
    scales: [f32; 2],
    /// The range that the largest scale stands for; of a window, that of the 8-bit grid that it lies in.
    range: f32,
    largest: f32,
    /// Fraction of the weights outside the codes.
    saturated: f64,
    /// Fraction of the weights whose gradient the mask blocks.
    blocked: f64,
}

fn weight_statistics(session: &mut Session) -> Result<Vec<WeightStatistics>> {
    let lowered = session.lowered;
    let spec = lowered.quant.as_ref().expect("a quantized form has quantizers");
    let (plan, layout) = (&lowered.plan, &lowered.layout);
    let params = session.executor().read_f32(layout.decayed)?;
    let scales = session.executor().read_f32(layout.scales)?;
    let mut all = Vec::new();
    for w in &layout.weights {
        let Some(q) = spec.layer(w.layer) else { continue };
        let mut parts = scales[plan.offset(w.scales)..][..3 * w.c_out].chunks_exact(w.c_out);
        let [scale, inverse, unit] = std::array::from_fn(|_| parts.next().unwrap_or_default());
        let values = params[plan.offset(w.weight)..][..w.words()].iter().enumerate();
        let (mut saturated, mut blocked, mut count, mut largest) = (0u64, 0u64, 0u64, 0f32);
        for (i, v) in values.filter(|(i, _)| w.is_real(*i)) {
            let inv = inverse[i % w.c_out];
            saturated += u64::from(q.quant.clips(*v, inv));
            blocked += u64::from(!q.quant.passes(*v, inv));
            count += 1;
            largest = largest.max(v.abs());
        }
        let fold =
            |f: fn(f32, f32) -> f32, values: &[f32]| values[..w.real_out].iter().copied().reduce(f).unwrap_or(1.0);
        let fraction = |n: u64| n as f64 / count.max(1) as f64;
        all.push(WeightStatistics {
            name: w.name.clone(),
            bits: q.bits,
            scales: [fold(f32::min, scale), fold(f32::max, scale)],
            range: range_of_weights(q, largest, fold(f32::max, unit), fold(f32::min, inverse)),
            largest,
            saturated: fraction(saturated),
            blocked: fraction(blocked),
        });
    }
    Ok(all)
}

/// The range of weights up to `largest`, `inverse` the smallest factor from values to base codes, `unit` the largest step of the grids
/// that windows lie in.
fn range_of_weights(q: &Quantizer, largest: f32, unit: f32, inverse: f32) -> f32 {
    match q.quant.form {
        form::ODD_TANH => largest, // the factor is of tanh
        _ if unit > 0.0 => unit * q.rule.levels,
        _ => q.rule.range_of_step(1.0 / inverse),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::net::Net;
    use crate::quant::QuantSpec;

    fn quantizer(layer: &str, sets: &[&str]) -> (QuantConfig, Quantizer) {
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        let net = Net::resnet(8, 8, 10, 32).unwrap();
        let config = Config::load("cqat", &sets).unwrap().quant;
        let spec = QuantSpec::new(&config, &net).unwrap().unwrap();
        (config, *spec.layer(net.layers.iter().position(|l| l.name() == layer).unwrap()).unwrap())
    }

    #[test]
    fn advice_names_what_moves_the_range() {
        let advice = |layer: &str, sets: &[&str]| {
            let (config, q) = quantizer(layer, sets);
            saturation_advice(&config, &q)
        };
        let narrow = |sets: &[&str]| advice("layer1.0.relu1", sets);
        assert!(narrow(&[]).contains("range_factor"));
        for sets in [&["quant.method=minmax"][..], &["quant.reduce=drop_lsb_round"]] {
            assert!(!narrow(sets).contains("range_factor") && narrow(sets).contains("source=batch"), "{sets:?}");
        }
        let last = Net::resnet(8, 8, 10, 32).unwrap().activations().last().unwrap().1.name.clone();
        assert!(!advice(&last, &[]).contains("range_factor"), "eight bits span the grid");
        for (estimator, key) in [("k_sigma", ".sigmas"), ("percentile", ".percentile"), ("fixed_pow2", "fixed_log2")] {
            let set = format!("quant.activations.estimator={estimator}");
            assert!(narrow(&[&set]).contains(key), "{estimator}");
        }
        assert!(narrow(&["quant.method=cqat-auto", "quant.learn_scales=false"]).contains("more bits"));
        assert!(narrow(&["quant.method=lsq"]).contains("learned"));
    }

    #[test]
    fn the_range_of_weights_is_in_their_units() {
        let range = |sets: &[&str], unit: f32, inverse: f32| {
            range_of_weights(&quantizer("layer1.0.conv1", sets).1, 0.5, unit, inverse)
        };
        // 31 odd codes over tanh(0.5) both ways.
        assert_eq!(range(&["quant.method=dorefa"], 0.0, 31.0 / (2.0 * 0.5f32.tanh())), 0.5);
        assert_eq!(range(&["quant.method=cqat-auto"], 0.5 / 127.0, 8.0 / 0.5), 0.5);
        let (_, q) = quantizer("layer1.0.conv1", &[]);
        assert!((range(&[], 0.0, q.rule.scale(0.5).inv_scale) - 0.5).abs() < 1e-6);
    }
}

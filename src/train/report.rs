//! What a run writes about its epochs: metrics.jsonl and warnings.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Scores, Trainer};
use crate::Result;
use crate::config::{Estimator, Method};
use crate::evaluate::Kind;
use crate::exec::ExecutorExt;
use crate::kernels::range::RangeRow;
use crate::plan::layout::Weights;
use crate::progress::Beat;
use crate::quant::{Quantizer, learn};
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
            l["range"] = json!(row.range);
            l["saturated"] = json!(saturated);
            l["blocked"] = json!(per_step(row.blocked));
            lines.push(l);
            if let Some(saturated) = saturated.filter(|s| *s > SATURATION_WARNING) {
                let advice = match spec.config.activation_estimator() {
                    _ if spec.config.method == Method::Dorefa => "dorefa clips activations at 1",
                    _ if q.quant.learn != learn::NOTHING => "its learned scale follows the loss, not these",
                    Estimator::FixedPow2 => "a larger quant.activations.fixed_log2_scale keeps more of them",
                    Estimator::Mse => "mse found that best when it calibrated; other estimators keep more of them",
                    _ => "a larger quant.activations.range_factor keeps more of them",
                };
                log::warn!(
                    "{}: {:.0} % of the positive values saturate (range {:.4}, scale {:.6}); {advice}",
                    a.name,
                    100.0 * saturated,
                    row.range,
                    row.scale
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
    /// The range that the largest scale stands for.
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
        let (scale, inverse) = scales[plan.offset(w.scales)..][..2 * w.c_out].split_at(w.c_out);
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
            range: q.rule.range_of_step(1.0 / fold(f32::min, inverse)),
            largest,
            saturated: fraction(saturated),
            blocked: fraction(blocked),
        });
    }
    Ok(all)
}

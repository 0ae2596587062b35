//! What a run writes about its epochs: metrics.jsonl and warnings.

use std::time::Duration;

use serde_json::json;

use super::Trainer;
use crate::Result;
use crate::exec::ExecutorExt;
use crate::kernels::range::RangeRow;
use crate::session::Session;

/// Fraction of an activation's positive values above the top code from which a warning is given.
const SATURATION_WARNING: f32 = 0.3;

impl Trainer<'_> {
    pub(super) fn log_training(&mut self, lr: f32, elapsed: Duration) -> Result<()> {
        let t = self.at.totals;
        let rate = t.count / elapsed.as_secs_f64().max(1e-9);
        self.folder.log(&json!({
            "kind": "epoch", "phase": self.at.phase.name(), "epoch": self.at.epoch + 1, "split": "train",
            "loss": t.mean_loss(), "top1": t.top1_percent(), "top5": t.top5_percent(), "samples": t.count,
            "lr": lr, "step": self.at.global_step, "seconds": elapsed.as_secs_f64(), "images_per_second": rate,
        }))
    }

    /// One line per quantized tensor, and a warning for saturated activations.
    pub(super) fn log_layers(&mut self) -> Result<()> {
        let ranges = self.session.ranges()?;
        let spec = self.session.lowered.quant.as_ref().expect("a quantized form has quantizers");
        let line = |name: &str, tensor: &str| json!({ "kind": "layer", "phase": self.at.phase.name(), "epoch": self.at.epoch + 1, "layer": name, "tensor": tensor });
        let mut lines = Vec::new();
        for (id, a) in self.session.lowered.net.activations() {
            let Some(q) = spec.layer(id) else { continue };
            let row: &RangeRow = &ranges[&a.name];
            let saturated = row.saturated / row.steps.max(1.0);
            let mut l = line(&a.name, "activation");
            l["bits"] = json!(q.bits);
            l["scale"] = json!(row.scale);
            l["range"] = json!(row.range);
            l["saturated"] = json!(saturated);
            l["blocked"] = json!(row.blocked / row.steps.max(1.0));
            lines.push(l);
            if saturated > SATURATION_WARNING {
                log::warn!(
                    "{}: {:.0} % of the positive values saturate (range {:.4}, scale {:.6}); a larger \
                     quant.activations.range_factor keeps more of them",
                    a.name,
                    100.0 * saturated,
                    row.range,
                    row.scale
                );
            }
        }
        for w in weight_statistics(&mut self.session)? {
            let mut l = line(&w.name, "weight");
            l["bits"] = json!(w.bits);
            l["scale"] = json!(w.scale);
            l["range"] = json!(w.range);
            l["saturated"] = json!(w.saturated);
            l["blocked"] = json!(w.blocked);
            lines.push(l);
        }
        lines.iter().try_for_each(|l| self.folder.log(l))
    }
}

/// Quantizer statistics of one layer's weights.
struct WeightStatistics {
    name: String,
    bits: u32,
    scale: f32,
    range: f32,
    saturated: f64,
    blocked: f64,
}

/// Statistics of the weights as they are, on the host.
fn weight_statistics(session: &mut Session) -> Result<Vec<WeightStatistics>> {
    let lowered = session.lowered;
    let spec = lowered.quant.as_ref().expect("a quantized form has quantizers");
    let (plan, layout) = (&lowered.plan, &lowered.layout);
    let params = session.executor().read_f32(layout.decayed)?;
    let scales = session.executor().read_f32(layout.scales)?;
    let mut all = Vec::new();
    for w in &layout.weights {
        let Some(q) = spec.layer(w.layer) else { continue };
        let s = &scales[plan.offset(w.scales)..][..2 * w.c_out];
        let values = &params[plan.offset(w.weight)..][..w.words()];
        let (mut saturated, mut blocked, mut count, mut range) = (0u64, 0u64, 0u64, 0f32);
        for (i, v) in values.iter().enumerate().filter(|(_, v)| **v != 0.0) {
            let inv = s[w.c_out + i % w.c_out];
            let code = (v * inv).round_ties_even();
            let top = q.quant.code(f32::MAX, 1.0) as f32 * (1u32 << q.quant.shift) as f32;
            let bottom = q.quant.code(f32::MIN, 1.0) as f32 * (1u32 << q.quant.shift) as f32;
            saturated += u64::from(code > top || code < bottom);
            blocked += u64::from(!q.quant.passes(*v, inv));
            count += 1;
            range = range.max(v.abs());
        }
        let fraction = |n: u64| n as f64 / count.max(1) as f64;
        let (saturated, blocked) = (fraction(saturated), fraction(blocked));
        all.push(WeightStatistics { name: w.name.clone(), bits: q.bits, scale: s[0], range, saturated, blocked });
    }
    Ok(all)
}

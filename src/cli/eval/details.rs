//! What `cqat eval` says of a model's layers, and of a model beside its run.

use std::path::Path;

use serde_json::json;

use crate::data::Split;
use crate::evaluate::{Against, Loaded, against};
use crate::exec::Device;
use crate::integer::{AccumulatorRange, Bounds};
use crate::model::Model;
use crate::score::Evaluation;
use crate::{Error, Result};

/// All that was asked for.
#[derive(Debug, Default)]
pub(super) struct Details {
    /// Whether anything was asked for: then the integers were computed on the CPU.
    pub(super) on_cpu: bool,
    /// In integers.
    pub(super) evaluation: Evaluation,
    accumulators: Vec<(Bounds, AccumulatorRange)>,
    against: Option<Against>,
}

impl Details {
    /// Evaluates `split` in integers on the CPU; `device` is for the run.
    pub(super) fn of(
        model: &Model,
        split: &Split,
        layers: bool,
        run: Option<&Path>,
        device: Option<&dyn Device>,
    ) -> Result<Details> {
        let mut details = Details { on_cpu: true, ..Details::default() };
        let net = &model.net;
        net.fits(split)?;
        if let Some(run) = run {
            let loaded = Loaded::read(run)?;
            let device = device.ok_or_else(|| Error::device("--against needs a device").hint("see cqat doctor"))?;
            let both = against(model, &loaded, split, device)?;
            details.evaluation = both.integer.clone();
            details.against = Some(both);
        }
        if layers {
            let (logits, observed) = net.observe(&split.images)?;
            details.evaluation = Evaluation::of_logits(&net.numbers(&logits), net.classifier.classes, &split.labels);
            details.accumulators = net.accumulator_bounds().into_iter().zip(observed).collect();
        }
        Ok(details)
    }

    /// As JSON, beside the other figures.
    pub(super) fn add_to(&self, object: &mut serde_json::Value) {
        if !self.accumulators.is_empty() {
            let layers = self.accumulators.iter().map(|(b, seen)| {
                json!({
                    "layer": b.layer, "accumulator_bits_data_free": b.data_free,
                    "accumulator_bits": b.tight, "accumulator_bits_observed": seen.bits(),
                    "least": seen.least, "largest": seen.largest,
                })
            });
            object["layers"] = layers.collect();
        }
        if let Some(a) = &self.against {
            let layers = a
                .layers
                .iter()
                .map(|l| json!({ "layer": l.layer, "codes": l.codes, "differ": l.differ, "largest_difference": l.largest_difference }));
            object["against"] = json!({
                "fake_quant_top1": a.fake_quant.totals.top1_percent(),
                "batch_statistics_top1": a.batch_statistics.top1_percent(),
                "batch_statistics_samples": a.batch_statistics.count as u64,
                "same_class": a.same_class(),
                "layers": layers.collect::<Vec<_>>(),
            });
        }
    }

    /// As tables.
    pub(super) fn print(&self) {
        if let Some(a) = &self.against {
            let (fake, batch) = (a.fake_quant.totals, a.batch_statistics);
            println!("fake_quant of the run: top-1 {:.2} %, loss {:.4}", fake.top1_percent(), fake.mean_loss());
            println!(
                "fake_quant with each batch's statistics: top-1 {:.2} %, loss {:.4} over {} pictures",
                batch.top1_percent(),
                batch.mean_loss(),
                batch.count
            );
            println!("the same class in integers and in fake_quant: {} of {} pictures", a.same_class(), fake.count);
            println!("\n{:24} {:>12} {:>12} {:>10} {:>8}", "layer", "codes", "differ", "of 10^6", "at most");
            for l in &a.layers {
                let rate = 1e6 * l.differ as f64 / l.codes.max(1) as f64;
                println!("{:24} {:>12} {:>12} {rate:>10.1} {:>8}", l.layer, l.codes, l.differ, l.largest_difference);
            }
        }
        if !self.accumulators.is_empty() {
            let [data_free, tight] = ["data-free", "tight"];
            println!(
                "\n{:24} {data_free:>12} {tight:>14} {:>8} {:>11} {:>11}",
                "accumulator bits", "observed", "least", "largest"
            );
            for (b, seen) in &self.accumulators {
                println!(
                    "{:24} {:>12} {:>14} {:>8} {:>11} {:>11}",
                    b.layer,
                    b.data_free,
                    b.tight,
                    seen.bits(),
                    seen.least,
                    seen.largest
                );
            }
            println!(
                "data-free: for any weights of these bits; tight: for these weights; both whatever the picture; observed: on these pictures"
            );
        }
    }
}

//! How activations are distributed: counts over their ranges, for reports.

use std::collections::BTreeMap;

use super::Session;
use crate::data::{Batches, Split, spread};
use crate::exec::ExecutorExt;
use crate::interrupt;
use crate::kernels::Step;
use crate::kernels::range::{BINS, RangeRow};
use crate::{Error, Result};

/// Values of an activation tensor, counted.
#[derive(Debug, Clone)]
pub struct ActivationCounts {
    /// Counts in [`BINS`] equal bins over `[0, range]`; zeros fall into the first, what lies above the range into the last.
    pub counts: Vec<u32>,
    /// The quantizer's range, or twice its last code where that is more: a learned scale clips what it likes.
    pub range: f32,
    /// Range and scale of the quantizer.
    pub row: RangeRow,
}

impl Session<'_> {
    /// Counts of the quantized activations, by layer name, over pictures of `split`, evenly spaced, at most `batches` full batches: the
    /// values before the quantizer of a forward pass in float, with each batch's own statistics and the stored parameters and ranges.
    ///
    /// # Errors
    /// A network without quantizers, fewer pictures than a batch, a device error, [`crate::ErrorKind::Interrupted`].
    pub fn histograms(&mut self, split: &Split, batches: usize) -> Result<BTreeMap<String, ActivationCounts>> {
        let lowered = self.lowered;
        let Some(((_, count), spec)) = lowered.calibrate.zip(lowered.quant.as_ref()) else {
            return Err(Error::config(
                "activations are counted over the ranges of quantizers, but quant.method is none",
            )
            .hint("name a quantized run"));
        };
        let rows: Vec<RangeRow> = bytemuck::cast_vec(self.exec.read(lowered.layout.ranges)?);
        let mut wide = rows.clone();
        for (id, _) in lowered.net.activations() {
            if let (Some(q), Some(at)) = (spec.layer(id), lowered.layout.range_rows[id]) {
                let row = &mut wide[at as usize];
                row.range = row.range.max(2.0 * row.scale * row.offset(&q.quant).hi as f32);
            }
        }
        self.exec.write_as(lowered.layout.ranges, &wide);
        let histogram = lowered.layout.histogram;
        self.exec.write(histogram, &vec![0; lowered.plan.tensor(histogram).words]);
        let batches = batches.min(self.countable_batches()).min(split.len() / lowered.batch).max(1);
        let order = spread(split.len(), batches * lowered.batch);
        let valid = lowered.batch as u32;
        for indices in Batches::training(&order, lowered.batch)? {
            interrupt::check()?;
            self.feed(split, indices, Step { valid, ..Step::default() });
            self.exec.run(count)?;
        }
        let all = self.exec.read(histogram)?;
        self.exec.write_as(lowered.layout.ranges, &rows);
        let quantized = lowered.net.activations().filter(|(id, _)| spec.layer(*id).is_some());
        let counted = quantized.filter_map(|(id, a)| {
            let at = lowered.layout.range_rows[id]? as usize;
            let counts = all[at * BINS..][..BINS].to_vec();
            Some((a.name.clone(), ActivationCounts { counts, range: wide[at].range, row: rows[at] }))
        });
        Ok(counted.collect())
    }
}

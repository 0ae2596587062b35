//! How activations are distributed: counts over their ranges, for reports.

use std::collections::BTreeMap;

use super::Session;
use crate::data::{Batches, Split, in_order};
use crate::interrupt;
use crate::kernels::Step;
use crate::kernels::range::{BINS, RangeRow};
use crate::{Error, Result};

/// Values of an activation tensor, counted.
#[derive(Debug, Clone)]
pub struct ActivationCounts {
    /// Counts in [`BINS`] equal bins over `[0, row.range]`; zeros fall into the first, what lies above the range into the last.
    pub counts: Vec<u32>,
    /// Range and scale of the quantizer.
    pub row: RangeRow,
}

impl Session<'_> {
    /// Counts of the quantized activations, by layer name, over the first pictures of `split`, at most `batches` full batches: the
    /// values before the quantizer of a forward pass in float, with the stored statistics, parameters and ranges.
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
        let histogram = lowered.layout.histogram;
        self.exec.write(histogram, &vec![0; lowered.plan.tensor(histogram).words]);
        let order = in_order(split.len());
        let valid = lowered.batch as u32;
        for indices in Batches::training(&order, lowered.batch)?.take(batches.min(self.countable_batches())) {
            interrupt::check()?;
            self.feed(split, indices, Step { valid, ..Step::default() });
            self.exec.run(count)?;
        }
        let all = self.exec.read(histogram)?;
        let rows: Vec<RangeRow> = bytemuck::cast_vec(self.exec.read(lowered.layout.ranges)?);
        let quantized = lowered.net.activations().filter(|(id, _)| spec.layer(*id).is_some());
        let counted = quantized.filter_map(|(id, a)| {
            let at = lowered.layout.range_rows[id]? as usize;
            let counts = all[at * BINS..][..BINS].to_vec();
            Some((a.name.clone(), ActivationCounts { counts, row: rows[at] }))
        });
        Ok(counted.collect())
    }
}

//! Weights of all layers: ranges, scales and codes.

use super::Pass;
use crate::kernels::flat_grid;
use crate::kernels::range::{LEARNED, LearnedParams};
use crate::kernels::weights::{self, PrepareParams, StatsParams};
use crate::quant::learn;

impl Pass<'_> {
    /// Weight ranges, scales and codes of all layers.
    pub(super) fn weights(&mut self) {
        let layout = self.layout;
        let layers = layout.rows.len() as u32;
        if self.quant.is_some() {
            let params = StatsParams { layers, chunk: weights::CHUNK as u32, pad: [0; 2] };
            let stats = self.scratch("weight stats", 4 * layout.stats_words4());
            self.emit_only(&weights::STATS, &params, &[layout.table, layout.decayed, stats], self.stats_grid());
            let bind = [layout.table, stats, layout.step, layout.params, layout.scales];
            self.emit_only(&weights::SCALE, &params, &bind, [layers, 1, 1]);
            self.leave_out(layout.decayed_words);
            self.learned_ranges();
        }
        let words = layout.decayed_words;
        let quantize = u32::from(self.quant.is_some());
        let keep_max = layout.weights.iter().any(|w| self.keeps_maxima_of(w.layer));
        let max_first = layout.first_weight_max();
        let params = PrepareParams { words: words as u32, quantize, keep_max: u32::from(keep_max), max_first };
        let bind = [
            layout.table,
            layout.blocks,
            layout.decayed,
            layout.scales,
            layout.codes,
            layout.transposed,
            layout.maxima,
        ];
        let variant = weights::prepare_variant(keep_max);
        self.emit(&weights::PREPARE, variant, &params, &bind, flat_grid(words / 16), 0);
    }
    /// Rows of ranges of activations whose scales are parameters.
    fn learned_ranges(&mut self) {
        let layout = self.layout;
        if layout.range_entries.iter().any(|e| e.learn != learn::NOTHING) {
            let count = layout.range_entries.len() as u32;
            let params = LearnedParams { count, pad: [0; 3] };
            let bind = [layout.range_table, layout.params, layout.step, layout.ranges];
            self.emit_only(&LEARNED, &params, &bind, [count.div_ceil(64), 1, 1]);
            self.leave_out(layout.decayed_words);
        }
    }

    /// Gradients of learned weight scales, and the weights' own through the quantizers.
    pub(super) fn weight_steps(&mut self) {
        let layout = self.layout;
        if self.quant.is_none() || layout.rows.iter().all(|row| row.quant.learn == learn::NOTHING) {
            return;
        }
        let layers = layout.rows.len() as u32;
        let params = StatsParams { layers, chunk: weights::CHUNK as u32, pad: [0; 2] };
        let part = self.scratch("weight steps", 4 * layout.stats_words4() / 3);
        let bind = [layout.table, layout.decayed, layout.scales, layout.grads, part];
        self.emit_only(&weights::STEP, &params, &bind, self.stats_grid());
        let bind = [layout.table, part, layout.step, layout.grads];
        self.emit_only(&weights::STEP_MERGE, &params, &bind, [layers, 1, 1]);
        self.leave_out(layout.decayed_words);
    }

    /// Of kernels that go through all weights in chunks of [`weights::CHUNK`] rows.
    fn stats_grid(&self) -> [u32; 3] {
        let rows = &self.layout.rows;
        let widest = rows.iter().map(|r| r.rows.div_ceil(weights::CHUNK as u32) * r.cols4).max().unwrap_or(1);
        [widest.div_ceil(64), rows.len() as u32, 1]
    }
}

//! Weights of all layers: ranges, scales and codes.

use super::Pass;
use crate::kernels::flat_grid;
use crate::kernels::weights::{self, PrepareParams, StatsParams};

impl Pass<'_> {
    /// Weight ranges, scales and codes of all layers.
    pub(super) fn weights(&mut self) {
        let layout = self.layout;
        let layers = layout.rows.len() as u32;
        if self.quant.is_some() {
            let params = StatsParams { layers, chunk: weights::CHUNK as u32, pad: [0; 2] };
            let stats = self.scratch("weight stats", 4 * layout.stats_words4());
            let widest = layout.rows.iter().map(|r| r.rows.div_ceil(params.chunk) * r.cols4).max().unwrap_or(1);
            let grid = [widest.div_ceil(64), layers, 1];
            self.emit_only(&weights::STATS, &params, &[layout.table, layout.decayed, stats], grid);
            let bind = [layout.table, stats, layout.step, layout.scales];
            self.emit_only(&weights::SCALE, &params, &bind, [layers, 1, 1]);
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
}

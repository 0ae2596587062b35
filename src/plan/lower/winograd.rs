//! Which 3x3 convolutions are done by Winograd's algorithm ([`crate::kernels::winograd`]): on software adapters those that it was
//! measured to be the faster for (docs/performance.md). Nobody has measured it on a GPU.

use super::{EXACT_IN_F32, Options, Pass};
use crate::kernels::conv::Geometry;
use crate::kernels::select::{KernelFamily, select_conv};
use crate::kernels::winograd::{
    IN, OUT, TileParams, WEIGHTS, WeightParams, in_variant, product, tiles, weights_variant,
};
use crate::kernels::{Format, Variant, flat_grid};
use crate::net::LayerId;
use crate::plan::TensorId;

/// Channels from which on it is the faster one.
pub const WINOGRAD_CHANNELS: usize = 128;
/// Tiles from which on it is: with fewer, a workgroup of its products has not enough rows.
const FEWEST_TILES: usize = 128;
/// Tiles that are handled together, at most: what they become stays small, in the cache of some processors.
pub(crate) const TILES_TOGETHER: u32 = 1024;
/// A batch is not divided into more parts than this.
const MOST_PARTS: u32 = 8;

/// A convolution's operands, and its result.
pub(super) struct Operands {
    /// What is read.
    pub x: TensorId,
    /// Its format.
    pub format: Format,
    /// Of all layers.
    pub w: TensorId,
    /// What is written.
    pub out: TensorId,
}

/// Whether a convolution gains by it, forward and back.
pub(crate) fn suits_winograd(options: &Options, g: &Geometry) -> bool {
    let even = g.to.h.is_multiple_of(2) && g.to.w.is_multiple_of(2);
    options.caps.software
        && options.family == KernelFamily::Lane
        && (g.kernel, g.stride) == (3, 1)
        && even
        && g.batch * g.to.pixels() / 4 >= FEWEST_TILES
        && g.from.c.min(g.to.c) >= options.winograd_channels
}

/// Whether whole numbers stay exact on the way whose sums, `9 c_in w_max x_max`, reach this: see [`crate::kernels::winograd`].
pub(crate) fn winograd_is_exact(sum: u64) -> bool {
    sum * 8 < EXACT_IN_F32
}

impl Pass<'_> {
    /// Whether a convolution gains by it, forward and back.
    pub(super) fn suits_winograd(&self, g: &Geometry) -> bool {
        suits_winograd(self.options, g)
    }

    /// Whether the sums of whole numbers of a layer stay exact on the way.
    pub(super) fn exact_in_winograd(&self, id: LayerId) -> bool {
        self.quant.and_then(|q| q.largest_sum(self.net, id)).is_some_and(winograd_is_exact)
    }

    /// Emits a convolution of layer `id`, or its data gradient.
    pub(super) fn winograd(&mut self, id: LayerId, g: &Geometry, back: bool, add: bool, operands: &Operands) {
        let (in_c, out_c) = if back { (g.to.c, g.from.c) } else { (g.from.c, g.to.c) };
        let items = in_c * out_c / 4;
        let weights = self.layout.weights_of(id).1;
        let (w_base, others) = (weights.offset4, self.plan.tensor(operands.w).words - weights.words());
        let from = tiles(g, in_c, operands.format, false);
        let to = tiles(g, out_c, Format::F32, add);
        let together = from.tiles.div_ceil(from.tiles.div_ceil(TILES_TOGETHER).min(MOST_PARTS));
        let count = 16 * together as usize;
        let u = self.scratch("winograd weights", 64 * items);
        let params = WeightParams { w_base, items: items as u32, flip: u32::from(back), w_format: 0 };
        self.emit(&WEIGHTS, weights_variant(Format::F32), &params, &[operands.w, u], flat_grid(items), 0);
        self.leave_out(others);
        let v = self.scratch("winograd tiles", count * in_c);
        let m = self.scratch("winograd products", count * out_c);
        for first in (0..from.tiles).step_by(together as usize) {
            let tiles = together.min(from.tiles - first);
            let [from, to] = [from, to].map(|p| TileParams { tiles, first, ..p });
            let grid = |channels: usize| flat_grid(tiles as usize * channels / 4);
            self.emit(&IN, in_variant(operands.format), &from, &[operands.x, v], grid(in_c), 0);
            let params = product(tiles, in_c, out_c);
            let choice = select_conv(&params, Format::F32, &self.options.caps, self.options.family);
            let (kernel, grid_of) = (choice.kernel, choice.conv_grid(&params));
            let flops = 32 * u64::from(tiles) * (in_c * out_c) as u64;
            self.emit(kernel, choice.variant, &params, &[v, u, self.layout.maxima, m], grid_of, flops);
            self.emit(&OUT, Variant::only(OUT.name), &to, &[m, operands.out], grid(out_c), 0);
        }
    }
}

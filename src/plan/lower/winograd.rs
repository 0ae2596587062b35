//! Which 3x3 convolutions are done by Winograd's algorithm ([`crate::kernels::winograd`]): on software adapters those that it was
//! measured to be the faster for (docs/performance.md). Nobody has measured it on a GPU.

use super::{EXACT_IN_F32, Options, Pass};
use crate::kernels::conv::Geometry;
use crate::kernels::select::{KernelFamily, select_conv};
use crate::kernels::winograd::{IN, OUT, TileParams, WEIGHTS, WeightParams, in_variant, product, tiles};
use crate::kernels::{Format, Variant, flat_grid};
use crate::net::LayerId;
use crate::plan::{Dispatch, Plan, TensorId};

/// Channels from which on it is the faster one.
pub const WINOGRAD_CHANNELS: usize = 128;
/// Tiles from which on it is: with fewer, a workgroup of its products has not enough rows.
const FEWEST_TILES: usize = 128;
/// Tiles that are handled together, at most: what they become stays small, in the cache of some processors.
const TILES_TOGETHER: u32 = 1024;
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
        let u = self.scratch("winograd weights", 64 * items);
        let params = WeightParams { w_base, items: items as u32, flip: u32::from(back), pad: 0 };
        self.emit_only(&WEIGHTS, &params, &[operands.w, u], flat_grid(items));
        self.leave_out(others);
        let name = self.net.layers[id].name();
        let operands = [operands.x, u, self.layout.maxima, operands.out];
        let list = through_tiles(self.plan, self.options, name, [from, to], operands);
        let (layer, back) = (self.layer, self.back);
        self.list.extend(list.into_iter().map(|dispatch| Dispatch { layer, back, ..dispatch }));
    }
}

/// The dispatches of a convolution from tiles of `x` by the transformed weights `u` to tiles of `out`.
pub(crate) fn through_tiles(
    plan: &mut Plan,
    options: &Options,
    name: &str,
    [from, to]: [TileParams; 2],
    [x, u, maxima, out]: [TensorId; 4],
) -> Vec<Dispatch> {
    let together = from.tiles.div_ceil(from.tiles.div_ceil(TILES_TOGETHER).min(MOST_PARTS));
    let [in_c, out_c] = [from, to].map(|p| 4 * p.cols4 as usize);
    let mut scratch = |what: &str, channels: usize| {
        plan.scratch(format!("{name}.winograd {what}"), 16 * together as usize * channels)
    };
    let (v, m) = (scratch("tiles", in_c), scratch("products", out_c));
    let mut list = Vec::new();
    for first in (0..from.tiles).step_by(together as usize) {
        let tiles = together.min(from.tiles - first);
        let [from, to] = [from, to].map(|p| TileParams { tiles, first, ..p });
        let grid = |channels: usize| flat_grid(tiles as usize * channels / 4);
        let variant = in_variant(Format::from_number(from.x_format));
        list.push(plan.dispatch(&IN, variant, &from, &[x, v], grid(in_c), 0));
        let params = product(tiles, in_c, out_c);
        let choice = select_conv(&params, Format::F32, &options.caps, options.family);
        let (kernel, grid_of) = (choice.kernel, choice.conv_grid(&params));
        let flops = 32 * u64::from(tiles) * (in_c * out_c) as u64;
        list.push(plan.dispatch(kernel, choice.variant, &params, &[v, u, maxima, m], grid_of, flops));
        list.push(plan.dispatch(&OUT, Variant::only(OUT.name), &to, &[m, out], grid(out_c), 0));
    }
    list
}

//! The choice of a matrix kernel for a device.

use super::conv::{ConvParams, WgradParams};
use super::{Caps, Format, Variant};
use crate::config::Kernels;
use crate::{Error, Result};

/// The families of the matrix kernels. All of a plan's belong to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelFamily {
    /// No barriers, no workgroup memory: software adapters.
    Lane,
    /// Tiles in workgroup memory: real GPUs.
    Tiled,
}

impl KernelFamily {
    /// The family that suits a device.
    pub fn of(caps: &Caps) -> KernelFamily {
        if caps.software && Self::lane_subgroup(caps) { KernelFamily::Lane } else { KernelFamily::Tiled }
    }

    /// The family that `device.kernels` asks for.
    ///
    /// # Errors
    /// `lane` on a device without the subgroups that it needs.
    pub fn choose(wanted: Kernels, caps: &Caps) -> Result<KernelFamily> {
        match wanted {
            Kernels::Auto => Ok(Self::of(caps)),
            Kernels::Tiled => Ok(KernelFamily::Tiled),
            Kernels::Lane if Self::lane_subgroup(caps) => Ok(KernelFamily::Lane),
            Kernels::Lane => Err(Error::device(
                "device.kernels is lane, which needs subgroups of always 4, 8 or 16 invocations; this device has none such",
            )
            .hint("use device.kernels=auto")),
        }
    }

    /// Whether subgroups have a size that the lane kernels are written for.
    fn lane_subgroup(caps: &Caps) -> bool {
        matches!(caps.subgroup, 4 | 8 | 16)
    }
}

/// A matrix kernel chosen for a device: the variant, and how its grid is laid out.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Variant of [`super::conv::CONV`] or [`super::conv::WGRAD`].
    pub variant: Variant,
    family: KernelFamily,
    /// [`Variant::tile`].
    tile: [u32; 2],
}

impl Choice {
    fn new(variant: Variant, family: KernelFamily, tile: [u32; 2]) -> Choice {
        Choice { variant: Variant { tile: Some(tile), ..variant }, family, tile }
    }

    /// Workgroups of a convolution.
    pub fn conv_grid(&self, p: &ConvParams) -> [u32; 3] {
        let (rows, classes) = (p.batch * p.q_h * p.q_w, p.parities * p.parities);
        let (m, n) = (rows.div_ceil(self.tile[0]), p.out_c.div_ceil(self.tile[1]));
        match self.family {
            KernelFamily::Lane => [n, m, classes],
            KernelFamily::Tiled => [m, n, classes],
        }
    }

    /// Workgroups of a weight gradient.
    pub fn wgrad_grid(&self, p: &WgradParams) -> [u32; 3] {
        let taps = p.kernel * p.kernel;
        let n = p.out_c.div_ceil(self.tile[1]);
        match self.family {
            KernelFamily::Lane => [n, (taps * p.in_c).div_ceil(self.tile[0]), p.splits],
            KernelFamily::Tiled => [p.in_c.div_ceil(self.tile[0]) * n, taps, p.splits],
        }
    }
}

/// Chooses the variant of `conv`. Cooperative-matrix variants will come before the tiled one.
///
/// Tiles of the lane family are the fastest of those measured; docs/rejected.md has the others.
pub fn select_conv(p: &ConvParams, stored: Format, caps: &Caps, family: KernelFamily) -> Choice {
    let (sums, suffix) = if p.integer == 1 { ("sums_i32", "-i32") } else { ("sums_f32", "") };
    match family {
        KernelFamily::Lane => {
            let (columns, pixels) = if p.out_c.is_multiple_of(32) { (8, 8) } else { (4, 16) };
            let variant = lane_variant("conv_lane", suffix, stored, caps).with_files(&[sums]);
            let variant = variant.with_const("COLUMNS", columns).with_const("PIXELS", pixels);
            Choice::new(variant, family, [caps.subgroup * pixels, 4 * columns])
        }
        KernelFamily::Tiled => {
            let (rows, classes) = (p.batch * p.q_h * p.q_w, p.parities * p.parities);
            let tile = tile([&[128, 64], &[128, 64, 32, 16]], rows, p.out_c, classes);
            let variant = tiled_variant("conv_tiled", suffix, stored, tile, [p.q_h, p.q_w]).with_files(&[sums]);
            Choice::new(variant, family, tile)
        }
    }
}

/// Chooses the variant of `wgrad`, as [`select_conv`].
pub fn select_wgrad(p: &WgradParams, stored: Format, caps: &Caps, family: KernelFamily) -> Choice {
    match family {
        KernelFamily::Lane => {
            let (rows, columns, unroll) = match (shuffled(caps), p.out_c.is_multiple_of(32)) {
                (true, true) => (2, 8, 8),
                (false, true) => (2, 8, 4),
                (_, false) => (1, 4, 4),
            };
            let variant = lane_variant("wgrad_lane", "", stored, caps).with_const("COLUMNS", columns);
            let variant = variant.with_const("ROWS", rows).with_const("UNROLL", unroll);
            Choice::new(variant, family, [4 * caps.subgroup * rows, 4 * columns])
        }
        KernelFamily::Tiled => {
            let tile = tile([&[128, 64, 32]; 2], p.in_c, p.out_c, p.kernel * p.kernel * p.splits);
            let variant = tiled_variant("wgrad_tiled", "", stored, tile, [p.out_h, p.out_w]);
            Choice::new(variant, family, tile)
        }
    }
}

/// Workgroups that keep a real GPU busy.
const ENOUGH_WORKGROUPS: u32 = 256;

/// The largest tile of `sides` (rows, columns; falling) that a result of `rows` x `columns`, of which there are `count`, fills
/// and that leaves enough workgroups; the smallest where none does.
fn tile(sides: [&[u32]; 2], rows: u32, columns: u32, count: u32) -> [u32; 2] {
    let fills = |side: u32, length: u32| length >= side;
    let tiles = sides[0].iter().flat_map(|&m| sides[1].iter().map(move |&n| [m, n]));
    let suitable = tiles.filter(|&[m, n]| {
        let enough = rows.div_ceil(m) * columns.div_ceil(n) * count >= ENOUGH_WORKGROUPS;
        fills(m, rows) && fills(n, columns) && enough
    });
    let smallest = sides.map(|s| *s.last().expect("there are tiles"));
    // With too few workgroups in any case, a tile that is not wider than the result.
    let narrow = || sides[1].iter().find(|&&n| fills(n, columns) && n <= 64).map_or(smallest, |&n| [smallest[0], n]);
    suitable.max_by_key(|&[m, n]| m * n).unwrap_or_else(narrow)
}

/// Whether the lanes hand each other what all of them need: faster for short vectors, many times slower for long ones.
fn shuffled(caps: &Caps) -> bool {
    caps.subgroup <= 8
}

fn lane_variant(shader: &'static str, suffix: &str, stored: Format, caps: &Caps) -> Variant {
    let variant = Variant { name: format!("lane{suffix}"), ..Variant::only(shader) }.with_files(&[stored.operand()]);
    variant.with_const("LANES", caps.subgroup).with_flag("SHUFFLED", shuffled(caps))
}

/// A variant with its tile and the pictures that it goes through: divisions by constants are cheap.
fn tiled_variant(
    shader: &'static str,
    suffix: &str,
    stored: Format,
    [m, n]: [u32; 2],
    [height, width]: [u32; 2],
) -> Variant {
    let variant = Variant { name: format!("tiled{suffix}"), ..Variant::only(shader) }.with_files(&[stored.operand()]);
    let variant = variant.with_const("TILE_M", m).with_const("TILE_N", n);
    variant.with_const("Q_H", height).with_const("Q_W", width)
}

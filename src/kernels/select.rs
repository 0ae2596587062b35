//! The choice of a matrix kernel for a device.

use std::collections::BTreeMap;

use super::activation::ActParams;
use super::conv::{CONV, CONV_ACT, CONV_NORM, ConvParams};
use super::wgrad::{WGRAD, WgradParams};
use super::{Caps, Format, KernelDef, Variant};
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

/// Per shape ([`conv_shape`], [`wgrad_shape`]), a variant ([`Variant::settings`]).
pub type Choices = BTreeMap<String, String>;

/// A matrix kernel chosen for a device: the variant, and how its grid is laid out.
#[derive(Debug, Clone)]
pub struct Choice {
    /// [`CONV`], [`CONV_NORM`], [`CONV_ACT`] or [`WGRAD`].
    pub kernel: &'static KernelDef,
    /// Variant of it.
    pub variant: Variant,
    family: KernelFamily,
    /// [`Variant::tile`].
    tile: [u32; 2],
}

impl Choice {
    fn new(variant: Variant, family: KernelFamily, tile: [u32; 2]) -> Choice {
        let kernel = if variant.shader.starts_with("wgrad") { &WGRAD } else { &CONV };
        Choice { kernel, variant: Variant { tile: Some(tile), ..variant }, family, tile }
    }

    /// The same for [`CONV_NORM`], where the device's kernels can be: workgroups of matrix units have to have enough
    /// invocations. All of a device's variants take the same rows together, or none does.
    pub fn with_statistics(self, caps: &Caps) -> Option<Choice> {
        let mut choice = self.finishing(&CONV_NORM, caps)?;
        choice.variant = choice.variant.with_files(&["finish_norm"]);
        Some(choice)
    }

    /// The same for [`CONV_ACT`], which goes back through an activation, where the device's kernels can be: as
    /// [`Choice::with_statistics`], and they bind more buffers than every device allows.
    pub fn with_activation(self, act: &ActParams, caps: &Caps) -> Option<Choice> {
        if (caps.max_storage_buffers as usize) < CONV_ACT.bindings.len() {
            return None;
        }
        let mut choice = self.finishing(&CONV_ACT, caps)?;
        choice.variant = choice.variant.with_files(&["finish_act", "ranges", "act", act.shortcut_file()]);
        Some(choice)
    }

    fn with_files(mut self, files: &[&'static str]) -> Choice {
        self.variant = self.variant.with_files(files);
        self
    }

    fn finishing(mut self, kernel: &'static KernelDef, caps: &Caps) -> Option<Choice> {
        let enough = caps.matrix == 0 || 8 * caps.subgroup >= caps.matrix * caps.matrix;
        if self.family == KernelFamily::Lane || !enough {
            return None;
        }
        self.kernel = kernel;
        self.variant.files.retain(|file| *file != FINISH_NONE);
        Some(self)
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
            KernelFamily::Tiled if self.variant.shader == "wgrad_coop" => {
                [(taps * p.in_c).div_ceil(self.tile[0]) * n, 1, p.splits]
            }
            KernelFamily::Tiled => [p.in_c.div_ceil(self.tile[0]) * n, taps, p.splits],
        }
    }
}

/// The variants of `conv` that a device can run, the default first. All give the same numbers: they add in the same order. Real
/// operands on matrix units are another order, so that where these take them, nothing else does.
///
/// The defaults of the lane family are the fastest of those measured; docs/rejected.md has others. Compilers for subgroups of 4
/// (SwiftShader) take minutes for large tiles.
pub fn conv_candidates(p: &ConvParams, stored: Format, caps: &Caps, family: KernelFamily) -> Vec<Choice> {
    let (sums, suffix) = match p.integer {
        ConvParams::KEPT => ("sums_kept", "-kept"),
        1 => ("sums_i32", "-i32"),
        _ => ("sums_f32", ""),
    };
    let weights = Format::from_number(p.w_format).weights();
    match family {
        KernelFamily::Lane => {
            let small = is_short(p.kernel, p.in_c, p.q_h * p.q_w) || caps.subgroup < 8;
            let tiles: &[[u32; 2]] = match (small, p.out_c.is_multiple_of(32)) {
                (true, _) => &[[4, 4], [4, 8], [4, 16]],
                (false, true) => &[[8, 8], [8, 4], [8, 16], [4, 8], [4, 16]],
                (false, false) => &[[4, 16], [4, 8], [4, 4]],
            };
            let choice = |&[columns, pixels]: &[u32; 2]| {
                let variant = lane_variant("conv_lane", suffix, stored, caps).with_files(&[weights, sums]);
                let variant = variant.with_const("COLUMNS", columns).with_const("PIXELS", pixels);
                Choice::new(variant, family, [caps.subgroup * pixels, 4 * columns])
            };
            tiles.iter().map(choice).collect()
        }
        KernelFamily::Tiled => {
            let (rows, classes) = (p.batch * p.q_h * p.q_w, p.parities * p.parities);
            let choice = |tile: [u32; 2]| {
                let variant = tiled_variant("conv_tiled", suffix, stored, tile, [p.q_h, p.q_w]).with_files(&[
                    weights,
                    sums,
                    FINISH_NONE,
                ]);
                let variant = variant.with_const("X_TURNS", (32 / tile[1]).max(1)); // of a tile 8 deep
                Choice::new(variant, family, tile)
            };
            let sides = tiles([&[128, 64], &[128, 64, 32, 16]], rows, p.out_c, classes);
            let tiled = sides.iter().copied().map(choice);
            let dot4 = |&tile: &[u32; 2]| {
                let variant = tiled_variant("conv_dot4", "", stored, tile, [p.q_h, p.q_w]);
                let sums = if p.integer == ConvParams::KEPT { sums } else { "sums_i32" };
                let variant = Variant { name: "dot4".into(), ..variant }.with_files(&[weights, sums, FINISH_NONE]);
                let variant = variant.with_const("X_TURNS", (64 / tile[1]).max(1)); // 16 deep
                let wide = stored == Format::U8 && p.narrow == 0;
                let variant = variant.with_const("SIGN_BITS", if wide { 0x8080_8080 } else { 0 });
                Choice::new(variant, family, tile)
            };
            let fits_dot4 = caps.dot4 && !is_short(p.kernel, p.in_c, p.q_h * p.q_w);
            let (x_codes, w_codes) = (stored != Format::F32, p.w_codes == 1);
            let coop = || {
                let terms = [terms(x_codes, p.terms), terms(w_codes, p.terms)];
                coop_variant("conv_coop", terms, stored, caps, [p.q_h, p.q_w]).with_files(&[weights])
            };
            match (x_codes && w_codes, caps.matrix > 0 && p.integer == 0) {
                (true, true) => std::iter::once(coop()).chain(tiled).collect(),
                (true, false) if fits_dot4 => sides.iter().map(dot4).chain(tiled).collect(),
                (false, true) if p.terms > 0 && !is_short(p.kernel, p.in_c, p.q_h * p.q_w) => vec![coop()],
                _ => tiled.collect(),
            }
        }
    }
}

/// The variants of `wgrad`, as [`conv_candidates`].
pub fn wgrad_candidates(p: &WgradParams, stored: Format, caps: &Caps, family: KernelFamily) -> Vec<Choice> {
    match family {
        KernelFamily::Lane => {
            let small = is_short(p.kernel, p.in_c, p.out_h * p.out_w) || caps.subgroup < 8;
            let tiles: &[[u32; 3]] = match (small || !p.out_c.is_multiple_of(32), shuffled(caps)) {
                (true, _) => &[[1, 4, 4], [2, 4, 4], [1, 4, 8]],
                (false, true) => &[[2, 8, 8], [1, 8, 8], [2, 8, 4], [2, 8, 2], [1, 8, 4]],
                (false, false) => &[[2, 8, 2], [1, 8, 4], [2, 8, 4], [1, 8, 8]],
            };
            let choice = |&[rows, columns, unroll]: &[u32; 3]| {
                let variant = lane_variant("wgrad_lane", "", stored, caps).with_const("COLUMNS", columns);
                let variant = variant.with_const("ROWS", rows).with_const("UNROLL", unroll);
                Choice::new(variant, family, [4 * caps.subgroup * rows, 4 * columns])
            };
            tiles.iter().map(choice).collect()
        }
        KernelFamily::Tiled => {
            let choice = |tile: [u32; 2]| {
                let variant = tiled_variant("wgrad_tiled", "", stored, tile, [p.out_h, p.out_w]);
                Choice::new(variant, family, tile)
            };
            if caps.matrix > 0 && p.terms > 0 && !is_short(p.kernel, p.in_c, p.out_h * p.out_w) {
                let terms = [terms(stored != Format::F32, p.terms), terms(false, p.terms)];
                return vec![coop_variant("wgrad_coop", terms, stored, caps, [p.out_h, p.out_w])];
            }
            let count = p.kernel * p.kernel * p.splits;
            tiles([&[128, 64, 32]; 2], p.in_c, p.out_c, count).into_iter().map(choice).collect()
        }
    }
}

/// The variant of `conv` that a network uses: the one that the device was tuned to ([`Caps::tuned`]), else the default.
pub fn select_conv(p: &ConvParams, stored: Format, caps: &Caps, family: KernelFamily) -> Choice {
    select(&conv_shape(p, stored), caps, conv_candidates(p, stored, caps, family))
}

/// The variant of `wgrad`, as [`select_conv`].
pub fn select_wgrad(p: &WgradParams, stored: Format, caps: &Caps, family: KernelFamily) -> Choice {
    select(&wgrad_shape(p, stored), caps, wgrad_candidates(p, stored, caps, family))
}

fn select(shape: &str, caps: &Caps, mut candidates: Vec<Choice>) -> Choice {
    let wanted = caps.tuned.get(shape);
    let at = wanted.and_then(|wanted| candidates.iter().position(|c| c.variant.settings() == *wanted));
    candidates.swap_remove(at.unwrap_or(0))
}

/// A first or last layer, which takes little of a step: its kernels are used for nothing else, and a small tile compiles sooner.
fn is_short(kernel: u32, in_c: u32, pixels: u32) -> bool {
    kernel * kernel * in_c <= 36 || pixels == 1
}

/// What the speed of a convolution depends on, in words: the key of [`Caps::tuned`].
pub fn conv_shape(p: &ConvParams, stored: Format) -> String {
    let direction = match p.backward {
        0 => "conv",
        ConvParams::TILES => "conv of tiles",
        _ => "conv back",
    };
    let sums = ["", ", i32 sums", ", i32 sums kept"][p.integer as usize];
    let packed = if p.w_format == 0 { String::new() } else { format!(" {:?}", Format::from_number(p.w_format)) };
    let codes = if p.w_codes == 1 { format!(" by{packed} codes") } else { String::new() };
    let narrow = if p.narrow == 1 { " of 7 bits" } else { "" };
    let add = if p.accumulate == 1 { ", added" } else { "" };
    let sizes = [[p.in_h, p.in_w, p.in_c], [p.out_h, p.out_w, p.out_c]].map(|[h, w, c]| format!("{h}x{w}x{c}"));
    let (k, s) = (p.kernel, p.stride);
    let terms = terms_text(p.terms);
    let operands = format!("{stored:?}{narrow}{codes}{terms}{sums}{add}");
    format!("{direction} {} to {}, {k}x{k}/{s}, batch {}, {operands}", sizes[0], sizes[1], p.batch)
}

/// As [`conv_shape`], of a weight gradient.
pub fn wgrad_shape(p: &WgradParams, stored: Format) -> String {
    let sizes = [[p.in_h, p.in_w, p.in_c], [p.out_h, p.out_w, p.out_c]].map(|[h, w, c]| format!("{h}x{w}x{c}"));
    let (k, s) = (p.kernel, p.stride);
    let terms = terms_text(p.terms);
    format!("wgrad {} to {}, {k}x{k}/{s}, batch {}, {stored:?}{terms}", sizes[0], sizes[1], p.batch)
}

fn terms_text(terms: u32) -> String {
    if terms == 0 { String::new() } else { format!(" in {terms} terms") }
}

/// Workgroups that keep a real GPU busy.
const ENOUGH_WORKGROUPS: u32 = 256;

/// The tiles of `sides` (rows, columns; falling) that are not wider than a result of `rows` x `columns`, or the narrowest. First
/// comes the largest of those that leave enough workgroups (the results are `count`), else the smallest.
fn tiles(sides: [&[u32]; 2], rows: u32, columns: u32, count: u32) -> Vec<[u32; 2]> {
    let fitting = |sides: &[u32], length: u32| -> Vec<u32> {
        let narrowest = *sides.last().expect("there are tiles");
        sides.iter().copied().filter(|&side| side <= length || side == narrowest).collect()
    };
    let (heights, widths) = (fitting(sides[0], rows), fitting(sides[1], columns));
    let mut all: Vec<[u32; 2]> = heights.iter().flat_map(|&m| widths.iter().map(move |&n| [m, n])).collect();
    all.sort_by_key(|[m, n]| std::cmp::Reverse(m * n));
    let enough = |[m, n]: &[u32; 2]| rows.div_ceil(*m) * columns.div_ceil(*n) * count >= ENOUGH_WORKGROUPS;
    let first = all.iter().position(enough).unwrap_or(all.len() - 1);
    all[..=first].rotate_right(1);
    all
}

/// What follows a matrix product that nothing follows.
const FINISH_NONE: &str = "finish_none";

/// Whether the lanes hand each other what all of them need: faster for short vectors, many times slower for long ones.
fn shuffled(caps: &Caps) -> bool {
    caps.subgroup <= 8
}

fn lane_variant(shader: &'static str, suffix: &str, stored: Format, caps: &Caps) -> Variant {
    let variant = Variant { name: format!("lane{suffix}"), ..Variant::only(shader) }.with_files(&[stored.operand()]);
    variant.with_const("LANES", caps.subgroup).with_flag("SHUFFLED", shuffled(caps))
}

/// How many terms of f16 an operand has on matrix units; `None`: it is exact as it is.
fn terms(codes: bool, terms: u32) -> Option<u32> {
    (!codes).then_some(terms)
}

/// The variant for matrix units, with the terms of both operands.
fn coop_variant(
    shader: &'static str,
    terms: [Option<u32>; 2],
    stored: Format,
    caps: &Caps,
    [height, width]: [u32; 2],
) -> Choice {
    let side = caps.matrix;
    let matrix = |name: &str, of: &str, role| format!("alias {name} = coop_mat{side}x{side}<{of}, {role}>;");
    let [left, right] = terms.map(|t| t.unwrap_or(1));
    let suffix = if terms == [None; 2] { String::new() } else { format!("-f16x{}", left + right - 1) };
    let variant =
        Variant { name: format!("coop{suffix}"), ..Variant::only(shader) }.with_files(&[stored.operand(), FINISH_NONE]);
    let variant = variant.with_line("enable f16;").with_line("enable wgpu_cooperative_matrix;");
    let variant = variant.with_line(matrix("Left", "f16", "A")).with_line(matrix("Right", "f16", "B"));
    let mut variant = variant.with_line(matrix("Result", "f32", "C"));
    for (name, terms) in ["LEFT", "RIGHT"].into_iter().zip(terms) {
        let held = if terms == Some(2) { "f32" } else { "f16" };
        let title = if name == "LEFT" { "Left" } else { "Right" };
        variant = variant.with_line(format!("alias {title}Held = vec4<{held}>;"));
        variant = variant.with_const(&format!("{name}_TERMS"), terms.unwrap_or(1));
        variant = variant.with_flag(&format!("{name}_LIFTED"), terms.is_some());
    }
    let variant = variant.with_const("TURNS", left + right - 1);
    // As many products between two barriers, in as much workgroup memory.
    let steps = if left + right == 2 { 2 } else { 1 };
    // And so many that every invocation loads something.
    let variant = variant.with_const("K_STEPS", steps.max((4 * caps.subgroup).div_ceil(side * side)));
    let variant = variant.with_const("SIDE", side).with_const("LANES", caps.subgroup);
    let variant = variant.with_const("Q_H", height).with_const("Q_W", width);
    Choice::new(variant, KernelFamily::Tiled, [8 * side, 4 * side])
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
